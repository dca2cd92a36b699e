"""Generation on CPUs: fused layers and compiled kernels."""
