"""Computes whether a model fits a node, and with how many sequences, from the size of its weights and KV cache.

Nothing is allocated. Tensor parallelism shards the model over as many of the node's GPUs as divide its query heads
evenly, usually all of them. If that is fewer, the node holds several copies of the model. Matrices are sharded, norms
are replicated, and key and value heads are replicated if there are fewer of them than GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.generate.fp8.config import Fp8Config
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.plan.cost import Parameter, stage_parameters

GIGABYTE = 10**9
BF16, FP8 = 2, 1  # bytes per value
PAGE = 16  # tokens in a page of the KV cache, the engine's default
KEYS_AND_VALUES = 2


def _published(dim: int, layers: int, heads: int, ffn_dim: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=128_256,
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=8,
        ffn_dim=ffn_dim,
        max_seq_len=131_072,
        rope_scaling=RopeScaling(),
    )


# Llama 3.1, table 3 of the report.
PUBLISHED = {
    "8B": _published(4096, 32, 32, 14_336),
    "70B": _published(8192, 80, 64, 28_672),
    "405B": _published(16_384, 126, 128, 53_248),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node with GPUs. ``reserve`` is the share of memory kept free for activations, CUDA graphs and the runtime."""

    gpus: int = 8
    gigabytes: float = 80.0
    reserve: float = 0.1

    def __post_init__(self) -> None:
        if self.gpus < 1 or not self.gigabytes > 0:
            raise InputError(
                f"a node of {self.gpus} GPUs with {self.gigabytes} GB has no memory", "Give positive numbers"
            )
        if not 0 <= self.reserve < 1:
            raise InputError(f"reserve = {self.reserve} is not a share of memory", "Give a number from 0 to below 1")

    @property
    def usable(self) -> int:
        """Bytes of one GPU that weights and KV cache may use."""
        return int(self.gigabytes * GIGABYTE * (1 - self.reserve))


@dataclass(frozen=True, slots=True)
class Fit:
    """How one model fits one node at one precision. Sizes are in bytes; a sequence has ``context`` tokens.

    Attributes:
        weights: weights of the whole model.
        weights_per_gpu: weights on the GPU that holds most.
        cache_per_token: KV cache over all GPUs that share the model, including replicated heads.
        cache: KV cache of ``concurrency`` sequences.
        tensor_parallel: GPUs that share one copy of the model.
        copies: copies of the model in the node.
        most_sequences: sequences that fit beside the weights of all copies; 0 if the weights alone do not fit.
    """

    model: str
    precision: str
    parameters: int
    weights: int
    weights_per_gpu: int
    cache_per_token: int
    context: int
    concurrency: int
    cache: int
    tensor_parallel: int
    copies: int
    weights_fit: bool
    fits: bool
    most_sequences: int


def fit(
    name: str,
    model: ModelConfig,
    node: Node,
    *,
    context: int,
    concurrency: int,
    fp8: Collection[str] = (),
    precision: str = "BF16",
) -> Fit:
    """Compute whether ``concurrency`` sequences of ``context`` tokens fit beside a model's weights.

    Args:
        fp8: names of the modules with FP8 weights and a scale per row; everything else, including the cache, is BF16.

    Raises:
        InputError: a count is out of range.
    """
    if context < 1 or concurrency < 1:
        raise InputError(f"context {context} with concurrency {concurrency} is impossible", "Give positive counts")
    if context > model.max_seq_len:
        raise InputError(
            f"{name} supports contexts up to {model.max_seq_len:,} tokens, not {context:,}", "Lower --context"
        )
    tp = math.gcd(model.heads, node.gpus)
    copies = node.gpus // tp
    weights = sum(bytes_of(part, model, fp8, 1) for part in _parameters(model))
    per_gpu = sum(bytes_of(part, model, fp8, tp) for part in _parameters(model))
    heads = -(-model.kv_heads // tp)
    token_per_gpu = model.layers * KEYS_AND_VALUES * heads * model.head_size * BF16
    sequence = -(-context // PAGE) * PAGE * token_per_gpu
    room = node.usable - per_gpu
    most = copies * max(room // sequence, 0)
    return Fit(
        model=name,
        precision=precision,
        parameters=model.parameters,
        weights=weights,
        weights_per_gpu=per_gpu,
        cache_per_token=token_per_gpu * tp,
        context=context,
        concurrency=concurrency,
        cache=concurrency * sequence * tp,
        tensor_parallel=tp,
        copies=copies,
        weights_fit=room >= 0,
        fits=concurrency <= most,
        most_sequences=most,
    )


def both_precisions(
    name: str, model: ModelConfig, node: Node, *, context: int, concurrency: int, config: Fp8Config
) -> list[Fit]:
    """A model in BF16, and in FP8 by ``config`` if that quantizes at least one layer."""
    layers = range(config.skip_first_layers, model.layers - config.skip_last_layers)
    names = {f"model.layers.{layer}.{module}" for layer in layers for module in config.modules()}
    rows = [fit(name, model, node, context=context, concurrency=concurrency)]
    if names:
        rows.append(fit(name, model, node, context=context, concurrency=concurrency, fp8=names, precision="FP8"))
    return rows


def fit_table(
    named: Sequence[tuple[str, ModelConfig]], node: Node, *, context: int, concurrency: int, config: Fp8Config
) -> dict[str, Any]:
    """How each model fits the node, as JSON. The context is limited to what each model supports."""
    rows = [
        row
        for name, model in named
        for row in both_precisions(
            name, model, node, context=min(context, model.max_seq_len), concurrency=concurrency, config=config
        )
    ]
    return {"node": asdict(node), "context": context, "concurrency": concurrency, "rows": [asdict(row) for row in rows]}


def named_models(paths: Sequence[Path]) -> list[tuple[str, ModelConfig]]:
    """The models in folders, runs and recipes; by default the published Llama 3.1 sizes.

    Raises:
        InputError: a path is not a model folder, a run or a recipe.
    """
    from herdlm.generate.fp8.load import shape_of
    from herdlm.model.folders import model_folder, model_name
    from herdlm.recipe import read_recipe

    if not paths:
        return list(PUBLISHED.items())
    named: list[tuple[str, ModelConfig]] = []
    for path in paths:
        if path.suffix == ".toml":
            recipe = read_recipe(path)
            names = [name for name in (recipe.herd.flagship, recipe.herd.small) if name]
            named += [(name, recipe.model_config_of(name)) for name in names]
        else:
            folder = model_folder(path)
            named.append((model_name(folder), shape_of(folder)))
    return named


def lines(table: dict[str, Any]) -> list[str]:
    """The table as lines of text."""
    node = table["node"]
    out = [
        f"{node['gpus']} GPUs of {node['gigabytes']:g} GB, {node['reserve']:.0%} kept free; sequences of "
        f"{table['context']:,} tokens, {table['concurrency']:,} at once; sizes in GB",
        f"{'model':16} {'':5} {'weights':>9} {'a GPU':>8} {'cache':>9} {'fits':>5} {'most sequences':>15}",
    ]
    for row in table["rows"]:
        weights, per_gpu, cache = (row[key] / GIGABYTE for key in ("weights", "weights_per_gpu", "cache"))
        fits = "yes" if row["fits"] else "no"
        out.append(
            f"{row['model']:16} {row['precision']:5} {weights:9,.1f} {per_gpu:8,.1f} {cache:9,.1f} {fits:>5} "
            f"{row['most_sequences']:15,}"
        )
    return out


def _parameters(model: ModelConfig) -> list[Parameter]:
    parts = list(stage_parameters(model, range(model.layers)))
    if model.head == "score":
        parts[-1] = Parameter("score.weight", (1, model.dim), None)
    return parts


def bytes_of(part: Parameter, model: ModelConfig, fp8: Collection[str], gpus: int) -> int:
    """Bytes of a weight, and of its scales if it is FP8, on the GPU that holds most of it."""
    shape = [-(-size // gpus) if place == part.cut else size for place, size in enumerate(part.shape)]
    if part.name.rpartition(".")[0].endswith(("k_proj", "v_proj")):
        shape[0] = -(-model.kv_heads // gpus) * model.head_size
    if part.name.removesuffix(".weight") in fp8:
        return math.prod(shape) * FP8 + shape[0] * BF16
    return math.prod(shape) * BF16
