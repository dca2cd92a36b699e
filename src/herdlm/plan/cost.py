"""Describes what a recipe's models cost: parameters, FLOPs, tokens and bytes of state. Nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, sizes_for, split_layers
from herdlm.parallel.sharding import shard_dim
from herdlm.pretrain.config import Phase, timeline
from herdlm.pretrain.job import HerdJob, PretrainJob
from herdlm.pretrain.mix import MixPlan, plan_mix, source_tokens

FP32 = 4
MOMENTS = 2  # that AdamW keeps of each weight
PRECISIONS = {"float32": "FP32", "bfloat16": "BF16", "fp8": "FP8 in the matrices of the layers, BF16 elsewhere"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight: its shape [out, in] or [D], and the dimension that tensor parallelism shards, None for none."""

    name: str
    shape: tuple[int, ...]
    cut: int | None


class PhaseDescription(TypedDict):
    """One phase of a run."""

    kind: str
    first_step: int
    steps: int
    first_token: int
    tokens: int
    seq_len: int
    rows_per_step: int
    tokens_per_step: int
    mix: dict[str, float]


class StateBytes(TypedDict):
    """Bytes that training keeps between steps."""

    weights: int
    gradients: int
    optimizer: int
    sum: int


class ModelDescription(TypedDict):
    """What one model is and costs; FLOPs by how attention is counted, ``causal`` or ``full``."""

    roles: list[str]
    shape: dict[str, int]
    parameters: int
    body_parameters: int
    precision: str
    peak_lr: float
    steps: int
    tokens: int
    tokens_per_parameter: float
    flops_per_token: dict[str, dict[str, int]]
    flops: dict[str, int]
    layout: dict[str, int]
    state_bytes: dict[str, StateBytes]


class HerdDescription(TypedDict):
    """What a recipe's models are and cost, as ``herdlm describe --json`` prints it."""

    name: str
    timeline: list[PhaseDescription]
    mix_plan: dict[str, Any]
    models: dict[str, ModelDescription]


def layer_parameters(config: ModelConfig) -> Iterator[Parameter]:
    """The weights of one layer."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    yield Parameter("input_layernorm.weight", (config.dim,), None)
    yield from _linear("self_attn.q_proj", (queries, config.dim), 0, config.qkv_bias)
    yield from _linear("self_attn.k_proj", (keys, config.dim), 0, config.qkv_bias)
    yield from _linear("self_attn.v_proj", (keys, config.dim), 0, config.qkv_bias)
    yield from _linear("self_attn.o_proj", (config.dim, queries), 1, config.attention_bias)
    yield Parameter("post_attention_layernorm.weight", (config.dim,), None)
    yield from _linear("mlp.gate_proj", (config.ffn_dim, config.dim), 0, config.mlp_bias)
    yield from _linear("mlp.up_proj", (config.ffn_dim, config.dim), 0, config.mlp_bias)
    yield from _linear("mlp.down_proj", (config.dim, config.ffn_dim), 1, config.mlp_bias)


def _linear(name: str, shape: tuple[int, int], cut: int, bias: bool) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", shape, cut)
    if bias:
        yield Parameter(f"{name}.bias", shape[:1], shard_dim(name.rpartition(".")[2], "bias"))


def stage_parameters(config: ModelConfig, layers: range) -> Iterator[Parameter]:
    """The weights of a pipeline stage with ``layers``. The first stage has the embedding, the last norm and head."""
    if layers.start == 0:
        yield Parameter("model.embed_tokens.weight", (config.vocab_size, config.dim), 0)
    for layer in layers:
        for part in layer_parameters(config):
            yield Parameter(f"model.layers.{layer}.{part.name}", part.shape, part.cut)
    if layers.stop == config.layers:
        yield Parameter("model.norm.weight", (config.dim,), None)
        if not (config.tied_embeddings and layers.start == 0):
            yield Parameter("lm_head.weight", (config.vocab_size, config.dim), 0)


def values_per_rank(config: ModelConfig, parallel: ParallelConfig, sizes: Sizes) -> int:
    """Parameters on the rank that holds most.

    Tensor parallelism shards matrices, and FSDP shards the rest along its first dimension; both round up. Norms are
    replicated on every tensor-parallel rank. With several stages per rank, pipeline rank r holds stages r, r + pp, ...
    """
    stages = split_layers(config.layers, sizes.pp * parallel.stages_per_rank, parallel.layers_per_stage)
    held = [0] * sizes.pp
    for number, layers in enumerate(stages):
        for part in stage_parameters(config, layers):
            shape = [-(-n // sizes.tp) if place == part.cut else n for place, n in enumerate(part.shape)]
            held[number % sizes.pp] += -(-shape[0] // sizes.sharded) * math.prod(shape[1:])
    return max(held)


def layout_of(job: PretrainJob, processes: int | None = None) -> Sizes:
    """The layout that a model is trained in, checked against its shape and its row lengths.

    Args:
        processes: number of processes; by default the layout's own.

    Raises:
        InputError: the layout does not fit the model, its row lengths, or ``processes``.
    """
    parallel = job.parallel
    shards = max(parallel.dp_shard, 1)
    world = processes or parallel.tp * parallel.cp * parallel.pp * parallel.dp_replicate * shards
    sizes = None
    for seq_len in sorted(job.pretrain.seq_lens):
        sizes = sizes_for(parallel, world, job.model, seq_len)
    assert sizes is not None
    return sizes


def describe(herd: HerdJob, processes: int | None = None, tokens: Path | None = None) -> HerdDescription:
    """Describe what each model of the herd is and costs.

    FLOPs are of forward and backward pass. ``causal`` counts only the attention that a causal mask keeps, ``full`` the
    whole square, which is twice as much; published figures use either. State is what a rank keeps between steps, in
    FP32: weights, gradients and AdamW's two moments. Gathered weights and activations during a step are not included.

    Args:
        processes: number of processes that train the flagship; by default the layout's own.
        tokens: folder of token shards. If given, the mixes have the caps on epochs applied.

    Raises:
        InputError: a layout does not fit its model, or the caps leave too little to read.
    """
    planned = None if tokens is None else plan_mix(herd.pretrain, source_tokens(tokens, herd.pretrain))
    phases = timeline(planned.config if planned else herd.pretrain)
    names = [name for name in dict.fromkeys((*herd.ladder, herd.small, herd.flagship)) if name is not None]
    return {
        "name": herd.name,
        "timeline": [_phase(phase) for phase in phases],
        "mix_plan": _mix_plan(herd, planned),
        "models": {name: _model(herd, name, phases, processes if name == herd.flagship else None) for name in names},
    }


def _phase(phase: Phase) -> PhaseDescription:
    return {
        "kind": phase.kind,
        "first_step": phase.first_step,
        "steps": phase.steps,
        "first_token": phase.first_token,
        "tokens": phase.end_token - phase.first_token,
        "seq_len": phase.seq_len,
        "rows_per_step": phase.rows_per_step,
        "tokens_per_step": phase.tokens_per_step,
        "mix": {part.source: part.share for part in phase.mix},
    }


def _mix_plan(herd: HerdJob, planned: MixPlan | None) -> dict[str, Any]:
    if planned:
        return planned.as_json() | {"lines": planned.lines()}
    caps = [f"{name:20} at most {cap:g} epochs" for name, cap in herd.pretrain.max_epochs.items()]
    return {"max_epochs": herd.pretrain.max_epochs, "lines": caps}


def _model(herd: HerdJob, name: str, phases: list[Phase], processes: int | None) -> ModelDescription:
    job = herd.job(name)
    config, parallel = job.model, job.parallel
    sizes = layout_of(job, processes)
    held = values_per_rank(config, parallel, sizes)
    roles = [role for role in ("flagship", "small") if getattr(herd, role) == name]
    tokens = phases[-1].end_token
    flops = {"causal": 0, "full": 0}
    for phase in phases:
        for count, each in flops_per_token(config, phase.seq_len).items():
            flops[count] += each * (phase.end_token - phase.first_token)
    return {
        "roles": [*roles, *(["ladder"] if name in herd.ladder else [])],
        "shape": config.model_dump(include={"dim", "layers", "heads", "kv_heads", "ffn_dim", "vocab_size"}),
        "parameters": config.parameters,
        "body_parameters": config.body_parameters,
        "precision": job.pretrain.train.precision,
        "peak_lr": job.pretrain.train.peak_lr,
        "steps": phases[-1].end_step,
        "tokens": tokens,
        "tokens_per_parameter": round(tokens / config.parameters, 2),
        "flops_per_token": {
            str(seq_len): flops_per_token(config, seq_len) for seq_len in sorted(job.pretrain.seq_lens)
        },
        "flops": flops,
        "layout": {
            "processes": sizes.tp * sizes.cp * sizes.pp * sizes.dp,
            "tp": sizes.tp,
            "cp": sizes.cp,
            "pp": sizes.pp,
            "dp_replicate": sizes.dp_replicate,
            "dp_shard": sizes.dp_shard,
        },
        "state_bytes": {"total": _state(config.parameters), "per_rank": _state(held)},
    }


def flops_per_token(config: ModelConfig, seq_len: int) -> dict[str, int]:
    """Training FLOPs per token in rows of ``seq_len`` with one document each, for both counts of attention."""
    return {"causal": config.flops_per_token(seq_len), "full": config.full_attention_flops_per_token(seq_len)}


def _state(values: int) -> StateBytes:
    copy = FP32 * values
    return {"weights": copy, "gradients": copy, "optimizer": MOMENTS * copy, "sum": (2 + MOMENTS) * copy}


def lines(description: HerdDescription) -> list[str]:
    """The description as lines of text."""
    out = [description["name"], "", "steps of a run"]
    for part in description["timeline"]:
        mix = ", ".join(f"{source} {share:g}" for source, share in part["mix"].items())
        out.append(
            f"  {part['kind']:12} {part['steps']:>9,} steps x {part['rows_per_step']:,} rows of {part['seq_len']:,}"
            f" = {short(part['tokens'])} tokens; mix: {mix}"
        )
    if description["mix_plan"]["lines"]:
        out += ["", "sources over the run", *(f"  {line}" for line in description["mix_plan"]["lines"])]
    for name, model in description["models"].items():
        layout, state = model["layout"], model["state_bytes"]
        sizes = " ".join(f"{key} {layout[key]}" for key in ("tp", "cp", "pp", "dp_replicate", "dp_shard"))
        out += ["", f"{name} ({', '.join(model['roles'])})", f"  parameters      {model['parameters']:,}"]
        out.append(f"  tokens          {short(model['tokens'])}, {model['tokens_per_parameter']:,} per parameter")
        each = list(model["flops_per_token"].items())
        for seq_len, count in each[:1] if len(each) == 1 else [each[0], each[-1]]:
            out.append(
                f"  FLOPs per token {short(count['causal'])} causal, {short(count['full'])} full attention, "
                f"rows of {int(seq_len):,}"
            )
        out.append(f"  FLOPs in all    {model['flops']['causal']:.3e} causal, {model['flops']['full']:.3e} full")
        out.append(f"  precision       {PRECISIONS[model['precision']]}")
        out.append(f"  layout          {layout['processes']:,} processes: {sizes}")
        for where, key in (("in all", "total"), ("per rank", "per_rank")):
            each_part = state[key]
            out.append(
                f"  state {where:9} {bytes_text(each_part['sum'])}: weights {bytes_text(each_part['weights'])}, "
                f"gradients {bytes_text(each_part['gradients'])}, optimizer {bytes_text(each_part['optimizer'])}"
            )
    return out


def short(number: float) -> str:
    """A number with a unit: 15.6 T."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:,.0f}"


def bytes_text(count: int) -> str:
    """A number of bytes with a unit: 1.5 GiB."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count / 2**10:.4g} KiB"
