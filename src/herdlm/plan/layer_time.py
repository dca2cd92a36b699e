"""Seconds of one micro-batch on one GPU: a layer and the head, with the traffic of tensor and context parallelism."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job
from herdlm.plan.kernels import BACKWARD_ATTENTION, BF16, Kernels
from herdlm.plan.stacks import Stack, factor_of
from herdlm.plan.traffic import Traffic

LAUNCH = 5e-6  # seconds in which a host starts a kernel
LAUNCHES = {"fused": 45, "eager": 100}  # kernels of a layer, forward and backward
FP8_CAST_BYTES = 4  # read in BF16, written in FP8 as it is and transposed


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds by cause; ``tp`` and ``cp`` are what their traffic is not hidden."""

    gemm: float = 0.0
    attention: float = 0.0
    elementwise: float = 0.0
    recompute: float = 0.0
    tp: float = 0.0
    cp: float = 0.0
    launch: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> Seconds:
        """All seconds times a factor."""
        return Seconds(*(getattr(self, f.name) * factor for f in fields(self)))

    def by_name(self) -> dict[str, float]:
        """Seconds of each cause."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def sum(self) -> float:
        """Seconds of all causes."""
        return sum(self.by_name().values())


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A job's micro-batch on one of its GPUs."""

    job: Job
    machine: Machine
    constants: Constants
    stack: Stack

    @property
    def tokens(self) -> float:
        """Tokens of a context-parallel rank."""
        return self.job.layout.micro_batch * self.job.seq_len / self.job.layout.cp

    def layer(self) -> Seconds:
        """Forward and backward of a layer."""
        kernels = Kernels(self.machine.gpu, self.constants, self.stack)
        factor = self._factor
        gemm = sum(kernels.product(m, n, k, self.job.layout.precision) for m, n, k in self._products()) * factor
        attention = kernels.attention(self._attention_flops(), self.job.seq_len, self.job.shape.head_size) * factor
        moved = kernels.move(self._moved()) * factor
        tp, cp = self._tp_traffic(), self._cp_traffic()
        found = Seconds(
            gemm=3 * gemm, attention=(1 + BACKWARD_ATTENTION) * attention, elementwise=3 * moved, tp=2 * tp, cp=3 * cp
        )
        found = found + self._recomputed(gemm, attention, moved, tp, cp)
        waited = LAUNCHES[self.stack.kernels] * LAUNCH - found.sum
        return found + Seconds(launch=max(waited, 0.0))

    def head(self) -> Seconds:
        """Forward and backward of head and loss, in BF16, and of the embedding lookup."""
        kernels = Kernels(self.machine.gpu, self.constants, self.stack)
        shape, layout, tokens = self.job.shape, self.job.layout, self.tokens
        product = kernels.product(tokens, shape.vocab / layout.tp, shape.hidden, "bf16")
        logits = self.stack.loss_bytes * tokens * shape.vocab / layout.tp
        moved = kernels.move(6 * BF16 * tokens * shape.hidden / layout.tp) + logits / kernels.memory_rate
        gathered = Traffic(self.machine, self.constants).gather(BF16 * tokens * shape.hidden, layout.tp, 1)
        return Seconds(gemm=3 * product * self._factor, elementwise=moved * self._factor, tp=2 * gathered)

    @property
    def _factor(self) -> float:
        return factor_of(self.stack, self.constants.stacks)

    @property
    def _overlaps(self) -> bool:
        return self.job.layout.tp > 1 and (self.stack.tp_overlap or self.job.layout.async_tp)

    def _products(self) -> Iterator[tuple[float, float, float]]:
        """[M, N, K] of the products of a layer's forward pass; backward has two of the same size for each."""
        shape, tp = self.job.shape, self.job.layout.tp
        m = self.tokens
        yield m, (shape.queries + 2 * shape.keys) / tp, shape.hidden
        yield m, shape.hidden, shape.queries / tp
        yield m, shape.ffn * (shape.mlp_matrices - 1) / tp, shape.hidden
        yield m, shape.hidden, shape.ffn / tp

    def _attention_flops(self) -> float:
        """FLOPs of the forward pass that a causal mask keeps."""
        job = self.job
        rows = job.layout.micro_batch
        return 2.0 * rows * job.seq_len * job.seq_len * job.shape.queries / (job.layout.cp * job.layout.tp)

    def _moved(self) -> float:
        """Bytes of memory traffic of what is not a product, forward: two norms, two residuals, rotation, activation."""
        shape, layout = self.job.shape, self.job.layout
        values = 10 * shape.hidden + 2 * (shape.queries + shape.keys) + shape.mlp_matrices * shape.ffn
        if self.stack.attention == "unfused":  # scores are written, masked, normalized, dropped out and read again
            values += 5 * shape.heads * self.job.seq_len
        count = float(BF16 * values)
        if layout.precision == "fp8":
            # Operands of the forward pass, and gradients of the backward pass: a third of the three passes' in each.
            inputs = 2 * shape.hidden + shape.queries + shape.ffn
            grads = 2 * shape.hidden + shape.queries + 2 * shape.keys + (shape.mlp_matrices - 1) * shape.ffn
            count += FP8_CAST_BYTES * self.stack.fp8_casts * (inputs + grads) / 3
        return count * self.tokens / layout.tp

    def _tp_traffic(self) -> float:
        """Seconds of one direction's traffic that are not hidden: two gathers and two reduce-scatters."""
        whole = BF16 * self.tokens * self.job.shape.hidden
        seconds = 4 * Traffic(self.machine, self.constants).gather(whole, self.job.layout.tp, 1)
        return seconds * (1 - self.constants.tp_hidden) if self._overlaps else seconds

    def _cp_traffic(self) -> float:
        """Seconds of one gather of keys and values that are not hidden; backward has two as large."""
        layout = self.job.layout
        whole = 2 * BF16 * self.tokens * layout.cp * self.job.shape.keys / layout.tp
        seconds = Traffic(self.machine, self.constants).gather(whole, layout.cp, layout.tp)
        return seconds * (1 - self.constants.cp_hidden) if self.stack.cp_overlap else seconds

    def _recomputed(self, gemm: float, attention: float, moved: float, tp: float, cp: float) -> Seconds:
        policy = self.job.layout.recompute
        if policy == "full":
            return Seconds(recompute=gemm + attention + moved, tp=tp, cp=cp)
        if policy == "none":
            return Seconds()
        again = {"attention": attention, "half": gemm / 2 + moved, "elementwise": moved}
        return Seconds(recompute=again[self.stack.selective])
