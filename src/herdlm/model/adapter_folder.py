"""Reads and writes LoRA adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from herdlm.base.artifact import FileCheck, sync_folder
from herdlm.base.errors import DamagedError, InputError, storage_error
from herdlm.model.lora import TARGETS, Lora, add_lora, lora_of
from herdlm.model.transformer import Transformer
from herdlm.model.weights import FETCH_AGAIN, all_finite, read_json, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
SCORE = "score.weight"
# Kinds of adapters that are computed otherwise: the key, and the values that mean an ordinary one.
PLAIN: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("peft_type", ("LORA",)),
    ("use_dora", (None, False)),
    ("use_rslora", (None, False)),
    ("bias", (None, "none")),
    ("fan_in_fan_out", (None, False)),
    ("rank_pattern", (None, {})),
    ("alpha_pattern", (None, {})),
    ("layers_to_transform", (None,)),
)


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter of an adapted model belongs to its adapter."""
    return name.endswith((".lora_a", ".lora_b")) or name == SCORE


def save_adapter(model: Transformer, folder: Path, *, base: str | None = None) -> None:
    """Write the adapters of ``model``, which PEFT loads; see :func:`write_adapter`.

    Raises:
        InputError: it has none.
    """
    lora = lora_of(model)
    if lora is None:
        raise InputError("the model has no LoRA adapters to save", "Save the whole model")
    tensors = {name: p.detach() for name, p in model.named_parameters() if is_adapter_weight(name)}
    write_adapter(folder, tensors, lora, base=base)


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], lora: Lora, *, base: str | None = None) -> None:
    """Write adapter weights, by their names in the model, into ``folder``; the configuration is written last.

    Args:
        base: folder or name of the model that the adapters belong to.

    Raises:
        InputError: the folder holds an adapter already.
        HerdError: the disk is full or cannot be written.
    """
    if (folder / CONFIG).exists():
        raise InputError(f"{folder} holds an adapter already", "Choose another folder, or remove it")
    has_score = SCORE in tensors
    named = {_peft_name(name): value.to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if has_score else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.targets),
        "modules_to_save": ["score"] if has_score else None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{WEIGHTS}.partial"
        save_file(dict(sorted(named.items())), partial, metadata={"format": "pt"})
        partial.rename(folder / WEIGHTS)
        write_json(folder / CONFIG, config)
        sync_folder(folder)
    except OSError as error:
        raise storage_error(error) from error


@torch.no_grad()
def load_adapter(model: Transformer, folder: Path) -> Lora:
    """Add the adapters in ``folder`` to ``model``, in place.

    Raises:
        InputError: the folder is no adapter, or one that is computed in another way or adapts other modules.
        DamagedError: a tensor is missing, unexpected or of another shape, or the file cannot be read.
    """
    config = read_json(folder / CONFIG)
    for key, plain in PLAIN:
        if config.get(key) not in plain:
            raise InputError(
                f"{folder / CONFIG}: {key} is {config.get(key)!r}, which herdlm cannot run", "Merge it with PEFT"
            )
    check = FileCheck(folder / WEIGHTS)
    check.start()
    try:
        stored = {name.removeprefix(PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}
    except FileNotFoundError as error:
        raise DamagedError(f"{folder / WEIGHTS} is missing", FETCH_AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{folder / WEIGHTS} is damaged: {error}", FETCH_AGAIN) from error
    check.wait()
    if strange := next((name for name, value in stored.items() if not all_finite(value)), None):
        raise DamagedError(f"{folder / WEIGHTS}: {strange} holds numbers that are not finite", FETCH_AGAIN)
    lora = add_lora(
        model, _number(config, "r", folder, int), _number(config, "lora_alpha", folder, float), _targets(stored, folder)
    )
    places = {_peft_name(n).removeprefix(PREFIX): p for n, p in model.named_parameters() if is_adapter_weight(n)}
    for name, place in places.items():
        if name not in stored:
            raise DamagedError(f"{folder / WEIGHTS} lacks {name}", FETCH_AGAIN)
        if stored[name].shape != place.shape:
            raise DamagedError(
                f"{folder / WEIGHTS}: {name} has shape {list(stored[name].shape)}, the model needs {list(place.shape)}",
                "Use the model that the adapter was trained for",
            )
        place.copy_(stored[name])
    return lora


def _targets(stored: Mapping[str, Tensor], folder: Path) -> list[str]:
    """The modules that stored weights adapt."""
    modules = {name.split(".")[-3] for name in stored if name.endswith((".lora_A.weight", ".lora_B.weight"))}
    other = [n for n in stored if not n.endswith((".lora_A.weight", ".lora_B.weight")) and n != SCORE]
    if other or not modules <= set(TARGETS):
        strange = other[0] if other else sorted(modules - set(TARGETS))[0]
        raise InputError(f"{folder / WEIGHTS} adapts {strange}, which herdlm cannot", "Merge it with PEFT first")
    return sorted(modules)


def _number(config: Mapping[str, Any], key: str, folder: Path, kind: type[int] | type[float]) -> Any:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**20 or kind(value) != value:
        raise DamagedError(f"{folder / CONFIG}: {key} is {value!r}, not a number", FETCH_AGAIN)
    return kind(value)


def _peft_name(name: str) -> str:
    for ours, theirs in ((".lora_a", ".lora_A.weight"), (".lora_b", ".lora_B.weight")):
        if name.endswith(ours):
            return PREFIX + name.removesuffix(ours) + theirs
    return PREFIX + name
