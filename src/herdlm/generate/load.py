"""Loads a Hugging Face folder, in full precision or FP8, as a model ready to generate."""

from __future__ import annotations

from pathlib import Path

import torch

from herdlm.base.errors import InputError
from herdlm.generate.fp8.load import is_fp8, load_fp8
from herdlm.generate.matrix import fastest_type
from herdlm.model.hf import load_folder
from herdlm.model.transformer import Transformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """The device named ``device``; "auto" is the GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is unknown", "Use auto, cpu or cuda") from error
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r}: this machine shows {torch.cuda.device_count()} GPUs", "Use auto or cpu")
    return picked


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The type named ``dtype``; None for "auto", the stored one.

    Raises:
        InputError: the name is unknown.
    """
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return None if isinstance(dtype, str) else dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def load_model(folder: Path, device: str = "auto", dtype: str | torch.dtype = "auto") -> Transformer:
    """The model of a Hugging Face folder, quantized if its config.json says so.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: of weights, activations and cache; "auto" is the stored one, or bfloat16 with FP8 weights.

    Raises:
        InputError, DamagedError: the folder, device or type cannot be used.
    """
    place, chosen = pick_device(device), pick_dtype(dtype)
    if is_fp8(folder):
        return load_fp8(folder, place, chosen or torch.bfloat16)
    return load_folder(folder, place, chosen)


def compute_type(model: Transformer, dtype: str | torch.dtype) -> torch.dtype:
    """The type to compute in with a model loaded as ``dtype``: the weights' type, or for "auto" the fastest here."""
    weight = model.model.embed_tokens.weight
    return fastest_type(weight.device, weight.dtype) if dtype == "auto" else weight.dtype
