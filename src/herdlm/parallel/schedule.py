"""The order in which each pipeline rank does its forward and backward passes, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

Kind = Literal["forward", "backward", "weights"]


@dataclass(frozen=True, slots=True)
class Action:
    """One pass of a stage over a micro-batch. Where backward is split, "weights" is its second half."""

    kind: Kind
    stage: int
    micro: int


@dataclass(slots=True)
class _Rank:
    """A rank's remaining actions in order, and when it is free again."""

    forwards: list[Action]
    backwards: list[Action]
    limit: int
    weights: list[Action] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)
    in_flight: int = 0
    free_at: int = 0


@cache
def make_schedule(ranks: int, stages_per_rank: int, micro_batches: int, split: bool = False) -> list[list[Action]]:
    """The actions of each rank in order; stage s is on rank s % ranks.

    With one stage per rank this is 1F1B, with more its interleaved form (Narayanan et al., arXiv 2104.04473), for any
    number of micro-batches: they go through a rank's stages in groups of ``ranks``, the last of which may be smaller.
    With ``split``, the backward pass computes the gradients of inputs only, and those of weights fill the bubbles (Qi
    et al., arXiv 2401.10241). The order comes from a simulation of the step with a backward twice as long as a forward,
    so it can always run. A rank keeps no more passes in flight than the unsplit schedule needs, and with ``split`` no
    rank has more of them unfinished than the first.
    """
    every = ranks * stages_per_rank
    plans = [_plan(rank, ranks, stages_per_rank, micro_batches) for rank in range(ranks)]
    finished: dict[Action, int] = {}
    now = 0

    def ready(action: Action) -> bool:
        if action.kind == "forward":
            needed = Action("forward", action.stage - 1, action.micro) if action.stage else None
        elif action.stage == every - 1:
            needed = Action("forward", action.stage, action.micro)
        else:
            needed = Action("backward", action.stage + 1, action.micro)
        return needed is None or finished.get(needed, now + 1) <= now

    def choose(plan: _Rank) -> Action | None:
        if plan.in_flight + len(plan.weights) >= max(plan.limit, every) and plan.weights:
            return plan.weights.pop(0)
        forward = bool(plan.forwards) and plan.in_flight < plan.limit and ready(plan.forwards[0])
        backward = bool(plan.backwards) and ready(plan.backwards[0])
        if forward and (not backward or (plan.done and plan.done[-1].kind == "backward")):  # one forward, one backward
            plan.in_flight += 1
            return plan.forwards.pop(0)
        if backward:
            plan.in_flight -= 1
            return plan.backwards.pop(0)
        return plan.weights.pop(0) if plan.weights else None

    while any(plan.forwards or plan.backwards or plan.weights for plan in plans):
        for plan in plans:
            if plan.free_at <= now and (action := choose(plan)):
                seconds = 2 if action.kind == "backward" and not split else 1
                finished[action] = plan.free_at = now + seconds
                plan.done.append(action)
                if action.kind == "backward" and split:
                    plan.weights.append(Action("weights", action.stage, action.micro))
        if all(plan.free_at <= now for plan in plans):  # deadlock: allow one more pass in flight
            for plan in plans:
                plan.limit += 1
        now += 1
    return [plan.done for plan in plans]


def forward_order(ranks: int, stages_per_rank: int, micro_batches: int) -> list[list[Action]]:
    """The passes of each rank in order, without backward passes."""
    return [_plan(rank, ranks, stages_per_rank, micro_batches).forwards for rank in range(ranks)]


def _plan(rank: int, ranks: int, stages_per_rank: int, micro_batches: int) -> _Rank:
    forwards, backwards = [], []
    for first in range(0, micro_batches, ranks):
        group = range(first, min(first + ranks, micro_batches))
        for chunk in range(stages_per_rank):
            forwards += [Action("forward", chunk * ranks + rank, micro) for micro in group]
            backwards += [Action("backward", (stages_per_rank - 1 - chunk) * ranks + rank, micro) for micro in group]
    limit = ranks - rank if stages_per_rank == 1 else 2 * (ranks - rank - 1) + (stages_per_rank - 1) * ranks + 1
    return _Rank(forwards, backwards, limit)
