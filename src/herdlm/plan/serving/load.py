"""An engine under load: throughput when requests never run out, and latency when they come at random.

The engine reads a waiting prompt before it decodes on, as most do. Requests come as a Poisson process of rate r, with
prompts of I and answers of O tokens. Reading takes the share u = r * p of the time, so decoding is slower by 1 / (1 - u),
and B = r * O * t(B) / (1 - u) sequences are decoded at a time (Little's law).
"""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.base.errors import InputError
from herdlm.plan.serving.speed import Engine

MOST_SEQUENCES = 2048  # that engines decode at a time by default (TensorRT-LLM's max_batch_size)
STEPS = 60  # of a bisection


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
    busy = engine.prefill_busy(prompt)
    reading = rate * busy
    if allowed < 1 or reading >= 1:
        return None

    def excess(sequences: float) -> float:
        return rate * answer * engine.decode(sequences, prompt + answer / 2) / (1 - reading) - sequences

    if excess(allowed) > 0:  # even the largest batch does not keep up
        return None
    low, high = 0.0, float(allowed)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    each = engine.decode(high, prompt + answer / 2) / (1 - reading)
    # M/D/1: other prompts; and the rest of a step of decoding, if one runs
    queued = reading * busy / (2 * (1 - reading)) + min(high, 1.0) * engine.decode(high, prompt + answer / 2) / 2
    return Steady(high, queued + engine.prefill(prompt), each, reading)


def most_requests(engine: Engine, prompt: float, answer: float, goals: Goals, most: int = MOST_SEQUENCES) -> float:
    """Requests per second that an engine can take within the goals; 0 if none."""
    whole = saturated(engine, prompt, answer, most) / answer

    def within(rate: float) -> bool:
        found = steady(engine, rate, prompt, answer, most)
        return found is not None and all(
            goal is None or value <= goal
            for value, goal in ((found.first_token, goals.first_token), (found.each_token, goals.each_token))
        )

    low, high = 0.0, whole
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low if low > whole * 2.0 ** (2 - STEPS) else 0.0
