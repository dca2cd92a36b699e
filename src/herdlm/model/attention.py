"""The attention slot: the function that a layer calls with its queries, keys and values.

The Transformer does not compute attention; it calls an :class:`Attend`. Training plugs in :class:`DocumentAttention`,
generation a paged cache, and context parallelism wraps an all-gather around either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.tiles import TilePlan, plan_tiles

# Tokens in a row up to which a mask over the row costs less than a product per tile (measured: 17% of a step).
DENSE_UP_TO = 256


class Attend(Protocol):
    """Attention over the context that the caller holds."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, C], k and v [B, T, K, C] of layer number ``layer``; returns [B, T, H, C]."""
        ...


class DocumentAttention:
    """Causal attention that never crosses a document boundary inside a packed row.

    Planned once for a batch and used by all layers. The device decides the method: on a CPU, tiles
    (:mod:`herdlm.model.tiles`) for rows of more than ``DENSE_UP_TO`` tokens; on a GPU, torch's kernel for sequences of
    varying length, for the types it supports; one causal call where every row is one document; otherwise a dense mask.

    Args:
        documents: [B, T] integers; a token attends to earlier tokens of its row with the same number. The numbers of
            one row never decrease. If they are on the CPU, planning does not wait for the device.
        device: of queries, keys and values; None: that of ``documents``.
    """

    def __init__(self, documents: Tensor, device: torch.device | None = None) -> None:
        device = documents.device if device is None else device
        self.documents, self.device = documents, device
        rows, length = documents.shape
        first = torch.ones_like(documents, dtype=torch.bool)
        first[:, 1:] = documents[:, 1:] != documents[:, :-1]
        starts = first.flatten().nonzero().flatten()
        self.starts = [*starts.tolist(), rows * length]
        self.one_each = len(self.starts) == rows + 1
        self.mask: Tensor | None = None
        self.tiled = device.type == "cpu" and length > DENSE_UP_TO
        if self.tiled:
            self.plan = TilePlan(plan_tiles(self.starts), first.flatten().cumsum(0))
        elif device.type != "cpu":
            self.cumulative = to_device(torch.tensor(self.starts, dtype=torch.int32), device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`Attend`."""
        if self.tiled:
            return self.plan.attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view(q.shape)
        if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16) and not self.one_each:
            kernel = varlen_kernel()
            if kernel is not None:
                return self.varlen(kernel, q, k, v)
        return self.dense(q, k, v)

    def varlen(self, kernel: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention by a kernel for sequences of varying length, laid end to end."""
        flat = (t.flatten(0, 1) for t in (q, k, v))
        limit = q.shape[1]  # a bound that is the same for every batch avoids compiling again
        return kernel(*flat, self.cumulative, self.cumulative, limit, limit).view(q.shape)

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention by one call over whole rows, with a mask [B, 1, T, T] if a row has several documents."""
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        grouped = q.shape[1] != k.shape[1]
        if self.one_each:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        else:
            if self.mask is None or self.mask.dtype != q.dtype:
                documents = to_device(self.documents, self.device)
                same = documents[:, None, :, None] == documents[:, None, None, :]
                unseen = ~same.tril()
                self.mask = torch.zeros(unseen.shape, dtype=q.dtype, device=q.device)
                self.mask.masked_fill_(unseen, -torch.inf)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=grouped)
        return out.transpose(1, 2)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; from the CPU to a GPU through pinned memory, without waiting for the GPU's work."""
    if values.device.type == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@cache
def varlen_kernel() -> Callable[..., Tensor] | None:
    """torch's causal attention over sequences of varying length; None if this version of torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:  # before torch 2.12 the kernel always groups heads
        options["enable_gqa"] = True

    def causal(*arguments: Any) -> Tensor:
        out = varlen_attn(*arguments, **options)
        assert isinstance(out, Tensor)  # a tuple only if more outputs are requested
        return out

    return causal
