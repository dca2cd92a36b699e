"""The account of pages: every page in one state, whatever the order of calls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from herdlm.generate.pages import PagePool, page_digest


def digest_chain(*pages: list[int]) -> list[bytes]:
    digests = [b""]
    for tokens in pages:
        digests.append(page_digest(digests[-1], np.array(tokens, dtype=np.int32)))
    return digests[1:]


def test_a_digest_tells_the_page_and_all_before_it():
    first, second = digest_chain([1, 2], [3, 4])
    assert digest_chain([1, 2], [3, 4]) == [first, second]
    assert digest_chain([9, 2], [3, 4])[1] != second
    assert digest_chain([3, 4])[0] != second


def test_a_released_prefix_is_found_again_until_its_room_is_needed():
    pool = PagePool(4, page_size=2)
    digests = digest_chain([1, 2], [3, 4])
    pages = pool.allocate(2)
    for digest, page in zip(digests, pages.tolist(), strict=True):
        pool.publish(digest, page)
    pool.release(pages[::-1])
    assert pool.available == 4
    assert pool.lookup(digests).tolist() == pages.tolist()

    pool.allocate(3)  # takes the two free pages and one idle one: the end of the prefix, not its beginning
    assert pool.lookup(digests).tolist() == pages[:1].tolist()
    pool.share(pages[:1])
    assert pool.available == 0
    pool.check()


def test_pages_asked_for_together_are_neighbors_in_memory():
    pool = PagePool(6, page_size=2)
    assert [pool.allocate(count).tolist() for count in (2, 3)] == [[1, 2], [3, 4, 5]]


def test_forgetting_contents_frees_idle_pages_and_hides_held_ones():
    pool = PagePool(2, page_size=2)
    digests = digest_chain([1, 2], [3, 4])
    pages = pool.allocate(2)
    pool.publish(digests[0], int(pages[0]))
    pool.publish(digests[1], int(pages[1]))
    pool.release(pages[1:])
    pool.forget_contents()
    assert not len(pool.lookup(digests))
    pool.release(pages[:1])
    assert pool.available == 2
    pool.check()


def test_asking_for_more_than_there_is_fails():
    with pytest.raises(AssertionError):
        PagePool(2, page_size=1).allocate(3)


@given(st.integers(0, 100), st.integers(1, 7))
def test_pages_for_holds_all_tokens_with_less_than_a_page_to_spare(tokens, size):
    assert 0 <= PagePool(1, size).pages_for(tokens) * size - tokens < size


class PoolMachine(RuleBasedStateMachine):
    """Random sequences that allocate, share, publish and release, checked against a model of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(8, page_size=1)
        self.holders: list[list[int]] = []
        self.published: dict[bytes, int] = {}
        self.fresh = 0

    @rule(count=st.integers(1, 4))
    def allocate(self, count: int) -> None:
        if count > self.pool.available:
            return
        held = {page for pages in self.holders for page in pages}
        pages = self.pool.allocate(count).tolist()
        assert 0 not in pages
        assert not held & set(pages), "a held page was given out again"
        assert len(set(pages)) == count
        self.published = {d: p for d, p in self.published.items() if p not in pages}
        self.holders.append(pages)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(data.draw(st.sampled_from(self.holders))))
        self.fresh += 1
        digest = self.fresh.to_bytes(4, "big")
        self.pool.publish(digest, page)
        if page not in self.published.values():
            self.published[digest] = page

    @precondition(lambda self: self.published)
    @rule(data=st.data(), times=st.integers(1, 3))
    def share(self, data: st.DataObject, times: int) -> None:
        digest = data.draw(st.sampled_from(sorted(self.published)))
        page = self.pool.lookup([digest])
        assert page.tolist() == [self.published[digest]]
        self.pool.share(page, times)
        self.holders += [page.tolist()] * times

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.holders)))
        gone, self.holders = self.holders[:count], self.holders[count:]
        self.pool.release(np.array([page for pages in gone for page in pages[::-1]], dtype=np.int64))

    @invariant()
    def agrees(self) -> None:
        self.pool.check()
        references = np.zeros(9, dtype=int)
        for pages in self.holders:
            references[pages] += 1
        assert self.pool.references.tolist() == references.tolist()


TestPool = PoolMachine.TestCase
