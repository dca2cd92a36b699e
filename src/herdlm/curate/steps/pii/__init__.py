"""Masks personal data and secrets, and drops pages full of them."""
