"""Dialogs that keep the wishes of a system prompt."""
