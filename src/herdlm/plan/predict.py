"""What the planner says of a job: throughput, time, memory, each with an interval in which four of five should lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import exp, hypot, log2
from typing import Any

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import COUNTS, Job
from herdlm.plan.stacks import Stack, stack_named
from herdlm.plan.step_time import Step, stage_layers, step_time

TRAINED = ("hopper",)  # architectures of the training rows in the fit
LARGEST, LONGEST, NARROWEST = 768, 8192, 2048  # of these rows: GPUs, tokens of a row, model dimension
NEW_ARCHITECTURE = 0.10  # half-width that another architecture adds: as much as their best products differ by
DOUBLING = 0.02  # half-width that each doubling beyond their range adds; assumed
NEW_KIND = 0.10  # half-width that asynchronous tensor parallelism or the host's memory adds; assumed
MEMORY_WIDTH = 0.08  # of memory, as a share


@dataclass(frozen=True)
class Prediction:
    """A job's step on a machine.

    Attributes:
        width: half-width of the 80% interval of the logarithm of times and rates.
    """

    job: Job
    machine: Machine
    step: Step
    width: float
    stack: Stack

    @cached_property
    def memory(self) -> dict[str, int]:
        """Bytes of the GPU that needs most, by category."""
        return memory_of(self.job, self.stack)

    @property
    def rate(self) -> float:
        """Tokens per second and GPU."""
        return self.job.tokens_per_step / self.job.gpus / self.step.seconds

    @property
    def memory_gib(self) -> float:
        """GiB of the GPU that needs most."""
        return sum(self.memory.values()) / 2**30

    @property
    def fits(self) -> bool:
        """Whether the GPU has that much."""
        return self.memory_gib <= self.machine.gpu.memory_gib

    def as_json(self) -> dict[str, Any]:
        """The prediction as ``herdlm plan --json`` prints it."""
        low, high = exp(-self.width), exp(self.width)
        per_token = self.job.shape.flops_per_token(self.job.seq_len)
        tflops = {count: self.rate * per_token[count] / 1e12 for count in COUNTS}
        peak = self.machine.gpu.peak("bf16") / 1e12
        mfu = {count: value / peak for count, value in tflops.items()}
        seconds, memory = self.step.seconds, self.memory_gib
        return {
            "tokens_per_s_per_gpu": {"value": self.rate, "low": self.rate * low, "high": self.rate * high},
            "tflops_per_gpu": tflops,
            "mfu": mfu,
            "memory_gib_per_gpu": memory,
            "memory_gib_by_part": {name: each / 2**30 for name, each in self.memory.items()},
            "fits": self.fits,
            "step_seconds": seconds,
            "parts": self.step.parts,
            "intervals": {
                "share": 0.8,
                "tokens_per_s_per_gpu": [self.rate * low, self.rate * high],
                "step_seconds": [seconds * low, seconds * high],
                "tflops_per_gpu": {count: [value * low, value * high] for count, value in tflops.items()},
                "mfu": {count: [value * low, value * high] for count, value in mfu.items()},
                "memory_gib_per_gpu": [memory * (1 - MEMORY_WIDTH), memory * (1 + MEMORY_WIDTH)],
            },
            "parameters": self.job.shape.parameters,
            "gpus": self.job.gpus,
            "gpu": self.machine.gpu.name,
            "seq_len": self.job.seq_len,
            "tokens_per_step": self.job.tokens_per_step,
            "micro_batches": self.job.micro_batches,
            "layout": asdict(self.job.layout),
        }


def predict(
    job: Job, machine: Machine, constants: Constants, stack: Stack | None = None, *, known_stack: bool = True
) -> Prediction:
    """Predict a job.

    Args:
        stack: how its step is run; by default by the job's ``software``.
        known_stack: whether it is one of which the fit has seen rows.
    """
    stack = stack or stack_named(job.software)
    step = step_time(job, machine, constants, stack)
    return Prediction(job, machine, step, width_of(job, machine, constants, known_stack), stack)


def memory_of(job: Job, stack: Stack) -> dict[str, int]:
    """Bytes of the GPU that needs most, by category; tensors as this package's training has them."""
    from herdlm.plan.training_memory import CATEGORIES, StepMemory, groups_of, overhead

    layers = tuple(stage_layers(job, stack)) if job.layout.pp > 1 else None
    found = replace(StepMemory.of(job), layers_per_stage=layers).most()
    parts: dict[str, int] = {name: found[name] for name in CATEGORIES}  # type: ignore[literal-required]
    return parts | overhead(found, groups_of(job.layout))


def needed_gib(job: Job, stack: Stack) -> float:
    """GiB of the GPU that needs most."""
    return sum(memory_of(job, stack).values()) / 2**30


def fastest(
    jobs: Sequence[Job],
    machine: Machine,
    constants: Constants,
    stack: Stack,
    *,
    known_stack: bool = True,
    within_memory: bool = True,
) -> Prediction:
    """The fastest of the jobs; of those that fit their GPU if there are any, unless ``within_memory`` is off."""
    found = [predict(job, machine, constants, stack, known_stack=known_stack) for job in jobs]
    found.sort(key=lambda each: -each.rate)
    if within_memory and len(found) > 1:
        return next((each for each in found if each.fits), found[0])
    return found[0]


def width_of(job: Job, machine: Machine, constants: Constants, known_stack: bool) -> float:
    """Half-width of the interval: that of unseen publications, wider where the fit saw nothing alike."""
    width = constants.interval["seen" if known_stack else "other"]
    beyond = (job.gpus / LARGEST, job.seq_len / LONGEST, NARROWEST / job.shape.hidden)
    added = [DOUBLING * log2(ratio) for ratio in beyond if ratio > 1]
    if machine.gpu.architecture not in TRAINED and machine.gpu.measured is None:
        added.append(NEW_ARCHITECTURE)
    if job.layout.async_tp or job.layout.offload != "none":
        added.append(NEW_KIND)
    return hypot(width, *added)
