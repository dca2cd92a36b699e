"""Generation on GPUs: Triton kernels and CUDA graphs."""
