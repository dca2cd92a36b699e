"""Outputs of samples put together, and held back for requests that are not streamed.

A request that is not streamed still reports what was drawn twice a second: its key is charged while it runs, and at a
time limit there is a text to return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from herdlm.serve.workers.protocol import SampleOutput

SECONDS = 0.5


def joined(first: SampleOutput | None, then: SampleOutput) -> SampleOutput:
    """Two successive outputs of a sample as one."""
    if first is None:
        return then
    return replace(
        then,
        tokens=first.tokens + then.tokens,
        logprobs=first.logprobs + then.logprobs,
        top_logprobs=first.top_logprobs + then.top_logprobs,
        text=first.text + then.text,
    )


class HeldOutputs:
    """Holds outputs back until a sample ends or ``SECONDS`` have passed since its last one was sent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[tuple[int, int, int], SampleOutput] = {}
        self._sent: dict[tuple[int, int, int], float] = {}

    def take(self, id: int, output: SampleOutput) -> SampleOutput | None:
        """What to send of request ``id`` now, with all that was held back; None for nothing."""
        key, now = (id, output.prompt, output.sample), self._clock()
        whole = joined(self._held.pop(key, None), output)
        if output.finish_reason:
            self._sent.pop(key, None)
            return whole
        if now - self._sent.setdefault(key, now) < SECONDS:
            self._held[key] = whole
            return None
        self._sent[key] = now
        return whole

    def forget(self, id: int) -> None:
        """Drop what is held of a request that was given up."""
        for key in [key for key in self._sent if key[0] == id]:
            self._sent.pop(key)
            self._held.pop(key, None)
