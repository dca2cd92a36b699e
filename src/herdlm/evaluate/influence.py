"""How much each layer of a model changes what passes through it: which layers a smaller model can do without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.base.errors import InputError
from herdlm.evaluate.corpora import Corpus
from herdlm.generate.load import pick_device
from herdlm.model.hf import load_folder, read_config
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch, Piece, assemble
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.objectives import hidden_states

ROW_TOKENS = 512
ROWS_AT_ONCE = 8


@torch.no_grad()
def block_influence(model: Transformer, batches: list[Batch]) -> list[float]:
    """1 - the mean cosine of a layer's input and output over all tokens, for each layer (Men et al., 2403.03853)."""
    layers = model.model.layers
    similar, tokens = torch.zeros(len(layers), dtype=torch.float64), 0
    counted: Tensor

    def add(number: int) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            cosine = F.cosine_similarity(given[0].float(), out.float(), dim=-1)
            similar[number] += float((cosine * counted).sum(dtype=torch.float64))

        return layers[number].register_forward_hook(hook)

    hooks = [add(number) for number in range(len(layers))]
    try:
        for batch in batches:
            moved = batch.to(next(model.parameters()).device)
            counted = moved.weights > 0
            hidden_states(model, moved)
            tokens += int(counted.sum())
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]
    return [1.0 - value / tokens for value in similar.tolist()]


def text_batches(path: Path, tokenizer: Tokenizer, *, longest: int, tokens: int) -> list[Batch]:
    """So many tokens, or all that there are, from the beginning of the texts in ``path``, packed into rows.

    Args:
        path: whatever :class:`herdlm.evaluate.corpora.Corpus` reads.
        longest: the longest text that the model reads; what is longer is divided.

    Raises:
        InputError: there is no text.
    """
    pieces: list[Piece] = []
    left, length = tokens, min(longest, ROW_TOKENS)
    for text in Corpus(path).texts():
        ids = [*tokenizer.begin, *tokenizer.encode(text)][: left + 1]
        for first in range(0, len(ids) - 1, length):
            part = np.asarray(ids[first : first + length + 1])
            pieces.append(Piece(part, np.ones(len(part) - 1, np.float32)))
            left -= len(part) - 1
        if left <= 0:
            break
    if not pieces:
        raise InputError(f"{path} holds no text", "Give a file or folder with text")
    rows = [[pieces[i] for i in row] for row in pack_whole([len(piece.weights) for piece in pieces], length)]
    return [assemble(rows[i : i + ROWS_AT_ONCE], length, tokenizer.pad) for i in range(0, len(rows), ROWS_AT_ONCE)]


def measure_influence(folder: Path, data: Path, *, tokens: int, device: str) -> list[float]:
    """The influence of each layer of a model on so many tokens of the texts in ``data``.

    Raises:
        InputError: there is no text, or the model cannot be read.
    """
    tokenizer, longest = Tokenizer.load(folder), read_config(folder).max_seq_len
    batches = text_batches(data, tokenizer, longest=longest, tokens=tokens)
    return block_influence(load_folder(folder, pick_device(device)), batches)
