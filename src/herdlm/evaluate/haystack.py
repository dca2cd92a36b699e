"""Needles in a haystack: sentences with secret numbers, hidden in long text, are asked for at its end.

The Llama 3 report (section 5.2.8) hides one needle, and four of which two are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.evaluate.needle import CITIES
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.verifiers.verdict import Verdict

DIGITS = 6
TRIALS = 4  # of each length and depth
MARGIN = 96  # tokens for the chat template, the question and the answer


def needles(
    rows: Sequence[dict[str, Any]], model: EvaluatedModel, options: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Items of each length and depth for a model's context.

    Args:
        options: ``needles`` hidden, ``asked`` of them, ``lengths`` as shares of the context, ``depths`` from 0 (the
            beginning) to 1, and ``trials`` of each.

    Raises:
        InputError: the rows' text is shorter than the longest haystack, or the context shorter than the needles.
    """
    words = " ".join(str(row["text"]) for row in rows).split()
    if not words:
        raise InputError("the haystack has no text", "Give .txt files with long text")
    sample = words[:2000]
    per_word = max(model.count(" ".join(sample)) / len(sample), 0.1)
    count, asked = int(options.get("needles", 1)), int(options.get("asked", 1))
    made = []
    for length in options.get("lengths", (1.0,)):
        tokens = int(model.context * length) - MARGIN - 24 * count
        if tokens < 64:
            raise InputError(
                f"a haystack of {length:.0%} of {model.name}'s context of {model.context} tokens has no room",
                "Leave the task out for this model",
            )
        size = int(tokens / per_word)
        if size > len(words):
            raise InputError(
                f"a haystack of {tokens:,} tokens needs {size:,} words, the files have {len(words):,}",
                "Give more text with --data",
            )
        for depth in options.get("depths", (0.5,)):
            for trial in range(int(options.get("trials", TRIALS))):
                rng = stream(seed, "haystack", count, str(length), str(depth), trial)
                hay = _hay(words, model, size, tokens, rng)
                made.append(_item(hay, depth, count, asked, rng) | {"length": f"{length:.0%}"})
    return made


def found(answer: str, reference: Sequence[str]) -> Verdict:
    """The share of the numbers that an answer gives; all of them to pass."""
    share = sum(number in answer.replace(",", "").replace(" ", "") for number in reference) / len(reference)
    return Verdict(share == 1, share, "gives all numbers" if share == 1 else "lacks a number")


def _hay(words: Sequence[str], model: EvaluatedModel, size: int, tokens: int, rng: np.random.Generator) -> list[str]:
    """A part of the text, of at most ``tokens`` tokens."""
    begin = int(rng.integers(0, len(words) - size + 1))
    hay = list(words[begin : begin + size])
    while model.count(" ".join(hay)) > tokens:  # words of this part may have more tokens than the average
        hay = hay[: max(int(len(hay) * 0.95), 1)]
    return hay


def _item(hay: list[str], depth: float, count: int, asked: int, rng: np.random.Generator) -> dict[str, Any]:
    cities = [CITIES[i] for i in rng.permutation(len(CITIES))[:count]]
    numbers = ["".join(map(str, rng.integers(1, 10, DIGITS))) for _ in cities]
    # The first needle lies at the depth; others are spread evenly from there to the end and on from the beginning.
    places = sorted((round(len(hay) * (depth if i == 0 else (depth + i / count) % 1)), i) for i in range(count))
    for place, i in reversed(places):
        hay[place:place] = [f"The secret number of {cities[i]} is {numbers[i]}."]
    wanted, text = cities[:asked], " ".join(hay)
    question = f"What is the secret number of {' and of '.join(wanted)}?"
    answer = "The secret number is" if asked == 1 else "The secret numbers are"
    return {
        "haystack": text,
        "question": f"Question: {question}\nAnswer: {answer}",
        "answer": " and ".join(numbers[:asked]),
        "numbers": numbers[:asked],
        "depth": depth,
        "place": f"depth {depth}",
    }
