"""Answers to prompts: drawn from models, and judged."""
