"""Activation checkpointing and compilation of layers, in any layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import herdlm.model.tiles  # noqa: F401 - registers the attention operator

Mode = Literal["none", "layer", "selective"]
_aten: Any = torch.ops.aten
# Expensive to recompute or, for the reduce-scatter, to send again.
SAVED = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
    torch.ops.herdlm.tiled_attention.default,
}


def _policy(_: Any, operation: Any, *args: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in SAVED else CheckpointPolicy.PREFER_RECOMPUTE


def apply_checkpointing(layer: nn.Module, mode: Mode) -> None:
    """Keep only a layer's input ("layer"), or also the results of matrix products ("selective")."""
    if mode == "none":
        return
    more: dict[str, Any] = {}
    if mode == "selective":
        more["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False, **more)


def apply_compile(layer: nn.Module) -> None:
    """Compile a layer's forward and backward; if that fails, run the layer uncompiled and warn with the reason."""
    plain = layer.forward
    compiled: Callable[..., Any] | None = torch.compile(plain)

    def forward(*args: Any, **named: Any) -> Any:
        nonlocal compiled
        if compiled is not None:
            try:
                return compiled(*args, **named)
            except Exception as error:  # a compiler may raise anything, and the layer itself can run
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                warnings.warn(
                    f"a layer runs uncompiled, because the compiler failed: {reason}", RuntimeWarning, stacklevel=2
                )
                compiled = None
        return plain(*args, **named)

    layer.forward = forward
