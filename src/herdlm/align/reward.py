"""Reads a reward model: scores of answers and of pairs."""

from __future__ import annotations

from collections.abc import Sequence

from herdlm.align.bank.answers import as_messages
from herdlm.align.bank.tasks import Question
from herdlm.base.progress import Progress
from herdlm.model.shared_prefixes import last_hidden_states
from herdlm.model.transformer import Transformer
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat, Tools
from herdlm.tokens.preferences import PreferenceBatches


def pair_scores(
    model: Transformer, pairs: PreferenceBatches, *, title: str = "scores", quiet: bool = True
) -> list[tuple[float, float]]:
    """The scores of each pair's chosen and rejected answer."""
    found = sequence_scores(model, [piece.tokens[:-1].tolist() for piece in pairs.pieces], title=title, quiet=quiet)
    return list(zip(found[::2], found[1::2], strict=True))


def rank_accuracy(model: Transformer, pairs: PreferenceBatches) -> list[bool]:
    """For each pair, whether the chosen answer scores above the rejected one."""
    return [chosen > rejected for chosen, rejected in pair_scores(model, pairs)]


def answered(format: ChatFormat, messages: Sequence[Message], tools: Tools = None) -> list[int]:
    """The tokens of a dialog that ends with the answer to score."""
    return format.render(messages, tools=tools, first=len(messages)).tokens


def sequence_scores(
    model: Transformer, sequences: Sequence[Sequence[int]], *, title: str, quiet: bool = False
) -> list[float]:
    """The reward of each answer, read at the last token of its dialog."""
    scores = [0.0] * len(sequences)
    with Progress(title, len(sequences), "answers", quiet=quiet) as progress:
        for numbers, hidden in last_hidden_states(model, sequences):
            for number, value in zip(numbers, model.scores(hidden).tolist(), strict=True):
                scores[number] = value
            progress.advance(len(numbers))
    return scores


def scores_of_fitting(
    model: Transformer, sequences: Sequence[Sequence[int]], *, seq_len: int, title: str, quiet: bool = False
) -> list[float]:
    """As :func:`sequence_scores`; minus infinity for what is too long for a row of ``seq_len`` tokens."""
    fitting = [number for number, tokens in enumerate(sequences) if len(tokens) <= seq_len]
    found = sequence_scores(model, [sequences[number] for number in fitting], title=title, quiet=quiet)
    scores = dict(zip(fitting, found, strict=True))
    return [scores.get(number, float("-inf")) for number in range(len(sequences))]


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
    sequences = [
        answered(format, [*as_messages(questions[q]), {"role": "assistant", "content": answer}])
        for q, answer in distinct
    ]
    found = scores_of_fitting(model, sequences, seq_len=seq_len, title=title)
    scores = dict(zip(distinct, found, strict=True))
    return [[scores[q, answer] for answer in given] for q, given in enumerate(answers)]
