"""Clients of the terminal: chat and generate."""
