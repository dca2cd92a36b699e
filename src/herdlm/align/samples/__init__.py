"""Answers to prompts: drawn from models, judged, and selected for training."""
