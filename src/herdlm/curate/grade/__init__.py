"""Grading: how good documents are, what they are about, and whether they hold examples of benchmarks."""
