"""Memory of a training step on the rank that holds most. Nothing is allocated.

State is exact. The rest is an estimate: FSDP gathers weights in the type of the computation and sums gradients of
several micro-batches in FP32 before it reduces them; activations are what a layer's backward pass reads.
"""

from __future__ import annotations

import math
from typing import TypedDict

from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, split_layers
from herdlm.plan.cost import FP32, MOMENTS, layer_parameters, values_per_rank

BF16 = 2
LOGIT_ROWS = 2048  # of targets, whose logits a rank holds at once


class TrainingMemory(TypedDict):
    """Bytes on the rank that holds most."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    accumulated: int
    activations: int
    sum: int


def training_memory(
    model: ModelConfig, parallel: ParallelConfig, sizes: Sizes, *, row_tokens: int, micro_batches: int, precision: str
) -> TrainingMemory:
    """Memory of a step.

    Args:
        row_tokens: tokens of the rows of a micro-batch on one data-parallel rank.
        micro_batches: of a step.
        precision: of matrix products.
    """
    held = values_per_rank(model, parallel, sizes)
    whole = values_per_rank(model, parallel, Sizes(sizes.tp, 1, sizes.pp, 1, 1))
    layer = sum(math.prod(part.shape) for part in layer_parameters(model)) // sizes.tp
    layers = max(map(len, split_layers(model.layers, sizes.pp, lighter_ends=sizes.pp > 1)))
    if sizes.pp > 1 and parallel.layers_per_stage:
        given = parallel.layers_per_stage
        layers = max(sum(given[rank :: sizes.pp]) for rank in range(sizes.pp))
    width = FP32 if precision == "float32" else BF16
    sharded = sizes.sharded * sizes.dp_replicate > 1
    few = max(whole - layers * layer, 0) + min(2, layers) * layer  # embedding or head, and two layers
    gathered = (few if parallel.reshard_after_forward else whole) * width if sharded or width < FP32 else 0
    accumulated = (whole if micro_batches > 1 else few) * FP32 if sharded else 0
    tokens = -(-row_tokens // (sizes.cp * sizes.tp))
    at_once = _layers_at_once(parallel, sizes, layers, micro_batches)
    kept = at_once * layer_activations(model, parallel.activation_checkpointing)
    if parallel.activation_checkpointing != "none":
        kept += layer_activations(model, "none")  # of the layer that is computed again
    logits = 2 * FP32 * min(LOGIT_ROWS, row_tokens) * -(-model.vocab_size // sizes.tp) if model.head == "lm" else 0
    parts = {
        "weights": FP32 * held,
        "gradients": FP32 * held,
        "optimizer": MOMENTS * FP32 * held,
        "gathered": gathered,
        "accumulated": accumulated,
        "activations": int(tokens * width * kept) + logits,
    }
    return {**parts, "sum": sum(parts.values())}  # type: ignore[typeddict-item]


def layer_activations(model: ModelConfig, checkpointing: str) -> int:
    """Values for each token that a layer keeps for its backward pass."""
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    if checkpointing == "layer":
        return model.dim
    if checkpointing == "selective":  # the layer's input, and results of products and attention
        return 3 * model.dim + 2 * queries + 2 * keys + 2 * model.ffn_dim
    return 4 * model.dim + 2 * queries + 2 * keys + 4 * model.ffn_dim


def _layers_at_once(parallel: ParallelConfig, sizes: Sizes, layers: int, micro_batches: int) -> float:
    """Layers times micro-batches whose activations the first pipeline rank keeps at the same time."""
    if sizes.pp == 1:
        return layers
    chunks = parallel.stages_per_rank
    begun = sizes.pp if chunks == 1 else 2 * (sizes.pp - 1) + (chunks - 1) * sizes.pp + 1
    return layers * min(begun / chunks, micro_batches)


def bubble(parallel: ParallelConfig, sizes: Sizes, micro_batches: int) -> float:
    """Idle time of a pipeline as a share of the time of its work (docs/parallel.md)."""
    if sizes.pp == 1:
        return 0.0
    idle = 3 * (sizes.pp - 1) / parallel.stages_per_rank
    return min(idle, sizes.pp if parallel.pipeline_schedule == "zero-bubble" else idle) / (3 * micro_batches)
