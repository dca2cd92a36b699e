"""Reliability: the report's 54 days, rates of other clusters, closed forms in their limits, and what must hold."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.plan.reliability.checkpoints import Checkpoints, best_interval, costs, daly, young
from herdlm.plan.reliability.failures import Component, Failures, read_failures
from herdlm.plan.reliability.plan import DAY, HOUR, Operations, draw, enough_spares, forecast
from herdlm.plan.reliability.simulate import Drawn, simulate, waits

REPORT = read_failures()
LLAMA_405B = 405_853_388_800
GPUS = 16_384


def drawn_with(between, runs, *, detect=0.0, restart=0.0, repair=0.0, out=False, planned=0.0):
    """One component that fails once in ``between`` seconds, in runs that differ by chance alone."""
    return Drawn(
        failures=np.full((runs, 1), 1 / between),
        planned=np.full(runs, planned),
        out=np.array([out]),
        detect=np.full(runs, detect),
        restart=np.full(runs, restart),
        repair=np.full(runs, repair),
        manual=np.zeros(runs),
    )


def blocking(stall, interval, read=0.0):
    return Checkpoints(1.0, stall, stall, read, interval)


def test_the_shipped_table_is_the_reports():
    assert REPORT.unexpected == 419 and len(REPORT.component) == 18
    rate = REPORT.rates(GPUS, 8).sum()
    assert 1 / rate == pytest.approx(54 * 24 / 419)
    assert rate * 24 / (GPUS / 8) * 1000 == pytest.approx(3.79, abs=0.005)  # failures per 1,000 host-days
    assert REPORT.rates(GPUS // 2, 8) == pytest.approx(REPORT.rates(GPUS, 8) / 2)
    # twice the GPUs in a host: as many failures of GPUs, half of hosts
    ratio = REPORT.rates(GPUS, 16) / REPORT.rates(GPUS, 8)
    assert {part.scope: round(r, 9) for part, r in zip(REPORT.component, ratio, strict=True)} == {"gpu": 1, "host": 0.5}


@pytest.mark.parametrize("spread", [0.0, REPORT.spread])
def test_the_54_days_of_the_report_lie_in_the_forecast(spread):
    found = forecast(
        REPORT.model_copy(update={"spread": spread}), GPUS, costs(LLAMA_405B, GPUS), elapsed_days=54, runs=200
    )
    assert found["interruptions"]["low"] < 419 < found["interruptions"]["high"]
    assert found["effective"]["value"] > 0.90  # the report: higher than 90%
    assert found["effective"]["low"] > 0.75 and found["effective"]["high"] < 0.99  # it says something
    assert found["planned"]["low"] < 47 < found["planned"]["high"]
    assert found["by_component"]["GPU"]["low"] < 148 < found["by_component"]["GPU"]["high"]


def test_rates_of_two_other_clusters_alone_forecast_the_reports_failures():
    """6.50 and 2.34 failures per 1,000 host-days were published for two A100 clusters (arXiv 2410.21680)."""
    rates = np.array([6.50, 2.34])
    hosts = GPUS // 8
    others = Failures(
        source="arXiv 2410.21680",
        gpus=GPUS,
        gpus_per_host=8,
        days=330,
        spread=float(np.log(rates).std(ddof=1)),
        component=(
            Component(
                name="any", scope="host", count=round(330 * hosts / 1000 * np.exp(np.log(rates).mean())), out=True
            ),
        ),
    )
    found = forecast(others, GPUS, costs(LLAMA_405B, GPUS), elapsed_days=54, runs=200)
    assert found["interruptions"]["low"] < 419 < found["interruptions"]["high"]
    assert found["effective"]["high"] > 0.90


def test_elapsed_time_agrees_with_dalys_exact_formula():
    """Restarts that may fail too, and no other cost (Daly 2006, equation 20)."""
    between, restart, stall, interval, work = 3600.0, 300.0, 30.0, 600.0, 40 * DAY
    found = simulate(
        drawn_with(between, 40, restart=restart), blocking(stall, interval), 0, np.random.default_rng(1), work=work
    )
    expected = between * math.exp(restart / between) * (math.exp((interval + stall) / between) - 1) * work / interval
    assert found.finished.all() and found.work == pytest.approx(np.full(40, work))
    assert found.elapsed.mean() == pytest.approx(expected, rel=0.01)


def test_effective_time_agrees_with_the_published_estimate_where_failures_are_rare():
    """E[ETTR] of arXiv 2410.21680: (1 - rate * (restart + T / 2)) / (1 + stall / T)."""
    between, restart, stall, interval = 4 * DAY, 600.0, 20.0, 3600.0
    found = simulate(
        drawn_with(between, 60, restart=restart),
        blocking(stall, interval),
        0,
        np.random.default_rng(2),
        work=1000 * DAY,
    )
    expected = (1 - (restart + interval / 2) / between) / (1 + stall / interval)
    assert found.effective.mean() == pytest.approx(expected, abs=3e-4)


def test_a_run_without_failures_only_writes_checkpoints():
    nothing = replace(drawn_with(1.0, 3), failures=np.zeros((3, 1)))
    found = simulate(nothing, blocking(10.0, 100.0), 0, np.random.default_rng(0), work=1000.0)
    assert found.elapsed == pytest.approx(np.full(3, 1100.0)) and not found.interruptions.any()
    found = simulate(nothing, blocking(10.0, 100.0), 0, np.random.default_rng(0), elapsed=1100.0)
    assert found.work == pytest.approx(np.full(3, 1000.0))


class Clock:
    """In place of a generator: the first event comes after ``first`` seconds, and the second after everything."""

    def __init__(self, first):
        self.first = first

    def standard_exponential(self, number):
        return np.concatenate([[self.first], np.full(number - 1, 1e12)])

    def random(self, number):
        return np.full(number, 0.5)


@pytest.mark.parametrize(("failure", "lost"), [(220.0, 100 + 18), (240.0, 38), (201.5, 100), (90.0, 90)])
def test_a_checkpoint_that_is_still_being_written_is_lost(failure, lost):
    """Work of 100 s, then a stall of 1 s; each checkpoint is whole 30 s after it."""
    found = simulate(drawn_with(1.0, 1), Checkpoints(1.0, 1.0, 31.0, 0.0, 100.0), 0, Clock(failure), elapsed=1e4)
    assert found.lost["lost work"] == pytest.approx([lost])


@pytest.mark.parametrize("stall", [0.5, 5.0, 50.0])
def test_the_best_interval_is_young_s_and_daly_s_where_failures_are_rare(stall):
    between = 1e6 * stall
    assert best_interval(stall, between) == pytest.approx(young(stall, between), rel=2e-3)
    assert best_interval(stall, between) == pytest.approx(daly(stall, between), rel=1e-6)
    often = 8 * stall
    assert best_interval(stall, often) == pytest.approx(daly(stall, often), rel=0.02)
    assert abs(young(stall, often) / best_interval(stall, often) - 1) > 0.1  # the simple formula is off here


@pytest.mark.parametrize("between", [20 * 60.0, 3 * HOUR])
def test_no_other_interval_keeps_more_time_in_the_simulation(between):
    best = best_interval(20.0, between)

    def effective(interval):
        runs = drawn_with(between, 60, restart=120.0)
        found = simulate(runs, blocking(20.0, interval), 0, np.random.default_rng(3), elapsed=2000 * between)
        return found.effective.mean()

    assert effective(best) > effective(best / 2.5) + 0.001
    assert effective(best) > effective(best * 2.5) + 0.001


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 50), st.booleans()), min_size=1, max_size=60),
    st.floats(0.1, 200),
    st.integers(0, 6),
)
def test_waiting_for_spares_agrees_with_a_queue_of_hosts(events, repair, spares):
    times = np.cumsum([gap for gap, _ in events])
    out = np.array([leaves for _, leaves in events])
    hosts = [0.0] * spares  # when each is usable
    expected = []
    for time, leaves in zip(times, out, strict=True):
        if not leaves:
            expected.append(0.0)
            continue
        heapq.heappush(hosts, time + repair)
        expected.append(max(heapq.heappop(hosts) - time, 0.0))
    assert waits(times, out, repair, spares) == pytest.approx(np.array(expected), abs=1e-9)


def of_the_report(**changes):
    failures = REPORT.model_copy(update={"component": changes.pop("component", REPORT.component)})
    checkpoints = changes.pop("checkpoints", costs(LLAMA_405B, GPUS))
    operations = Operations(**changes)
    return forecast(failures, GPUS, checkpoints, operations, elapsed_days=20, runs=120)


def test_more_failures_slower_storage_and_fewer_spares_never_help():
    usual = of_the_report(spares=60)
    double = tuple(part.model_copy(update={"count": 2 * part.count}) for part in REPORT.component)
    worse = {
        "failures": of_the_report(spares=60, component=double),
        "storage": of_the_report(spares=60, checkpoints=costs(LLAMA_405B, GPUS, storage=20e9)),
        "blocking": of_the_report(spares=60, checkpoints=costs(LLAMA_405B, GPUS, blocking=True)),
        "detection": of_the_report(spares=60, detect=(10.0, 20.0)),
        "spares": of_the_report(spares=10),
    }
    for name, found in worse.items():
        for key in ("low", "value", "high"):
            assert found["effective"][key] < usual["effective"][key], (name, key)
    assert of_the_report(spares=60) == usual  # the same seed


def test_all_time_is_accounted_for():
    rng = np.random.default_rng(5)
    drawn = draw(REPORT, (GPUS, 8), Operations(), 30, rng)
    for limit in ({"elapsed": 9 * DAY}, {"work": 9 * DAY}):
        checkpoints = replace(costs(LLAMA_405B, GPUS), interval=200.0)
        found = simulate(drawn, checkpoints, 3, rng, **limit)
        assert sum(found.lost.values()) + found.work == pytest.approx(found.elapsed)
        assert all((lost >= -1e-6).all() for lost in found.lost.values())
        assert found.finished.all() == ("work" in limit)


def test_enough_spares_means_little_waiting():
    rng = np.random.default_rng(6)
    drawn = draw(REPORT, (GPUS, 8), Operations(), 200, rng)
    checkpoints = replace(costs(LLAMA_405B, GPUS), interval=200.0)
    spares = enough_spares(drawn, rng)
    share = {
        number: simulate(drawn, checkpoints, number, rng, elapsed=30 * DAY).lost["waiting"].mean() / (30 * DAY)
        for number in (spares, spares // 4)
    }
    assert share[spares] < 0.01 < share[spares // 4]


def test_a_run_that_never_ends_is_given_up():
    endless = drawn_with(100.0, 2, restart=1000.0)
    found = simulate(endless, blocking(1.0, 50.0), 0, np.random.default_rng(0), work=5000.0)
    assert not found.finished.any() and found.elapsed == pytest.approx(np.full(2, 100_000.0))


def test_sizes_and_times_of_checkpoints():
    found = costs(LLAMA_405B, GPUS)
    assert found.size == 12 * LLAMA_405B  # FP32 weights and two moments
    assert 1e6 < found.size / GPUS < 4e9  # the report: 1 MB to 4 GB of a GPU
    assert found.read == pytest.approx(12 * LLAMA_405B / 2e12)
    few = costs(LLAMA_405B, GPUS, writers=128, writer=2e9, blocking=True)
    assert few.stall == few.write > 12 * LLAMA_405B / (128 * 2e9)


def test_impossible_inputs_are_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('source = "us"\ngpus = 8\ngpus_per_host = 8\ndays = 3\n[[component]]\nname = "x"\nscop = "gpu"\n')
    with pytest.raises(InputError, match=r"own\.toml.*scop"):
        read_failures(path)
    path.write_text("= 3")
    with pytest.raises(InputError, match=r"own\.toml is not TOML"):
        read_failures(path)
    with pytest.raises(InputError, match="no range"):
        Operations(detect=(3.0, 1.0))
    with pytest.raises(InputError, match="longer than"):
        replace(costs(LLAMA_405B, GPUS, storage=1e9), interval=60.0)
    with pytest.raises(InputError, match="one of the two"):
        forecast(REPORT, GPUS, costs(LLAMA_405B, GPUS))


def test_own_counts_replace_the_reports(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'source = "us"\ngpus = 64\ngpus_per_host = 8\ndays = 100\n'
        '[[component]]\nname = "GPU"\nscope = "gpu"\ncount = 10\nout = true\n'
    )
    found = forecast(read_failures(path), 64, costs(8_030_261_248, 64), elapsed_days=100, runs=150)
    assert found["interruptions"]["low"] < 10 < found["interruptions"]["high"]
    assert list(found["by_component"]) == ["GPU"]
