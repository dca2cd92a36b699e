"""The low-rank terms of LoRA under tensor parallelism.

Of a matrix that is cut by its outputs, B is cut and A is whole; of one that is cut by its inputs, A is cut and B is
whole. What crosses ranks has the width of the adapters' rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.model.lora import LoraLinear
from herdlm.parallel.collectives import autograd_all_gather, autograd_reduce_scatter, copy_to_group
from herdlm.parallel.linear import local


def add_column_adapters(
    x: Tensor, outputs: Sequence[Tensor], modules: Sequence[nn.Module], group: dist.ProcessGroup
) -> list[Tensor]:
    """Add the adapters' terms to products of x [B, T / n, D], each [B, T, out / n]."""
    adapted = {at: module for at, module in enumerate(modules) if isinstance(module, LoraLinear)}
    added = list(outputs)
    if adapted:
        lows = [F.linear(x, copy_to_group(local(m.lora_a), group)) * m.lora.scale for m in adapted.values()]
        whole = autograd_all_gather(torch.cat(lows, -1), group)
        gathered = torch.split(whole, [low.shape[-1] for low in lows], -1)
        for (at, module), low in zip(adapted.items(), gathered, strict=True):
            added[at] = added[at] + F.linear(low, local(module.lora_b))
    return added


def add_row_adapter(x: Tensor, output: Tensor, module: nn.Module, group: dist.ProcessGroup) -> Tensor:
    """Add the adapter's term to the product of x [B, T, in / n], [B, T / n, D]."""
    if not isinstance(module, LoraLinear):
        return output
    low = autograd_reduce_scatter(F.linear(x, local(module.lora_a)) * module.lora.scale, group)
    return output + F.linear(low, copy_to_group(local(module.lora_b), group))
