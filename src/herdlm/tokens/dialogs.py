"""Batches of dialogs and of preference pairs: every item whole, packed into rows, in an order shuffled each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.tokens.batch import Batch, Piece, assemble, lay_out, pack_whole
from herdlm.tokens.chat import Message, render
from herdlm.tokens.tokenizer import PAD, Tokenizer


class Dialog(TypedDict, total=False):
    """A dialog in the OpenAI form, with the kind of task and who wrote the answer where that is known."""

    messages: list[Message]
    task: str
    source: str


class Preference(TypedDict, total=False):
    """A ranked pair in TRL's conversational form, with how it was rated and which models wrote the answers.

    ``reference_chosen`` and ``reference_rejected`` are log-probabilities under the model DPO starts from.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    rating: str
    task: str
    chosen_source: str
    rejected_source: str
    reference_chosen: float
    reference_rejected: float


def dialog_piece(tokenizer: Tokenizer, messages: Sequence[Message]) -> Piece:
    """A dialog whose targets are the assistant's words and turn ends (SFT; report, section 4.1.3)."""
    rendered = render(tokenizer, messages)
    return Piece(np.asarray(rendered.tokens), np.asarray(rendered.answer[1:], np.float32))


def answer_piece(tokenizer: Tokenizer, prompt: Sequence[Message], answer: Sequence[Message], *, masked: bool) -> Piece:
    """A prompt with an answer; targets are the answer's words, without formatting tokens if ``masked`` (DPO)."""
    before = len(render(tokenizer, prompt).tokens)
    rendered = render(tokenizer, [*prompt, *answer])
    weights = np.asarray(rendered.answer[1:], np.float32)
    weights[: before - 1] = 0.0
    if masked:
        weights *= 1.0 - np.asarray(rendered.formatting[1:], np.float32)
    return Piece(np.asarray(rendered.tokens), weights)


def fits(tokenizer: Tokenizer, messages: Sequence[Message], seq_len: int) -> bool:
    """Whether a whole dialog, its last token an input too, goes into a row."""
    return len(render(tokenizer, messages).tokens) <= seq_len


class DialogBatches:
    """Batches for supervised fine-tuning: ``rows_per_step`` packed rows, ``epochs`` times over the dialogs.

    With ``steps``, as many epochs as that many optimizer steps take, for runs that are to be compared.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dialogs: Sequence[Dialog],
        *,
        seq_len: int,
        rows_per_step: int,
        epochs: float,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.pieces = [dialog_piece(tokenizer, dialog["messages"]) for dialog in dialogs]
        _check_lengths(self.pieces, seq_len)
        self.pad, self.seq_len = tokenizer.special(PAD), seq_len
        rows: list[list[int]] = []
        epoch = 0
        while epoch < epochs if steps is None else len(rows) < steps * rows_per_step:
            order = stream(seed, "dialogs", epoch).permutation(len(self.pieces))
            if steps is None:
                order = order[: round(len(order) * min(epochs - epoch, 1.0))]
            packed = pack_whole([len(self.pieces[i].tokens) - 1 for i in order], seq_len)
            rows += [[int(order[i]) for i in row] for row in packed]
            epoch += 1
        self.plan = [rows[i : i + rows_per_step] for i in range(0, len(rows), rows_per_step)][:steps]

    @property
    def steps(self) -> int:
        """Optimizer steps in all epochs."""
        return len(self.plan)

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of one step."""
        return [assemble([[self.pieces[i] for i in row] for row in self.plan[step]], self.seq_len, self.pad)]


class PreferenceBatches:
    """Batches of pairs for the reward model and for DPO; a pair's two answers are in one batch.

    Columns: ``chosen`` and ``rejected`` (document numbers), ``chosen_end`` and ``rejected_end`` (flattened index of the
    answers' last token) and, where every pair has them, ``reference_chosen`` and ``reference_rejected``; all [pairs].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        pairs: Sequence[Preference],
        *,
        seq_len: int,
        pairs_per_step: int,
        epochs: int,
        seed: int,
        mask_formatting: bool,
    ) -> None:
        pad = tokenizer.special(PAD)
        self.pairs, self.pad, self.seq_len = pairs, pad, seq_len
        self.pieces = []
        for pair in pairs:
            for side in (pair["chosen"], pair["rejected"]):
                piece = answer_piece(tokenizer, pair["prompt"], side, masked=mask_formatting)
                # One token more, so that the end of the turn is an input and can be scored.
                self.pieces.append(Piece(np.append(piece.tokens, pad), np.append(piece.weights, np.float32(0))))
        _check_lengths(self.pieces, seq_len)
        self.plan: list[list[int]] = []
        for epoch in range(epochs):
            order = stream(seed, "pairs", epoch).permutation(len(pairs)).tolist()
            self.plan += [order[i : i + pairs_per_step] for i in range(0, len(order), pairs_per_step)]

    @property
    def steps(self) -> int:
        """Optimizer steps in all epochs."""
        return len(self.plan)

    def micro_batches(self, step: int) -> list[Batch]:
        """The pairs of one step."""
        return [self.batch(self.plan[step])]

    def batch(self, pairs: Sequence[int]) -> Batch:
        """A batch of the pairs with these numbers, in this order."""
        pieces = [self.pieces[2 * p + side] for p in pairs for side in (0, 1)]
        rows = pack_whole([len(piece.tokens) - 1 for piece in pieces], self.seq_len)
        batch, places = lay_out([[pieces[i] for i in row] for row in rows], self.seq_len, self.pad)
        by_item = {
            i: place for row, found in zip(rows, places, strict=True) for i, place in zip(row, found, strict=True)
        }
        for side, name in ((0, "chosen"), (1, "rejected")):
            sided = [by_item[2 * n + side] for n in range(len(pairs))]
            batch.columns[name] = torch.tensor([place.document for place in sided])
            batch.columns[f"{name}_end"] = torch.tensor([place.end for place in sided])
        if all("reference_chosen" in self.pairs[p] for p in pairs):
            batch.columns["reference_chosen"] = torch.tensor([self.pairs[p]["reference_chosen"] for p in pairs])
            batch.columns["reference_rejected"] = torch.tensor([self.pairs[p]["reference_rejected"] for p in pairs])
        return batch


def _check_lengths(pieces: Sequence[Piece], seq_len: int) -> None:
    if not pieces:
        raise InputError("there is nothing to train on: the data set is empty", "Look at the stage that made it")
    longest = max(len(piece.tokens) - 1 for piece in pieces)
    if longest > seq_len:
        raise InputError(f"a dialog has {longest:,} tokens, rows have {seq_len:,}", "Raise seq_len or drop it")
