"""Teaches a model to say what it knows, and that it does not know."""
