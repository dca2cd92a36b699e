"""Simulates an engine under random requests, for the percentiles that means do not show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herdlm.plan.serving.load import MOST_SEQUENCES, at_once
from herdlm.plan.serving.speed import Engine


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds to the first token, and for each further one, of each request [N] in the order of their ends."""

    first_token: NDArray[np.float64]
    each_token: NDArray[np.float64]


def simulate(
    engine: Engine,
    rate: float,
    lengths: tuple[int, int],
    *,
    requests: int = 1500,
    most: int = MOST_SEQUENCES,
    seed: int = 0,
) -> Latencies:
    """Serve requests of ``lengths`` (prompt, answer) that come at random, ``rate`` per second.

    The engine reads a waiting prompt first, if it has room, else it decodes a token for all of its sequences. The first
    fifth of the requests, in which it fills, is left out.
    """
    prompt, answer = lengths
    allowed = at_once(engine, prompt, answer, most)
    assert allowed >= 1
    arrivals = np.random.default_rng(seed).exponential(1 / rate, requests).cumsum()
    busy = engine.prefill_busy(prompt)
    later = engine.prefill(prompt) - busy  # a prompt leaves the last pipeline stage after it left the first
    context = prompt + answer / 2
    step_seconds = [0.0] + [0.0] * allowed
    running: deque[tuple[int, float]] = deque()  # the step at which a sequence ends, and when its first token came
    now, steps, next_one = 0.0, 0, 0
    first, each = [], []
    while next_one < requests or running:
        if next_one < requests and arrivals[next_one] <= now and len(running) < allowed:
            now += busy
            first.append(now + later - arrivals[next_one])
            running.append((steps + answer - 1, now))
            next_one += 1
        elif running:
            count = len(running)
            step_seconds[count] = step_seconds[count] or engine.decode(count, context)
            now += step_seconds[count]
            steps += 1
            while running and running[0][0] <= steps:
                each.append((now - running.popleft()[1]) / max(answer - 1, 1))
        else:
            now = arrivals[next_one]
    skip = requests // 5
    return Latencies(np.array(first[skip:]), np.array(each[skip:]))
