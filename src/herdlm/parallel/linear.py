"""Matrix products of tensor parallelism. Their backward gathers the input again and can defer weight gradients."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from herdlm.parallel.collectives import all_gather, autograd_reduce_scatter, copy_to_group, reduce_scatter


class DeferredGradients:
    """Weight gradients deferred while ``on``: a zero-bubble schedule computes them where it would have to wait.

    ``sums`` holds the gradients computed so far, by weight, for this rank's part, in at least float32.
    """

    def __init__(self) -> None:
        self.on = False
        self.waiting: deque[list[tuple[Tensor, Tensor, Tensor]]] = deque()
        self.sums: dict[Tensor, Tensor] = {}

    def defer(self, weight: Tensor, x: Tensor, grad: Tensor) -> None:
        """Keep the factors of the gradient of ``weight`` [out, in]: its input [..., in] and its output's gradient."""
        self.waiting[-1].append((weight, x, grad))

    @torch.no_grad()
    def compute(self) -> None:
        """Compute and add the gradients of the oldest backward pass."""
        for weight, x, grad in self.waiting.popleft():
            new = grad.flatten(0, -2).mT @ x.flatten(0, -2)
            new = new.to(torch.promote_types(new.dtype, torch.float32))
            self.sums[weight] = self.sums[weight].add_(new) if weight in self.sums else new


def local(weight: Tensor) -> Tensor:
    """This rank's part of a weight that tensor parallelism sharded; a whole weight unchanged."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _computed(*tensors: Tensor) -> list[Tensor]:
    """Tensors cast as autocast would: it does not reach into a custom function's backward."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [t.to(torch.get_autocast_dtype(kind)) for t in tensors]


class _Column(torch.autograd.Function):
    """Products of one input with several weights; with a group, the input is a shard of the sequence."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        group: dist.ProcessGroup | None,
        deferred: DeferredGradients | None,
        owners: tuple[Tensor, ...],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.group, ctx.deferred, ctx.owners = group, deferred, owners
        ctx.save_for_backward(x, *weights)
        whole = all_gather(x, group) if group else x
        return tuple(F.linear(whole, weight) for weight in weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *weights = ctx.saved_tensors
        inward = grads[0] @ weights[0]
        for grad, weight in zip(grads[1:], weights[1:], strict=True):
            inward = inward + grad @ weight
        needed = ctx.needs_input_grad[4:]
        whole = all_gather(x, ctx.group) if ctx.group and any(needed) else x
        sums: list[Tensor | None] = []
        for grad, owner, is_needed in zip(grads, ctx.owners, needed, strict=True):
            if not is_needed:  # the weight is frozen
                sums.append(None)
            elif ctx.deferred is not None and ctx.deferred.on:
                ctx.deferred.defer(owner, whole, grad)
                sums.append(None)
            else:
                sums.append(grad.flatten(0, -2).mT @ whole.flatten(0, -2))
        return (reduce_scatter(inward, ctx.group) if ctx.group else inward, None, None, None, *sums)


def column_parallel(
    x: Tensor, linears: tuple[nn.Linear, ...], group: dist.ProcessGroup | None, deferred: DeferredGradients | None
) -> tuple[Tensor, ...]:
    """Linear layers sharded by output: x [B, T / n, D] to outputs [B, T, out / n], one for each layer.

    The gathered input [B, T, D] is not kept: the backward pass gathers it again, once for all weights.
    """
    owners = tuple(linear.weight for linear in linears)
    x, *weights = _computed(x, *(local(owner) for owner in owners))
    products = _Column.apply(x, group, deferred, owners, *weights)  # type: ignore[no-untyped-call]
    return tuple(
        out if linear.bias is None else out + local(linear.bias).to(out.dtype)
        for out, linear in zip(products, linears, strict=True)
    )


def row_parallel(
    x: Tensor, linear: nn.Linear, group: dist.ProcessGroup | None, deferred: DeferredGradients | None
) -> Tensor:
    """A linear layer sharded by input: x [B, T, in / n] to the sum over ranks, [B, T / n, D], plus its whole bias."""
    owner = linear.weight
    x, weight = _computed(x, local(owner))
    if deferred is None:
        part = F.linear(x, weight)
    else:
        (part,) = _Column.apply(x, None, deferred, (owner,), weight)  # type: ignore[no-untyped-call]
    out = autograd_reduce_scatter(part, group) if group else part
    if linear.bias is not None:
        bias = local(linear.bias)
        out = out + (copy_to_group(bias, group) if group else bias).to(out.dtype)
    return out


class PlainLinear(nn.Linear):
    """A whole linear layer whose weight gradient can be deferred."""

    deferred: DeferredGradients

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return row_parallel(x, self, None, self.deferred)
