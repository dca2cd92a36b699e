"""Multiple-choice benchmarks: a model's answer is the choice to which it gives the highest likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_lines import json_lines
from herdlm.evaluate.forward import Model, config_of, token_logprobs
from herdlm.tokens.batch import Piece, lay_out
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.tokenizer import Tokenizer

ROWS_AT_ONCE = 16
ROW_TOKENS = 512  # of a packed row, unless a choice is longer


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question with its choices; ``answer`` is the index of the right one."""

    task: str
    question: str
    choices: tuple[str, ...]
    answer: int


def read_choices(path: Path) -> list[ChoiceQuestion]:
    """Read questions from JSON Lines: ``question``, ``choices``, ``answer`` (an index from 0) and ``task``.

    Raises:
        InputError: the file is missing or empty.
        DamagedError: a line is not such a row.
    """
    found = []
    for number, row in json_lines(path):
        try:
            found.append(_checked(row))
        except (ValueError, KeyError) as error:
            raise DamagedError(
                f"{path}, line {number} is not a question with choices ({error})",
                'Write {"task": "...", "question": "...", "choices": ["...", "..."], "answer": 0}',
            ) from error
    if not found:
        raise InputError(f"{path} holds no questions", "Add at least one line")
    return found


def _checked(row: dict[str, Any]) -> ChoiceQuestion:
    task, question, choices, answer = row.get("task", "benchmark"), row["question"], row["choices"], row["answer"]
    if not (isinstance(task, str) and isinstance(question, str) and task and question):
        raise ValueError("task and question must be texts")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("choices must be two texts or more")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError("answer must be the index of a choice")
    return ChoiceQuestion(task, question, tuple(choices), answer)


def choice_logprobs(
    model: Model, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]
) -> list[NDArray[np.float64] | None]:
    """The log-probability of every choice of each question, given the question and a space.

    Returns:
        For each question an array [choices], or None if a choice does not fit in the model's context.
    """
    pieces = [[_piece(tokenizer, question, choice) for choice in question.choices] for question in questions]
    longest = config_of(model).max_seq_len
    fits = [max(len(piece.weights) for piece in each) <= longest for each in pieces]
    places = [(q, c) for q, each in enumerate(pieces) if fits[q] for c in range(len(each))]
    scores = [np.zeros(len(each)) if fit else None for each, fit in zip(pieces, fits, strict=True)]
    lengths = [len(pieces[q][c].weights) for q, c in places]
    if not places:
        return scores
    capacity = max(*lengths, min(longest, ROW_TOKENS))
    rows = pack_whole(lengths, capacity)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = [[places[i] for i in row] for row in rows[first : first + ROWS_AT_ONCE]]
        laid = [[pieces[q][c] for q, c in row] for row in some]
        batch, landed = lay_out(laid, capacity, tokenizer.pad)
        (logprobs,) = token_logprobs(model, [batch])
        sums = np.bincount(batch.documents.numpy().ravel(), logprobs.numpy().ravel())
        for row, ends in zip(some, landed, strict=True):
            for (q, c), place in zip(row, ends, strict=True):
                values = scores[q]
                assert values is not None
                values[c] = sums[place.document]
    return scores


def _piece(tokenizer: Tokenizer, question: ChoiceQuestion, choice: str) -> Piece:
    before = [*tokenizer.begin, *tokenizer.encode(question.question)]
    answer = tokenizer.encode(f" {choice}")
    weights = np.zeros(len(before) + len(answer) - 1, np.float32)
    weights[len(before) - 1 :] = 1
    return Piece(np.array([*before, *answer]), weights)
