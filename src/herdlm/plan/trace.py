"""A planned step as a trace in Chrome's format: one row of slices for each pipeline rank, and one of its traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.base.artifact import write_text_durably
from herdlm.plan.in_flight import order_of
from herdlm.plan.job import Job
from herdlm.plan.timeline import Slice, Timeline, simulate

MICRO = 1e6  # the format counts microseconds
FORWARD = 1 / 3  # of a pass's time: a product has two of its size in the backward pass
INSIDE = ("gemm", "attention", "elementwise", "recompute", "launch", "tp", "cp", "pp")  # parts within micro-batches
COMPUTE, TRAFFIC = 0, 1  # rows of a rank


@dataclass(frozen=True, slots=True)
class Trace:
    """A step's slices as they were simulated, and its parts by the time model.

    Attributes:
        work: seconds of a micro-batch on the busiest rank.
        waiting: seconds of the simulated bubble on that rank; the time model's is the part "bubble".
    """

    timeline: Timeline
    parts: Mapping[str, float]
    work: float

    @property
    def waiting(self) -> float:
        """Seconds for which the busiest rank waits inside the pipeline."""
        return self.timeline.idle

    def events(self) -> list[dict[str, Any]]:
        """The trace's events, in microseconds."""
        return [*self._names(), *self._passes(), *self._rest()]

    def as_json(self) -> dict[str, Any]:
        """A file that Chrome's tracing page and Perfetto open."""
        return {
            "traceEvents": self.events(),
            "displayTimeUnit": "ms",
            "otherData": {"parts": dict(self.parts), "simulated_bubble": self.waiting},
        }

    def _names(self) -> Iterator[dict[str, Any]]:
        for rank in range(len(self.timeline.ranks)):
            yield {"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": f"pipeline rank {rank}"}}
            for row, name in ((COMPUTE, "passes"), (TRAFFIC, "communication")):
                yield {"ph": "M", "name": "thread_name", "pid": rank, "tid": row, "args": {"name": name}}

    def _passes(self) -> Iterator[dict[str, Any]]:
        inside = sum(self.parts[name] for name in INSIDE if name in self.parts)
        shares = {name: self.parts.get(name, 0.0) / inside if inside else 0.0 for name in ("tp", "cp", "pp")}
        for slices in self.timeline.ranks:
            for each in slices:
                yield _event(f"{each.kind} {each.micro}", each.kind, each.rank, COMPUTE, each.begin, each.end, _args(each))
                at = each.begin
                for name, share in shares.items():
                    spent = share * (each.end - each.begin)
                    if spent:
                        yield _event(name, "communication", each.rank, TRAFFIC, at, at + spent, _args(each))
                        at += spent

    def _rest(self) -> Iterator[dict[str, Any]]:
        """What follows the passes: traffic of data parallelism that is not hidden, the optimizer, waiting."""
        begin = self.timeline.seconds
        for name in ("dp", "optimizer", "offload", "loader", "waiting"):
            seconds = self.parts.get(name, 0.0)
            if not seconds:
                continue
            for rank in range(len(self.timeline.ranks)):
                row = TRAFFIC if name == "dp" else COMPUTE
                yield _event(name, name, rank, row, begin, begin + seconds, {})
            begin += seconds


def trace(job: Job, parts: Mapping[str, float], layers: Sequence[int]) -> Trace:
    """The trace of a step.

    Passes share the seconds of a micro-batch by the matrices of their stages, and a third of a pass is forward; what is
    not hidden of messages between stages is part of a pass, as in the time model.

    Args:
        parts: seconds of the step by part, from the time model.
        layers: of every pipeline stage.
    """
    shape, layout, micro = job.shape, job.layout, job.micro_batches
    work = sum(parts[name] for name in INSIDE if name in parts) / micro
    weights = [float(count) for count in layers]
    weights[-1] += shape.embedding_parameters / (shape.attention_weights + shape.mlp_weights)  # the head
    most = max(sum(weights[rank :: layout.pp]) for rank in range(layout.pp))
    again = parts.get("recompute", 0.0) / micro / work if work else 0.0
    split = layout.schedule == "zero-bubble" and layout.pp > 1
    forward = FORWARD * (1 - again)

    def seconds(kind: str, stage: int) -> float:
        whole = work * weights[stage] / most
        if kind == "forward":
            return whole * forward
        if kind == "weights":
            return whole * FORWARD * (1 - again)
        return whole * (1 - forward - (FORWARD * (1 - again) if split else 0.0))

    orders = order_of(layout.pp, layout.vpp, micro, layout.schedule)
    return Trace(simulate(orders, seconds), parts, work)


def write_trace(path: Path, job: Job, parts: Mapping[str, float], layers: Sequence[int]) -> None:
    """Write a step's trace as JSON."""
    write_text_durably(path, json.dumps(trace(job, parts, layers).as_json()) + "\n")


def _args(each: Slice) -> dict[str, int]:
    return {"stage": each.stage, "micro_batch": each.micro}


def _event(
    name: str, category: str, rank: int, row: int, begin: float, end: float, args: dict[str, int]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": rank,
        "tid": row,
        "ts": begin * MICRO,
        "dur": (end - begin) * MICRO,
        "args": args,
    }
