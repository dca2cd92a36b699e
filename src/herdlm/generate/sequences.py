"""The state of the sequences in the batch, a row each, as arrays.

A step of the engine touches hundreds of sequences; kept as arrays, what it does to each costs no Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from herdlm.generate.request import Alternatives, Completion, SamplingParams
from herdlm.generate.sampling.detokenize import TextStream
from herdlm.generate.sampling.grammar import Matcher

Integers = NDArray[np.int64]

Entry = TypeVar("Entry", bound=np.generic)

FREE, RUNNING, FOLLOWING = 0, 1, 2

LEAST_TEMPERATURE = 1e-6  # logits divided by less may overflow
LEAST_SHARE = 1e-30  # of probability, for top_p


class PromptScores:
    """Log-probabilities of a prompt of ``length`` tokens from its second on, [length - 1], as they become known."""

    def __init__(self, length: int) -> None:
        self.logprobs = np.full(length - 1, np.nan, dtype=np.float32)
        self.top: list[Alternatives] = [[] for _ in range(length - 1)]

    @property
    def complete(self) -> bool:
        """Whether all are known. Chunks come in order, so the last tells."""
        return not len(self.logprobs) or not np.isnan(self.logprobs[-1])


@dataclass(slots=True, eq=False)
class Request:
    """A prompt and how to continue it.

    Attributes:
        limit: the most tokens, prompt included, a sample may grow to.
        stream: asks for news of every token.
        unfinished: its samples that have not ended.
        bias: tokens and what is added to their logits, [X] each; None for none.
        scores: of the prompt's tokens; None where nobody asked.
        matcher: the beginning of the grammar that its samples keep to; None for none.
        candidates: finished samples among which the best are still to be chosen, each behind its log-probability
            per token and number.
        cached: tokens of the prompt that were in the prefix cache when its first sample was seated; None before.
    """

    id: int
    prompt: NDArray[np.int32]
    params: SamplingParams
    limit: int
    stream: bool
    unfinished: int
    bias: tuple[Integers, NDArray[np.float32]] | None = None
    scores: PromptScores | None = None
    matcher: Matcher | None = None
    candidates: list[tuple[float, int, Completion]] = field(default_factory=list)
    cached: int | None = None

    @property
    def unscored(self) -> bool:
        """Whether log-probabilities of the prompt are asked for and not known yet."""
        return self.scores is not None and not self.scores.complete


@dataclass(slots=True, eq=False)
class Sample:
    """One of a request's samples.

    ``tokens`` and ``logprobs`` are those from before it was last put back. The others move with the sample, whichever
    row it is in: ``text`` and ``matcher`` have seen every token drawn, ``top`` are the alternatives to each.
    """

    request: Request
    index: int
    key: int
    text: TextStream | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    matcher: Matcher | None = None
    top: list[Alternatives] = field(default_factory=list)


class Sequences:
    """``count`` rows. Row r holds ``length[r]`` known tokens, of which the first ``computed[r]`` are in the cache.

    A row is FREE, RUNNING, or FOLLOWING: waiting for the row that computes the prompt it shares.
    """

    def __init__(self, count: int, page_size: int) -> None:
        self.count, self.page_size = count, page_size
        self.state = np.zeros(count, dtype=np.int8)
        self.order = np.zeros(count, dtype=np.int64)  # of arrival
        self.start = np.zeros(count, dtype=np.int64)  # length of the prompt
        self.length = np.zeros(count, dtype=np.int64)
        self.computed = np.zeros(count, dtype=np.int64)
        self.limit = np.zeros(count, dtype=np.int64)
        self.pages = np.zeros(count, dtype=np.int64)  # held: the first ``pages[r]`` entries of ``table[r]``
        self.key = np.zeros(count, dtype=np.uint64)
        self.temperature = np.zeros(count, dtype=np.float32)
        self.top_p = np.zeros(count, dtype=np.float32)
        self.top_k = np.zeros(count, dtype=np.int64)
        self.min_p = np.zeros(count, dtype=np.float32)
        self.shaped = np.zeros(count, dtype=np.bool_)  # logits are changed before the draw
        self.penalized = np.zeros(count, dtype=np.bool_)
        self.repetition = np.ones(count, dtype=np.float32)
        self.presence = np.zeros(count, dtype=np.float32)
        self.frequency = np.zeros(count, dtype=np.float32)
        self.min_tokens = np.zeros(count, dtype=np.int64)
        self.top_logprobs = np.zeros(count, dtype=np.int64)
        self.unscored = np.zeros(count, dtype=np.bool_)  # its prompt's log-probabilities are to be found
        self.watched = np.zeros(count, dtype=np.bool_)  # looked at after each token: streams, stop strings, grammars
        self.tokens = np.zeros((count, 0), dtype=np.int32)
        self.logprobs = np.zeros((count, 0), dtype=np.float32)
        self.table = np.zeros((count, 0), dtype=np.int64)  # block table, padded with page 0
        self.stop_tokens = np.full((count, 0), -1, dtype=np.int32)
        self.sample: list[Sample | None] = [None] * count
        self.digests: list[list[bytes]] = [[] for _ in range(count)]  # of the row's published pages

    def running(self) -> Integers:
        """The running rows in order of arrival."""
        rows = np.flatnonzero(self.state == RUNNING)
        return rows[np.argsort(self.order[rows], kind="stable")]

    def free(self) -> Integers:
        """The free rows."""
        return np.flatnonzero(self.state == FREE)

    def fill(self, row: int, sample: Sample, order: int, state: int) -> None:
        """Put ``sample`` into a free row, with its prompt and what it generated before."""
        request, params = sample.request, sample.request.params
        start = len(request.prompt)
        self._widen(request.limit, len(params.stop_tokens))
        self.state[row], self.order[row] = state, order
        self.start[row], self.length[row], self.computed[row] = start, start + len(sample.tokens), 0
        self.limit[row], self.pages[row], self.key[row] = request.limit, 0, sample.key
        self._fill_params(row, params)
        self.unscored[row] = request.unscored
        self.watched[row] = request.stream or sample.text is not None or sample.matcher is not None
        self.tokens[row, :start] = request.prompt
        self.tokens[row, start : self.length[row]] = sample.tokens
        self.logprobs[row, start : self.length[row]] = sample.logprobs
        self.table[row] = 0
        self.stop_tokens[row] = -1
        self.stop_tokens[row, : len(params.stop_tokens)] = params.stop_tokens
        self.sample[row] = sample
        self.digests[row] = []

    def follow(self, leader: int, followers: Integers) -> None:
        """Let ``followers`` go on from where ``leader`` stands, on the same pages."""
        self.state[followers] = RUNNING
        self.table[followers] = self.table[leader]
        self.pages[followers] = self.pages[leader]
        self.computed[followers] = self.computed[leader]
        for row in followers.tolist():
            self.digests[row] = self.digests[leader].copy()

    def held(self, rows: Integers) -> Integers:
        """All pages the rows hold, each row's last page first."""
        reversed_columns = np.arange(self.table.shape[1])[::-1]
        return self.table[rows][:, ::-1][reversed_columns[None] < self.pages[rows, None]]

    def clear(self, rows: Integers) -> None:
        """Set rows free. Their pages are the caller's to release."""
        self.state[rows] = FREE
        self.pages[rows] = 0
        for row in rows.tolist():
            self.sample[row] = None

    def samples(self, rows: Integers) -> list[Sample]:
        """The samples in ``rows``, none of which is free."""
        return [sample for row in rows.tolist() if (sample := self.sample[row]) is not None]

    def requests(self, rows: Integers) -> list[Request]:
        """The request of each of ``rows``, none of which is free."""
        return [sample.request for sample in self.samples(rows)]

    def _fill_params(self, row: int, params: SamplingParams) -> None:
        # Values too small for float32 would become 0, which means something else or nothing.
        self.temperature[row] = max(params.temperature, LEAST_TEMPERATURE) if params.temperature else 0.0
        self.top_p[row], self.top_k[row] = max(params.top_p, LEAST_SHARE), params.top_k
        self.min_p[row], self.min_tokens[row], self.top_logprobs[row] = (
            params.min_p,
            params.min_tokens,
            params.top_logprobs,
        )
        self.shaped[row], self.penalized[row] = params.shaped, params.penalized
        self.repetition[row], self.presence[row], self.frequency[row] = (
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        )

    def _widen(self, tokens: int, stop_tokens: int) -> None:
        if tokens > self.tokens.shape[1]:
            width = max(tokens, 2 * self.tokens.shape[1])
            self.tokens = _widened(self.tokens, width, 0)
            self.logprobs = _widened(self.logprobs, width, 0)
            self.table = _widened(self.table, -(-width // self.page_size), 0)
        if stop_tokens > self.stop_tokens.shape[1]:
            self.stop_tokens = _widened(self.stop_tokens, stop_tokens, -1)


def _widened(array: NDArray[Entry], width: int, filler: int) -> NDArray[Entry]:
    wider = np.full((array.shape[0], width), filler, dtype=array.dtype)
    wider[:, : array.shape[1]] = array
    return wider
