"""What is asked of the engine and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from herdlm.base.errors import InputError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one prompt is continued.

    Attributes:
        max_tokens: at most this many new tokens; the model's ``max_seq_len`` ends a sample too.
        temperature: logits are divided by it; 0 takes the most likely token.
        top_p: sample from the fewest most likely tokens that hold this probability (Holtzman et al., arXiv 1904.09751).
        top_k: sample from this many most likely tokens; 0 means all. Applied before ``top_p``.
        n: samples per prompt.
        seed: token i of sample j is drawn with a random number that depends on (seed, j, i) alone.
        stop_tokens: a sample ends when one of them is drawn.
        stop: a sample ends when its text holds one of these strings.
        logprobs: whether completions carry the log-probability of each token.

    Raises:
        InputError: a value is out of range.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    seed: int = 0
    stop_tokens: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    logprobs: bool = True

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens = {self.max_tokens}", "Ask for at least 1 token")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature = {self.temperature}", "Give a number of 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p}", "Give a probability above 0 and at most 1 (1 turns it off)")
        if self.top_k < 0:
            raise InputError(f"top_k = {self.top_k}", "Give a count of tokens, or 0 to turn it off")
        if self.n < 1:
            raise InputError(f"n = {self.n}", "Ask for at least 1 sample")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"stop = {self.stop!r}", "Give a tuple of strings, none of them empty")
        tokens = self.stop_tokens
        if not isinstance(tokens, tuple) or not all(isinstance(token, int) and token >= 0 for token in tokens):
            raise InputError(f"stop_tokens = {self.stop_tokens!r}", "Give a tuple of token ids")


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished sample.

    Attributes:
        tokens: the generated ids without the stop token. Where a stop string ended the sample, its tokens are here.
        text: ``tokens`` as text, cut before the stop string; empty for an engine without tokenizer.
        logprobs: natural log-probability of each generated token under the model's full softmax at temperature 1. One
            longer than ``tokens`` where a stop token ended the sample: the last one is the stop token's. Empty where
            the request did not ask for them.
        finish_reason: "stop" for a stop token or string, "length" for ``max_tokens`` or the model's ``max_seq_len``.
    """

    tokens: list[int]
    text: str
    logprobs: list[float]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Event:
    """News of one sample after a step of the engine.

    Attributes:
        tokens, logprobs, text: what came since the sample's last event. Text is held back while it may still turn
            into a stop string or ends inside a character.
        completion: the whole sample, once it is finished.
    """

    request_id: int
    sample: int
    tokens: list[int]
    logprobs: list[float]
    text: str
    completion: Completion | None
