"""Reads the chats, preference pairs, thumbs, prompts and documents that people have, whatever their form."""
