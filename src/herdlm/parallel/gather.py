"""Scatters full weights into, and gathers them from, a model on many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from herdlm.base.errors import InputError
from herdlm.model.adapter_folder import is_adapter_weight, write_adapter
from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.lora import Lora, add_lora, lora_of, merge_lora
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
    model: ParallelModel,
    value: Callable[[str, Tensor], Tensor] | None = None,
    only: Callable[[str], bool] | None = None,
) -> Iterator[tuple[str, Tensor | None]]:
    """Every weight of the whole model, in order: with its values on rank 0, with None on other ranks.

    All processes iterate to the end together. Only one full weight is in memory at a time.

    Args:
        value: the tensor to gather instead of a parameter (its gradient, say), of the same shape.
        only: says by name which weights to gather; None: all.
    """
    mesh, config = model.mesh, model.shape
    mine = dict(model.named_parameters())
    first = dist.get_rank() == 0
    group = mesh.pp.get_group()
    with_first = 0 in dist.get_process_group_ranks(group)
    for name, shape in whole_shapes(config, lora_in(model)).items():
        if only is not None and not only(name):
            continue
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


@torch.no_grad()
def every_weight(model: ParallelModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the whole model, in order, on every process. All iterate to the end together.

    Only one full weight is in memory at a time.
    """
    mesh = model.mesh
    mine, stages = dict(model.named_parameters()), mesh.sizes.pp
    for name, shape in whole_shapes(model.shape, lora_in(model)).items():
        owner = model.pipeline_rank_of(name)
        if owner == mesh.pp_rank:
            whole = _whole(mine[name].detach())
        else:
            whole = torch.empty(shape, dtype=model.kept, device=mesh.device)
        if stages > 1:
            whole = whole.contiguous()
            dist.broadcast(whole, group=mesh.pp.get_group(), group_src=owner)
        yield name, whole


def _whole(part: Tensor) -> Tensor:
    if not isinstance(part, DTensor):
        return part
    if part.device_mesh.ndim > 1:  # FSDP sharded last, so it is undone first
        part = part.redistribute(placements=[*[Replicate()] * (part.device_mesh.ndim - 1), part.placements[-1]])
    return part.full_tensor()


def whole_shapes(config: ModelConfig, lora: Lora | None = None) -> dict[str, torch.Size]:
    """The name and shape of each weight of a whole model, with those of its adapters."""
    with torch.device("meta"):
        whole = Transformer(config)
    _adapt(whole, lora)
    return {name: parameter.shape for name, parameter in whole.named_parameters()}


def _adapt(model: Transformer, lora: Lora | None) -> None:
    if lora is not None:
        add_lora(model, lora.rank, lora.alpha, lora.targets)


def lora_in(model: ParallelModel) -> Lora | None:
    """The shape of a laid-out model's adapters; None if it has none."""
    return next((lora for stage in model.stages.values() if (lora := lora_of(stage))), None)


def save_whole(
    model: ParallelModel, folder: Path, *, dtype: torch.dtype = torch.float32, generation: dict[str, Any] | None = None
) -> None:
    """Write a Hugging Face folder of the whole model, in ``dtype``, from any layout; all processes call this.

    Rank 0 holds the whole model on the CPU while it writes. Adapters are merged. ``generation``: see
    :func:`herdlm.model.hf.save_folder`.
    """
    whole = build(model.shape, dtype=model.kept) if dist.get_rank() == 0 else None
    if whole:
        _adapt(whole, lora_in(model))
    places = dict(whole.named_parameters()) if whole else {}
    for name, values in gather_whole(model):
        if values is not None:
            with torch.no_grad():
                places[name].copy_(values)
    if whole:
        save_folder(merge_lora(whole), folder, dtype=dtype, generation=generation)
    dist.barrier()


def save_whole_adapter(model: ParallelModel, folder: Path, *, base: str | None = None) -> None:
    """Write the adapters from any layout in PEFT's format; all processes call this. See ``write_adapter``.

    Raises:
        InputError: the model has no adapters.
    """
    lora = lora_in(model)
    if lora is None:
        raise InputError("the model has no LoRA adapters to save", "Save the whole model")
    gathered = gather_whole(model, only=is_adapter_weight)
    tensors = {name: value.cpu() for name, value in gathered if value is not None}
    if dist.get_rank() == 0:
        write_adapter(folder, tensors, lora, base=base)
    dist.barrier()
