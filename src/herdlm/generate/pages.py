"""Pages of the key/value cache: who holds them, which are free, and which keep a known prefix.

A page holds ``page_size`` tokens' keys and values in every layer (Kwon et al., arXiv 2309.06180). This is the account
of pages alone; the tensors live in :mod:`herdlm.generate.paged_attention`. A page is in exactly one state:

- free: on the free list;
- held: by one or more sequences (``references`` counts them);
- idle: held by none, but its content is known by a digest and is kept until the room is needed.

Page 0 is never given out. Block tables are padded with it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pages = NDArray[np.int64]


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
        assert count <= self.available, "more pages asked for than are available"
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
        """Give up one hold for each entry of ``pages``, which may repeat.

        Those that fall idle are taken back in the order given, so the last page of a prefix should come first: a
        prefix is of no use without its beginning.
        """
        np.subtract.at(self.references, pages, 1)
        left = dict.fromkeys(pages[self.references[pages] == 0].tolist())
        free = [page for page in left if page not in self._digest_of]
        self._idle.update((page, None) for page in left if page in self._digest_of)
        self._push_free(free)

    def publish(self, digest: bytes, page: int) -> None:
        """Make a held page findable by its content; where the content is already known, the earlier page stays."""
        if digest not in self._page_of and page not in self._digest_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def lookup(self, digests: Sequence[bytes]) -> Pages:
        """Pages of the longest known prefix of ``digests``; :meth:`share` them before anything else is allocated."""
        found: list[int] = []
        for digest in digests:
            page = self._page_of.get(digest)
            if page is None:
                break
            found.append(page)
        return np.array(found, dtype=np.int64)

    def forget_contents(self) -> None:
        """Drop every digest: what the pages hold is no longer to be trusted (new weights, a failed step)."""
        self._page_of.clear()
        self._digest_of.clear()
        self._push_free(list(self._idle))
        self._idle.clear()

    def check(self) -> None:
        """Assert that every page is in exactly one state and that the digests agree with each other."""
        free, idle = set(self._free[: self._free_count].tolist()), set(self._idle)
        held = set(np.flatnonzero(self.references).tolist())
        assert len(free) == self._free_count, "a page is free twice"
        assert not (free & idle or free & held or idle & held), "a page is in two states"
        assert free | idle | held == set(range(1, self.count + 1)), "a page is lost"
        assert (self.references >= 0).all(), "a page was given up more often than held"
        assert {p: d for d, p in self._page_of.items()} == self._digest_of, "digests and pages disagree"
        assert idle <= set(self._digest_of), "an idle page has no known content"
        assert not free & set(self._digest_of), "a free page is still findable"

    def _push_free(self, pages: list[int]) -> None:
        self._free[self._free_count : self._free_count + len(pages)] = pages
        self._free_count += len(pages)

    def _forget(self, page: int) -> None:
        del self._page_of[self._digest_of.pop(page)]
