"""What preference optimization does to the answers a model gives: their length and repetition, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.base.progress import Progress
from herdlm.generate import Engine, SamplingParams
from herdlm.model.transformer import Transformer
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat

NGRAM = 4
LENGTH_FACTOR = 1.5  # longer or shorter by this is a change of kind
REPEATED_RISE = 0.1


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """Figures of sampled answers.

    Attributes:
        mean_tokens: mean length in tokens.
        repeated_share: the share of 4-grams of words that occurred earlier in the same answer, over all answers.
        empty_share: the share of answers without a word.
    """

    answers: int
    mean_tokens: float
    repeated_share: float
    empty_share: float


def measure_answers(texts: Sequence[str], token_counts: Sequence[int]) -> AnswerFigures:
    """Figures of answers, given as texts and their lengths in tokens.

    Raises:
        ValueError: there are no answers, or not as many counts.
    """
    if not texts or len(texts) != len(token_counts):
        raise ValueError(f"{len(texts)} answers with {len(token_counts)} lengths cannot be measured")
    total = repeated = 0
    for text in texts:
        words = text.split()
        grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return AnswerFigures(
        answers=len(texts),
        mean_tokens=sum(token_counts) / len(texts),
        repeated_share=repeated / total if total else 0.0,
        empty_share=sum(not text.strip() for text in texts) / len(texts),
    )


def collapse_signs(before: AnswerFigures, after: AnswerFigures) -> list[str]:
    """Warnings about answers that got much longer, shorter, more repetitive or empty, in words."""
    signs = []
    ratio = after.mean_tokens / max(before.mean_tokens, 1.0)
    if not 1 / LENGTH_FACTOR <= ratio <= LENGTH_FACTOR:
        signs.append(f"answers have {after.mean_tokens:.0f} tokens on average, {before.mean_tokens:.0f} before")
    for name, title in (("repeated_share", "of 4-grams repeat"), ("empty_share", "of answers are empty")):
        was, now = getattr(before, name), getattr(after, name)
        if now - was > REPEATED_RISE:
            signs.append(f"{now:.0%} {title}, {was:.0%} before")
    return signs


def sample_greedily(
    model: Transformer,
    format: ChatFormat,
    prompts: Sequence[tuple[Sequence[Message], Sequence[dict[str, Any]] | None]],
    *,
    max_tokens: int,
    title: str,
    quiet: bool = False,
) -> AnswerFigures:
    """Figures of the model's greedy answers to prompts, each with its tools."""
    engine = Engine(model, format.tokenizer)
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, stop_tokens=format.stop_tokens)
    ids = [format.prompt(messages, tools=tools) for messages, tools in prompts]
    with Progress(title, len(ids), "answers", quiet=quiet) as progress:
        found = [completions[0] for completions in engine.generate(ids, params, progress=progress)]
    return measure_answers([each.text for each in found], [len(each.tokens) for each in found])
