"""Attention on a GPU: the kernels of :mod:`herdlm.generate.gpu.kernels` read pages in place.

Decoding segments and runs of prompts go through a kernel each, whatever their lengths; nothing is gathered or padded.
Each sequence reads shared pages itself: the second-level cache of a large GPU, 50 MB, holds one layer's keys and values
of about 12,000 tokens of an 8B model.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from herdlm.generate.gpu.plan import AttentionPlan, plan_step
from herdlm.generate.paged_attention import PagedAttention, PagedCache
from herdlm.generate.sequences import StepInput

KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNEL_HEAD_SIZES = (16, 32, 64, 128)
SHARED_BYTES = 160 * 2**10  # of shared memory per block: data center GPUs since the A100


def kernels_fit(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether generation uses its own kernels there instead of plain PyTorch."""
    return dtype in KERNEL_TYPES and head_size in KERNEL_HEAD_SIZES and runs_kernels(device)


@cache
def runs_kernels(device: torch.device) -> bool:
    """Whether Triton is installed and the kernels support the device."""
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: for tests
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    shared: int = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return shared >= SHARED_BYTES


class PlannedAttention:
    """Attention by the kernels; see :class:`herdlm.model.attention.Attend`.

    The model is called with all tokens of the step as one row, as with
    :class:`herdlm.generate.paged_attention.PagedAttention`.
    """

    def __init__(self, cache: PagedCache, plan: AttentionPlan) -> None:
        self.cache, self.plan = cache, plan

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`herdlm.model.attention.Attend`."""
        return self.attend_unrotated(layer, torch.cat((q[0], k[0], v[0]), dim=1), None)[None]

    def attend_unrotated(self, layer: int, heads: Tensor, rotation: Tensor | None) -> Tensor:
        """As :meth:`__call__`, for queries and keys that RoPE has not rotated yet.

        Args:
            heads: [N, H + 2K, C], contiguous: queries, keys, values. The queries are overwritten.
            rotation: see :func:`herdlm.generate.cpu.fused.rotation_of`; None if they are rotated already.

        Returns:
            [N, H, C].
        """
        from herdlm.generate.gpu import launches as gpu_launches  # with Triton, which machines without a GPU lack

        cache, plan = self.cache, self.plan
        pages = cache.layers[layer]
        gpu_launches.rotate_and_write(heads, rotation, plan.slots, pages)
        out = heads.new_empty(len(heads), heads.shape[1] - cache.parts, cache.head_size)
        if len(plan.decoding):
            gpu_launches.attend_decoding(heads, pages, plan, out)
        if len(plan.prompts):
            gpu_launches.attend_prompts(heads, pages, plan, out)
        return out


class KernelAttention(PlannedAttention):
    """Attention by the kernels; the first layer plans the step."""

    def __init__(self, cache: PagedCache, step: StepInput) -> None:
        self.cache, self.step = cache, step
        self.planned = False

    def attend_unrotated(self, layer: int, heads: Tensor, rotation: Tensor | None) -> Tensor:
        """See :meth:`PlannedAttention.attend_unrotated`."""
        if not self.planned:
            self.plan, self.planned = plan_step(self.cache, self.step), True
        return super().attend_unrotated(layer, heads, rotation)


def attention_type(cache: PagedCache) -> type[PagedAttention] | type[KernelAttention]:
    """The fastest attention for a cache."""
    return KernelAttention if kernels_fit(cache.device, cache.dtype, cache.head_size) else PagedAttention
