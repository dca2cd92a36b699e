"""What a step is, and how batches go through steps: judged, counted and sampled."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate.batch import Batch, Outcome, take
from herdlm.curate.config import CurateConfig
from herdlm.curate.funnel import Funnel
from herdlm.curate.samples import Samples
from herdlm.curate.shuffle import RECORD, Records
from herdlm.curate.words import Words

Run = Callable[[Batch, CurateConfig], Outcome]


def nothing_to_load(config: CurateConfig) -> None:
    """The check of a step that needs neither model nor list nor index."""


@dataclass(frozen=True, slots=True)
class PageStep:
    """A step that judges pages by what is known of each.

    Args:
        name: in the funnel and beside every document it drops.
        run: a pure function on a batch.
        prose_only: source code passes it by.
        filters: it can drop pages; else it only says something of them.
        check: raises InputError where a model, list or index that the configuration asks for is missing. It is called
            before anything is read, so that no run goes on without it.
    """

    name: str
    run: Run
    prose_only: bool = False
    filters: bool = True
    check: Callable[[CurateConfig], None] = nothing_to_load


@dataclass(frozen=True, slots=True)
class DocumentStep:
    """A step that judges a page by what is known of it and of the corpus; see :class:`PageStep`."""

    name: str
    run: Callable[..., Outcome]  # of batch, configuration and corpus
    prose_only: bool = False
    check: Callable[[CurateConfig], None] = nothing_to_load

    def within(self, corpus: Any) -> PageStep:
        """The step within a ``corpus.Corpus``."""
        return PageStep(self.name, partial(self.run, corpus=corpus), self.prose_only)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a corpus step may look up beside its records.

    Args:
        pages: the first pass's files, in the order of rows; sketches stand beside them.
    """

    pages: tuple[Path, ...]


class CorpusStep(ABC):
    """A step that compares pages across the corpus by keys and row numbers alone.

    Attributes:
        name: in the funnel and beside every document it drops.
        reason: why it drops them.
        columns: of the first pass's pages that it makes keys of; pages whose first one is null are out.
        record: what is scattered: a key, a row, and what else the step compares by.
    """

    name: str
    reason: str
    columns: tuple[str, ...]
    record: np.dtype[Any] = RECORD

    @abstractmethod
    def keys_per_page(self, config: CurateConfig) -> int:
        """How many keys a page has."""

    @abstractmethod
    def keys(self, pages: pa.Table, config: CurateConfig) -> Records:
        """Keys of pages (``row`` and ``columns``): what has the same key meets in one partition."""

    @abstractmethod
    def gather(self, records: Records, compared: Compared, config: CurateConfig) -> NDArray[np.int64]:
        """(P, 2) pairs of rows from all records of a partition's keys: each row with one it repeats."""

    @abstractmethod
    def settle(self, pairs: NDArray[np.int64], config: CurateConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """From the pairs of all partitions the rows to drop, ascending, each once, and for each the row it repeats."""


class Ledger:
    """What steps did: the funnel's counts, samples of what they let through and dropped, and their CPU seconds."""

    def __init__(self, seed: int) -> None:
        self.funnel = Funnel()
        self.samples = Samples(seed)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the CPU time of a block under ``name``."""
        started = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON can carry it."""
        return {"funnel": self.funnel.as_json(), "samples": self.samples.as_json(), "seconds": self.seconds}

    def add(self, told: dict[str, Any]) -> None:
        """Add what another's :meth:`as_json` gave."""
        self.funnel.add(told["funnel"])
        self.samples.add(told["samples"])
        for name, seconds in told["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def run_steps(batch: Batch, steps: Sequence[PageStep], config: CurateConfig, ledger: Ledger) -> None:
    """Take the pages of a batch that are still in (``step`` is None) through ``steps``, in place."""
    for step in steps:
        at = still_in(batch)
        judged = [i for i in at if not (step.prose_only and batch["kind"][i] == "code")]
        with ledger.timed(step.name):
            outcome = step.run(take(batch, judged), config) if judged else Outcome([])
        apply(batch, at, judged, outcome, name=step.name, ledger=ledger if step.filters else None)


def still_in(batch: Batch) -> list[int]:
    """The places of the pages that no step has dropped."""
    return [i for i, step in enumerate(batch["step"]) if step is None]


def apply(
    batch: Batch, at: Sequence[int], judged: Sequence[int], outcome: Outcome, *, name: str, ledger: Ledger | None
) -> None:
    """Write a step's outcome for the pages ``judged`` into the batch, and count all that came to it, ``at``.

    Where the text changes, ``bytes`` and ``words`` follow it: up to extraction a page's bytes are those read. So does
    ``split``, if the batch has it: the text's :class:`Words`, for the steps to share.
    """
    texts = list(batch["text"])
    before = take({key: batch[key] for key in ("bytes", "words")}, at)
    for column, values in outcome.columns.items():
        for i, value in zip(judged, values, strict=True):
            batch[column][i] = value
    for i, reason in zip(judged, outcome.reasons, strict=True):
        if reason is not None:
            batch["step"][i], batch["reason"][i] = name, reason
        elif "text" in outcome.columns and ((text := batch["text"][i]) is not texts[i] or not text):
            words = Words(text)
            batch["bytes"][i], batch["words"][i] = len(text.encode()), words.count
            if "split" in batch:
                batch["split"][i] = words
    if ledger is not None:
        reasons = [batch["reason"][i] for i in at]
        with ledger.timed("account"):
            ledger.funnel.count(name, batch, at, reasons, before)
            ledger.samples.offer(name, batch, at, reasons)
