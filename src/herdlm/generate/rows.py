"""The state of the sequences in the batch, a row each, as arrays.

A step of the engine touches hundreds of sequences; kept as arrays, what it does to each costs no Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from herdlm.generate.detokenize import TextStream
from herdlm.generate.request import SamplingParams

Integers = NDArray[np.int64]

Entry = TypeVar("Entry", bound=np.generic)

FREE, RUNNING, FOLLOWING = 0, 1, 2


@dataclass(slots=True, eq=False)
class Request:
    """A prompt and how to continue it. ``limit`` is the most tokens, prompt included, a sample may grow to.

    ``stream`` asks for news of every token, and ``unfinished`` counts its samples that have not ended.
    """

    id: int
    prompt: NDArray[np.int32]
    params: SamplingParams
    limit: int
    stream: bool
    unfinished: int


@dataclass(slots=True, eq=False)
class Sample:
    """One of a request's ``n`` samples; ``tokens`` and ``logprobs`` are those from before it was last put back."""

    request: Request
    index: int
    key: int
    text: TextStream | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Rows:
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
        self.watched = np.zeros(count, dtype=np.bool_)  # looked at after each token: streams and stop strings
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
        self.temperature[row], self.top_p[row], self.top_k[row] = params.temperature, params.top_p, params.top_k
        self.watched[row] = request.stream or sample.text is not None
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
