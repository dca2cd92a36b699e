"""Seconds of collectives: bytes over the link or the network of their group."""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine

SHARP = 0.76  # of a ring's time: 365 to 480 GB/s on 8 H100 or H200, whose rows the calibration file has


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rates of a machine's links under the constants of a fit."""

    machine: Machine
    constants: Constants

    def rate(self, members: int, stride: int) -> float:
        """Bytes per second of a ring through ``members`` ranks, ``stride`` GPUs apart.

        Inside a node it is the link's. Across nodes, each rank in a node uses a network card of its own, so a group
        with several ranks in each node has that many times the rate of one card, up to the link's.
        """
        link = self._link_rate
        if members * stride <= self.machine.gpus_per_node:
            return link
        inside = max(self.machine.gpus_per_node // stride, 1)
        cards = self.machine.network.rate(members, stride) * self.constants.network * inside
        return min(cards, link) if inside > 1 else cards

    @property
    def _link_rate(self) -> float:
        measured = self.machine.gpu.measured
        if measured and measured.collective_gb_s:
            return measured.collective_gb_s * 1e9
        return self.machine.link.gb_s * 1e9 * self.constants.link

    def latency(self, members: int, stride: int) -> float:
        """Seconds that a collective takes besides its bytes: a hop for each level of a tree."""
        inside = members * stride <= self.machine.gpus_per_node
        hop = self.machine.link.latency_us if inside else self.machine.network.latency_us
        return hop * 1e-6 * max((members - 1).bit_length(), 1)

    def gather(self, whole: float, members: int, stride: int) -> float:
        """Seconds of an all-gather or a reduce-scatter of ``whole`` bytes."""
        if members == 1:
            return 0.0
        return whole * (members - 1) / members / self.rate(members, stride) + self.latency(members, stride)

    def reduce(self, whole: float, members: int, stride: int) -> float:
        """Seconds of an all-reduce of ``whole`` bytes: in the switch, or a reduce-scatter and a gather."""
        if members == 1:
            return 0.0
        if self.machine.link.sharp and members * stride <= self.machine.gpus_per_node and members > 4:
            return SHARP * 2 * self.gather(whole, members, stride)
        return 2 * self.gather(whole, members, stride)

    def send(self, number_of_bytes: float, stride: int) -> float:
        """Seconds of a point-to-point message to the rank ``stride`` GPUs on."""
        if stride < self.machine.gpus_per_node:
            return number_of_bytes / self._link_rate + self.latency(2, 1)
        network = self.machine.network
        return number_of_bytes / (network.rate(2, stride) * self.constants.network) + network.latency_us * 1e-6
