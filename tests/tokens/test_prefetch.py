"""Batches made ahead: the right ones whatever is asked for, none past the end, errors only where they belong."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.tokens.batch import Prefetch


@given(st.integers(1, 12), st.integers(0, 3), st.lists(st.integers(0, 11), max_size=20))
def test_any_step_may_be_asked_for_in_any_order(steps, ahead, asked):
    made = []

    def make(step):
        made.append(step)
        return [step]

    with Prefetch(make, steps, ahead) as prefetch:
        for step in asked:
            if step < steps:
                assert prefetch.micro_batches(step)[0] == [step]
    assert all(0 <= step < steps for step in made)


def test_the_next_step_is_made_while_one_runs():
    begun = threading.Event()

    def make(step):
        if step == 1:
            begun.set()
        return [step]

    with Prefetch(make, 5, 1) as prefetch:
        prefetch.micro_batches(0)
        assert begun.wait(10)


def test_an_error_comes_with_the_step_it_is_of():
    def make(step):
        if step == 1:
            raise ValueError("torn")
        return [step]

    with Prefetch(make, 3, 2) as prefetch:
        assert prefetch.micro_batches(0)[0] == [0]
        with pytest.raises(ValueError, match="torn"):
            prefetch.micro_batches(1)
        assert prefetch.micro_batches(2)[0] == [2]
