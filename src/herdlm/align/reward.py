"""Reads a reward model: scores of answers and of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from herdlm.align.bank.answers import as_messages
from herdlm.align.bank.tasks import Question
from herdlm.base.progress import Progress
from herdlm.model.shared_prefixes import last_hidden_states
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.output_head import ShardedOutputHead
from herdlm.tokens.batch import Piece, lay_out
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat, Tools
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.preferences import PreferenceBatches


class Scorer(Protocol):
    """A reward model in other processes."""

    def score(self, sequences: Sequence[Sequence[int]], progress: Progress) -> list[float]:
        """As :func:`sequence_scores`; counts what is finished as progress."""


def pair_scores(
    model: Transformer | ParallelModel, pairs: PreferenceBatches, *, title: str = "scores", quiet: bool = True
) -> list[tuple[float, float]]:
    """The scores of each pair's chosen and rejected answer. Every process of a laid-out model calls this."""
    sequences = [piece.tokens[:-1].tolist() for piece in pairs.pieces]
    if isinstance(model, ParallelModel):
        found = _laid_out_scores(model, sequences, pairs.seq_len, pairs.pad, pairs.rows_per_micro_batch or 1)
    else:
        found = sequence_scores(model, sequences, title=title, quiet=quiet)
    return list(zip(found[::2], found[1::2], strict=True))


def answered(format: ChatFormat, messages: Sequence[Message], tools: Tools = None) -> list[int]:
    """The tokens of a dialog that ends with the answer to score."""
    return format.render(messages, tools=tools, first=len(messages)).tokens


def sequence_scores(
    model: Transformer | Scorer, sequences: Sequence[Sequence[int]], *, title: str, quiet: bool = False
) -> list[float]:
    """The reward of each answer, read at the last token of its dialog."""
    with Progress(title, len(sequences), "answers", quiet=quiet) as progress:
        if isinstance(model, Transformer):
            model = LocalScorer(model)
        return model.score(sequences, progress)


class LocalScorer:
    """A reward model in this process; see :class:`Scorer`.

    Args:
        products: the type to compute matrix products in; by default that of the weights. The last product, of the
            hidden state with the score's weights, is computed in theirs.
    """

    def __init__(self, model: Transformer, products: torch.dtype | None = None) -> None:
        self.model, self.products = model, products

    def score(self, sequences: Sequence[Sequence[int]], progress: Progress) -> list[float]:
        """As :func:`sequence_scores`."""
        scores = [0.0] * len(sequences)
        for numbers, hidden in last_hidden_states(self.model, sequences, self.products):
            values = self.model.scores(hidden.to(self.model.score.weight.dtype)).tolist()
            for number, value in zip(numbers, values, strict=True):
                scores[number] = value
            progress.advance(len(numbers))
        return scores


def _laid_out_scores(
    model: ParallelModel, sequences: Sequence[list[int]], seq_len: int, pad: int, rows_at_once: int
) -> list[float]:
    """As :func:`sequence_scores`, in rows of ``seq_len`` tokens that all processes of a layout read together."""

    def read(head: ShardedOutputHead, hidden: Tensor, targets: Tensor) -> Tensor:
        return head.scores(hidden)

    pieces = [Piece(np.array([*tokens, pad]), np.eye(1, len(tokens), len(tokens) - 1)[0]) for tokens in sequences]
    rows = pack_whole([len(tokens) for tokens in sequences], seq_len)
    scores = [0.0] * len(sequences)
    for first in range(0, len(rows), rows_at_once):
        some = rows[first : first + rows_at_once]
        batch, places = lay_out([[pieces[number] for number in row] for row in some], seq_len, pad)
        found = model.values([batch], read)[0].flatten()
        for row, at in zip(some, places, strict=True):
            for number, place in zip(row, at, strict=True):
                scores[number] = float(found[place.end])
    return scores


def scores_of_fitting(
    model: Transformer | Scorer, sequences: Sequence[Sequence[int]], *, seq_len: int, title: str, quiet: bool = False
) -> list[float]:
    """As :func:`sequence_scores`; minus infinity for what is too long for a row of ``seq_len`` tokens."""
    fitting = [number for number, tokens in enumerate(sequences) if len(tokens) <= seq_len]
    found = sequence_scores(model, [sequences[number] for number in fitting], title=title, quiet=quiet)
    scores = dict(zip(fitting, found, strict=True))
    return [scores.get(number, float("-inf")) for number in range(len(sequences))]


def score_answers(
    model: Transformer | Scorer,
    format: ChatFormat,
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    *,
    seq_len: int,
    title: str,
) -> list[list[float]]:
    """A reward for every answer, read at the end of its turn. Equal answers to a question are scored once.

    Answers too long for a row of ``seq_len`` tokens, which training could not use either, score minus infinity.
    """
    distinct = [(q, answer) for q, given in enumerate(answers) for answer in sorted(set(given))]
    sequences = [
        answered(format, [*as_messages(questions[q]), {"role": "assistant", "content": answer}])
        for q, answer in distinct
    ]
    found = scores_of_fitting(model, sequences, seq_len=seq_len, title=title)
    scores = dict(zip(distinct, found, strict=True))
    return [[scores[q, answer] for answer in given] for q, given in enumerate(answers)]
