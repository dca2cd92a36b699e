"""What a dry run found about one rank, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STATE = ("weights", "gradients", "optimizer")
CATEGORIES = (*STATE, "gathered", "accumulated", "communication", "activations", "temporary", "cache")


@dataclass(frozen=True, slots=True)
class Collective:
    """All calls of one kind in a group.

    Attributes:
        kind: all-gather, reduce-scatter, all-reduce, broadcast, gather, send, receive, barrier.
        group: the dimension of the mesh that it is over.
        ranks: of the group.
        dtype: of the tensor.
        count: number of calls.
        bytes: of all calls: the whole tensor, that is a gather's result, and what a scatter reads.
    """

    kind: str
    group: str
    ranks: int
    dtype: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Flops:
    """One operation: how often it ran, and its FLOPs; of attention, those that a causal mask keeps."""

    operation: str
    count: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """One rank's step.

    Attributes:
        rank: among all ``ranks``.
        place: its index in each dimension of the mesh.
        layers: of its pipeline stages, by number of the stage.
        micro_batches: of the step.
        parameters: values that it holds.
        at_peak: bytes by category at the moment when their sum was largest. Weights, gradients and optimizer state are
            what a rank keeps; ``gathered`` are whole weights of FSDP, ``accumulated`` gradients that are not reduced
            yet, ``communication`` buffers of FSDP, ``activations`` what forward passes keep and work with, and
            ``temporary`` what backward passes and the optimizer work with. ``cache`` holds keys and values.
        highest: the most bytes of each category at any time.
        activations_in_flight: the most bytes of activations after a forward pass, by the number of passes of a stage
            whose backward pass is still to come.
        seconds: that the dry run took.
    """

    rank: int
    ranks: int
    place: dict[str, int]
    layers: dict[int, tuple[int, int]]
    objective: str
    micro_batches: int
    parameters: int
    at_peak: dict[str, int]
    highest: dict[str, int]
    activations_in_flight: dict[int, int]
    collectives: tuple[Collective, ...]
    flops: tuple[Flops, ...]
    seconds: float

    @property
    def peak(self) -> int:
        """The most bytes at any time."""
        return sum(self.at_peak.values())

    @property
    def total_flops(self) -> int:
        """FLOPs of all operations."""
        return sum(each.flops for each in self.flops)

    def as_json(self) -> dict[str, Any]:
        """The report for machines, with sums."""
        return asdict(self) | {"peak": self.peak, "total_flops": self.total_flops}
