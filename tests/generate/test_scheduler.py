"""The scheduler against a simulated cache: every row must find exactly its own history, in any crowd."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from herdlm.generate.pages import PagePool
from herdlm.generate.request import SamplingParams
from herdlm.generate.scheduler import ONGOING, Batch, Scheduler
from herdlm.generate.sequences import FOLLOWING, RUNNING, PromptScores, Request, Sample


def history(tokens: list[int]) -> int:
    return int.from_bytes(hashlib.blake2b(bytes(tokens), digest_size=7).digest(), "big")


def next_token(tokens: list[int], index: int) -> int:
    return history([*tokens, index]) % 4


def alone(prompt: list[int], index: int, limit: int, stop: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < limit and (len(tokens) == len(prompt) or tokens[-1] != stop):
        tokens.append(next_token(tokens, index))
    return tokens[len(prompt) :]


class Simulation:
    """Runs a scheduler with a cache that remembers, per slot, the history of the token written there."""

    def __init__(self, pages: int, page_size: int, max_batch: int, step_tokens: int) -> None:
        self.pool = PagePool(pages, page_size)
        self.scheduler = Scheduler(self.pool, max_batch, max(step_tokens, max_batch))
        self.memory = np.full((pages + 1) * page_size, -1, dtype=np.int64)
        self.finished: dict[tuple[int, int], list[int]] = {}

    def submit(
        self, id: int, prompt: list[int], n: int, max_tokens: int, stop: int, *, scored: bool = False
    ) -> Request:
        params = SamplingParams(n=n, max_tokens=max_tokens, stop_tokens=(stop,))
        scores = PromptScores(len(prompt), 1) if scored else None
        request = Request(
            id, np.array(prompt, dtype=np.int32), params, len(prompt) + max_tokens, False, n, scores=scores
        )
        self.scheduler.add([Sample(request, index, key=0) for index in range(n)])
        return request

    def step(self) -> bool:
        batch = self.scheduler.schedule()
        if batch is None:
            return False
        self._check_and_write(batch)
        rows = self.scheduler.sequences
        drawn = []
        for row in batch.drawing.tolist():
            sample = rows.sample[row]
            assert sample is not None
            drawn.append(next_token(rows.tokens[row, : rows.length[row]].tolist(), sample.index))
        assert len(set(batch.drawing.tolist())) == len(batch.drawing)
        ended = self.scheduler.commit(batch, np.array(drawn, dtype=np.int32), np.zeros(len(drawn), dtype=np.float32))
        done = batch.drawing[ended != ONGOING]
        for row in done.tolist():
            sample = rows.sample[row]
            assert sample is not None
            key = (sample.request.id, sample.index)
            assert key not in self.finished, "a sample finished twice"
            self.finished[key] = rows.tokens[row, rows.start[row] : rows.length[row]].tolist()
        self.scheduler.release(done)
        self.check()
        return True

    def _check_and_write(self, batch: Batch) -> None:
        size, rows = self.pool.page_size, self.scheduler.sequences
        assert 0 < batch.counts.sum() == len(batch.tokens) <= self.scheduler.step_tokens
        pages = self.memory.reshape(-1, size)
        sources, targets = batch.copies
        pages[targets] = pages[sources]
        assert len(set(batch.slots.tolist())) == len(batch.slots), "two tokens in one slot"
        assert size <= batch.slots.min(), "the padding page was written"
        written = np.unique(batch.slots // size)
        writers = np.zeros(self.pool.count + 1, dtype=int)
        end = np.cumsum(batch.counts)
        for i in range(len(batch.rows)):
            row, begin = int(batch.rows[i]), int(batch.begins[i])
            known = rows.tokens[row, : begin + batch.counts[i]].tolist()
            for offset in range(batch.counts[i]):
                at = int(end[i] - batch.counts[i] + offset)
                assert batch.positions[at] == begin + offset
                assert batch.tokens[at] == known[begin + offset]
                self.memory[batch.slots[at]] = history(known[: begin + offset + 1])
            np.add.at(writers, np.unique(batch.slots[end[i] - batch.counts[i] : end[i]] // size), 1)
        assert (writers[written] == 1).all(), "two rows write into one page"
        for i, row in enumerate(batch.rows.tolist()):
            length = int(batch.begins[i] + batch.counts[i])
            slots = batch.tables[i][np.arange(length) // size] * size + np.arange(length) % size
            known = rows.tokens[row, :length].tolist()
            assert self.memory[slots].tolist() == [history(known[: j + 1]) for j in range(length)]
        for at, request in zip(batch.scoring.tolist(), rows.requests(batch.scorers), strict=True):
            position = int(batch.positions[at])
            assert request.scores is not None
            assert batch.tokens[at] == request.prompt[position]
            request.scores.logprobs[position] = request.prompt[position + 1]

    def check(self) -> None:
        """Every page is held by as many rows as list it, and each row writes into a page of its own."""
        self.pool.check()
        rows = self.scheduler.sequences
        holders = np.zeros(self.pool.count + 1, dtype=int)
        for row in range(rows.count):
            held = rows.table[row, : rows.pages[row]].tolist()
            assert len(set(held)) == len(held), "a row holds a page twice"
            assert 0 not in held
            assert rows.state[row] or not held, "a free row holds pages"
            np.add.at(holders, held, 1)
        assert holders.tolist() == self.pool.references.tolist()
        followers = self.scheduler.followers
        assert all(rows.state[leader] == RUNNING for leader in followers), "rows wait for one that is not there"
        waiting = sorted(row for rows_ in followers.values() for row in rows_.tolist())
        assert waiting == np.flatnonzero(rows.state == FOLLOWING).tolist()


requests = st.lists(
    st.tuples(
        st.integers(0, 2),  # which shared beginning
        st.integers(1, 9),  # length of the prompt
        st.integers(1, 5),  # samples
        st.integers(1, 8),  # new tokens
        st.integers(0, 3),  # steps before the next arrives
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(requests, st.integers(1, 4), st.integers(0, 12), st.integers(1, 6), st.integers(1, 16), st.integers(0, 10))
def test_every_sample_gets_what_it_would_get_alone(asked, page_size, spare, max_batch, step_tokens, aborted):
    longest = max(length + new for _, length, _, new, _ in asked)
    pages = -(-(longest - 1) // page_size) + spare
    simulation = Simulation(pages, page_size, max_batch, step_tokens)
    expected = {}
    for id, (beginning, length, n, new, steps) in enumerate(asked):
        prompt = [(beginning + 1) % 3, *([beginning] * length)][:length]
        request = simulation.submit(id, prompt, n, new, stop=3)
        for _ in range(steps):
            simulation.step()
        if id == aborted:
            simulation.scheduler.abort({request})
            simulation.pool.check()
            continue
        expected |= {(id, j): alone(prompt, j, length + new, 3) for j in range(n)}
    for _ in range(5000):
        if not simulation.step():
            break
    assert not simulation.scheduler.busy
    assert {key: tokens for key, tokens in simulation.finished.items() if key[0] != aborted} == expected
    assert simulation.pool.available == pages
    assert not simulation.pool.references.any()


class SchedulerMachine(RuleBasedStateMachine):
    """Requests that share beginnings come, are dropped and are served, in any order and a cache of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None
        self.requests: dict[int, Request] = {}
        self.expected: dict[tuple[int, int], list[int]] = {}

    @precondition(lambda self: self.simulation is None)
    @rule(pages=st.integers(6, 24), size=st.integers(1, 4), batch=st.integers(1, 5), tokens=st.integers(1, 14))
    def build(self, pages: int, size: int, batch: int, tokens: int) -> None:
        self.simulation = Simulation(pages, size, batch, tokens)

    @precondition(lambda self: self.simulation is not None)
    @rule(
        beginning=st.integers(0, 2),
        length=st.integers(1, 12),
        n=st.integers(1, 6),
        new=st.integers(1, 8),
        scored=st.booleans(),
    )
    def arrive(self, beginning: int, length: int, n: int, new: int, scored: bool) -> None:
        simulation, id = self.simulation, len(self.requests)
        assert simulation is not None
        if simulation.pool.pages_for(length + new - 1) > simulation.pool.count:
            return
        prompt = [(beginning + i // 3) % 3 for i in range(length)]
        self.requests[id] = simulation.submit(id, prompt, n, new, stop=3, scored=scored)
        self.expected |= {(id, j): alone(prompt, j, length + new, 3) for j in range(n)}

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        assert self.simulation is not None
        id = data.draw(st.sampled_from(sorted(self.requests)))
        self.simulation.scheduler.abort({self.requests[id]})
        for key in [key for key in self.expected if key[0] == id and key not in self.simulation.finished]:
            del self.expected[key]

    @precondition(lambda self: self.simulation is not None)
    @rule(steps=st.integers(1, 6))
    def serve(self, steps: int) -> None:
        assert self.simulation is not None
        for _ in range(steps):
            self.simulation.step()

    @invariant()
    def agrees(self) -> None:
        if self.simulation:
            self.simulation.check()

    def teardown(self) -> None:
        simulation = self.simulation
        if simulation is None:
            return
        for _ in range(5000):
            if not simulation.step():
                break
        assert not simulation.scheduler.busy, "a request is never served"
        assert simulation.finished == self.expected
        assert not simulation.pool.references.any()
        assert simulation.pool.available == simulation.pool.count
        for (id, _), _ in simulation.finished.items():
            scores = self.requests[id].scores
            assert scores is None or scores.logprobs.tolist() == self.requests[id].prompt[1:].tolist()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_scored_prompt_is_computed_whole_though_it_is_in_the_cache_and_put_back():
    simulation = Simulation(pages=6, page_size=2, max_batch=4, step_tokens=4)
    simulation.submit(0, [1, 2, 0, 1, 2], 1, 1, stop=9)
    while simulation.step():
        pass
    requests = [simulation.submit(id, [1, 2, 0, 1, 2], 2, 5, stop=9, scored=True) for id in (1, 2)]
    assert simulation.scheduler.reused_tokens == 0
    while simulation.step():
        pass
    assert simulation.scheduler.preemptions > 0
    for request in requests:
        assert request.scores is not None
        assert request.scores.logprobs.tolist() == [2, 0, 1, 2]
    assert simulation.finished[2, 1] == alone([1, 2, 0, 1, 2], 1, 10, 9)


def test_a_row_put_back_within_its_prompt_takes_those_that_wait_for_it_along():
    simulation = Simulation(pages=12, page_size=1, max_batch=4, step_tokens=4)
    prompts = [[1], [0], [2] * 6]
    for id in range(2):
        simulation.submit(id, prompts[id], 1, 8, stop=9)
    simulation.step()
    simulation.submit(2, prompts[2], 2, 3, stop=9)
    simulation.step()
    assert (simulation.scheduler.sequences.state == FOLLOWING).sum() == 1
    while simulation.scheduler.preemptions == 0:
        assert simulation.step()
    assert not (simulation.scheduler.sequences.state == FOLLOWING).any()
    while simulation.step():
        pass
    assert simulation.finished == {(id, j): alone(prompts[id], j, 9, 9) for id, j in ((0, 0), (1, 0), (2, 0), (2, 1))}


def test_running_out_of_pages_puts_the_last_row_back():
    simulation = Simulation(pages=6, page_size=2, max_batch=8, step_tokens=64)
    for id in range(3):
        simulation.submit(id, [id, id, id], 1, 6, stop=9)
    while simulation.step():
        pass
    assert simulation.scheduler.preemptions > 0
    assert simulation.finished == {(id, 0): alone([id] * 3, 0, 9, 9) for id in range(3)}


def test_samples_share_their_prompt_and_copy_only_where_they_part():
    simulation = Simulation(pages=64, page_size=4, max_batch=8, step_tokens=64)
    simulation.submit(0, [1, 2, 3, 0, 1, 2], 8, 4, stop=9)
    first = simulation.scheduler.schedule()
    assert first is not None
    assert len(first.tokens) == 6, "the prompt is computed once"
    assert len(first.drawing) == 8
    zeros = np.zeros(8)
    simulation.scheduler.commit(first, zeros.astype(np.int32), zeros.astype(np.float32))
    assert simulation.pool.count - simulation.pool.available == 2
    second = simulation.scheduler.schedule()
    assert second is not None
    assert second.copies.shape == (2, 7), "one of eight keeps the half-filled page"
    assert simulation.pool.count - simulation.pool.available == 1 + 8


def test_no_row_keeps_a_shared_page_while_one_that_holds_it_stands_still():
    simulation = Simulation(pages=64, page_size=4, max_batch=4, step_tokens=64)
    simulation.submit(0, [1, 2], 3, 4, stop=9)
    simulation.step()
    rows = simulation.scheduler.sequences
    page = rows.table[2, 0]
    rows.state[2] = FOLLOWING
    batch = simulation.scheduler.schedule()
    assert batch is not None
    assert batch.copies[0].tolist() == [page, page]
    assert page not in rows.table[:2, 0]
    assert simulation.pool.references[page] == 1


def test_a_known_prefix_is_not_computed_again_even_in_the_same_step():
    simulation = Simulation(pages=64, page_size=4, max_batch=8, step_tokens=64)
    for id in range(2):
        simulation.submit(id, [1, 2, 3, 0] * 3 + [id], 1, 2, stop=9)
    batch = simulation.scheduler.schedule()
    assert batch is not None
    assert batch.counts.tolist() == [13, 1]
    assert simulation.scheduler.reused_tokens == 12


def test_a_prompt_longer_than_a_step_is_computed_in_chunks_beside_decoding():
    simulation = Simulation(pages=64, page_size=4, max_batch=4, step_tokens=8)
    simulation.submit(0, [1], 1, 20, stop=9)
    simulation.step()
    simulation.submit(1, [2] * 20, 1, 2, stop=9)
    counts = []
    for _ in range(4):
        batch = simulation.scheduler.schedule()
        assert batch is not None
        counts.append(batch.counts.tolist())
        tokens = np.zeros(len(batch.drawing))
        simulation.scheduler.commit(batch, tokens.astype(np.int32), tokens.astype(np.float32))
    assert counts == [[1, 7], [1, 7], [1, 6], [1, 1]]


def test_the_simulation_notices_a_wrong_page():
    simulation = Simulation(pages=64, page_size=2, max_batch=4, step_tokens=8)
    simulation.submit(0, [1, 2, 3], 1, 9, stop=9)
    simulation.step()
    simulation.scheduler.sequences.table[0, 0] += 1
    with pytest.raises(AssertionError):
        simulation.step()
