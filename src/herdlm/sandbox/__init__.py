"""Runs programs that a model wrote, isolated from this machine and within limits."""
