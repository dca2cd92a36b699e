"""Needle in a haystack: whether a model finds one sentence in a long text (Kamradt 2023; Llama 3 report, 3.4.2).

A sentence with the secret number of a city is hidden in held-out text, and the end of the text asks for the number. The
model finds the needle if greedy decoding gives every token of the number. That is so exactly if each token is the most
likely one after those before it, so one forward pass with teacher forcing decides each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.evaluate.forward import Model, config_of, likeliest_tokens, row_pieces
from herdlm.evaluate.intervals import Estimate, pass_rate
from herdlm.tokens.batch import Batch
from herdlm.tokens.shards import Shard
from herdlm.tokens.tokenizer import Tokenizer

CITIES = (
    "Accra",
    "Bergen",
    "Cairo",
    "Dakar",
    "Geneva",
    "Hanoi",
    "Jakarta",
    "Kyoto",
    "Lisbon",
    "Lima",
    "Madrid",
    "Nairobi",
    "Oslo",
    "Prague",
    "Quito",
    "Riga",
    "Seville",
    "Tunis",
    "Vienna",
    "Zagreb",
)
DIGITS = 6

Predict = Callable[[Sequence[int], int], list[int]]
"""The most likely next token after each of the last ``count`` of ``tokens``."""


@dataclass(frozen=True, slots=True)
class Needle:
    """One trial.

    Attributes:
        prompt: haystack, needle and question, as tokens.
        answer: the tokens to predict.
        depth: the position of the needle in the haystack, from 0 (start) to 1 (end).
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    depth: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How many needles were found, overall and by depth.

    Attributes:
        tokens: length of the longest trial, including the answer.
        by_depth: the share found at each depth.
    """

    rate: Estimate
    found: int
    trials: int
    tokens: int
    by_depth: dict[float, float]


def make_needles(
    shard: Shard, tokenizer: Tokenizer, *, length: int, depths: int = 10, per_depth: int = 5, seed: int = 0
) -> list[Needle]:
    """``depths`` x ``per_depth`` trials of exactly ``length`` tokens each, prompt and answer together.

    Args:
        shard: held-out text for the haystack, which is one document to the model.
        depths: positions, evenly spread from the start to the end of the haystack; a single one is the middle.

    Raises:
        InputError: ``length`` is too short for needle and question, or the shard holds no text.
    """
    separators = [*tokenizer.begin, tokenizer.end]
    needles = []
    for depth in np.linspace(0.0, 1.0, depths).tolist() if depths > 1 else [0.5]:
        for number in range(per_depth):
            rng = stream(seed, "needle", f"{depth:.6f}", number)
            city = CITIES[int(rng.integers(len(CITIES)))]
            key = tokenizer.encode(f"\nThe secret number of {city} is")
            answer = tokenizer.encode(" " + "".join(str(digit) for digit in rng.integers(0, 10, DIGITS)))
            end = tokenizer.encode(".\n")
            room = length - (len(tokenizer.begin) + 2 * len(key) + 2 * len(answer) + len(end))
            if room < 0:
                raise InputError(
                    f"{length} tokens do not hold a needle and its question",
                    f"Set a length of at least {length - room}",
                )
            hay = _text(shard, room, separators, int(rng.integers(max(shard.index.tokens, 1))))
            at = round(depth * room)
            prompt = (*tokenizer.begin, *hay[:at], *key, *answer, *end, *hay[at:], *key)
            needles.append(Needle(prompt, tuple(answer), round(depth, 3)))
    return needles


def _text(shard: Shard, count: int, separators: list[int], begin: int) -> list[int]:
    """``count`` tokens from ``begin`` on, continuing at the shard's start, without ``separators``."""
    total = shard.index.tokens
    found: list[int] = []
    read = 0
    while len(found) < count:
        if read >= total and not found:  # an empty shard, or one of separators alone
            raise InputError(f"{shard.folder} holds no text", "Give held-out text for the haystack")
        take = max(count - len(found), 256)
        chunk = np.asarray(shard.tokens[(begin + read + np.arange(take)) % max(total, 1)])
        found += chunk[~np.isin(chunk, separators)].tolist()
        read += take
    return found[:count]


def retrieval(predict: Predict, needles: Iterable[Needle]) -> Retrieval:
    """Run every trial."""
    right: list[bool] = []
    by_depth: dict[float, list[bool]] = {}
    longest = 0
    for needle in needles:
        asked = [*needle.prompt, *needle.answer[:-1]]
        longest = max(longest, len(asked) + 1)
        found = predict(asked, len(needle.answer)) == list(needle.answer)
        right.append(found)
        by_depth.setdefault(needle.depth, []).append(found)
    if not right:
        raise InputError("there are no needles to look for", "Set depths and needles per depth to at least 1")
    return Retrieval(
        pass_rate(right),
        sum(right),
        len(right),
        longest,
        {depth: round(sum(found) / len(found), 4) for depth, found in sorted(by_depth.items())},
    )


def predict_with(model: Model) -> Predict:
    """A model's predictions; logits are computed only for the tokens asked for.

    Every process of a sharded model makes the same call. Rows are padded at the end to a length that the layout can
    split; no token attends to the padding.

    Raises:
        InputError: on a call with more tokens than the model's ``max_seq_len``.
    """
    longest, pieces = config_of(model).max_seq_len, row_pieces(model)

    def predict(tokens: Sequence[int], count: int) -> list[int]:
        asked = len(tokens)
        if asked > longest:
            raise InputError(f"{asked:,} tokens exceed the model's max_seq_len {longest:,}", "Use shorter trials")
        length = -(-asked // pieces) * pieces
        row = torch.zeros(1, length, dtype=torch.int64)
        row[0, :asked] = torch.tensor(tokens)
        places = torch.arange(length)[None]
        last = (places >= asked - count) & (places < asked)
        batch = Batch(
            tokens=row,
            targets=torch.zeros_like(row),
            weights=last.float(),
            documents=(places >= asked).long(),
            positions=places,
        )
        picked: list[int] = likeliest_tokens(model, batch)[last].tolist()
        return picked

    return predict
