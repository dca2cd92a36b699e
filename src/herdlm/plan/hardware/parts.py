"""The parts of a cluster: a GPU, the link in its node, and the network between nodes."""

from __future__ import annotations

from dataclasses import dataclass

TERA, GIGA, MICRO = 1e12, 1e9, 1e-6


@dataclass(frozen=True, slots=True)
class Measured:
    """What ``herdlm calibrate`` measured of a machine; 0 where it did not.

    Attributes:
        gemm_tflops: the best rate of a large matrix product in BF16.
        gemm_ramp: the size of a dimension at which half of that rate is lost to it.
        attention_tflops: of attention, forward and backward, counting what a causal mask keeps.
        memory_gb_s: of reading and writing memory.
        collective_gb_s: bus bandwidth of a large all-reduce in a node.
    """

    gemm_tflops: float = 0.0
    gemm_ramp: float = 0.0
    attention_tflops: float = 0.0
    memory_gb_s: float = 0.0
    collective_gb_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU (or another device) by its specification: dense FLOP/s, bytes, bytes/s, watts and dollars per hour.

    Attributes:
        architecture: "ampere", "hopper", "blackwell" or "other"; the fitted shares of the peak rate go by it.
        host_gb_s: GB/s to the host's memory in one direction.
        sustained: the rate of products that go on for long, over that of a Hopper at 700 W as a share of the peak.
    """

    name: str
    bf16_tflops: float
    fp8_tflops: float
    memory_gib: float
    memory_tb_s: float
    watts: float
    dollars_per_hour: float
    system: str
    architecture: str
    host_gb_s: float = 50.0
    sustained: float = 1.0
    names: tuple[str, ...] = ()
    measured: Measured | None = None

    def peak(self, precision: str) -> float:
        """FLOP/s of dense products in "bf16" or "fp8"."""
        return (self.fp8_tflops if precision == "fp8" else self.bf16_tflops) * TERA

    @property
    def memory_rate(self) -> float:
        """Bytes per second of its memory."""
        return self.memory_tb_s * TERA


@dataclass(frozen=True, slots=True)
class Link:
    """The link between GPUs of a node: GB/s of one GPU in one direction.

    Attributes:
        sharp: the switch adds up all-reduces itself.
    """

    name: str
    kind: str
    gb_s: float
    latency_us: float
    sharp: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A level of a network: up to ``gpus`` GPUs (0: any number) communicate at 1 / ``oversubscription`` of the rate."""

    name: str
    gpus: int
    oversubscription: float


@dataclass(frozen=True, slots=True)
class Network:
    """The network between nodes: GB/s of one GPU in one direction, and its levels from small to large."""

    name: str
    kind: str
    gb_s: float
    latency_us: float
    levels: tuple[Level, ...]

    def rate(self, members: int, stride: int) -> float:
        """Bytes per second that each of ``members`` ranks, ``stride`` GPUs apart, has for a ring through them.

        A ring that is laid along the levels leaves a part of a level (a pod) once. ``stride`` such rings, or as many as
        the part has GPUs, share what leaves it: its GPUs' rate over the oversubscription of the level above.
        """
        rate, inner, span = self.gb_s * GIGA, 1, members * stride
        for level in self.levels:
            if inner > 1:
                leaving = inner * self.gb_s * GIGA / level.oversubscription
                rate = min(rate, leaving / min(stride, inner))
            else:
                rate /= level.oversubscription
            if not level.gpus or span <= level.gpus:
                break
            inner = level.gpus
        return rate


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU with its node and network."""

    gpu: Gpu
    gpus_per_node: int
    link: Link
    network: Network
