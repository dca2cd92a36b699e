"""What a pipeline rank holds at each moment of a step, counted in the order in which the rank really works."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from herdlm.parallel.schedule import Action, forward_order, make_schedule

ROUNDS = 2  # of the pipeline, after which what a rank holds repeats itself


@dataclass(frozen=True, slots=True)
class Moments:
    """The moments of one rank, one row each; columns are the rank's stages, first to last.

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



def order_of(pp: int, vpp: int, micro_batches: int, schedule: str) -> list[list[Action]]:
    """The actions of each rank in order; "gpipe" runs all forward passes before the first backward pass."""
    if schedule != "gpipe":
        return make_schedule(pp, vpp, micro_batches, schedule == "zero-bubble" and pp > 1)
    return [
        [*forwards, *(Action("backward", each.stage, each.micro) for each in forwards)]
        for forwards in forward_order(pp, 1, micro_batches)
    ]


def moments(pp: int, vpp: int, micro_batches: int, schedule: str, rank: int) -> Moments:
    """The moments of a rank; long steps are cut to a few rounds of the pipeline, which have the same ones."""
    if micro_batches > (ROUNDS + 1) * pp and schedule != "gpipe":
        micro_batches = ROUNDS * pp + micro_batches % pp
    return _moments(pp, vpp, micro_batches, schedule, rank)


@cache
def _moments(pp: int, vpp: int, micro_batches: int, schedule: str, rank: int) -> Moments:
    order = order_of(pp, vpp, micro_batches, schedule)[rank]
    return _walk(order, pp, vpp, schedule == "zero-bubble" and pp > 1)


def _walk(order: list[Action], pp: int, vpp: int, split: bool) -> Moments:
    """A moment for every action, while it runs, one for every reduction of a stage's gradients, and the end."""
    stages = np.array([action.stage // pp for action in order])
    here = np.eye(vpp, dtype=np.int64)[stages]
    kinds = np.array([action.kind for action in order])
    forward, backward, weights = (here * (kinds == kind)[:, None] for kind in ("forward", "backward", "weights"))
    last = weights if split else backward
    final = last * (last.cumsum(0) == last.sum(0))
    done = _before(final)
    columns = {
        "in_flight": forward.cumsum(0) - _before(backward),
        "deferred": (_before(backward) - _before(weights)) * split,
        "gathered": (forward.cumsum(0) > 0) - done,
        "summed": (_before(backward) > 0) - done,
        "reduced": done,
        "forward": forward,
        "backward": backward + weights,
        "final": 0 * final,
    }
    ends = np.flatnonzero(final.any(1))
    reductions = {name: values[ends] for name, values in columns.items()}
    reductions |= {"backward": 0 * final[ends], "final": final[ends]}
    reductions["summed"] = reductions["summed"] | final[ends]
    nothing = np.zeros((1, vpp), dtype=np.int64)
    end = dict.fromkeys(columns, nothing) | {"reduced": nothing + 1}
    return Moments(**{name: np.concatenate([columns[name], reductions[name], end[name]]) for name in columns})


def _before(events: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of events before each place."""
    return np.concatenate([np.zeros_like(events[:1]), events.cumsum(0)[:-1]])
