"""Scores how good a text is, and drops texts whose score is below the cutoff of their language."""
