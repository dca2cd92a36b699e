"""Batches of preference pairs, for the reward model and for DPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch

from herdlm.tokens.batch import Batch, Piece, lay_out
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_short
from herdlm.tokens.pieces import StepsOfItems, check_lengths, content_of_pieces, shuffled_steps


class Preference(TypedDict, total=False):
    """A ranked pair in TRL's conversational form, with its rating and the models that wrote the answers.

    ``reference_chosen`` and ``reference_rejected`` are log-probabilities under the model that DPO starts from.
    """

    prompt: list[Message]
    tools: list[dict[str, Any]]
    chosen: list[Message]
    rejected: list[Message]
    rating: str
    task: str
    chosen_source: str
    rejected_source: str
    reference_chosen: float
    reference_rejected: float


def answer_piece(
    format: ChatFormat,
    prompt: Sequence[Message],
    answer: Sequence[Message],
    *,
    masked: bool,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Piece:
    """A prompt with an answer. Targets are the answer's tokens, except formatting tokens if ``masked`` (DPO)."""
    rendered = format.render([*prompt, *answer], tools=tools, first=len(prompt))
    weights = np.asarray(rendered.weights[1:], np.float32)
    if masked:
        weights *= 1.0 - np.asarray(rendered.formatting[1:], np.float32)
    return Piece(np.asarray(rendered.tokens), weights)


class PreferenceBatches(StepsOfItems):
    """Batches of pairs for the reward model and for DPO; both answers of a pair are in the same batch.

    Columns: ``chosen`` and ``rejected`` (document numbers), ``chosen_end`` and ``rejected_end`` (flattened index of the
    answers' last token) and, where every pair has them, ``reference_chosen`` and ``reference_rejected``; all [pairs].

    Args:
        steps: how many steps to take, in place of ``epochs``.
        rows_per_micro_batch: the most rows of a micro-batch, unless a single pair needs more; None: those of the step.
    """

    def __init__(
        self,
        format: ChatFormat,
        pairs: Sequence[Preference],
        *,
        seq_len: int,
        pairs_per_step: int,
        epochs: int,
        seed: int,
        mask_formatting: bool,
        steps: int | None = None,
        rows_per_micro_batch: int | None = None,
    ) -> None:
        pad = format.pad
        self.rows_per_micro_batch = rows_per_micro_batch
        self.items, self.pad, self.seq_len = pairs, pad, seq_len
        self.pieces = []
        for pair in pairs:
            for side in (pair["chosen"], pair["rejected"]):
                piece = answer_piece(format, pair["prompt"], side, masked=mask_formatting, tools=pair.get("tools"))
                # One token more, so that the end of the turn is an input and can be scored.
                self.pieces.append(Piece(np.append(piece.tokens, pad), np.append(piece.weights, np.float32(0))))
        check_lengths(self.pieces, seq_len)
        self.content = content_of_pieces(self.pieces, seq_len, pairs_per_step, seed)
        self.plan = shuffled_steps(len(pairs), pairs_per_step, epochs=epochs, steps=steps, seed=seed, name="pairs")

    def lengths(self, pair: int) -> list[int]:
        """Tokens of each answer of a pair, with its prompt."""
        return [len(piece.tokens) - 1 for piece in self.pieces[2 * pair : 2 * pair + 2]]

    def batch(self, pairs: Sequence[int]) -> Batch:
        """A batch of the pairs with these numbers, in this order."""
        pieces = [self.pieces[2 * p + side] for p in pairs for side in (0, 1)]
        rows, length = pack_short([len(piece.tokens) - 1 for piece in pieces], self.seq_len)
        batch, places = lay_out([[pieces[i] for i in row] for row in rows], length, self.pad)
        by_item = {
            i: place for row, found in zip(rows, places, strict=True) for i, place in zip(row, found, strict=True)
        }
        for side, name in ((0, "chosen"), (1, "rejected")):
            sided = [by_item[2 * n + side] for n in range(len(pairs))]
            batch.columns[name] = torch.tensor([place.document for place in sided])
            batch.columns[f"{name}_end"] = torch.tensor([place.end for place in sided])
        if all("reference_chosen" in self.items[p] for p in pairs):
            batch.columns["reference_chosen"] = torch.tensor([self.items[p]["reference_chosen"] for p in pairs])
            batch.columns["reference_rejected"] = torch.tensor([self.items[p]["reference_rejected"] for p in pairs])
        return batch
