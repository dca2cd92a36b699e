"""Writes weights to safetensors files row by row, in memory that grows neither with the model nor with a matrix.

Names, types and shapes determine every offset before any value is known. So each file gets its header first, and rows
are then written to their places in any order.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herdlm.base.errors import HerdError, InputError
from herdlm.model.weights import DTYPES, INDEX, WHOLE, write_json

KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
HEADER_MULTIPLE = 8  # values start at an aligned offset, since readers map files into memory


@dataclass(frozen=True, slots=True)
class Layout:
    """The type and shape of a tensor to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first dimension."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.shape[0] * self.row_bytes


@dataclass(slots=True)
class _Place:
    layout: Layout
    file: FileIO
    offset: int
    rows_left: int


class StreamedWeights:
    """Weight files that are being written, whole or in shards of at most ``max_shard_bytes``; use as a context manager.

    Tensors keep their order across shards; in a shard, wider types come first, which aligns all of them. When the
    context ends, every row must have been written, and the files get their final names.

    Raises:
        InputError: the folder already holds weights.
        HerdError: the disk is full or cannot be written.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, Layout], max_shard_bytes: int) -> None:
        stale = next(folder.glob("*.safetensors*"), None)
        if stale is not None:
            raise InputError(f"{folder} holds weights already: {stale.name}", "Choose another folder, or remove them")
        self.folder, self.bytes = folder, sum(layout.bytes for layout in tensors.values())
        self._shards = _shards(tensors, max_shard_bytes)
        self._places: dict[str, _Place] = {}
        self._open = ExitStack()

    def __enter__(self) -> StreamedWeights:
        try:
            for number, shard in enumerate(self._shards):
                file = self._open.enter_context(self._partial(number).open("wb", buffering=0))
                self._begin(file, shard)
        except OSError as error:
            self._open.close()
            raise self._failure(error) from error
        return self

    def write(self, name: str, first_row: int, rows: Tensor) -> None:
        """Write rows of a tensor, in its type, from ``first_row`` on.

        Raises:
            HerdError: the disk is full or cannot be written.
        """
        place = self._places[name]
        assert rows.dtype == place.layout.dtype and rows.shape[1:] == place.layout.shape[1:], name
        place.rows_left -= rows.shape[0]
        try:
            place.file.seek(place.offset + first_row * place.layout.row_bytes)
            _put(place.file, rows.contiguous().view(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is not None:
                return
            late = next((name for name, place in self._places.items() if place.rows_left), None)
            assert late is None, f"{late} was not written whole"
            try:
                for file in {id(place.file): place.file for place in self._places.values()}.values():
                    os.fsync(file.fileno())
                self._name()
            except OSError as error:
                raise self._failure(error) from error

    def _begin(self, file: FileIO, shard: dict[str, Layout]) -> None:
        """Write a file's header and record the places of its tensors."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        ordered = sorted(
            shard.items(), key=lambda item: -item[1].dtype.itemsize
        )  # stable: otherwise in the given order
        for name, layout in ordered:
            end = offset + layout.bytes
            header[name] = {"dtype": KINDS[layout.dtype], "shape": list(layout.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % HEADER_MULTIPLE)
        _put(file, memoryview(len(text).to_bytes(8, "little") + text))
        start = file.tell()
        for name, layout in ordered:
            place = start + header[name]["data_offsets"][0]
            self._places[name] = _Place(layout, file, place, layout.shape[0])
        file.truncate(start + offset)

    def _name(self) -> None:
        """Rename the finished files, and write an index for shards."""
        if len(self._shards) == 1:
            self._partial(0).rename(self.folder / WHOLE)
            return
        places = {}
        for number, shard in enumerate(self._shards):
            name = f"model-{number + 1:05}-of-{len(self._shards):05}.safetensors"
            self._partial(number).rename(self.folder / name)
            places.update(dict.fromkeys(shard, name))
        index = {"metadata": {"total_size": self.bytes}, "weight_map": dict(sorted(places.items()))}
        write_json(self.folder / INDEX, index)

    def _partial(self, number: int) -> Path:
        return self.folder / f".shard-{number:05}.partial"

    def _failure(self, error: OSError) -> HerdError:
        return HerdError(
            f"the weights cannot be written to {self.folder}: {error}", "Free space or choose another disk"
        )


def _put(file: FileIO, content: memoryview) -> None:
    """Write all of ``content``; one write may take only a part of it."""
    while content:
        content = content[file.write(content) :]


def _shards(tensors: Mapping[str, Layout], max_shard_bytes: int) -> list[dict[str, Layout]]:
    """The tensors in order, split into shards; a tensor larger than a shard has one of its own."""
    shards: list[dict[str, Layout]] = [{}]
    size = 0
    for name, layout in tensors.items():
        if shards[-1] and size + layout.bytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = layout
        size += layout.bytes
    return shards
