"""Dialogs with calls of tools, whose results come from functions that were run."""
