"""A step of a pipeline in time: when each rank runs which pass, and when it waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from herdlm.parallel.schedule import Action


@dataclass(frozen=True, slots=True)
class Slice:
    """A pass on a pipeline rank, in seconds from the step's begin; ``kind`` as in the schedule."""

    rank: int
    kind: str
    stage: int
    micro: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """All passes of a step, by rank in order."""

    ranks: list[list[Slice]]

    @property
    def seconds(self) -> float:
        """Until the last rank is done."""
        return max((slices[-1].end for slices in self.ranks if slices), default=0.0)

    def busy(self, rank: int) -> float:
        """Seconds in which a rank works."""
        return sum(each.end - each.begin for each in self.ranks[rank])

    @property
    def idle(self) -> float:
        """Seconds for which the busiest rank waits."""
        return self.seconds - max(self.busy(rank) for rank in range(len(self.ranks)))


def simulate(
    orders: Sequence[Sequence[Action]], seconds: Callable[[str, int], float], sent: float = 0.0
) -> Timeline:
    """When each pass runs if every rank keeps to its order and starts a pass as soon as its input is there.

    Args:
        orders: the actions of each rank; stage s is on rank s % ranks.
        seconds: of a pass of a kind on a stage.
        sent: seconds that a message between ranks takes.

    Raises:
        ValueError: the orders wait for each other.
    """
    ranks = len(orders)
    last = max((action.stage for order in orders for action in order), default=0)
    ends: dict[tuple[str, int, int], float] = {}
    free, places = [0.0] * ranks, [0] * ranks
    found: list[list[Slice]] = [[] for _ in orders]
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(orders):
            while places[rank] < len(order):
                action = order[places[rank]]
                ready = _ready(action, last, ranks, ends, sent)
                if ready is None:
                    break
                begin = max(free[rank], ready)
                free[rank] = begin + seconds(action.kind, action.stage)
                ends[action.kind, action.stage, action.micro] = free[rank]
                found[rank].append(Slice(rank, action.kind, action.stage, action.micro, begin, free[rank]))
                places[rank] += 1
                moved = True
    if any(place < len(order) for place, order in zip(places, orders, strict=True)):
        raise ValueError("the ranks of this order wait for each other")
    return Timeline(found)


def _ready(
    action: Action, last: int, ranks: int, ends: dict[tuple[str, int, int], float], sent: float
) -> float | None:
    """When the input of an action is on its rank; None if what makes it has not run."""
    if action.kind == "weights":
        return ends.get(("backward", action.stage, action.micro))
    if action.kind == "forward":
        if not action.stage:
            return 0.0
        source = ("forward", action.stage - 1, action.micro)
    elif action.stage == last:
        return ends.get(("forward", action.stage, action.micro))
    else:
        source = ("backward", action.stage + 1, action.micro)
    end = ends.get(source)
    return None if end is None else end + (sent if ranks > 1 else 0.0)
