"""The engine's requests and answers: sampling parameters, completions and events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from herdlm.base.errors import InputError
from herdlm.generate.sampling.grammar import Grammar

FinishReason = Literal["stop", "length"]
Alternatives = list[tuple[int, float]]  # tokens and their log-probabilities, the most likely first

MAX_LOGIT_BIAS = 100.0  # as in OpenAI's API: enough to force a token or to exclude it


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to continue a prompt.

    Logits l are changed in this order: repetition penalty, presence and frequency penalty, ``logit_bias``,
    ``min_tokens``, ``grammar``, temperature; then ``top_k``, ``top_p`` and ``min_p`` choose the tokens to draw from.
    Reported log-probabilities are those of the model's own softmax at temperature 1, before all of these changes.

    Attributes:
        max_tokens: at most this many new tokens; the model's ``max_seq_len`` ends a sample too.
        min_tokens: at least this many new tokens. Until then stop tokens cannot be drawn and stop strings have no
            effect; only a finished ``grammar`` or the model's ``max_seq_len`` ends the sample.
        temperature: logits are divided by it; 0 takes the most likely token.
        top_p: sample from the fewest most likely tokens that hold this probability (Holtzman et al., arXiv 1904.09751).
        top_k: sample from this many most likely tokens; 0 means all. Applied before ``top_p``.
        min_p: exclude tokens less likely than this share of the most likely one's probability, at the given
            temperature (Nguyen et al., arXiv 2407.01082). With ``top_p``, a token must pass both.
        repetition_penalty: l / r where l > 0, else l * r, for each token of prompt and answer so far (Keskar et al.,
            arXiv 1909.05858, section 4.1, made to weaken negative logits too); 1 turns it off.
        presence_penalty: subtracted once from the logit of each token of the answer so far (OpenAI's definition).
        frequency_penalty: subtracted from a token's logit for each time it occurs in the answer so far (OpenAI's).
        logit_bias: (token, number) pairs; the number, -100 to 100, is added to the token's logit.
        n: samples per prompt.
        best_of: draw this many samples and return the ``n`` with the highest log-probability per token, the best first
            (OpenAI's definition); such a request cannot be streamed. None: draw ``n``, in the order of their numbers.
        seed: the random number for token i of sample j depends on (seed, j, i) only.
        stop_tokens: a sample ends when one of them is drawn.
        stop: a sample ends when its text contains one of these strings.
        logprobs: whether completions carry the log-probability of each token.
        top_logprobs: report this many most likely alternatives to each token; 0 for none.
        prompt_logprobs: report the log-probability of the prompt's tokens, and with ``top_logprobs`` their
            alternatives. What is scored is computed, even if the prefix cache holds it.
        prompt_logprobs_from: the index of the first prompt token to score; the cache may hold what comes before it.
        compared: report the log-probabilities of these tokens where the first scored token stands: the prompt's at
            ``prompt_logprobs_from``, else the forced one.
        forced: draw this token first, whatever its probability; the next are drawn as usual. None for none.
        grammar: the text must match it; stop tokens are drawn only where the text may end.

    Raises:
        InputError: a value is out of range.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int = 1
    best_of: int | None = None
    seed: int = 0
    stop_tokens: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    logprobs: bool = True
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    prompt_logprobs_from: int = 1
    forced: int | None = None
    compared: tuple[int, ...] = ()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        count, off = "Give a count of tokens, or 0 to turn it off", "Give a finite number; 0 turns it off"
        for name, right, remedy in (
            ("max_tokens", self.max_tokens >= 1, "Ask for at least 1 token"),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, f"Give 0 to max_tokens, {self.max_tokens}"),
            ("temperature", 0 <= self.temperature < math.inf, "Give a number of 0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "Give a probability above 0 and at most 1 (1 turns it off)"),
            ("top_k", self.top_k >= 0, count),
            ("min_p", 0 <= self.min_p <= 1, "Give a share of 0 (which turns it off) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "Give a number above 0; 1 turns it off"),
            ("presence_penalty", math.isfinite(self.presence_penalty), off),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), off),
            ("n", self.n >= 1, "Ask for at least 1 sample"),
            ("best_of", self.best_of is None or self.best_of >= self.n, f"Draw at least n, {self.n}, samples"),
            ("top_logprobs", self.top_logprobs >= 0, count),
            ("prompt_logprobs_from", self.prompt_logprobs_from >= 1, "Give an index of 1 or more"),
            ("forced", self.forced is None or self.forced >= 0, "Give a token id"),
        ):
            if not right:
                raise InputError(f"{name} = {getattr(self, name)}", remedy)
        self._check_bias()
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"stop = {self.stop!r}", "Give a tuple of strings, none of them empty")
        tokens = self.stop_tokens
        if not isinstance(tokens, tuple) or not all(isinstance(token, int) and token >= 0 for token in tokens):
            raise InputError(f"stop_tokens = {self.stop_tokens!r}", "Give a tuple of token ids")

    @property
    def samples(self) -> int:
        """How many samples are drawn."""
        return self.n if self.best_of is None else self.best_of

    @property
    def penalized(self) -> bool:
        """Whether earlier tokens change the logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def shaped(self) -> bool:
        """Whether logits are changed before temperature and filters."""
        return self.penalized or bool(self.logit_bias) or self.min_tokens > 0 or self.grammar is not None

    def _check_bias(self) -> None:
        if not isinstance(self.logit_bias, tuple):
            raise InputError(f"logit_bias = {self.logit_bias!r}", "Give a tuple of (token id, number) pairs")
        for token, bias in self.logit_bias:
            if not isinstance(token, int) or token < 0:
                raise InputError(f"logit_bias names the token {token!r}", "Give a token id")
            if not abs(bias) <= MAX_LOGIT_BIAS:
                raise InputError(f"logit_bias of token {token} = {bias}", "Give a number from -100 to 100")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise InputError("logit_bias names a token twice", "Give one number for each token")


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished sample.

    Attributes:
        tokens: the generated ids without a stop token, but with the tokens of a stop string.
        text: ``tokens`` as text, cut before the stop string; empty for an engine without tokenizer.
        logprobs: natural log-probability of each generated token under the model's full softmax at temperature 1. If a
            stop token ended the sample, the last entry is the stop token's, one more than ``tokens`` has. Empty if not
            requested.
        finish_reason: "stop" for a stop token or string or a grammar's end, "length" for ``max_tokens`` or the
            model's ``max_seq_len``.
        top_logprobs: for each entry of ``logprobs`` the most likely tokens, which may not include the drawn one. Empty
            if not requested.
        prompt_logprobs: of the prompt's tokens from ``prompt_logprobs_from`` on (by default the second), each given all
            before it. Empty if not requested.
        prompt_top_logprobs: for each entry of ``prompt_logprobs`` the most likely tokens.
        compared: log-probabilities of the tokens to compare.
        stop_token: the stop token that ended the sample, which is not in ``tokens``; None if none did.
    """

    tokens: list[int]
    text: str
    logprobs: list[float]
    finish_reason: FinishReason
    top_logprobs: list[Alternatives] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_top_logprobs: list[Alternatives] = field(default_factory=list)
    compared: list[float] = field(default_factory=list)
    stop_token: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """News of one sample after a step of the engine.

    Attributes:
        tokens, logprobs, text, top_logprobs: new since the sample's last event. Text is held back while it may become a
            stop string or ends inside a character.
        completion: the whole sample, once it is finished.
    """

    request_id: int
    sample: int
    tokens: list[int]
    logprobs: list[float]
    text: str
    completion: Completion | None
    top_logprobs: list[Alternatives] = field(default_factory=list)


def params_to_json(params: SamplingParams) -> dict[str, Any]:
    """Sampling parameters for a message to another process: those that differ from the defaults."""
    row = {f.name: value for f in fields(params) if (value := getattr(params, f.name)) != f.default}
    return row | {"grammar": params.grammar.text} if params.grammar else row


def params_from_json(row: dict[str, Any]) -> SamplingParams:
    """The sampling parameters of a message."""
    grammar = Grammar(row["grammar"]) if "grammar" in row else None
    return SamplingParams(**{name: _to_tuples(value) for name, value in row.items()} | {"grammar": grammar})


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value
