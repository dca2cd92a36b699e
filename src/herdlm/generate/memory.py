"""How many tokens the key/value cache holds by default."""

from __future__ import annotations

import torch

from herdlm.generate.gpu.graphs import graph_bytes
from herdlm.generate.paged_attention import bytes_per_token
from herdlm.model.config import ModelConfig

CPU_CACHE_BYTES = 2**30
GPU_CACHE_SHARE = 0.8  # of the memory that weights and graphs leave free


def default_cache_tokens(config: ModelConfig, device: torch.device, compute: torch.dtype, max_batch: int) -> int:
    """Tokens for ``max_batch`` sequences of full length, or as many as fit in the device's memory.

    Args:
        config: of this process's part of the model.
    """
    room = CPU_CACHE_BYTES
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        room = int(GPU_CACHE_SHARE * max(free - graph_bytes(config, max_batch, compute), 0))
    return min(max_batch * config.max_seq_len, room // bytes_per_token(config, compute))
