"""Exact instruction following: prompts with instructions that a program can check, and answers that keep them."""
