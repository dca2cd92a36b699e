"""Serving a model: GPUs, latency and throughput at a given traffic, in BF16 and in FP8."""
