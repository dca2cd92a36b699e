"""The sequences being generated, a row each, and the batch that a step makes of them: all as arrays.

A step of the engine touches hundreds of sequences. Arrays spare it a loop in Python over them. Nothing here knows of
tensors.
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

MIN_TEMPERATURE = 1e-6  # logits divided by less may overflow
MIN_TOP_P = 1e-30


class PromptScores:
    """Log-probabilities of a prompt of ``length`` tokens from token ``first`` on, as they become known."""

    def __init__(self, length: int, first: int) -> None:
        self.first = first
        self.logprobs = np.full(max(length - first, 0), np.nan, dtype=np.float32)
        self.top: list[Alternatives] = [[] for _ in range(max(length - first, 0))]

    @property
    def complete(self) -> bool:
        """Whether all are known. Chunks come in order, so the last one decides."""
        return not len(self.logprobs) or not np.isnan(self.logprobs[-1])


@dataclass(slots=True, eq=False)
class Request:
    """A prompt and how to continue it.

    Attributes:
        limit: the most tokens, prompt included, a sample may grow to.
        stream: whether to report every token.
        unfinished: the number of its samples that have not ended.
        bias: tokens and what to add to their logits, [X] each; None for none.
        scores: log-probabilities of the prompt's tokens, if requested.
        matcher: the beginning of the grammar that its samples follow; None for none.
        candidates: with ``best_of``, the finished samples, each with its log-probability per token and its number.
        compared: log-probabilities of the tokens to compare, once they are known.
        cached: tokens of the prompt that were in the prefix cache when its first sample was admitted; None before.
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
    compared: list[float] = field(default_factory=list)
    cached: int | None = None

    @property
    def unscored(self) -> bool:
        """Whether log-probabilities of the prompt are requested and not known yet."""
        return self.scores is not None and not self.scores.complete


@dataclass(slots=True, eq=False)
class Sample:
    """One of a request's samples.

    ``tokens`` and ``logprobs`` date from its last preemption. The other attributes stay with the sample in every row:
    ``text`` and ``matcher`` have seen every token drawn, ``top`` holds the alternatives to each.
    """

    request: Request
    index: int
    key: int
    text: TextStream | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    matcher: Matcher | None = None
    top: list[Alternatives] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class StepInput:
    """What the model computes in a step: N tokens in S segments, one for each sequence that takes part.

    Attributes:
        tokens, positions, slots: [N], segment after segment; a slot is page * page_size + offset.
        begins, counts: [S], the position of each segment's first token and its number of tokens.
        tables: [S, P] block tables padded with page 0.
        copies: pages to copy first, [2, X]: sources and targets.
    """

    tokens: NDArray[np.int32]
    positions: Integers
    slots: Integers
    begins: Integers
    counts: Integers
    tables: Integers
    copies: Integers


@dataclass(slots=True, eq=False, kw_only=True)
class Batch(StepInput):
    """One step's work.

    Attributes:
        rows: [S], the sequence of each segment.
        drawing, at: [M], the sequences that draw a token, and the index in N of the token whose logits each draws from.
        scoring: [X], indices in N of prompt tokens after which the prompt's next token is to be scored.
        scorers: [X], the sequences they belong to.
    """

    rows: Integers
    drawing: Integers
    at: Integers
    scoring: Integers
    scorers: Integers


class Sequences:
    """Up to ``count`` sequences. Row r has ``length[r]`` known tokens; the cache holds the first ``computed[r]``.

    A row is FREE, RUNNING, or FOLLOWING: it waits for another sample of its request to compute their prompt.
    """

    def __init__(self, count: int, page_size: int) -> None:
        self.count, self.page_size = count, page_size
        self.state = np.zeros(count, dtype=np.int8)
        self.order = np.zeros(count, dtype=np.int64)  # order of arrival
        self.start = np.zeros(count, dtype=np.int64)  # length of the prompt
        self.length = np.zeros(count, dtype=np.int64)
        self.computed = np.zeros(count, dtype=np.int64)
        self.limit = np.zeros(count, dtype=np.int64)
        self.pages = np.zeros(count, dtype=np.int64)  # how many it holds: the first entries of ``table[r]``
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
        self.unscored = np.zeros(count, dtype=np.bool_)  # its prompt's log-probabilities are still to be computed
        self.scored_from = np.ones(count, dtype=np.int64)  # the first prompt token to be scored
        self.forced = np.full(count, -1, dtype=np.int64)  # the token to draw first; -1 for none
        self.watched = np.zeros(count, dtype=np.bool_)  # streams, stop strings, grammars: each token is processed
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
        """Put ``sample`` into a free row, with its prompt and the tokens it has generated."""
        request, params = sample.request, sample.request.params
        start = len(request.prompt)
        self._widen(request.limit, len(params.stop_tokens))
        self.state[row], self.order[row] = state, order
        self.start[row], self.length[row], self.computed[row] = start, start + len(sample.tokens), 0
        self.limit[row], self.pages[row], self.key[row] = request.limit, 0, sample.key
        self._fill_params(row, params)
        self.unscored[row], self.scored_from[row] = request.unscored, params.prompt_logprobs_from
        self.forced[row] = -1 if params.forced is None or sample.tokens else params.forced
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
        """Start ``followers`` from the state of ``leader``, on the same pages."""
        self.state[followers] = RUNNING
        self.table[followers] = self.table[leader]
        self.pages[followers] = self.pages[leader]
        self.computed[followers] = self.computed[leader]
        for row in followers.tolist():
            self.digests[row] = self.digests[leader].copy()

    def pages_of(self, rows: Integers) -> Integers:
        """All pages of the rows, each row's last page first."""
        reversed_columns = np.arange(self.table.shape[1])[::-1]
        return self.table[rows][:, ::-1][reversed_columns[None] < self.pages[rows, None]]

    def clear(self, rows: Integers) -> None:
        """Free rows. The caller releases their pages."""
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
        # Values too small for float32 would become 0, which has another meaning or none.
        self.temperature[row] = max(params.temperature, MIN_TEMPERATURE) if params.temperature else 0.0
        self.top_p[row], self.top_k[row] = max(params.top_p, MIN_TOP_P), params.top_k
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
