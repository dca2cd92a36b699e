"""Weights in safetensors files, whole or in shards. Files are checked when opened; equal weights give equal bytes.

The layout is Hugging Face's: ``model.safetensors``, or ``model-00001-of-00003.safetensors`` and so on, with the shard
of each tensor in ``model.safetensors.index.json``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from herdlm.base.artifact import FileCheck, write_text_durably
from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.base.json_files import read_object

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FETCH_AGAIN = "Download or create the folder again"

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. Shape and type are known; values are read on request, once the file is known to be whole."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Any
    check: FileCheck

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def read(self) -> Tensor:
        """The values, on the CPU.

        Raises:
            DamagedError: the file can no longer be read, is not what its manifest says, or holds a number that is not
                finite.
        """
        return self._checked(lambda: self.file.get_tensor(self.name))

    def read_rows(self, first: int, end: int) -> Tensor:
        """Entries ``first`` up to ``end`` along the first dimension, on the CPU.

        Raises:
            DamagedError: as :meth:`read`.
        """
        return self._checked(lambda: self.file.get_slice(self.name)[first:end])

    def _checked(self, read: Callable[[], Tensor]) -> Tensor:
        self.check.wait()
        try:
            values = read()
        except (SafetensorError, OSError, RuntimeError, TypeError) as error:
            raise DamagedError(f"{self.path}: tensor {self.name} cannot be read: {error}", FETCH_AGAIN) from error
        if not all_finite(values):
            raise DamagedError(f"{self.path}: tensor {self.name} holds numbers that are not finite", FETCH_AGAIN)
        return values


def all_finite(values: Tensor) -> bool:
    """Whether no value is infinite or not a number. One pass, without a copy."""
    if values.numel() == 0:
        return True
    if values.dtype.itemsize == 1:  # E4M3 without infinities: all bits but the sign's are set in a NaN
        return not bool(((values.view(torch.uint8) & 0x7F) == 0x7F).any())
    if math.isfinite(values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32).item()):
        return True  # an infinity or a NaN stays in a sum, which is faster than looking for them
    least, most = values.aminmax()  # a NaN makes both NaN
    return math.isfinite(least.item()) and math.isfinite(most.item())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; see :func:`herdlm.base.json_files.read_object`.

    Raises:
        InputError: there is no such file.
        DamagedError: it is not JSON, not an object, or not what its manifest says.
    """
    return read_object(path, FETCH_AGAIN)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as indented JSON, in the order of its keys."""
    write_text_durably(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder by name. Every file is opened, and its header checked against its length.

    Raises:
        InputError: the folder has no safetensors files (pickled ones are never read), or has both layouts.
        DamagedError: a file is missing, truncated, or contradicts the index.
    """
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file() and index.is_file():
        raise InputError(f"{folder} holds both {WHOLE} and {INDEX}", "Remove the one that is stale")
    if whole.is_file():
        return {tensor.name: tensor for tensor in _open(whole, FileCheck(whole))}
    if index.is_file():
        return _open_shards(folder, index)
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickled:
        raise InputError(
            f"{folder} has its weights in {pickled[0]}, which is a pickle and never unpickled",
            "Convert the folder to safetensors first",
        )
    raise InputError(f"{folder} holds neither {WHOLE} nor {INDEX}", "Check the path; weights are read from safetensors")


def _open_shards(folder: Path, index: Path) -> dict[str, StoredTensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise DamagedError(f"{index} has no weight_map of tensor names to files", FETCH_AGAIN)
    tensors: dict[str, StoredTensor] = {}
    check: FileCheck | None = None
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors") or "\0" in shard:
            raise DamagedError(f"{index} names {shard[:200]!r}, which is not a file of its folder", FETCH_AGAIN)
        check = FileCheck(folder / shard, before=check)
        for tensor in _open(folder / shard, check):
            if places.get(tensor.name) != shard:
                raise DamagedError(
                    f"{folder / shard} holds {tensor.name}, which {index.name} lists elsewhere", FETCH_AGAIN
                )
            tensors[tensor.name] = tensor
    lost = next((name for name in places if name not in tensors), None)
    if lost is not None:
        raise DamagedError(f"{folder / places[lost]} does not hold {lost}, which {index.name} lists there", FETCH_AGAIN)
    return tensors


def _open(path: Path, check: FileCheck) -> Iterator[StoredTensor]:
    try:
        file: Any = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118 - not a mapping
            part = file.get_slice(name)
            kind = part.get_dtype()
            if kind not in DTYPES:
                raise InputError(f"{path}: tensor {name} is of type {kind}", f"Known types: {', '.join(DTYPES)}")
            yield StoredTensor(path, name, tuple(part.get_shape()), DTYPES[kind], file, check)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing", FETCH_AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} is truncated or damaged: {error}", FETCH_AGAIN) from error


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> int:
    """Write named tensors, in order, into one file or shards of at most ``max_shard_bytes``; returns the bytes written.

    One shard is in memory at a time. A tensor larger than the limit gets a shard of its own.

    Raises:
        InputError: the folder already holds weights.
        HerdError: the disk is full or cannot be written.
    """
    stale = next(folder.glob("*.safetensors*"), None)
    if stale is not None:
        raise InputError(f"{folder} holds weights already: {stale.name}", "Choose another folder, or remove them")
    try:
        return _write(folder, tensors, max_shard_bytes)
    except (SafetensorError, OSError) as error:
        raise HerdError(
            f"the weights cannot be written to {folder}: {error}", "Free space or choose another disk"
        ) from error


def _write(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> int:
    shards: list[list[str]] = []
    waiting: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        nonlocal size
        path = _unnumbered(folder, len(shards))
        path.touch()
        mode = path.stat().st_mode
        save_file(waiting, path, metadata={"format": "pt"})
        path.chmod(mode)  # save_file makes a file that only its owner can read
        with path.open("rb") as file:
            os.fsync(file.fileno())
        shards.append(list(waiting))
        waiting.clear()
        size = 0

    for name, tensor in tensors:
        if waiting and size + tensor.nbytes > max_shard_bytes:
            flush()
        waiting[name] = tensor.detach().to("cpu").contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        _unnumbered(folder, 0).rename(folder / WHOLE)
        return total
    places = {}
    for number, names in enumerate(shards):
        shard = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        _unnumbered(folder, number).rename(folder / shard)
        places.update(dict.fromkeys(names, shard))
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})
    return total


def _unnumbered(folder: Path, number: int) -> Path:
    """The path of a shard until the number of shards is known."""
    return folder / f".shard-{number:05}.partial"
