"""Collectives with autograd. Each is named after its forward; its backward is the transpose.

The loss of a step is the sum of every rank's part, so the transpose of an all-gather is a reduce-scatter, and the
transpose of an all-reduce is an all-reduce of the gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_call: Any = torch.ops._c10d_functional  # these operators are visible to a compiler and to selective checkpointing
SEQUENCE = 1  # the dimension of activations [B, T, ...] that is gathered and scattered


def all_gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The shards [B, T / n, ...] of all ranks side by side, [B, T, ...]; no autograd."""
    stacked: Tensor = _call.wait_tensor(_call.all_gather_into_tensor(x.contiguous(), group.size(), group.group_name))
    return stacked.view(group.size(), *x.shape).movedim(0, SEQUENCE).flatten(SEQUENCE, SEQUENCE + 1)


def reduce_scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's shard [B, T / n, ...] of the sum of all ranks' x [B, T, ...]; no autograd."""
    chunks = x.reshape(len(x), group.size(), -1, *x.shape[2:]).movedim(SEQUENCE, 0).flatten(0, 1).contiguous()
    shard: Tensor = _call.wait_tensor(_call.reduce_scatter_tensor(chunks, "sum", group.size(), group.group_name))
    return shard


def all_reduce(x: Tensor, group: dist.ProcessGroup, how: str = "sum") -> Tensor:
    """The sum (or "max") over all ranks; no autograd."""
    out: Tensor = _call.wait_tensor(_call.all_reduce(x.contiguous(), how, group.group_name))
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_gather(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return reduce_scatter(grads[0], ctx.group), None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return reduce_scatter(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return all_gather(grads[0], ctx.group), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_reduce(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return all_reduce(grads[0], ctx.group), None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return all_reduce(grads[0], ctx.group), None


class _OnFirstRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        ctx.rank = rank
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] if ctx.rank == 0 else torch.zeros_like(grads[0]), None


def autograd_all_gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """As :func:`all_gather`, with autograd."""
    out: Tensor = _Gather.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def autograd_reduce_scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """As :func:`reduce_scatter`, with autograd."""
    out: Tensor = _ScatterSum.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def autograd_all_reduce(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """As :func:`all_reduce`, with autograd, for ranks that each use the sum in their own way."""
    out: Tensor = _Total.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def copy_to_group(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """A weight that every rank holds in full and uses on its part of the data; its gradients are summed over ranks."""
    out: Tensor = _Shared.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def first_rank_gradient(x: Tensor, rank: int) -> Tensor:
    """The input of a computation that all ranks repeat; only the first rank's gradient flows back."""
    out: Tensor = _OnFirstRank.apply(x, rank)  # type: ignore[no-untyped-call]
    return out
