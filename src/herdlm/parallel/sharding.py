"""The sharding plan: the dimension along which each parameter is cut, and the part of it that a rank holds.

Training (:mod:`herdlm.parallel.tensor`) and generation (:mod:`herdlm.generate.parallel`) both follow it. Ranks hold
equal consecutive runs of query heads, key/value heads, feed-forward channels and vocabulary entries. A vocabulary that
does not divide evenly leaves a shorter run to the last ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdlm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

# By module name: 0 cuts a weight [out, in] by its outputs, 1 by its inputs; None leaves it whole on every rank.
SHARD_DIMS: dict[str, int | None] = {
    "embed_tokens": 0,
    "lm_head": 0,
    "q_proj": 0,
    "k_proj": 0,
    "v_proj": 0,
    "gate_proj": 0,
    "up_proj": 0,
    "o_proj": 1,
    "down_proj": 1,
    "input_layernorm": None,
    "post_attention_layernorm": None,
    "norm": None,
    "score": None,
}


def shard_dim(module: str, key: str = "weight") -> int | None:
    """The dimension along which the parameter ``key`` of a module, given by its last name, is cut.

    A bias is cut as the outputs of its weight. Of LoRA's two factors, the one that faces the cut side of the matrix is
    cut with it.
    """
    dim = SHARD_DIMS[module]
    facing = {"lora_a": 1, "lora_b": 0, "bias": 0}.get(key, dim)
    return dim if dim == facing else None


def run_of(size: int, ranks: int, rank: int) -> range:
    """The consecutive indices, out of ``size``, that a rank holds."""
    each = -(-size // ranks)
    return range(min(rank * each, size), min((rank + 1) * each, size))


def shard(whole: Tensor, dim: int | None, ranks: int, rank: int) -> Tensor:
    """This rank's part of a tensor, a view of it; all of it where ``dim`` is None."""
    if dim is None:
        return whole
    run = run_of(whole.shape[dim], ranks, rank)
    return whole.narrow(dim, run.start, len(run))


def shard_config(model: ModelConfig, ranks: int) -> ModelConfig:
    """The shape of one rank's part of the layers; ``dim`` and vocabulary stay whole."""
    changes = {name: getattr(model, name) // ranks for name in ("heads", "kv_heads", "ffn_dim")}
    return model.model_copy(update={**changes, "head_dim": model.head_size})


def indivisible(model: ModelConfig, ranks: int) -> dict[str, int]:
    """The keys of ``model``, with their values, that are no multiple of ``ranks`` and would have to be."""
    sizes = {name: getattr(model, name) for name in ("heads", "kv_heads", "ffn_dim")}
    return {name: size for name, size in sizes.items() if size % ranks}
