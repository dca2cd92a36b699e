"""The runner of processes: order, bounds, deaths and errors."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from herdlm.base.errors import HerdError, InputError
from herdlm.curate.runner.processes import ProcessRunner
from tests.curate.runner.work import Item, do, times


def test_results_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    items = [Item(number, tmp_path, seconds=0.2 if number % 3 == 0 else 0.0) for number in range(12)]
    with ProcessRunner(3) as runner:
        assert list(runner.map(do, items)) == [(number, "1") for number in range(12)]
        assert list(runner.map(do, items[:2])) == [(0, "1"), (1, "1")]  # by the same processes
        assert list(runner.map(do, [])) == []
    assert multiprocessing.active_children() == []


def test_no_more_is_begun_than_may_wait(tmp_path: Path) -> None:
    items = [Item(number, tmp_path) for number in range(60)]
    with ProcessRunner(2) as runner:
        results = runner.map(do, items)
        next(results)
        time.sleep(1)
        assert sum(times(tmp_path, number) for number in range(60)) <= 12
        assert len(list(results)) == 59


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(tmp_path: Path) -> None:
    items = [Item(number, tmp_path, deaths=int(number == 2)) for number in range(5)]
    with ProcessRunner(2) as runner:
        assert [number for number, _ in runner.map(do, items)] == list(range(5))
    assert [times(tmp_path, number) for number in range(5)] == [1, 1, 2, 1, 1]


def test_an_item_whose_workers_die_twice_is_named(tmp_path: Path) -> None:
    items = [Item(number, tmp_path, deaths=9 * (number == 1)) for number in range(3)]
    with ProcessRunner(1) as runner:
        with pytest.raises(
            HerdError, match=r"the worker on item 1 died 2 times \(signal 9\).*run out of memory"
        ) as found:
            list(runner.map(do, items))
        assert found.value.exit_code == 1
        assert times(tmp_path, 1) == 2
        assert list(runner.map(do, items[:1])) == [(0, "1")]  # the runner itself lives on
    assert multiprocessing.active_children() == []


def test_errors_come_back_as_what_they_were(tmp_path: Path) -> None:
    with ProcessRunner(2) as runner:
        with pytest.raises(InputError) as found:
            list(runner.map(do, [Item(0, tmp_path, error="input")]))
        assert (found.value.what, found.value.remedy) == ("item 0 is wrong", "Fix it")
        with pytest.raises(HerdError, match="item 1 failed: ValueError: no luck") as other:
            list(runner.map(do, [Item(1, tmp_path, error="no luck"), Item(2, tmp_path, seconds=60)]))
        assert "raise ValueError(item.error)" in other.value.__notes__[0]
        assert times(tmp_path, 1) == 1
