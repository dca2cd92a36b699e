"""Seconds of a step beside its layers: messages between stages, gradients, weights, optimizer, the host's memory."""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job
from herdlm.plan.kernels import BF16, FP32, Kernels
from herdlm.plan.stacks import OWN, Stack
from herdlm.plan.traffic import Traffic

UPDATE_BYTES = 34  # of memory traffic for a parameter: weight, gradient and two moments read, three written, BF16 copy
HOST_UPDATE = 20e9  # bytes per second of the host's memory for each GPU, in which it updates parameters


@dataclass(frozen=True, slots=True)
class StepEnds:
    """The rank of a job that has most layers."""

    job: Job
    machine: Machine
    constants: Constants
    stack: Stack
    layers: int

    @property
    def held(self) -> float:
        """Parameters of the rank, before data parallelism shards them; with several stages without the vocabulary's."""
        shape, layout = self.job.shape, self.job.layout
        ends = 0 if layout.pp > 1 else shape.embedding_parameters * (1 if shape.tied else 2)
        return (self.layers * shape.layer_parameters + ends) / layout.tp

    @property
    def traffic(self) -> Traffic:
        """Rates of the links."""
        return Traffic(self.machine, self.constants)

    @property
    def memory_rate(self) -> float:
        """Bytes per second of the GPU's memory."""
        return Kernels(self.machine.gpu, self.constants, self.stack).memory_rate

    def accumulate(self) -> float:
        """Seconds of a micro-batch in which its gradients are added to those of the others, in FP32."""
        return 2 * FP32 * self.held / self.memory_rate

    def messages(self, tokens: float) -> float:
        """Seconds of a micro-batch's messages between stages that are not hidden."""
        layout = self.job.layout
        if layout.pp == 1:
            return 0.0
        stride = layout.tp * layout.cp * (layout.dp if self.stack.data_inside else 1)
        sent = self.traffic.send(BF16 * tokens * self.job.shape.hidden / layout.tp, stride)
        return 2 * layout.vpp * sent * (1 - self.constants.pp_hidden)

    def group(self) -> tuple[int, int]:
        """Members and stride of the group over which state is sharded."""
        layout = self.job.layout
        members = layout.sharded if layout.sharding == "fsdp" else layout.dp * layout.cp
        inner = layout.cp > 1 or layout.pp == 1 or self.stack.data_inside
        return members, layout.tp if inner else layout.tp * layout.pp

    def data_traffic(self, micro_seconds: float) -> float:
        """Seconds of gathering weights and reducing gradients that are not hidden behind a step's computation.

        FSDP gathers weights for each pass in which they are not there, and copies them out of its buffers. Other kinds
        reduce gradients behind the last backward pass, and gather weights behind the first forward pass of the next
        step. What is hidden takes no longer than what hides it.
        """
        layout, micro = self.job.layout, self.job.micro_batches
        members, stride = self.group()
        if members * layout.dp_replicate == 1:
            return 0.0
        width, held, traffic = self.stack.gradient_bytes, self.held, self.traffic
        gather, scatter = traffic.gather(BF16 * held, members, stride), traffic.gather(width * held, members, stride)
        exposed, share = 0.0, self.constants.dp_hidden
        if layout.sharding == "fsdp":
            gathers = micro if layout.pp == 1 or layout.reshard_after_forward else 1
            scatters = micro if layout.pp == 1 and self.stack.name != OWN else 1
            window = micro_seconds * max(gathers, scatters)
            gathers *= 2 if layout.reshard_after_forward else 1
            total = gathers * gather + scatters * scatter
            exposed = (2 * BF16 * gathers + (BF16 + width) * scatters) * held / self.memory_rate
            share = self.constants.fsdp_hidden
        elif layout.sharding == "ddp":
            total, window = traffic.reduce(width * held, members, stride), micro_seconds * 2 / 3
        else:
            often = micro if layout.sharding == "zero2" else 1
            total, window = gather + scatter * often, micro_seconds * often
        if layout.dp_replicate > 1 and layout.sharding == "fsdp":
            total += traffic.reduce(width * held / members, layout.dp_replicate, stride * members)
        return total - min(total * share, window) + exposed

    def update(self) -> float:
        """Seconds of the optimizer's step: its memory traffic, on the GPU or on the host."""
        rate = HOST_UPDATE if self.job.layout.offload == "optimizer" else self.memory_rate
        return UPDATE_BYTES * self._own / rate

    def offload(self, tokens: float, micro_seconds: float) -> float:
        """Seconds of moving what is kept in the host's memory: gradients and weights, or the layers' inputs."""
        layout, host = self.job.layout, self.machine.gpu.host_gb_s * 1e9
        if layout.offload == "optimizer":
            return (FP32 + BF16) * self._own / host
        if layout.offload == "none":
            return 0.0
        moved = 2 * BF16 * tokens * self.job.shape.hidden * self.layers / layout.tp / host
        return max(moved - self.constants.dp_hidden * micro_seconds, 0.0) * self.job.micro_batches

    @property
    def _own(self) -> float:
        """Parameters that the rank updates."""
        return self.held / (1 if self.job.layout.sharding == "ddp" else self.group()[0])
