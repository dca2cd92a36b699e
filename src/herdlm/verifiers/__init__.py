"""Judges answers of language models by rules. Each verifier gives a verdict, a score and a reason."""
