"""Seconds of a training step: micro-batches, the pipeline's bubble, traffic of data parallelism, optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job
from herdlm.plan.layer_time import MicroBatch
from herdlm.plan.stacks import OWN, Stack, stack_named
from herdlm.plan.step_ends import StepEnds

STORAGE = 122e6  # bytes per second of storage for each GPU (Llama 3 report: 2 TB/s for 16,384)
TOKEN = 4  # bytes
PARTS = (
    "gemm",
    "attention",
    "elementwise",
    "recompute",
    "launch",
    "tp",
    "cp",
    "pp",
    "bubble",
    "dp",
    "optimizer",
    "offload",
    "loader",
    "waiting",
)


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
    work = MicroBatch(job, machine, constants, stack)
    counts = stage_layers(job, stack)
    by_rank = [sum(counts[rank :: job.layout.pp]) for rank in range(job.layout.pp)]
    layer = work.layer()
    # The rank with most layers, or the last, which has the head besides its own.
    slowest = max(layer.times(max(by_rank)), layer.times(by_rank[-1]) + work.head(), key=lambda seconds: seconds.sum)
    ends = StepEnds(job, machine, constants, stack, max(by_rank))
    micro = job.micro_batches
    accumulated = ends.accumulate() if micro > 1 else 0.0
    sent = ends.messages(work.tokens)
    each = slowest.sum + accumulated + sent
    parts = {name: micro * seconds for name, seconds in slowest.by_name().items()}
    parts["elementwise"] += micro * accumulated
    parts["pp"] = micro * sent
    parts["bubble"] = each * idle(job, micro)
    parts["dp"] = ends.data_traffic(each)
    parts["optimizer"] = ends.update()
    parts["offload"] = ends.offload(work.tokens, each)
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
    if layout.schedule == "zero-bubble":
        return min(wait, layout.pp / 3) if micro >= layout.pp else wait
    return wait + (layout.vpp - 1) * max(layout.pp - micro, 0) / layout.vpp
