"""Seconds of a training step: micro-batches, the pipeline's bubble, traffic of data parallelism, optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job
from herdlm.plan.kernels import BF16, FP32, Kernels
from herdlm.plan.layer_time import MicroBatch
from herdlm.plan.stacks import OWN, Stack, stack_named
from herdlm.plan.traffic import Traffic

UPDATE_BYTES = 34  # of memory traffic for a parameter: weight, gradient and two moments read, three written, BF16 copy
STORAGE = 122e6  # bytes per second of storage for each GPU (Llama 3 report: 2 TB/s for 16,384)
TOKEN = 4  # bytes
HOST_UPDATE = 20e9  # bytes per second of the host's memory for each GPU, in which it updates parameters
PARTS = (
    "gemm", "attention", "elementwise", "recompute", "launch", "tp", "cp", "pp", "bubble", "dp", "optimizer", "offload",
    "loader", "waiting",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A step's seconds by part, and what they come from."""

    parts: dict[str, float]
    micro_batches: int
    micro_batch_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return sum(self.parts.values())


def stage_layers(job: Job, stack: Stack) -> list[int]:
    """Layers of each pipeline stage.

    Embedding and head count as a layer each, so the first and the last stage have one less (Llama 3 report, section
    3.3.2); other stacks spread them evenly where the number allows it.
    """
    stages, layers = job.layout.pp * job.layout.vpp, job.shape.layers
    if stages == 1 or (layers % stages == 0 and stack.name != OWN):
        return [layers // stages] * stages
    each, extra = divmod(layers + 2, stages)
    first_served = [*range(1, stages - 1), 0, stages - 1]
    counts = [each] * stages
    for stage in first_served[:extra]:
        counts[stage] += 1
    counts[0] -= 1
    counts[-1] -= 1
    return counts


def step_time(job: Job, machine: Machine, constants: Constants, stack: Stack | None = None) -> Step:
    """Seconds of a step of ``job``; docs/planner.md has the formulas."""
    stack = stack or stack_named(job.software)
    layout = job.layout
    work = MicroBatch(job, machine, constants, stack)
    counts = stage_layers(job, stack)
    by_rank = [sum(counts[rank :: layout.pp]) for rank in range(layout.pp)]
    layer, head = work.layer(), work.head()
    most = max(by_rank)
    slowest = layer.times(most)
    last = layer.times(by_rank[-1]) + head
    slowest = max(slowest, last, key=lambda seconds: seconds.sum)
    micro = job.micro_batches
    accumulated = _accumulated(job, most, machine, constants, stack) if micro > 1 else 0.0
    sent = _pipeline_traffic(job, machine, constants, stack, work.tokens)
    each = slowest.sum + accumulated + sent
    parts = {name: micro * getattr(slowest, name) for name in PARTS if hasattr(slowest, name)}
    parts["elementwise"] += micro * accumulated
    parts["pp"] = micro * sent
    parts["bubble"] = each * idle(job, micro)
    parts["dp"] = _data_traffic(job, machine, constants, stack, each, most)
    parts["optimizer"], parts["offload"] = _update(job, machine, constants, stack, most, each)
    busy = sum(parts.values())
    parts["loader"] = max(TOKEN * job.tokens_per_step / job.gpus / STORAGE - busy, 0.0)
    parts["waiting"] = busy * constants.spread * log2(job.gpus) if job.gpus > 1 else 0.0
    return Step({name: parts[name] for name in PARTS}, micro, each)


def idle(job: Job, micro: int) -> float:
    """Micro-batches' worth of time for which a rank waits in a step of the schedule.

    1F1B waits for the other stages' forward and backward passes, its interleaved form for 1 / vpp of that (Narayanan et
    al., arXiv 2104.04473); fewer micro-batches than stages leave gaps between a rank's stages, too. A split backward
    fills two thirds of the wait, where there are as many micro-batches as stages (Qi et al., arXiv 2401.10241).
    """
    layout = job.layout
    wait = (layout.pp - 1) / layout.vpp
    gaps = (layout.vpp - 1) * max(layout.pp - micro, 0) / layout.vpp
    if layout.schedule == "zero-bubble":
        return min(wait, layout.pp / 3) if micro >= layout.pp else wait
    return wait + gaps


def _held(job: Job, layers: int) -> float:
    """Parameters of the rank with ``layers`` layers, before data parallelism shards them."""
    shape, layout = job.shape, job.layout
    ends = (1 if shape.tied or layout.pp > 1 else 2) * shape.embedding_parameters
    share = ends if layout.pp == 1 else 0
    return (layers * shape.layer_parameters + share) / layout.tp


def _accumulated(job: Job, layers: int, machine: Machine, constants: Constants, stack: Stack) -> float:
    """Seconds of a micro-batch in which gradients are added to those of the others, in FP32."""
    return 2 * FP32 * _held(job, layers) / Kernels(machine.gpu, constants, stack).memory_rate


def _pipeline_traffic(job: Job, machine: Machine, constants: Constants, stack: Stack, tokens: float) -> float:
    """Seconds of a micro-batch's messages between stages that are not hidden."""
    layout = job.layout
    if layout.pp == 1:
        return 0.0
    message = BF16 * tokens * job.shape.hidden / layout.tp
    stride = layout.tp * layout.cp * (layout.dp if stack.data_inside else 1)
    sent = Traffic(machine, constants).send(message, stride)
    return 2 * layout.vpp * sent * (1 - constants.pp_hidden)


def _data_group(job: Job, stack: Stack) -> tuple[int, int]:
    """Members and stride of the group over which state is sharded."""
    layout = job.layout
    members = layout.sharded if layout.sharding == "fsdp" else layout.dp * layout.cp
    inner = layout.cp > 1 or layout.pp == 1 or stack.data_inside
    return members, layout.tp if inner else layout.tp * layout.pp


def _data_traffic(
    job: Job, machine: Machine, constants: Constants, stack: Stack, micro_seconds: float, layers: int
) -> float:
    """Seconds of gathering weights and reducing gradients that are not hidden behind a step's computation."""
    layout, micro = job.layout, job.micro_batches
    members, stride = _data_group(job, stack)
    if members * layout.dp_replicate == 1:
        return 0.0
    traffic, held = Traffic(machine, constants), _held(job, layers)
    gather = traffic.gather(BF16 * held, members, stride)
    scatter = traffic.gather(stack.gradient_bytes * held, members, stride)
    copies = exposed = 0.0
    if layout.dp_replicate > 1:
        across = stride * members
        copies = traffic.reduce(stack.gradient_bytes * held / members, layout.dp_replicate, across)
    if layout.sharding == "fsdp":
        often = micro if layout.pp == 1 or layout.reshard_after_forward else 1
        gathers = often * (2 if layout.reshard_after_forward else 1)
        scatters = micro if layout.pp == 1 and stack.name != OWN else 1
        window = micro_seconds * max(often, scatters)
        total = gathers * gather + scatters * scatter + copies
        copied = 2 * BF16 * gathers + (BF16 + stack.gradient_bytes) * scatters  # into and out of the buffers
        exposed = copied * held / Kernels(machine.gpu, constants, stack).memory_rate
    elif layout.sharding == "ddp":
        total = traffic.reduce(stack.gradient_bytes * held, members, stride)
        window = micro_seconds * 2 / 3
    else:
        total = gather + scatter * (micro if layout.sharding == "zero2" else 1)
        window = micro_seconds * (micro if layout.sharding == "zero2" else 1)
    share = constants.fsdp_hidden if layout.sharding == "fsdp" else constants.dp_hidden
    hidden = min(total * share, window)
    return total - hidden + exposed


def _update(
    job: Job, machine: Machine, constants: Constants, stack: Stack, layers: int, micro_seconds: float
) -> tuple[float, float]:
    """Seconds of the optimizer, and of moving what is kept in the host's memory."""
    layout = job.layout
    members, _ = _data_group(job, stack)
    shards = 1 if layout.sharding == "ddp" else members
    held = _held(job, layers)
    own = held / shards
    rate, host = Kernels(machine.gpu, constants, stack).memory_rate, machine.gpu.host_gb_s * 1e9
    if layout.offload == "optimizer":
        return UPDATE_BYTES * own / HOST_UPDATE, (FP32 + BF16) * own / host
    moved = 0.0
    if layout.offload == "activations":  # a layer's input, out and back, behind its computation
        kept = BF16 * MicroBatch(job, machine, constants, stack).tokens * job.shape.hidden * layers / layout.tp
        moved = max(2 * kept / host - constants.dp_hidden * micro_seconds, 0.0) * job.micro_batches
    return UPDATE_BYTES * own / rate, moved
