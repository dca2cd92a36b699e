"""Reliability of a run: failures, checkpoints, restarts, spare hosts, and what they leave of the time."""
