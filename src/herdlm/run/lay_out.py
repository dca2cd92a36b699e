"""A recipe's model in the recipe's layout, over the processes there are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist

from herdlm.model.transformer import Transformer
from herdlm.parallel.blocks import apply_checkpointing, apply_compile
from herdlm.parallel.config import sizes_for
from herdlm.parallel.layout import Layout
from herdlm.parallel.model import ParallelModel
from herdlm.recipe import PretrainConfig, Recipe
from herdlm.train.fp8 import use_fp8


def lay_out(recipe: Recipe, name: str, model: Transformer, seq_lens: Iterable[int]) -> Transformer | ParallelModel:
    """``model`` as the recipe's model ``name`` is trained; one layout for rows of all lengths.

    Raises:
        InputError: the layout does not go with the processes, the model, or one of ``seq_lens``; or FP8 was asked for
            and the device or the model cannot.
    """
    config, shape = recipe.parallel_of(name), model.config
    world = dist.get_world_size() if dist.is_initialized() else 1
    for seq_len in sorted(seq_lens):
        sizes_for(config, world, shape, seq_len)
    if recipe.pretrain.train.precision == "fp8":
        use_fp8(model)
    if dist.is_initialized():
        layout = Layout.make(config, shape, device=next(model.parameters()).device)
        return layout.apply(model, None if recipe.pretrain.train.precision == "float32" else torch.bfloat16)
    for layer in model.model.layers.children():
        if config.compile:
            apply_compile(layer)
        apply_checkpointing(layer, config.activation_checkpointing)
    return model


def pretraining_of(recipe: Recipe, name: str) -> PretrainConfig:
    """The recipe's pre-training as this number of processes reads it.

    A laid-out model cuts micro-batches further by ``parallel.rows_per_micro_batch``; on one process they are read so.
    """
    config, most = recipe.pretrain, recipe.parallel_of(name).rows_per_micro_batch
    if dist.is_initialized() or most is None:
        return config
    return config.model_copy(update={"rows_per_micro_batch": min(most, config.rows_per_micro_batch or most)})
