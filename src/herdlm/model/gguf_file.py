"""GGUF files, llama.cpp's format: read, dequantized and written tensor by tensor, by the ``gguf`` library."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.weights import FETCH_AGAIN

# By the name that the command takes: the library's name of the type, and llama.cpp's number of the kind of file.
TYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7)}
Q8_0_BLOCK = 32  # values that share a scale; a row is a multiple of it


def gguf_library() -> Any:
    """The ``gguf`` library.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise InputError("GGUF files need the package gguf", 'Install it: pip install "herdlm[gguf]"') from error


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file. Shape and type are known; values are dequantized on request."""

    path: Path
    name: str
    shape: tuple[int, ...]
    type: str
    dequantize: Callable[[], Any]

    def read(self) -> Tensor:
        """The values in float32.

        Raises:
            InputError: the library cannot dequantize this type.
            DamagedError: the stored blocks do not make a tensor of this shape.
        """
        try:
            values = self.dequantize()
        except NotImplementedError as error:
            raise InputError(
                f"{self.path}: tensor {self.name} is of type {self.type}, which the gguf library cannot dequantize",
                "Use a file of another quantization, such as Q8_0",
            ) from error
        except (ValueError, IndexError) as error:
            raise DamagedError(f"{self.path}: tensor {self.name} cannot be read: {error}", FETCH_AGAIN) from error
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file: metadata by key, and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def open_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file.

    Raises:
        InputError: the file does not exist, is one part of several, or the library is not installed.
        DamagedError: it is no GGUF file, or it is truncated.
    """
    gguf = gguf_library()
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Give a .gguf file")
    try:
        reader = gguf.GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, MemoryError) as error:
        raise DamagedError(f"{path} is no GGUF file, or truncated or damaged: {error}", FETCH_AGAIN) from error
    if metadata.get("split.count", 1) > 1:
        raise InputError(
            f"{path} is one part of {metadata['split.count']}", "Join the parts: llama-gguf-split --merge FIRST OUT"
        )
    tensors = {
        stored.name: GgufTensor(
            path=path,
            name=stored.name,
            shape=tuple(int(size) for size in reversed(stored.shape)),
            type=stored.tensor_type.name,
            dequantize=partial(gguf.quants.dequantize, stored.data, stored.tensor_type),
        )
        for stored in reader.tensors
    }
    return GgufFile(path, metadata, tensors)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Iterable[tuple[str, tuple[int, ...], Callable[[], Tensor]]],
    type_name: str,
) -> dict[str, str]:
    """Write a GGUF file, with one tensor in memory at a time.

    Vectors are stored in F32. A matrix whose rows Q8_0 cannot divide into blocks is stored in F16.

    Args:
        metadata: values by key, "general.architecture" among them; an int is stored as uint32, a float as float32.
        tensors: (name, shape, function that reads the values) of each.
        type_name: a key of ``TYPES``.

    Returns:
        the tensors not stored in the type asked for, with the type of each; vectors excepted.

    Raises:
        InputError: the type is unknown, or a value is beyond F16's range.
    """
    if type_name not in TYPES:
        raise InputError(f"type {type_name!r} is unknown", f"Use one of {', '.join(TYPES)}")
    gguf = gguf_library()
    kind, file_type = TYPES[type_name]
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    values = {"general.file_type": file_type, **metadata}
    if kind == "Q8_0":
        values["general.quantization_version"] = gguf.GGML_QUANT_VERSION
    for key, value in values.items():
        if key != "general.architecture":
            writer.add_key_value(key, value, gguf.GGUFValueType[_value_type(value)])
    planned, other = [], {}
    for name, shape, read in tensors:
        stored = _stored_type(kind, shape)
        if stored != kind and len(shape) > 1:
            other[name] = stored
        qtype = gguf.GGMLQuantizationType[stored]
        block, size = gguf.GGML_QUANT_SIZES[qtype]
        count = int(np.prod(shape))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), count // block * size, raw_dtype=qtype)
        planned.append((name, read, qtype))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, read, qtype in planned:
            array = read().to(torch.float32).contiguous().numpy()
            if qtype.name == "F16" and float(np.abs(array).max(initial=0.0)) > float(np.finfo(np.float16).max):
                raise InputError(f"{name} has values beyond the range of F16", "Use the type bf16 or f32")
            writer.write_tensor_data(gguf.quants.quantize(array, qtype))
    finally:
        writer.close()
    return other


def _value_type(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOL"
    names = {int: "UINT32", float: "FLOAT32", str: "STRING", list: "ARRAY"}
    return names[type(value)]


def _stored_type(kind: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return "F32"
    return "F16" if kind == "Q8_0" and shape[-1] % Q8_0_BLOCK else kind
