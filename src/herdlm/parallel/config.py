"""Recipe keys of a layout, and the layouts that work for a model on a number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Literal

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.model.config import ModelConfig
from herdlm.parallel.sharding import indivisible, run_of

NEAREST = 3
MAX_PROCESSES = 2**20


class ParallelConfig(Section):
    """How many processes each dimension has, and how they run a step.

    Tensor parallelism always includes sequence parallelism: between its matrices, activations are cut along the
    sequence. Data parallelism is ``dp_replicate`` copies of ``dp_shard`` shards (HSDP).
    """

    tp: int = Field(
        1, ge=1, le=MAX_PROCESSES, description="tensor parallel: heads, feed-forward and vocabulary are cut"
    )
    cp: int = Field(1, ge=1, le=MAX_PROCESSES, description="context parallel: the sequence is cut")
    pp: int = Field(1, ge=1, le=MAX_PROCESSES, description="pipeline parallel: the layers are cut")
    dp_replicate: int = Field(1, ge=1, le=MAX_PROCESSES, description="data parallel: copies of the sharded model")
    dp_shard: int = Field(
        -1, ge=-1, le=MAX_PROCESSES, description="data parallel: shards of a copy; -1 uses the remaining processes"
    )
    reshard_after_forward: bool = Field(False, description="free gathered weights between forward and backward")
    pipeline_schedule: Literal["1f1b", "interleaved", "zero-bubble"] = "1f1b"
    stages_per_rank: int = Field(
        1, ge=1, le=2048, description="pipeline stages on each rank; interleaved needs 2 or more"
    )
    layers_per_stage: tuple[int, ...] | None = Field(
        None, description="of each pipeline stage; default: spread evenly, with one less on the first and the last"
    )
    rows_per_micro_batch: int | None = Field(
        None,
        ge=1,
        description="split micro-batches further, so that a data-parallel rank, or the only process, has at most this "
        "many rows of each",
    )
    activation_checkpointing: Literal["none", "layer", "selective"] = "none"
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of processes in each dimension; their product is the number of all processes."""

    tp: int
    cp: int
    pp: int
    dp_replicate: int
    dp_shard: int

    @property
    def dp(self) -> int:
        """All data-parallel ranks."""
        return self.dp_replicate * self.dp_shard

    @property
    def sharded(self) -> int:
        """The number of FSDP shards; context-parallel ranks use the same weights, so they take part."""
        return self.dp_shard * self.cp

    @property
    def row_pieces(self) -> int:
        """The number of equal pieces of a row; its length must be a multiple."""
        return self.tp if self.cp == 1 else 2 * self.cp * self.tp

    def __str__(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in ("tp", "cp", "pp", "dp_replicate", "dp_shard"))


def sizes_for(config: ParallelConfig, world: int, model: ModelConfig, seq_len: int | None = None) -> Sizes:
    """The sizes of ``config`` on ``world`` processes; allocates nothing.

    Raises:
        InputError: the keys do not fit together, the model or the processes; the message lists the nearest layouts
            that work.
    """
    without = config.tp * config.cp * config.pp * config.dp_replicate
    left = config.dp_shard if config.dp_shard > 0 else max(world // without, 1)
    sizes = Sizes(config.tp, config.cp, config.pp, config.dp_replicate, left)
    problem = find_problem(config, sizes, world, model, seq_len)
    if problem is None:
        return sizes
    near = nearest_layouts(config, sizes, world, model, seq_len)
    remedy = f"Layouts that work: {'; '.join(map(str, near))}" if near else "No layout of this many processes works"
    raise InputError(problem, remedy)


def find_problem(
    config: ParallelConfig, sizes: Sizes, world: int, model: ModelConfig, seq_len: int | None
) -> str | None:
    """The first problem of a layout, or None."""
    return next(chain(_size_problems(config, sizes, world, model, seq_len), _step_problems(config, sizes, model)), None)


def _size_problems(
    config: ParallelConfig, sizes: Sizes, world: int, model: ModelConfig, seq_len: int | None
) -> Iterator[str]:
    if config.dp_shard == 0:
        yield "parallel.dp_shard is 0: give a number of shards, or -1 for the remaining processes"
    count = sizes.tp * sizes.cp * sizes.pp * sizes.dp
    if count != world:
        yield f"parallel.tp x cp x pp x dp_replicate x dp_shard ({sizes}) is {count}, but there are {world} processes"
    for name, size in indivisible(model, sizes.tp).items():
        yield f"model.{name} {size} is not a multiple of parallel.tp {sizes.tp}"
    if not run_of(model.vocab_size, sizes.tp, sizes.tp - 1):
        yield f"model.vocab_size {model.vocab_size} leaves a rank of parallel.tp {sizes.tp} without entries"
    if model.vocab_size % sizes.tp and model.dim % sizes.sharded:
        yield (
            f"model.vocab_size {model.vocab_size} is not a multiple of parallel.tp {sizes.tp}, and model.dim "
            f"{model.dim} is not a multiple of parallel.dp_shard x cp {sizes.sharded}: one of the two must be"
        )
    if seq_len is not None and seq_len % sizes.row_pieces:
        rule = "parallel.tp" if sizes.cp == 1 else "2 x parallel.cp x parallel.tp"
        yield f"seq_len {seq_len} is not a multiple of {rule} = {sizes.row_pieces}"


def _step_problems(config: ParallelConfig, sizes: Sizes, model: ModelConfig) -> Iterator[str]:
    schedule, given = config.pipeline_schedule, config.layers_per_stage
    stages = sizes.pp * config.stages_per_rank
    if config.compile and config.activation_checkpointing == "selective":
        yield (
            "parallel.compile does not work with activation_checkpointing 'selective': a compiled layer has no single "
            "operations to select from"
        )
    if sizes.pp == 1:
        if schedule != "1f1b" or config.stages_per_rank > 1 or given is not None:
            yield "parallel.pipeline_schedule, stages_per_rank and layers_per_stage need parallel.pp above 1"
        return
    if (schedule == "interleaved") != (config.stages_per_rank > 1):
        yield f"parallel.pipeline_schedule {schedule!r} does not work with stages_per_rank {config.stages_per_rank}"
    if schedule == "zero-bubble" and config.reshard_after_forward and sizes.sharded * sizes.dp_replicate > 1:
        yield (
            "parallel.pipeline_schedule 'zero-bubble' does not work with reshard_after_forward: deferred weight "
            "gradients would be lost with the weights that were freed"
        )
    if schedule == "zero-bubble" and config.compile:
        yield "parallel.pipeline_schedule 'zero-bubble' does not work with compile: a compiled backward cannot be split"
    if model.head == "lm" and model.tied_embeddings:
        yield f"model.tied_embeddings does not work with parallel.pp {sizes.pp}: its two uses are on different stages"
    if given is not None and (len(given) != stages or sum(given) != model.layers or min(given) < 0):
        yield (
            f"parallel.layers_per_stage {list(given)} must be {stages} numbers (pp x stages_per_rank) that add up to "
            f"model.layers {model.layers}"
        )
    if given is None and model.layers < stages:
        yield f"model.layers {model.layers} is too few for {stages} stages (parallel.pp x stages_per_rank)"


def nearest_layouts(
    config: ParallelConfig, wanted: Sizes, world: int, model: ModelConfig, seq_len: int | None
) -> list[Sizes]:
    """The layouts of ``world`` processes that work and are nearest to ``wanted``, by the factors between sizes."""
    divisors = [d for d in range(1, world + 1) if world % d == 0]
    found: list[tuple[float, Sizes]] = []
    for tp, cp, pp, replicate in product(divisors, repeat=4):
        if world % (tp * cp * pp * replicate):
            continue
        sizes = Sizes(tp, cp, pp, replicate, world // (tp * cp * pp * replicate))
        changed = {} if config.dp_shard < 1 else {"dp_shard": sizes.dp_shard}
        if find_problem(config.model_copy(update=changed), sizes, world, model, seq_len) is None:
            steps = [
                abs(math.log2(getattr(sizes, name) / getattr(wanted, name)))
                for name in ("tp", "cp", "pp", "dp_replicate")
            ]
            found.append((sum(steps), sizes))
    found.sort(key=lambda pair: (pair[0], str(pair[1])))
    return [sizes for _, sizes in found[:NEAREST]]


def split_layers(
    layers: int, stages: int, given: tuple[int, ...] | None = None, *, lighter_ends: bool = True
) -> list[range]:
    """The layers of each pipeline stage.

    Args:
        given: the number of layers of each stage; None spreads them evenly.
        lighter_ends: count embedding and head as a layer each, so that the first and the last stage hold one layer less
            where the numbers allow it (Llama 3 report, section 3.3.2: hence 126 layers).
    """
    if given is not None:
        counts = list(given)
    elif not lighter_ends or layers + 2 < 2 * stages:  # too few to spare one
        counts = [layers // stages + (s < layers % stages) for s in range(stages)]
    else:
        each, extra = divmod(layers + 2, stages)
        # The remainder goes to the middle stages first: the ends have the embedding and the logits.
        first_served = [*range(1, stages - 1), 0, stages - 1]
        counts = [each + (s in first_served[:extra]) for s in range(stages)]
        counts[0] -= 1
        counts[-1] -= 1
    ends = [sum(counts[: s + 1]) for s in range(stages)]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
