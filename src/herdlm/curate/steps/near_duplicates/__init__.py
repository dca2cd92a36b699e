"""Drops near-duplicates: texts that nearly equal an earlier one of their language."""
