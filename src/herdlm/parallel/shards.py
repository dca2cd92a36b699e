"""Data parallelism by FSDP2: weights, gradients and optimizer state are sharded, gradients summed in at least FP32.

Losses are divided by the global weight of targets before the backward pass, so gradients are only summed; torch would
divide them by the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from herdlm.parallel.mesh import Mesh
from herdlm.parallel.stage import Stage


def apply_fsdp(stage: Stage, mesh: Mesh, *, compute: torch.dtype | None, reshard_after_forward: bool) -> None:
    """Shard each layer, and embedding, norm and head together.

    Args:
        compute: the type in which weights are gathered and used; None for their own.
        reshard_after_forward: free a layer's gathered weights until the backward pass needs them.
    """
    kept = next(stage.parameters()).dtype
    policy = MixedPrecisionPolicy(
        param_dtype=compute, reduce_dtype=torch.promote_types(kept, torch.float32), cast_forward_inputs=False
    )
    uneven = stage.config.vocab_size % mesh.sizes.tp != 0

    def placement(parameter: nn.Parameter) -> Shard | None:
        # A vocabulary that tensor parallelism cut into unequal parts is sharded along D instead.
        return Shard(1) if uneven and parameter.shape[0] == stage.config.vocab_size and parameter.ndim > 1 else None

    common = dict(mesh=mesh.data, mp_policy=policy)
    for layer in stage.model.layers.children():
        fully_shard(layer, reshard_after_forward=reshard_after_forward, **common)  # type: ignore[call-overload]
    fully_shard(stage, reshard_after_forward=False, shard_placement_fn=placement, **common)  # type: ignore[call-overload]
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no reduction with a factor


def before_backward(stage: Stage, *, is_last: bool) -> None:
    """Reduce gradients and free gathered weights only in the last backward pass of a stage in a step."""
    if isinstance(stage, FSDPModule):
        stage.set_requires_gradient_sync(is_last)
        stage.set_is_last_backward(is_last)
        stage.set_reshard_after_backward(is_last)


def free_gathered(stage: Stage) -> None:
    """Free gathered weights after forward passes that no backward pass follows."""
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def reduce_deferred(stage: Stage, sums: dict[Tensor, Tensor]) -> None:
    """Add the deferred gradients to a stage's weights, and reduce all gradients.

    torch has no public call to reduce gradients outside a backward pass; its own pipeline uses the same internals.

    Args:
        sums: by weight, this rank's gradient of its part; emptied.
    """
    if isinstance(stage, FSDPModule):
        before_backward(stage, is_last=True)
        root = fully_shard.state(stage)  # type: ignore[attr-defined]
        for state in root._state_ctx.all_states:
            for group in state._fsdp_param_groups:
                for held in group.fsdp_params:
                    if (found := sums.pop(held._unsharded_param, None)) is not None:
                        held.unsharded_accumulated_grad = _like(held._unsharded_param, found)
                group.post_backward()
        root._root_post_backward_final_callback()
    for weight, found in sums.items():
        weight.grad = _like(weight, found.to(weight.dtype))
    sums.clear()


def _like(weight: Tensor, part: Tensor) -> Tensor:
    """A rank's part in the form of its weight: a DTensor, if that is one."""
    if not isinstance(weight, DTensor):
        return part
    return DTensor.from_local(
        part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], mesh: Mesh, max_norm: float) -> Tensor:
    """Scale all gradients to a norm of at most ``max_norm``; returns the norm before, over all ranks, a scalar on the
    device."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = {cut: torch.zeros((), dtype=torch.float64, device=mesh.device) for cut in (True, False)}
    for grad in grads:
        part = grad.to_local() if isinstance(grad, DTensor) else grad
        squares[_is_cut_by_tp(grad)] += torch.linalg.vector_norm(part).double().square()
    if mesh.sizes.tp > 1:
        dist.all_reduce(squares[True], group=mesh.tp.get_group())
    square = squares[True] + squares[False]
    if mesh.sizes.sharded > 1:
        dist.all_reduce(square, group=mesh.shard.get_group())
    if mesh.sizes.pp > 1:
        dist.all_reduce(square, group=mesh.pp.get_group())
    norm = square.sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # applied even if it is 1: comparing it would wait for the device
    for grad in grads:
        (grad.to_local() if isinstance(grad, DTensor) else grad).mul_(scale)
    return norm


def _is_cut_by_tp(grad: Tensor) -> bool:
    if not isinstance(grad, DTensor):
        return False
    names = grad.device_mesh.mesh_dim_names or ()
    return any(name == "tp" and placement.is_shard() for name, placement in zip(names, grad.placements, strict=True))
