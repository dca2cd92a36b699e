"""An engine under load: throughput when requests never run out, and latency when they come at random.

The engine reads a waiting prompt before it decodes on, as most do. Requests come as a Poisson process of rate r, with
prompts of I and answers of O tokens. Reading takes the share u = r * p of the time, so decoding is slower by
1 / (1 - u), and B = r * O * t(B) / (1 - u) sequences are decoded at a time (Little's law).
"""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.base.errors import InputError
from herdlm.plan.serving.speed import Engine

MOST_SEQUENCES = 2048  # that engines decode at a time by default (TensorRT-LLM's max_batch_size)
STEPS = 36  # of a bisection


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests: how many come in a second, and tokens of their prompts and answers."""

    requests_per_s: float
    prompt: float
    answer: float

    def __post_init__(self) -> None:
        if not (self.requests_per_s > 0 and self.prompt >= 1 and self.answer >= 1):
            raise InputError(f"this traffic is impossible: {self}", "Give positive rates and lengths")


@dataclass(frozen=True, slots=True)
class Goals:
    """What users wait at most: mean seconds to the first token, and for each further one; None for any."""

    first_token: float | None = None
    each_token: float | None = None


@dataclass(frozen=True, slots=True)
class Steady:
    """An engine in its steady state. Seconds are means.

    Attributes:
        sequences: decoded at a time.
        reading: share of the time in which prompts are read.
    """

    sequences: float
    first_token: float
    each_token: float
    reading: float


def at_once(engine: Engine, prompt: float, answer: float, most: int = MOST_SEQUENCES) -> int:
    """Sequences that an engine takes: as many as its memory holds to their ends, up to ``most``."""
    return min(engine.most_sequences(prompt + answer), most)


def saturated(engine: Engine, prompt: float, answer: float, most: int = MOST_SEQUENCES) -> float:
    """Answer tokens per second of an engine that never runs out of requests; 0 if not one fits."""
    sequences = at_once(engine, prompt, answer, most)
    if sequences < 1:
        return 0.0
    each = engine.decode(sequences, prompt + answer / 2)
    return answer / (engine.prefill_busy(prompt) + answer * each / sequences)


def steady(engine: Engine, rate: float, prompt: float, answer: float, most: int = MOST_SEQUENCES) -> Steady | None:
    """The steady state of an engine that gets ``rate`` requests per second; None if they pile up."""
    allowed = at_once(engine, prompt, answer, most)
    if allowed < 1 or _state(engine, allowed, prompt, answer)[0] < rate:
        return None
    low, high = 0.0, float(allowed)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _state(engine, middle, prompt, answer)[0] < rate else (low, middle)
    return _state(engine, high, prompt, answer)[1]


def most_requests(engine: Engine, prompt: float, answer: float, goals: Goals, most: int = MOST_SEQUENCES) -> float:
    """Requests per second that an engine can take within the goals; 0 if none."""

    def within(sequences: float) -> bool:
        found = _state(engine, sequences, prompt, answer)[1]
        return all(
            goal is None or value <= goal
            for value, goal in ((found.first_token, goals.first_token), (found.each_token, goals.each_token))
        )

    allowed = float(at_once(engine, prompt, answer, most))
    if allowed < 1:
        return 0.0
    low, high = (allowed, allowed) if within(allowed) else (0.0, allowed)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return _state(engine, low, prompt, answer)[0] if low > allowed * 2.0 ** (2 - STEPS) else 0.0


def _state(engine: Engine, sequences: float, prompt: float, answer: float) -> tuple[float, Steady]:
    """The rate of requests at which this many sequences are decoded at a time, and that state.

    More sequences stand for a higher rate, since a step takes less time for each of them.
    """
    busy, step = engine.prefill_busy(prompt), engine.decode(sequences, prompt + answer / 2)
    rate = sequences / (answer * step + sequences * busy)
    reading = rate * busy
    # M/D/1: other prompts; and the rest of a step of decoding, if one runs
    queued = reading * busy / (2 * (1 - reading)) + min(sequences, 1.0) * step / 2
    return rate, Steady(sequences, queued + engine.prefill(prompt), step / (1 - reading), reading)
