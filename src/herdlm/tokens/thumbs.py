"""Batches of single answers with a thumb up or down, for KTO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
import torch

from herdlm.base.errors import InputError
from herdlm.tokens.batch import Batch, Piece, lay_out
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_short
from herdlm.tokens.pieces import StepsOfItems, check_lengths, content_of_pieces, shuffled_steps
from herdlm.tokens.preferences import Preference, answer_piece


class Thumb(TypedDict, total=False):
    """An answer with a thumb up (``label`` true) or down.

    ``reference`` and ``reference_mismatched`` are log-probabilities under the model that training starts from: of the
    answer, and of the mismatched one (see :class:`ThumbBatches`).
    """

    prompt: list[Message]
    tools: list[dict[str, Any]]
    completion: list[Message]
    label: bool
    reference: float
    reference_mismatched: float


class ThumbBatches(StepsOfItems):
    """Batches of thumbs for KTO.

    Each thumb's prompt is also paired with the nearest earlier answer to another prompt, cut to the length of a row.
    These mismatched answers are in the ``probe`` of each batch. The pairing depends on the order of ``thumbs`` alone,
    so the reference reads it once.

    Columns of batch and probe: ``answer`` (document numbers) and, where every thumb has them, ``reference``; the
    batch's ``label`` is true for a thumb up; all [thumbs].

    Args:
        steps: how many steps to take, in place of ``epochs``.
        rows_per_micro_batch: the most rows of a micro-batch; None: those of the step.

    Raises:
        InputError: there are no thumbs, one is longer than a row, or all have the same prompt.
    """

    def __init__(
        self,
        format: ChatFormat,
        thumbs: Sequence[Thumb],
        *,
        seq_len: int,
        thumbs_per_step: int,
        epochs: int,
        seed: int,
        mask_formatting: bool,
        steps: int | None = None,
        rows_per_micro_batch: int | None = None,
    ) -> None:
        self.items, self.pad, self.seq_len = thumbs, format.pad, seq_len
        self.pieces = [_piece(format, thumb, thumb["completion"], masked=mask_formatting) for thumb in thumbs]
        check_lengths(self.pieces, seq_len)
        self.mismatched = [
            _cut(_piece(format, thumb, thumbs[other]["completion"], masked=mask_formatting), seq_len)
            for thumb, other in zip(thumbs, mismatches([thumb["prompt"] for thumb in thumbs]), strict=True)
        ]
        self.rows_per_micro_batch = rows_per_micro_batch
        self.plan = shuffled_steps(len(thumbs), thumbs_per_step, epochs=epochs, steps=steps, seed=seed, name="thumbs")
        labels = bytes(bool(thumb["label"]) for thumb in thumbs)
        self.content = content_of_pieces([*self.pieces, *self.mismatched], labels, seq_len, thumbs_per_step, seed)

    def lengths(self, thumb: int) -> list[int]:
        """Tokens of each answer of a thumb, with its prompt."""
        return [len(self.pieces[thumb].tokens) - 1]

    def batch(self, thumbs: Sequence[int]) -> Batch:
        """A batch of the thumbs with these numbers, in this order."""
        batch = self._laid_out([self.pieces[i] for i in thumbs])
        batch.columns["label"] = torch.tensor([bool(self.items[i]["label"]) for i in thumbs])
        batch.probe = self._laid_out([self.mismatched[i] for i in thumbs])
        if all("reference" in self.items[i] for i in thumbs):
            batch.columns["reference"] = torch.tensor([self.items[i]["reference"] for i in thumbs])
            batch.probe.columns["reference"] = torch.tensor([self.items[i]["reference_mismatched"] for i in thumbs])
        return batch

    def _laid_out(self, pieces: Sequence[Piece]) -> Batch:
        rows, length = pack_short([len(piece.tokens) - 1 for piece in pieces], self.seq_len)
        batch, places = lay_out([[pieces[i] for i in row] for row in rows], length, self.pad)
        documents = torch.zeros(len(pieces), dtype=torch.int64)
        for row, found in zip(rows, places, strict=True):
            documents[row] = torch.tensor([place.document for place in found])
        batch.columns["answer"] = documents
        return batch


def mismatches(prompts: Sequence[object]) -> list[int]:
    """For each of the ``prompts``, the number of the nearest earlier one that differs; the first follow the last ones.

    Raises:
        InputError: all are the same.
    """
    if all(prompt == prompts[0] for prompt in prompts):
        raise InputError(
            "KTO needs answers to different prompts, and all thumbs have the same one", "Add thumbs on other prompts"
        )
    found = [0] * len(prompts)
    for number in range(2 * len(prompts)):  # twice, so that the first ones know of the last
        here, before = number % len(prompts), (number - 1) % len(prompts)
        found[here] = found[before] if prompts[here] == prompts[before] else before
    return found


def thumbs_of(pairs: Iterable[Preference]) -> list[Thumb]:
    """Pairs as thumbs: up for the chosen answer, down for the rejected one."""
    thumbs: list[Thumb] = []
    for pair in pairs:
        for answer, label in ((pair["chosen"], True), (pair["rejected"], False)):
            thumb: Thumb = {"prompt": pair["prompt"], "completion": answer, "label": label}
            if "tools" in pair:
                thumb["tools"] = pair["tools"]
            thumbs.append(thumb)
    return thumbs


def _piece(format: ChatFormat, thumb: Thumb, answer: Sequence[Message], *, masked: bool) -> Piece:
    return answer_piece(format, thumb["prompt"], answer, masked=masked, tools=thumb.get("tools"))


def _cut(piece: Piece, seq_len: int) -> Piece:
    return Piece(np.asarray(piece.tokens[: seq_len + 1]), np.asarray(piece.weights[:seq_len]))
