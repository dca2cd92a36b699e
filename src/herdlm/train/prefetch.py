"""Batches made ahead in a thread, so that a step does not wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from herdlm.tokens.batch import Batch


class Prefetch:
    """Makes the batches of the next ``ahead`` steps while a step runs; use as a context manager.

    Any step may be asked for at any time (a run that rolls back asks for an earlier one): what a step reads is a
    function of its number, so nothing made ahead can be wrong, only unused.

    Args:
        make: the micro-batches of a step.
        steps: there are; none beyond is made.
    """

    def __init__(self, make: Callable[[int], list[Batch]], steps: int, ahead: int) -> None:
        self.make, self.steps, self.ahead = make, steps, ahead
        self._made: dict[int, Future[list[Batch]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def micro_batches(self, step: int) -> tuple[list[Batch], float]:
        """The batches of a step, and for how many seconds they had to be waited for.

        Raises:
            Exception: whatever making them raised.
        """
        started = time.monotonic()
        if not self.ahead:
            return self.make(step), time.monotonic() - started
        wanted = range(step, min(step + 1 + self.ahead, self.steps))
        for number in set(self._made) - set(wanted):
            self._made.pop(number).cancel()
        for number in wanted:
            if number not in self._made:
                self._made[number] = self._thread.submit(self.make, number)
        batches = self._made.pop(step).result()
        return batches, time.monotonic() - started
