"""Reads a reward model: scores of answers and of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from herdlm.align.bank.answers import as_messages
from herdlm.align.bank.tasks import Question
from herdlm.base.progress import Progress
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Piece, lay_out
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.objectives import hidden_states

ROWS_AT_ONCE = 64


@torch.no_grad()
def pair_scores(
    model: Transformer, pairs: PreferenceBatches, *, title: str = "scores", quiet: bool = True
) -> list[tuple[float, float]]:
    """The scores of each pair's chosen and rejected answer."""
    device = next(model.parameters()).device
    found: list[tuple[float, float]] = []
    count = len(pairs.items)
    with Progress(title, count, "pairs", quiet=quiet) as progress:
        for first in range(0, count, ROWS_AT_ONCE):
            for numbers in pairs.split(range(first, min(first + ROWS_AT_ONCE, count))):
                batch = pairs.batch(numbers).to(device)
                hidden = hidden_states(model, batch)
                ends = (batch.columns[f"{side}_end"] for side in ("chosen", "rejected"))
                chosen, rejected = (model.scores(hidden[end]).tolist() for end in ends)
                found += zip(chosen, rejected, strict=True)
                progress.advance(len(numbers))
    return found


def rank_accuracy(model: Transformer, pairs: PreferenceBatches) -> list[bool]:
    """For each pair, whether the chosen answer scores above the rejected one."""
    return [chosen > rejected for chosen, rejected in pair_scores(model, pairs)]


def scored_piece(format: ChatFormat, messages: Sequence[Message], tools: Sequence[dict[str, object]] | None) -> Piece:
    """A dialog that ends with the answer to score; one token more makes the end of the turn an input."""
    tokens = format.render(messages, tools=tools).tokens
    return Piece(np.asarray([*tokens, format.pad]), np.zeros(len(tokens), np.float32))


@torch.no_grad()
def score_pieces(
    model: Transformer,
    pieces: Sequence[Piece],
    *,
    seq_len: int,
    pad: int,
    title: str,
    rows_at_once: int = ROWS_AT_ONCE,
    quiet: bool = False,
) -> list[float]:
    """A reward for every piece, read at its end; minus infinity for one that is too long for a row."""
    device = next(model.parameters()).device
    scores = [float("-inf")] * len(pieces)
    fitting = [i for i, piece in enumerate(pieces) if len(piece.tokens) - 1 <= seq_len]
    rows = pack_whole([len(pieces[i].tokens) - 1 for i in fitting], seq_len)
    with Progress(title, len(rows), "rows", quiet=quiet) as progress:
        for first in range(0, len(rows), rows_at_once):
            some = [[fitting[i] for i in row] for row in rows[first : first + rows_at_once]]
            batch, places = lay_out([[pieces[i] for i in row] for row in some], seq_len, pad)
            hidden = hidden_states(model, batch.to(device))
            ends = torch.tensor([place.end for row in places for place in row])
            for item, value in zip((i for row in some for i in row), model.scores(hidden[ends]).tolist(), strict=True):
                scores[item] = value
            progress.advance(len(some))
    return scores


def score_answers(
    model: Transformer,
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
    pieces = [
        scored_piece(format, [*as_messages(questions[q]), {"role": "assistant", "content": answer}], None)
        for q, answer in distinct
    ]
    found = score_pieces(model, pieces, seq_len=seq_len, pad=format.pad, title=title)
    scores = dict(zip(distinct, found, strict=True))
    return [[scores[q, answer] for answer in given] for q, given in enumerate(answers)]
