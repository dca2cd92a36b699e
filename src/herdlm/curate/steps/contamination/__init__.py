"""Finds documents that hold examples of benchmarks, and flags or drops them."""
