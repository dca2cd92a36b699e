"""Seconds of a kernel on one GPU: matrix products, attention, and what only moves memory.

Each is the larger of its arithmetic at a rate that depends on its shape, and its bytes at the memory's rate (roofline).
"""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Gpu
from herdlm.plan.stacks import Stack

BF16, FP8, FP32 = 2, 1, 4
MEMORY = 0.9  # the share of the specified rate that a streaming kernel reaches
BACKWARD_ATTENTION = 2.5  # products of the backward pass of attention over those of the forward pass: five to two
# The share of its peak at which Ampere runs FlashAttention-2: its paper's abstract (arXiv 2307.08691) says 50% to 73%.
AMPERE_FLASH = 0.6


@dataclass(frozen=True, slots=True)
class Kernels:
    """Rates of a GPU under the constants of a fit."""

    gpu: Gpu
    constants: Constants
    stack: Stack

    def product(self, m: float, n: float, k: float, precision: str) -> float:
        """Seconds of a product of [M, K] by [K, N]: 2MNK FLOPs."""
        measured = self.gpu.measured
        ramp = measured.gemm_ramp if measured and measured.gemm_tflops else self.constants.gemm_ramp
        slowed = 1.0
        for size in (m, n, k):
            slowed *= 1 + ramp / size
        width = FP8 if precision == "fp8" else BF16
        moved = (m * k + k * n) * width + m * n * BF16
        return max(2 * m * n * k * slowed / self.product_rate(precision), moved / self.memory_rate)

    def product_rate(self, precision: str) -> float:
        """FLOP/s of large products that go on through a step."""
        measured = self.gpu.measured
        if measured and measured.gemm_tflops and (precision == "bf16" or self.gpu.fp8_tflops == self.gpu.bf16_tflops):
            return measured.gemm_tflops * 1e12
        best = self.constants.gemm_best
        architecture = self.gpu.architecture
        share = best.get(f"{architecture}-{precision}", best[f"other-{precision}"])
        kept = self.constants.gemm_fp8 if precision == "fp8" else self.constants.gemm_bf16
        return self.gpu.peak(precision) * self.gpu.sustained * min(share * kept, 1.0)

    @property
    def memory_rate(self) -> float:
        """Bytes per second of streaming kernels."""
        measured = self.gpu.measured
        return measured.memory_gb_s * 1e9 if measured and measured.memory_gb_s else self.gpu.memory_rate * MEMORY

    def attention(self, flops: float, row: float, head_size: int) -> float:
        """Seconds of attention of ``flops`` that a causal mask keeps, in rows of ``row`` tokens."""
        heads = float(min(head_size / 128, 1.0) ** self.constants.attention_heads)
        return flops * (1 + self.constants.attention_ramp / row) / (self.attention_rate * heads)

    @property
    def attention_rate(self) -> float:
        """FLOP/s of attention, forward and backward, on long rows with heads of 128."""
        measured = self.gpu.measured
        if measured and measured.attention_tflops:
            return measured.attention_tflops * 1e12
        kernel = "flash2" if self.stack.attention == "unfused" else self.stack.attention
        share = self.constants.attention_rate[kernel]
        if self.gpu.architecture == "ampere":
            share = AMPERE_FLASH
        return self.gpu.peak("bf16") * share

    def move(self, number_of_bytes: float) -> float:
        """Seconds of kernels that read and write ``number_of_bytes`` by a minimal count."""
        factor = self.constants.fused if self.stack.kernels == "fused" else self.constants.eager
        return number_of_bytes * factor / self.memory_rate
