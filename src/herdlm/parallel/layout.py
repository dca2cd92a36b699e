"""A layout: the processes of a group, and how a model is put onto them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer
from herdlm.parallel.blocks import apply_checkpointing, apply_compile
from herdlm.parallel.config import ParallelConfig, sizes_for, split_layers
from herdlm.parallel.gather import fill
from herdlm.parallel.linear import DeferredGradients
from herdlm.parallel.mesh import Mesh, make_mesh
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.shards import apply_fsdp
from herdlm.parallel.stage import Stage
from herdlm.parallel.tensor import apply_tensor_parallel, defer_weight_gradients


@dataclass(frozen=True, slots=True)
class Layout:
    """The processes of the default group, laid out for one shape of model; all of them make it together."""

    config: ParallelConfig
    mesh: Mesh

    @classmethod
    def make(
        cls,
        config: ParallelConfig,
        model: ModelConfig,
        *,
        seq_len: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Layout:
        """The layout that ``config`` describes.

        Raises:
            InputError: there is no process group, or the keys do not fit the model or the number of processes.
        """
        if not dist.is_initialized():
            raise InputError("a layout needs a process group, and there is none", "Start the processes with torchrun")
        return cls(config, make_mesh(sizes_for(config, dist.get_world_size(), model, seq_len), torch.device(device)))

    def apply(self, model: Transformer, compute: torch.dtype | None = None) -> ParallelModel:
        """Make this process's part of ``model``.

        The layers of ``model`` are changed in place, so do not use it afterwards. A model on the ``meta`` device gives
        parts without values, to be filled by :func:`herdlm.parallel.gather.fill` or a checkpoint.

        Args:
            compute: the type in which FSDP gathers weights and the activations run; None for the weights' own.
        """
        config, mesh = self.config, self.mesh
        sizes = mesh.sizes
        stages = sizes.pp * config.stages_per_rank
        layers = split_layers(model.config.layers, stages, config.layers_per_stage if sizes.pp > 1 else None)
        kept = next(model.parameters()).dtype
        split = config.pipeline_schedule == "zero-bubble" and sizes.pp > 1
        deferred = {number: DeferredGradients() for number in range(mesh.pp_rank, stages, sizes.pp) if split}
        made = []
        for number in range(mesh.pp_rank, stages, sizes.pp):
            stage = Stage(model, layers[number], number=number, stages=stages)
            if sizes.tp > 1:
                apply_tensor_parallel(stage, mesh, deferred.get(number))
            elif split:
                defer_weight_gradients(stage, deferred[number])
            for layer in stage.model.layers.children():
                if config.compile:
                    apply_compile(layer)
                apply_checkpointing(layer, config.activation_checkpointing)
            made.append(stage)
        sharded = sizes.sharded * sizes.dp_replicate > 1
        if sharded:
            for stage in made:
                apply_fsdp(stage, mesh, compute=compute, reshard_after_forward=config.reshard_after_forward)
        stream = compute if compute and sharded else kept
        return ParallelModel(made, mesh, config, layers=layers, stream=stream, deferred=deferred)


def lay_out(
    config: ParallelConfig, model: Transformer, seq_lens: Iterable[int], *, autocast: str
) -> Transformer | ParallelModel:
    """``model`` as it is trained on the processes there are: sharded by ``config``, or whole on a single process.

    Args:
        seq_lens: of all rows that are trained on; one layout serves them all.
        autocast: the type in which matrices are multiplied, "float32" or "bfloat16".

    Raises:
        InputError: the layout does not fit the processes, the model, or one of ``seq_lens``.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    for seq_len in sorted(seq_lens):
        sizes_for(config, world, model.config, seq_len)
    if dist.is_initialized():
        layout = Layout.make(config, model.config, device=next(model.parameters()).device)
        return layout.apply(model, torch.bfloat16 if autocast == "bfloat16" else None)
    for layer in model.model.layers.children():
        if config.compile:
            apply_compile(layer)
        apply_checkpointing(layer, config.activation_checkpointing)
    return model


def lay_out_shape(
    config: ParallelConfig, model: ModelConfig, seq_lens: Iterable[int], *, autocast: str, device: str | torch.device
) -> ParallelModel:
    """As :func:`lay_out` on several processes, without memory for the weights: they are on the ``meta`` device.

    Raises:
        InputError: the layout does not fit the processes, the model, or one of ``seq_lens``.
    """
    for seq_len in sorted(seq_lens):
        sizes_for(config, dist.get_world_size(), model, seq_len)
    with torch.device("meta"):
        shape = Transformer(model)
    return Layout.make(config, model, device=device).apply(shape, torch.bfloat16 if autocast == "bfloat16" else None)


def lay_out_from(
    config: ParallelConfig,
    model: ModelConfig,
    seq_lens: Iterable[int],
    whole: Callable[[str], Tensor],
    *,
    autocast: str,
    device: str | torch.device,
) -> ParallelModel:
    """As :func:`lay_out` on several processes, of which none ever holds the whole model; head and embedding untied.

    Args:
        whole: gives one full weight by name, on every process.

    Raises:
        InputError: the layout does not fit the processes, the model, or one of ``seq_lens``.
    """
    laid_out = lay_out_shape(config, model, seq_lens, autocast=autocast, device=device)
    for stage in laid_out.stages.values():
        stage.to_empty(device=device)
    fill(laid_out, whole)
    return laid_out
