"""Pages of the key/value cache: who holds them, which are free, which keep a known prefix, which are shared.

A page holds ``page_size`` tokens' keys and values in every layer (Kwon et al., arXiv 2309.06180). This file only keeps
the accounts; the tensors are in :mod:`herdlm.generate.paged_attention`. A page is in exactly one state:

- free: on the free list;
- held: by one or more sequences (``references`` counts them);
- idle: held by none, but a digest identifies its content, which is kept until the page is needed.

Page 0 is never allocated. Block tables are padded with it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

Pages = NDArray[np.int64]

WORTH_PAGES = 8  # page reads that sharing must save; an extra call per layer costs about as much


def page_digest(parent: bytes, tokens: NDArray[np.int32]) -> bytes:
    """Digest of a full page: of its own tokens [page_size] and, through ``parent``, of all tokens before them."""
    return hashlib.blake2b(parent + tokens.tobytes(), digest_size=16).digest()


class PagePool:
    """Hands out ``count`` pages of ``page_size`` tokens, numbered from 1."""

    def __init__(self, count: int, page_size: int) -> None:
        self.count, self.page_size = count, page_size
        self.references = np.zeros(count + 1, dtype=np.int32)
        self._free = np.arange(count, 0, -1, dtype=np.int64)  # a stack; its first ``_free_count`` entries are free
        self._free_count = count
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently held first
        self._page_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        """Pages that :meth:`allocate` could hand out now."""
        return self._free_count + len(self._idle)

    def pages_for(self, tokens: int) -> int:
        """Pages that hold ``tokens`` tokens."""
        return -(-tokens // self.page_size)

    def allocate(self, count: int) -> Pages:
        """``count`` pages [count], each held once. The caller has checked ``available``."""
        assert count <= self.available, "more pages requested than are available"
        while self._free_count < count:
            page, _ = self._idle.popitem(last=False)
            self._forget(page)
            self._push_free([page])
        self._free_count -= count
        pages = self._free[self._free_count : self._free_count + count][::-1].copy()
        self.references[pages] = 1
        return pages

    def share(self, pages: Pages, holders: int = 1) -> None:
        """Let ``holders`` more sequences hold each of the (distinct) ``pages``, which are held or idle."""
        for page in pages[self.references[pages] == 0].tolist():
            del self._idle[page]
        self.references[pages] += holders

    def release(self, pages: Pages) -> None:
        """Drop one reference for each entry of ``pages``, which may repeat.

        Pages that become idle are reused in the order given, so the last page of a prefix should come first: a prefix
        is useless without its beginning.
        """
        np.subtract.at(self.references, pages, 1)
        left = dict.fromkeys(pages[self.references[pages] == 0].tolist())
        free = [page for page in left if page not in self._digest_of]
        self._idle.update((page, None) for page in left if page in self._digest_of)
        self._push_free(free)

    def publish(self, digest: bytes, page: int) -> None:
        """Register a held page under its content's digest, unless another page already has that content."""
        if digest not in self._page_of and page not in self._digest_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def lookup(self, digests: Sequence[bytes]) -> Pages:
        """Pages of the longest known prefix of ``digests``; :meth:`share` them before anything else is allocated."""
        known = takewhile(lambda page: page is not None, map(self._page_of.get, digests))
        return np.array(list(known), dtype=np.int64)

    def forget_contents(self) -> None:
        """Drop every digest: the pages' contents are no longer valid (new weights, a failed step).

        If no page is held, pages are handed out in the order of a new pool again. The order of pages decides the order
        of sums, so that only then the same requests get the same bits.
        """
        self._page_of.clear()
        self._digest_of.clear()
        self._push_free(list(self._idle))
        self._idle.clear()
        if self._free_count == self.count:
            self._free = np.arange(self.count, 0, -1, dtype=np.int64)

    def check(self) -> None:
        """Assert that every page is in exactly one state and that the digests agree with each other."""
        free, idle = set(self._free[: self._free_count].tolist()), set(self._idle)
        held = set(np.flatnonzero(self.references).tolist())
        assert len(free) == self._free_count, "a page is free twice"
        assert not (free & idle or free & held or idle & held), "a page is in two states"
        assert free | idle | held == set(range(1, self.count + 1)), "a page is lost"
        assert (self.references >= 0).all(), "a page was released more often than held"
        assert {p: d for d, p in self._page_of.items()} == self._digest_of, "digests and pages disagree"
        assert idle <= set(self._digest_of), "an idle page has no known content"
        assert not free & set(self._digest_of), "a free page is still findable"

    def _push_free(self, pages: list[int]) -> None:
        self._free[self._free_count : self._free_count + len(pages)] = pages
        self._free_count += len(pages)

    def _forget(self, page: int) -> None:
        del self._page_of[self._digest_of.pop(page)]


def find_shared(tables: Pages, full: Pages) -> Iterator[tuple[Pages, int, int]]:
    """Runs of pages that several sequences hold, so that each page is read once for all of them.

    Two block tables that name the same page at the same place share a prefix. The tables form a tree: a system prompt
    at its root, then the prompts that continue it, then the samples of each prompt.

    Args:
        tables: [D, P] block tables.
        full: [D] how many pages at the beginning of each are complete and visible to the query in full.

    Yields:
        (indices [R] of sequences, begin, end): they share the pages in columns begin to end. The runs of each sequence
        are consecutive and start at column 0.
    """
    if len(tables) > 1:
        order = np.lexsort(tables.T[::-1])  # neighbors have the most in common
        yield from _runs(tables, full, order, 0, 0)


def _runs(tables: Pages, full: Pages, rows: Pages, begin: int, column: int) -> Iterator[tuple[Pages, int, int]]:
    """Runs of ``rows``, which are sorted and share the pages before ``column``; those before ``begin`` are done."""
    limit = int(full[rows].min())
    block = tables[rows, column:limit]
    same = (block == block[:1]).all(axis=0)
    column = limit if same.all() else column + int(np.argmin(same))
    if (len(rows) - 1) * (column - begin) >= WORTH_PAGES:
        yield rows, begin, column
        begin = column
    here = rows[full[rows] > column]
    if not len(here):
        return
    page = tables[here, column]
    for part in np.split(here, np.flatnonzero(page[1:] != page[:-1]) + 1):
        if len(part) > 1:
            yield from _runs(tables, full, part, begin, column)
