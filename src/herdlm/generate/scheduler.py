"""Which tokens go through the model in each step: continuous batching over paged memory.

A sequence has ``length`` known tokens, of which ``computed`` are in the cache. A step computes some of the rest of each
running sequence: one token when decoding, a chunk of the prompt before that. A sequence with nothing left to compute
draws its next token. When pages run out, the sequence that arrived last is preempted: it goes to the front of the
waiting queue and is computed again later. The oldest sequence always advances, so every request ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herdlm.generate.pages import PagePool, page_digest
from herdlm.generate.sequences import FOLLOWING, RUNNING, Batch, Integers, Request, Sample, Sequences

ONGOING, STOPPED, OUT_OF_LENGTH = 0, 1, 2

NONE = np.zeros(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class SequenceGroup:
    """Samples of one request that wait with the same known tokens: its new samples, or one that was preempted."""

    samples: list[Sample]
    tokens: NDArray[np.int32]
    order: int
    digests: list[bytes]  # of the full pages that the prefix cache may hold


class Scheduler:
    """Admits, schedules, preempts and releases sequences.

    Args:
        max_batch: the most sequences at once.
        step_tokens: the most tokens computed in one step; at least ``max_batch``.
    """

    def __init__(self, pool: PagePool, max_batch: int, step_tokens: int) -> None:
        assert step_tokens >= max_batch, "every decoding sequence must fit into a step"
        self.pool, self.step_tokens = pool, step_tokens
        self.sequences = Sequences(max_batch, pool.page_size)
        self.waiting: deque[SequenceGroup] = deque()
        self.followers: dict[int, Integers] = {}
        self.arrivals = 0
        self.preemptions = 0  # since the beginning
        self.reused_tokens = 0  # prompt tokens found in the prefix cache since the beginning

    @property
    def busy(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.waiting) or bool(self.sequences.state.any())

    def add(self, samples: list[Sample]) -> None:
        """Queue all samples of a new request."""
        self.arrivals += 1
        self.waiting.append(self._group(samples, samples[0].request.prompt, self.arrivals))

    def schedule(self) -> Batch | None:
        """Choose a step's tokens and allocate the pages it writes; None when there is nothing to do."""
        rows, before = self.sequences.running(), self.preemptions
        while True:
            counts = self._token_counts(rows)
            scheduled, counts = rows[counts > 0], counts[counts > 0]
            private, needed = self._page_needs(scheduled, counts)
            if len(private) + int(needed.sum()) <= self.pool.available:
                break
            rows = self._preempt(rows)
        copies = self._allocate_pages(scheduled, counts, private, needed)
        if self.preemptions == before:
            admitted = self._admit(self.step_tokens - int(counts.sum()))
            scheduled = np.concatenate([scheduled, np.array([row for row, _ in admitted], dtype=np.int64)])
            counts = np.concatenate([counts, np.array([count for _, count in admitted], dtype=np.int64)])
        return self._batch(scheduled, counts, copies) if len(scheduled) else None

    def commit(self, batch: Batch, tokens: NDArray[np.int32], logprobs: NDArray[np.float32]) -> NDArray[np.int8]:
        """Append the drawn tokens [M]; returns for each sequence whether it is ONGOING, STOPPED or OUT_OF_LENGTH."""
        state, drawing = self.sequences, batch.drawing
        state.computed[batch.rows] += batch.counts
        for row in [row for row in batch.rows.tolist() if row in self.followers] if self.followers else ():
            if state.computed[row] == state.length[row]:
                followers = self.followers.pop(row)
                state.follow(row, followers)
                self.pool.share(state.table[row, : state.pages[row]], len(followers))
        state.tokens[drawing, state.length[drawing]] = tokens
        state.logprobs[drawing, state.length[drawing]] = logprobs
        state.length[drawing] += 1
        ended = np.where(state.length[drawing] >= state.limit[drawing], OUT_OF_LENGTH, ONGOING).astype(np.int8)
        ended[(state.stop_tokens[drawing] == tokens[:, None]).any(axis=1)] = STOPPED
        return ended

    def release(self, rows: Integers) -> None:
        """Free sequences and the pages that no other sequence holds."""
        self.pool.release(self.sequences.pages_of(rows))
        self.sequences.clear(rows)

    def abort(self, requests: Set[Request]) -> None:
        """Drop requests, waiting or running."""
        self.waiting = deque(group for group in self.waiting if group.samples[0].request not in requests)
        gone = [row for row, sample in enumerate(self.sequences.sample) if sample and sample.request in requests]
        for row in gone:
            self.followers.pop(row, None)
        self.release(np.array(gone, dtype=np.int64))

    def _token_counts(self, rows: Integers) -> Integers:
        """Tokens to compute of each of ``rows``: decoding sequences first, then the oldest unfinished prompts."""
        left = self.sequences.length[rows] - self.sequences.computed[rows]
        counts = np.where(left == 1, 1, 0)
        budget = self.step_tokens - int(counts.sum())
        for index in np.flatnonzero(left > 1).tolist():
            counts[index] = min(int(left[index]), budget)
            budget -= int(counts[index])
        return counts

    def _page_needs(self, rows: Integers, counts: Integers) -> tuple[Integers, Integers]:
        """Indices of the rows that must copy the shared page they write into, and each row's number of new pages."""
        state, size = self.sequences, self.pool.page_size
        begins = state.computed[rows]
        needed = -(-(begins + counts) // size) - state.pages[rows]
        inside = np.flatnonzero(begins % size)
        pages = state.table[rows[inside], begins[inside] // size]
        shared = self.pool.references[pages] > 1
        inside, pages = inside[shared], pages[shared]
        if not len(inside):
            return inside, needed
        distinct, first, writers = np.unique(pages, return_index=True, return_counts=True)
        keepers = first[writers == self.pool.references[distinct]]  # where all holders write, one keeps the page
        return np.delete(inside, keepers), needed

    def _allocate_pages(self, rows: Integers, counts: Integers, private: Integers, needed: Integers) -> Integers:
        """Allocate the pages that :meth:`_page_needs` counted; returns the copies [2, X]."""
        state = self.sequences
        new = self.pool.allocate(len(private) + int(needed.sum()))
        targets, new = new[: len(private)], new[len(private) :]
        columns = state.computed[rows[private]] // self.pool.page_size
        sources = state.table[rows[private], columns]
        state.table[rows[private], columns] = targets
        self.pool.release(sources)
        owners = np.repeat(rows, needed)
        nth = np.arange(len(owners)) - np.repeat(np.cumsum(needed) - needed, needed)
        state.table[owners, state.pages[owners] + nth] = new
        state.pages[rows] += needed
        self._publish(rows, counts)
        return np.stack([sources, targets])

    def _publish(self, rows: Integers, counts: Integers) -> None:
        """Enter the pages that this step fills into the prefix cache.

        Sequences admitted to the same step may use them: each layer writes all keys and values before it reads any.
        """
        state, size = self.sequences, self.pool.page_size
        ends = state.computed[rows] + counts
        for index in np.flatnonzero(ends // size > state.computed[rows] // size).tolist():
            row = int(rows[index])
            digests = state.digests[row]
            for page in range(len(digests), int(ends[index]) // size):
                parent = digests[-1] if digests else b""
                digests.append(page_digest(parent, state.tokens[row, page * size : (page + 1) * size]))
                self.pool.publish(digests[-1], int(state.table[row, page]))

    def _admit(self, budget: int) -> list[tuple[int, int]]:
        """Admit waiting samples while rows, pages and ``budget`` last; the (row, tokens to compute) of each group."""
        admitted: list[tuple[int, int]] = []
        free, used = self.sequences.free(), 0
        while self.waiting and budget > 0 and used < len(free):
            group = self.waiting[0]
            rows = free[used : used + len(group.samples)]
            cached = self.pool.lookup(group.digests[: self._usable_pages(group)])
            revived = int((self.pool.references[cached] == 0).sum())
            new = self.pool.pages_for(len(group.tokens)) - len(cached)
            alone = not self.sequences.state.any()
            # Unless it runs alone, leave each sample a page to grow into, or it would be preempted at once.
            if new + (0 if alone else len(rows)) > self.pool.available - revived:
                break
            used += len(rows)
            admitted.append(self._allocate(group, rows, cached, budget))
            budget -= admitted[-1][1]
        return admitted

    def _usable_pages(self, group: SequenceGroup) -> int:
        """How many full pages the prefix cache may supply. To score a token, the one before it must be computed."""
        request = group.samples[0].request
        scored_from = request.params.prompt_logprobs_from - 1
        return scored_from // self.pool.page_size if request.unscored else len(group.digests)

    def _allocate(self, group: SequenceGroup, rows: Integers, cached: Integers, budget: int) -> tuple[int, int]:
        """Put samples into ``rows``; the first computes the rest of the prompt behind ``cached``, the others wait."""
        state, leader = self.sequences, int(rows[0])
        samples, rest = group.samples[: len(rows)], group.samples[len(rows) :]
        for row, sample in zip(rows.tolist(), samples, strict=True):
            state.fill(row, sample, group.order, RUNNING if row == leader else FOLLOWING)
        if len(rows) > 1:
            self.followers[leader] = rows[1:]
        if rest:
            group.samples = rest
        else:
            self.waiting.popleft()
        self.pool.share(cached)
        state.table[leader, : len(cached)] = cached
        state.pages[leader] = len(cached)
        state.computed[leader] = len(cached) * self.pool.page_size
        state.digests[leader] = group.digests[: len(cached)]
        self.reused_tokens += len(cached) * self.pool.page_size
        if samples[0].request.cached is None:
            samples[0].request.cached = len(cached) * self.pool.page_size
        row, count = rows[:1], np.array([min(budget, state.length[leader] - state.computed[leader])])
        self._allocate_pages(row, count, *self._page_needs(row, count))
        return leader, int(count[0])

    def _preempt(self, rows: Integers) -> Integers:
        """Preempt the last of ``rows`` together with those that follow it; returns the other rows."""
        assert len(rows) > 1, "one sample alone always fits: checked when it was submitted"
        state, row = self.sequences, int(rows[-1])
        sample = state.sample[row]
        assert sample is not None
        followers = self.followers.pop(row, np.zeros(0, dtype=np.int64))
        begin, end = state.start[row], state.length[row]
        sample.tokens, sample.logprobs = state.tokens[row, begin:end].tolist(), state.logprobs[row, begin:end].tolist()
        samples = [sample, *(s for r in followers.tolist() if (s := state.sample[r]))]
        self.waiting.appendleft(self._group(samples, state.tokens[row, :end].copy(), int(state.order[row])))
        self.release(np.concatenate([rows[-1:], followers]))
        self.preemptions += 1
        return rows[:-1]

    def _group(self, samples: list[Sample], tokens: NDArray[np.int32], order: int) -> SequenceGroup:
        # Logits need at least one token to be computed, so a page that ends the tokens is not looked up.
        size, digests = self.pool.page_size, [b""]
        for page in range((len(tokens) - 1) // size):
            digests.append(page_digest(digests[-1], tokens[page * size : (page + 1) * size]))
        return SequenceGroup(samples, tokens, order, digests[1:])

    def _batch(self, rows: Integers, counts: Integers, copies: Integers) -> Batch:
        state, size = self.sequences, self.pool.page_size
        begins, ends = state.computed[rows], np.cumsum(counts)
        segment = np.repeat(np.arange(len(rows)), counts)
        positions = np.arange(len(segment)) + (begins - ends + counts)[segment]
        owners = rows[segment]
        complete = np.flatnonzero(begins + counts == state.length[rows])
        drawing, at = [rows[complete]], [ends[complete] - 1]
        for index in complete.tolist() if self.followers else ():
            followers = self.followers.get(int(rows[index]))
            if followers is not None:
                drawing.append(followers)
                at.append(np.full(len(followers), ends[index] - 1))
        scoring = NONE
        if state.unscored[rows].any():
            scored = (positions + 1 >= state.scored_from[owners]) & (positions + 1 < state.start[owners])
            scoring = np.flatnonzero(state.unscored[owners] & scored)
        return Batch(
            rows=rows,
            copies=copies,
            tokens=state.tokens[owners, positions],
            positions=positions,
            slots=state.table[owners, positions // size] * size + positions % size,
            begins=begins,
            counts=counts,
            tables=state.table[rows][:, : int(state.pages[rows].max())],
            drawing=np.concatenate(drawing),
            at=np.concatenate(at),
            scoring=scoring,
            scorers=owners[scoring],
        )
