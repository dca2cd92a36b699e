"""Simulates many runs of a job that fails, restarts from its newest checkpoint and goes on.

Failures of the components are Poisson processes. After one the run stands until it is detected, waits for a spare host
if the failed one leaves and none is there, restarts, and goes on from the newest checkpoint that was whole. Failures
also come while it waits and restarts, not while one is being detected. A planned stop writes a checkpoint first, so it
costs a write and a restart.

The times of failures do not depend on what the run does, so a run is computed from arrays [E] of its E events at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from herdlm.plan.reliability.checkpoints import Checkpoints

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
LOSSES = ("detection", "waiting", "restart", "manual", "lost work", "checkpoints")
ENDLESS = 20  # a run that takes this many times as long as its work is given up


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is uncertain, for each of R runs. Rates are per second, times in seconds.

    Attributes:
        failures: rates of the components [R, components].
        planned: rate of planned stops [R].
        out: components whose host leaves [components].
        detect, restart, repair: of each failure [R]; ``restart`` is without the checkpoint's reading.
        manual: extra time of a failure that needs work by hand [R], which ``manual_share`` of them do.
    """

    failures: Array
    planned: Array
    out: Flags
    detect: Array
    restart: Array
    repair: Array
    manual: Array
    manual_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Runs:
    """What became of R runs. Times are in seconds.

    Attributes:
        elapsed, work: time from start to end, and seconds of work that counts, [R].
        finished: runs that did all their work [R].
        planned: planned stops [R].
        by_component: unexpected stops of each component [R, components].
        lost: where the rest of the time went, [R] by cause.
    """

    elapsed: Array
    work: Array
    finished: Flags
    planned: Array
    by_component: Array
    lost: dict[str, Array]

    @property
    def effective(self) -> Array:
        """Share of the time that was work which counts [R]."""
        return self.work / self.elapsed

    @property
    def interruptions(self) -> Array:
        """Unexpected stops [R]."""
        return np.asarray(self.by_component.sum(axis=1))


def simulate(
    drawn: Drawn,
    checkpoints: Checkpoints,
    spares: int,
    rng: np.random.Generator,
    *,
    work: float = np.inf,
    elapsed: float = np.inf,
) -> Runs:
    """Run until ``work`` seconds of work are done, or ``elapsed`` seconds are over, whichever is first."""
    job = _Job(drawn, checkpoints, spares, work, min(elapsed, ENDLESS * work))
    ended = [_run(job, run, rng) for run in range(len(drawn.planned))]
    columns = [np.array(column) for column in zip(*ended, strict=True)]
    counts, lost = columns[3], columns[4]
    return Runs(
        elapsed=columns[0],
        work=columns[1],
        finished=columns[2],
        planned=counts[:, -1],
        by_component=counts[:, :-1],
        lost={name: lost[:, place] for place, name in enumerate(LOSSES)},
    )


class _Job(NamedTuple):
    drawn: Drawn
    checkpoints: Checkpoints
    spares: int
    work: float
    until: float


class _Ended(NamedTuple):
    elapsed: float
    work: float
    finished: bool
    counts: Array  # of each component, and planned
    lost: Array  # seconds by cause


class _Events(NamedTuple):
    """Events of one run [E]: the time from the one before, its kind (the last is a planned stop), and by hand."""

    gap: Array
    kind: NDArray[np.int64]
    manual: Flags

    def and_more(self, rates: Array, manual_share: float, rng: np.random.Generator, number: int) -> _Events:
        gap = rng.standard_exponential(number) / rates.sum()
        kind = np.searchsorted(np.cumsum(rates) / rates.sum(), rng.random(number), side="right")
        kind = np.minimum(kind, len(rates) - 1)
        manual = (rng.random(number) < manual_share) & (kind < len(rates) - 1)
        more = (gap, kind, manual)
        return _Events(*(np.concatenate(pair) for pair in zip(self, more, strict=True)))


def _run(job: _Job, run: int, rng: np.random.Generator) -> _Ended:
    drawn = job.drawn
    rates = np.append(drawn.failures[run], drawn.planned[run])
    if not rates.sum() > 0:
        rates[-1] = 1e-300
    events = _Events(np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))
    number = 64 + int(min(1.2 * min(job.until, 2 * job.work) * rates.sum(), 1e6))
    while True:
        events = events.and_more(rates, drawn.manual_share, rng, number)
        ended = _outcome(job, run, events)
        if ended is not None:
            return ended
        number = len(events.gap)


def _outcome(job: _Job, run: int, events: _Events) -> _Ended | None:
    """How the run ends, or None if it does so after the last of the events."""
    drawn, checkpoints, spares, work, until = job
    planned = events.kind == len(drawn.out)
    pause = np.where(planned, checkpoints.write, drawn.detect[run])
    ends = np.cumsum(events.gap + pause)
    start = np.append(0.0, ends[:-1])
    recovery = np.zeros((3, len(ends)))  # before an event's time of work: waiting, restart, by hand
    out = np.append(drawn.out, False)[events.kind]
    recovery[0, 1:] = waits(ends, out, drawn.repair[run], spares)[:-1]
    recovery[1, 1:] = drawn.restart[run] + checkpoints.read
    recovery[2, 1:] = np.where(events.manual, drawn.manual[run], 0.0)[:-1]
    working = np.maximum(events.gap - recovery.sum(axis=0), 0.0)
    done, safe = _progress(working, checkpoints)
    kept = np.where(planned, done, safe)
    before = np.append(0.0, np.cumsum(kept)[:-1])
    over = np.flatnonzero((before + done >= work) | (start + events.gap >= until))
    if not over.size:
        return None
    last = int(over[0])
    lost = np.zeros(len(LOSSES))
    lost[0] = (pause * ~planned)[:last].sum()
    lost[1:4] = _booked(recovery, events.gap)[:, :last].sum(axis=1)
    lost[4] = (done - kept)[:last].sum()
    lost[5] = (working - done + pause * planned)[:last].sum()
    left = until - start[last]  # below 0 where the time is over while a failure is detected
    lost[0] += min(left, 0.0)
    left = max(left, 0.0)
    spent = _booked(recovery[:, last : last + 1], np.array([min(left, events.gap[last])]))[:, 0]
    able = max(min(left, float(events.gap[last])) - spent.sum(), 0.0)
    final = float(_progress(np.array([able]), checkpoints)[0][0])
    finished = before[last] + final >= work
    if finished:
        final = work - before[last]
        able = final + checkpoints.stall * np.floor(final / checkpoints.interval)
    lost[1:4] += spent
    lost[5] += able - final
    elapsed = min(start[last], until) + spent.sum() + able
    counts = np.bincount(events.kind[:last], minlength=len(drawn.out) + 1).astype(float)
    return _Ended(float(elapsed), float(before[last] + final), bool(finished), counts, lost)


def waits(times: Array, out: Flags, repair: float, spares: int) -> Array:
    """Seconds that each event [E] waits for a spare host, if its own leaves.

    Hosts take the same time to repair, so they come back in the order in which they left: an event takes the host that
    left ``spares`` events before it, or one of the first spare ones.
    """
    left = times[out]
    found = np.zeros_like(left)
    if len(left) > spares:
        found[spares:] = np.maximum(repair - (left[spares:] - left[: len(left) - spares]), 0.0)
    result = np.zeros_like(times)
    result[out] = found
    return result


def _booked(recovery: Array, time: Array) -> Array:
    """Parts of the recovery [3, E] that fit into a time [E], one after the other."""
    before = np.cumsum(recovery, axis=0) - recovery
    return np.clip(time - before, 0.0, recovery)


def _progress(working: Array, checkpoints: Checkpoints) -> tuple[Array, Array]:
    """Work that is done in this time, and the part of it that is in a whole checkpoint."""
    cycle = checkpoints.interval + checkpoints.stall
    if not np.isfinite(cycle):
        return working, np.zeros_like(working)
    cycles = np.floor(working / cycle)
    done = cycles * checkpoints.interval + np.minimum(working - cycles * cycle, checkpoints.interval)
    safe = np.floor((working - (checkpoints.write - checkpoints.stall)) / cycle)
    return done, np.maximum(safe, 0.0) * checkpoints.interval
