"""Embeddings of texts by a model of ours, kept in a file so that no text is embedded twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from herdlm.base.progress import Progress
from herdlm.generate.embedding import embedding
from herdlm.model.folders import model_folder
from herdlm.model.hf import load_folder
from herdlm.tokens.tokenizer import Tokenizer

MAX_TOKENS = 256
KEY_BYTES = 16


class Embedder:
    """Embeds texts, [N] -> [N, D] of length 1, by the mean over their first tokens of the last hidden states.

    Args:
        store: a file to which each embedding is added as it is made, so that a killed run goes on where it was.
    """

    def __init__(self, model: Path, *, store: Path | None = None, device: str = "cpu", quiet: bool = False) -> None:
        folder = model_folder(model)
        self.model = load_folder(folder, device, torch.float32).eval()
        self.tokenizer = Tokenizer.load(folder)
        self.size = self.model.config.dim
        self.store, self.quiet = store, quiet
        self._known: dict[bytes, NDArray[np.float32]] = {}
        if store is not None and store.is_file():
            self._read(store)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings of texts."""
        keys = [hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts]
        left = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        with Progress("embeddings", len(left), "texts", quiet=self.quiet) as progress:
            for key, text in left.items():
                self._known[key] = self._embed(text)
                if self.store is not None:
                    with self.store.open("ab") as file:
                        file.write(key + self._known[key].tobytes())
                progress.advance()
        found = [self._known[key] for key in keys]
        return np.stack(found) if found else np.zeros((0, self.size), np.float32)

    def _embed(self, text: str) -> NDArray[np.float32]:
        tokens = self.tokenizer.encode(text)[:MAX_TOKENS]
        if not tokens:
            return np.zeros(self.size, np.float32)
        return np.asarray(embedding(self.model, tokens), np.float32)

    def _read(self, store: Path) -> None:
        """Read what is there; a last entry that is not whole is cut off."""
        content, size = store.read_bytes(), KEY_BYTES + 4 * self.size
        whole = len(content) // size * size
        if whole < len(content):
            with store.open("r+b") as file:
                file.truncate(whole)
        for begin in range(0, whole, size):
            entry = content[begin : begin + size]
            self._known[entry[:KEY_BYTES]] = np.frombuffer(entry[KEY_BYTES:], np.float32)
