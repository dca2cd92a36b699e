"""The layouts that divide a job: heads, layers, rows and GPUs, with tensor parallelism inside a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from herdlm.parallel.sharding import run_of
from herdlm.plan.job import Job, Layout, Precision, Recompute, Schedule, Shape
from herdlm.plan.published import virtual_stages

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
ROWS = (1, 2, 4, 8)  # of a micro-batch
CHUNK = 512  # the fewest tokens of a row between matrices: shorter pieces leave a GPU idle
SHARDS = 2  # sizes of dp_shard that are tried, from all ranks down by fours
DEEPEST = 64  # pipeline ranks


@dataclass(frozen=True, slots=True)
class Question:
    """What a layout is looked for.

    Attributes:
        gpus: the most GPUs; a layout may leave some idle.
        node: GPUs of a node.
        given: fields of :class:`Layout` that are fixed.
    """

    shape: Shape
    gpus: int
    gpu: str
    seq_len: int
    tokens_per_step: int
    node: int = 8
    precision: Precision = "bf16"
    software: str | None = None
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.tokens_per_step // self.seq_len


def jobs(question: Question, least: int = 1) -> Iterator[Job]:
    """Every job that divides, on ``least`` GPUs or more."""
    for tp, cp, pp in _inner(question):
        for dp in _divisors(question.rows, question.gpus // (tp * cp * pp)):
            if tp * cp * pp * dp < least:
                continue
            for layout in _layouts(question, tp, cp, pp, dp):
                yield Job(
                    question.shape,
                    layout,
                    layout.gpus,
                    question.gpu,
                    question.seq_len,
                    question.tokens_per_step,
                    question.software,
                )


def _inner(question: Question) -> Iterator[tuple[int, int, int]]:
    """Sizes of tensor, context and pipeline parallelism that divide the shape and the rows."""
    shape, length = question.shape, question.seq_len
    for tp in _sizes(question, "tp", min(question.node, question.gpus)):
        if question.node % tp or any(n % tp for n in (shape.heads, shape.kv_heads, shape.ffn)) or length % tp:
            continue
        if not run_of(shape.vocab, tp, tp - 1):
            continue
        for cp in _sizes(question, "cp", question.gpus // tp):
            if cp > 1 and (length % (2 * cp * tp) or length < 2 * cp * tp * CHUNK):
                continue
            for pp in _sizes(question, "pp", question.gpus // (tp * cp)):
                if pp <= shape.layers and not (pp > 1 and shape.tied):
                    yield tp, cp, pp


def _layouts(question: Question, tp: int, cp: int, pp: int, dp: int) -> Iterator[Layout]:
    for schedule, vpp in _schedules(question, pp):
        for micro in _wanted(question, "micro_batch", ROWS):
            if question.rows // dp % micro:
                continue
            for shard in _shards(question, dp, cp, tp):
                for reshard in _wanted(question, "reshard_after_forward", (False, True) if pp == 1 else (False,)):
                    for recompute in _wanted(question, "recompute", RECOMPUTE):
                        yield Layout(
                            tp=tp,
                            cp=cp,
                            pp=pp,
                            vpp=vpp,
                            dp_shard=shard,
                            dp_replicate=dp // shard,
                            micro_batch=micro,
                            schedule=schedule,
                            recompute=recompute,
                            precision=question.precision,
                            reshard_after_forward=reshard and shard * cp > 1,
                            **{
                                name: question.given[name]
                                for name in ("offload", "sharding", "async_tp")
                                if name in question.given
                            },
                        )


def _schedules(question: Question, pp: int) -> Iterator[tuple[Schedule, int]]:
    """Pipeline schedules with their stages per rank; all stages have as many layers, where that is possible."""
    given = question.given
    if pp == 1:
        if given.get("vpp", 1) == 1:
            yield "1f1b", 1
        return
    for vpp in _wanted(question, "vpp", virtual_stages(question.shape.layers, pp)):
        kinds: tuple[Schedule, ...] = ("1f1b", "zero-bubble") if vpp == 1 else ("interleaved",)
        for schedule in kinds:
            if given.get("schedule", schedule) == schedule and pp * vpp <= question.shape.layers:
                yield schedule, vpp


def _shards(question: Question, dp: int, cp: int, tp: int) -> list[int]:
    """Sizes of dp_shard; a vocabulary that tensor parallelism cuts unevenly is cut along D instead."""
    found = [dp // 4**power for power in range(SHARDS) if dp % 4**power == 0]
    wanted = _wanted(question, "dp_shard", found)
    uneven = question.shape.vocab % tp != 0
    return [n for n in wanted if dp % n == 0 and not (uneven and question.shape.hidden % (n * cp))]


def _wanted(question: Question, name: str, values: Any) -> Any:
    """The value that is given, or all."""
    return (question.given[name],) if name in question.given else values


def _sizes(question: Question, name: str, most: int) -> list[int]:
    if name in question.given:
        return [question.given[name]] if question.given[name] <= most else []
    if name == "tp":
        return _divisors(question.node, most)
    powers = [2**power for power in range(21) if 2**power <= most]
    if name == "cp":
        return powers
    layers = question.shape.layers
    even = [n for n in range(1, min(most, DEEPEST) + 1) if layers % n == 0 or (layers + 2) % n == 0]
    return sorted({*even, *(n for n in powers if n <= DEEPEST)})


def _divisors(number: int, most: int) -> list[int]:
    return [n for n in range(1, min(number, most) + 1) if number % n == 0]
