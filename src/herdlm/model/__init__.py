"""The one Transformer: plain PyTorch that knows nothing of distribution, caches, quantization or objectives."""
