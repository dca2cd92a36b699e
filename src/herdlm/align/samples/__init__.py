"""Answers sampled to prompts: drawn, judged, and selected for training."""
