"""The four dimensions of parallelism, applied to the unchanged model from outside."""
