"""Dialogs and prompts in other languages."""
