"""The recipe key ``precision = "fp8"``: which products of a model become FP8, and what refuses it."""

from __future__ import annotations

import torch
from torch import nn

from herdlm.base.errors import InputError
from herdlm.model.fp8_training import apply_fp8
from herdlm.model.lora import lora_of
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel

CAPABILITY = (8, 9)  # of NVIDIA's Ada; the first with FP8 products
INSTEAD = 'Set precision = "bfloat16"'


def use_fp8(model: Transformer) -> None:
    """Let ``model`` train with FP8 products, in place; a second call changes nothing.

    The matrices of attention and of the feed-forward become those of :mod:`herdlm.model.fp8_training`. Embedding,
    norms, attention itself and the head run as with ``precision = "bfloat16"``. Weights stay FP32 under their names. A
    model that is laid out over processes is converted before :meth:`herdlm.parallel.layout.Layout.apply`.

    Raises:
        InputError: the device has no FP8 products, or no matrix of the model fits them.
    """
    check_fp8(next(model.parameters()).device)
    if lora_of(model) is not None:
        raise InputError('precision = "fp8" does not work with LoRA adapters', INSTEAD)
    layers = list(model.model.layers.children())
    for layer in layers:
        apply_fp8(layer)
    if not _has_fp8(layers):
        raise InputError(
            'precision = "fp8" changes nothing: no matrix of the model has two dimensions that are multiples of 16',
            f"Choose dim and ffn_dim so. {INSTEAD} otherwise",
        )


def check_fp8(device: torch.device) -> None:
    """Refuse a device that cannot train in FP8. A CPU can, slowly: it multiplies the FP8 values in float32.

    Raises:
        InputError: the device has no FP8 products.
    """
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise InputError(f'precision = "fp8" needs an NVIDIA GPU or a CPU, and the device is {device.type}', INSTEAD)
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < CAPABILITY:
        raise InputError(
            f'precision = "fp8" needs a GPU of compute capability 8.9 or more (Ada, Hopper and later), and '
            f"{torch.cuda.get_device_name(device)} has {major}.{minor}",
            INSTEAD,
        )


def ensure_fp8(model: Transformer | ParallelModel) -> None:
    """Convert a whole model, and check that a laid-out one was converted.

    Raises:
        InputError: as :func:`use_fp8`; or the laid-out model was not converted.
    """
    if isinstance(model, Transformer):
        use_fp8(model)
    elif any(lora_of(stage) for stage in model.stages.values()):
        raise InputError('precision = "fp8" does not work with LoRA adapters', INSTEAD)
    elif not all(_has_fp8(list(stage.model.layers.children())) for stage in model.stages.values()):
        raise InputError('precision = "fp8" comes after the layout', "Call train.fp8.use_fp8 before Layout.apply")


def _has_fp8(layers: list[nn.Module]) -> bool:
    return any(isinstance(m, nn.Linear) and type(m) is not nn.Linear for layer in layers for m in layer.modules())
