"""Tokens on disk: one flat little-endian file, document offsets and an index; memory-mapped when read.

A shard folder holds ``tokens.bin`` (uint16 or uint32, by vocabulary), ``offsets.bin`` (uint64, one more than
documents), optionally ``targets.bin`` (uint8, 1 for each token that is a target; without it, all but a document's
first), and ``index.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object

HASHED = 1 << 20  # tokens at either end that identify a shard


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The contents of a shard. ``text_bytes`` is the UTF-8 size of the documents' text, for bits per byte."""

    documents: int
    tokens: int
    target_tokens: int
    text_bytes: int
    dtype: str
    tokenizer: str

    def check(self) -> None:
        """Check the types and ranges of what a file said.

        Raises:
            ValueError: one is wrong.
        """
        for name in ("documents", "tokens", "target_tokens", "text_bytes"):
            if type(value := getattr(self, name)) is not int or not 0 <= value < 2**63:
                raise ValueError(f"{name} = {value!r}")
        if self.dtype not in ("<u2", "<u4") or not isinstance(self.tokenizer, str):
            raise ValueError(f"dtype = {self.dtype!r}")


class ShardWriter:
    """Appends tokenized documents to a shard folder; :meth:`close` completes it."""

    def __init__(self, folder: Path, *, vocab_size: int, tokenizer: str, with_targets: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tokenizer = folder, tokenizer
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._tokens = (folder / "tokens.bin").open("wb")
        self._targets = (folder / "targets.bin").open("wb") if with_targets else None
        self._offsets = [0]
        self._target_tokens = 0
        self._text_bytes = 0

    def add(self, tokens: Sequence[int], *, text_bytes: int, targets: Sequence[bool] | None = None) -> None:
        """Append one document. ``targets`` is required if the writer was opened ``with_targets``, else not allowed."""
        assert (targets is None) == (self._targets is None)
        self._tokens.write(np.asarray(tokens, self.dtype).tobytes())
        self._offsets.append(self._offsets[-1] + len(tokens))
        self._text_bytes += text_bytes
        if self._targets is not None and targets is not None:
            assert len(targets) == len(tokens)
            self._targets.write(np.asarray(targets, np.uint8).tobytes())
            self._target_tokens += sum(targets[1:])
        else:
            self._target_tokens += len(tokens) - 1

    def close(self) -> ShardIndex:
        """Write offsets and index; only then can the shard be read."""
        self._tokens.close()
        if self._targets is not None:
            self._targets.close()
        np.asarray(self._offsets, "<u8").tofile(self.folder / "offsets.bin")
        index = ShardIndex(
            documents=len(self._offsets) - 1,
            tokens=self._offsets[-1],
            target_tokens=self._target_tokens,
            text_bytes=self._text_bytes,
            dtype=self.dtype.str,
            tokenizer=self.tokenizer,
        )
        fields = {name: getattr(index, name) for name in ShardIndex.__slots__}
        (self.folder / "index.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        return index


class Shard:
    """A shard opened for reading; ``tokens`` and ``offsets`` are memory maps.

    Raises:
        InputError: the folder is not a shard.
        DamagedError: a file is missing, or its size is not that of the index.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "index.json"
        if not path.is_file():
            raise InputError(f"{folder} is not a token shard: it holds no index.json", "Run the tokens stage first")
        try:
            self.index = ShardIndex(**read_object(path, "Make the tokens again"))
            self.index.check()
        except (ValueError, TypeError) as error:
            raise DamagedError(f"{path} is not a valid shard index: {error}", "Make the tokens again") from error
        self.folder = folder
        dtype = np.dtype(self.index.dtype)
        self.tokens = self._map("tokens.bin", dtype, self.index.tokens)
        self.offsets = self._map("offsets.bin", np.dtype("<u8"), self.index.documents + 1)
        has_targets = (folder / "targets.bin").exists()
        self.targets = self._map("targets.bin", np.dtype(np.uint8), self.index.tokens) if has_targets else None

    def content(self) -> str:
        """A hash of the index and of the first and last tokens, cheap for a shard of any size."""
        digest = hashlib.blake2b((self.folder / "index.json").read_bytes(), digest_size=16)
        for part in (self.tokens[:HASHED], self.tokens[-HASHED:]):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def _map(self, name: str, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        path = self.folder / name
        size, expected = (path.stat().st_size if path.is_file() else -1), count * dtype.itemsize
        if size != expected:
            found = "is missing" if size < 0 else f"has {size:,} bytes where the index says {expected:,}"
            raise DamagedError(f"{path} {found}", "Make the tokens again")
        return np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype)

    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each document, [documents]."""
        offsets = self.offsets.astype(np.int64)
        lengths: NDArray[np.int64] = offsets[1:] - offsets[:-1]
        return lengths
