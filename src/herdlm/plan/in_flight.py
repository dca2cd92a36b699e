"""What a pipeline rank holds at each moment of a step, counted in the order in which the rank really works."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from herdlm.parallel.schedule import Action, forward_order, make_schedule

ROUNDS = 3  # of the pipeline, after which what a rank holds repeats itself


@dataclass(frozen=True, slots=True)
class Moments:
    """The distinct moments of one rank, one row each; columns are the rank's stages, first to last.

    Attributes:
        in_flight: micro-batches whose forward pass has run and whose backward pass has not ended.
        deferred: micro-batches whose weight gradients are still to be computed (zero-bubble).
        gathered: 1 from a stage's first forward pass to the end of its last backward pass.
        summed: 1 while a stage has gradients of its own that are not reduced.
        reduced: 1 once its gradients are reduced.
        forward, backward, final: 1 where that pass runs; ``final`` where the last backward pass reduces gradients.
    """

    in_flight: NDArray[np.int64]
    deferred: NDArray[np.int64]
    gathered: NDArray[np.int64]
    summed: NDArray[np.int64]
    reduced: NDArray[np.int64]
    forward: NDArray[np.int64]
    backward: NDArray[np.int64]
    final: NDArray[np.int64]


FIELDS = tuple(Moments.__annotations__)


def order_of(pp: int, vpp: int, micro_batches: int, schedule: str) -> list[list[Action]]:
    """The actions of each rank in order; "gpipe" runs all forward passes before the first backward pass."""
    if schedule != "gpipe":
        return make_schedule(pp, vpp, micro_batches, schedule == "zero-bubble" and pp > 1)
    return [
        [*forwards, *(Action("backward", each.stage, each.micro) for each in forwards)]
        for forwards in forward_order(pp, 1, micro_batches)
    ]


def moments(pp: int, vpp: int, micro_batches: int, schedule: str) -> list[Moments]:
    """The moments of each rank; long steps are cut to a few rounds of the pipeline, which have the same ones."""
    if micro_batches > (ROUNDS + 1) * pp:
        micro_batches = ROUNDS * pp + micro_batches % pp
    return _moments(pp, vpp, micro_batches, schedule)


@cache
def _moments(pp: int, vpp: int, micro_batches: int, schedule: str) -> list[Moments]:
    split = schedule == "zero-bubble" and pp > 1
    return [_walk(order, pp, vpp, split) for order in order_of(pp, vpp, micro_batches, schedule)]


def _walk(order: list[Action], pp: int, vpp: int, split: bool) -> Moments:
    held = {name: [0] * vpp for name in FIELDS}
    rows: set[tuple[int, ...]] = set()
    last = {action.stage: place for place, action in enumerate(order) if action.kind == "backward"}
    end = {action.stage: place for place, action in enumerate(order)}

    def note(kind: str, chunk: int) -> None:
        held[kind][chunk] = 1
        rows.add(tuple(value for name in FIELDS for value in held[name]))
        held[kind][chunk] = 0

    for place, action in enumerate(order):
        chunk = action.stage // pp
        if action.kind == "forward":
            held["gathered"][chunk] = 1
            held["in_flight"][chunk] += 1
            note("forward", chunk)
            continue
        if action.kind == "backward":
            note("backward", chunk)
            held["in_flight"][chunk] -= 1
            held["deferred"][chunk] += split
        else:
            note("backward", chunk)
            held["deferred"][chunk] -= 1
        held["summed"][chunk] = 1
        if place == (end if split else last)[action.stage]:
            held["in_flight"][chunk] += not split
            note("final", chunk)
            held["in_flight"][chunk] -= not split
            held["gathered"][chunk] = held["summed"][chunk] = 0
            held["reduced"][chunk] = 1
    rows.add(tuple(value for name in FIELDS for value in held[name]))
    table = np.array(sorted(rows), dtype=np.int64).reshape(len(rows), len(FIELDS), vpp)
    return Moments(*(table[:, place] for place in range(len(FIELDS))))
