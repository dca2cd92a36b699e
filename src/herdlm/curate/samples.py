"""Random samples of the pages that each step kept and dropped, drawn from a stream of any length.

Each page has a pseudo-random number for each step, from the seed and the page's row. The pages with the lowest numbers
are the sample, so samples of shards can be merged and do not depend on how the pages were divided.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from herdlm.base.seeds import derive_seed
from herdlm.curate.batch import Batch

PER_STEP = 20  # kept and dropped pages, each
EXCERPT_CHARS = 1200
RAW_EXCERPT_BYTES = 600


class Samples:
    """The ``PER_STEP`` lowest-numbered pages of each step and side ("kept" or "dropped")."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.drawn: dict[tuple[str, str], list[tuple[int, int, dict[str, Any]]]] = {}  # max-heaps by number
        self._step_seeds: dict[str, int] = {}

    def offer(self, step: str, batch: Batch, at: Sequence[int], reasons: Sequence[str | None]) -> None:
        """Consider the pages ``at``, which a step has judged."""
        if step not in self._step_seeds:
            self._step_seeds[step] = derive_seed(self.seed, "sample", step)
        for i, reason in zip(at, reasons, strict=True):
            row = batch["row"][i]
            number = order(self._step_seeds[step], row)
            side = "kept" if reason is None else "dropped"
            heap = self.drawn.setdefault((step, side), [])
            if len(heap) < PER_STEP or -number > heap[0][0]:
                _push(heap, (-number, row, _excerpt(batch, i, reason)))

    def add(self, samples: Iterable[Sequence[Any]]) -> None:
        """Consider what :meth:`as_json` of other samples returned."""
        for step, side, number, row, page in samples:
            heap = self.drawn.setdefault((step, side), [])
            if len(heap) < PER_STEP or -number > heap[0][0]:
                _push(heap, (-number, row, page))

    def as_json(self) -> list[list[Any]]:
        """Return the samples as JSON-serializable rows: step, side, number, row, page."""
        return [
            [step, side, -number, row, page]
            for (step, side), heap in sorted(self.drawn.items())
            for number, row, page in sorted(heap, reverse=True)
        ]

    def as_dict(self, steps: Sequence[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return the content of ``samples.json``: step -> "kept" and "dropped" -> pages."""
        return {
            step: {
                side: [page for *_, page in sorted(self.drawn.get((step, side), ()), reverse=True)]
                for side in ("kept", "dropped")
            }
            for step in steps
        }


def _push(heap: list[tuple[int, int, dict[str, Any]]], entry: tuple[int, int, dict[str, Any]]) -> None:
    (heapq.heappush if len(heap) < PER_STEP else heapq.heappushpop)(heap, entry)


def _excerpt(batch: Batch, i: int, reason: str | None) -> dict[str, Any]:
    text = batch["text"][i]
    payload = batch["payload"][i] if "payload" in batch else b""
    return {
        "id": batch["id"][i],
        "url": batch["url"][i],
        "language": batch["language"][i],
        "reason": reason,
        "text": text[:EXCERPT_CHARS] or payload[:RAW_EXCERPT_BYTES].decode("utf-8", "replace"),
    }


def order(seed: int, row: int) -> int:
    """Return a pseudo-random 64-bit number for a row, by the finalizer of SplitMix64."""
    mask = (1 << 64) - 1
    number = ((row ^ seed) + 0x9E3779B97F4A7C15) & mask
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & mask
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & mask
    return number ^ (number >> 31)
