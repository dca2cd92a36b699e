"""Scatters full weights into, and gathers them from, a model on many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.transformer import Transformer, build
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.sharding import shard


def local_part(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, sharded like the DTensor ``like``; no communication."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    # Tensor parallelism shards first: it is the innermost, last dimension of the mesh.
    for dim, placement in reversed(list(enumerate(like.placements))):
        if placement.is_shard():
            along: int = placement.dim  # type: ignore[attr-defined]
            whole = shard(whole, along, mesh.size(dim), mesh.get_local_rank(dim))
    return whole


@torch.no_grad()
def fill(model: ParallelModel, whole: Callable[[str], Tensor]) -> None:
    """Copy this process's part of each weight into place; ``whole`` returns one full weight by name."""
    for name, parameter in model.named_parameters():
        target = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        target.copy_(local_part(whole(name), parameter))


@torch.no_grad()
def gather_whole(
    model: ParallelModel, value: Callable[[str, Tensor], Tensor] | None = None
) -> Iterator[tuple[str, Tensor | None]]:
    """Every weight of the whole model, in order: with its values on rank 0, with None on other ranks.

    All processes iterate to the end together. Only one full weight is in memory at a time.

    Args:
        value: the tensor to gather instead of a parameter (its gradient, say), of the same shape.
    """
    mesh, config = model.mesh, model.shape
    mine = dict(model.named_parameters())
    first = dist.get_rank() == 0
    group = mesh.pp.get_group()
    with_first = 0 in dist.get_process_group_ranks(group)
    for name, shape in whole_shapes(config).items():
        owner = model.pipeline_rank_of(name)
        whole: Tensor | None = None
        if owner == mesh.pp_rank:
            chosen = value(name, mine[name]) if value else mine[name]
            whole = _whole(chosen.detach())
        if owner != 0 and with_first:
            if owner == mesh.pp_rank:
                assert whole is not None
                dist.send(whole.contiguous(), group=group, group_dst=0)
            elif first:
                whole = torch.empty(shape, dtype=model.kept, device=mesh.device)
                dist.recv(whole, group=group, group_src=owner)
        yield name, whole if first else None


def _whole(part: Tensor) -> Tensor:
    if not isinstance(part, DTensor):
        return part
    if part.device_mesh.ndim > 1:  # FSDP sharded last, so it is undone first
        part = part.redistribute(placements=[*[Replicate()] * (part.device_mesh.ndim - 1), part.placements[-1]])
    return part.full_tensor()


def whole_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The name and shape of each weight of a whole model."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in Transformer(config).named_parameters()}


def save_whole(model: ParallelModel, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a Hugging Face folder of the whole model, in ``dtype``, from any layout; all processes call this.

    Rank 0 holds the whole model on the CPU while it writes.
    """
    whole = build(model.shape, dtype=model.kept) if dist.get_rank() == 0 else None
    places = dict(whole.named_parameters()) if whole else {}
    for name, values in gather_whole(model):
        if values is not None:
            with torch.no_grad():
                places[name].copy_(values)
    if whole:
        save_folder(whole, folder, dtype=dtype)
    dist.barrier()
