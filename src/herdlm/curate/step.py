"""What a curation step is, and how a batch of pages goes through steps: judged, counted and sampled."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome, take
from herdlm.curate.corpus import Corpus
from herdlm.curate.funnel import Funnel
from herdlm.curate.samples import Samples
from herdlm.curate.shuffle import RECORD, Records
from herdlm.curate.words import Words

if TYPE_CHECKING:
    import pyarrow as pa


class Step(ABC):
    """A step that judges batches of pages.

    Attributes:
        name: Names the step's recipe section, its row in the funnel, and the documents it drops.
        prose_only: Source code skips the step.
        filters: Whether the step can drop pages. If not, it only annotates them and has no row in the funnel.
    """

    name: str
    prose_only: bool = False
    filters: bool = True

    def check(self) -> None:  # noqa: B027 - most steps need nothing
        """Load the models and lists that the step needs. Called once before any page is read.

        Raises:
            InputError: One is missing or damaged.
        """

    @abstractmethod
    def judge(self, batch: Batch, corpus: Corpus | None) -> Outcome:
        """Return the outcome for a batch; ``corpus`` is None in the first pass."""


class PageStep(Step):
    """A step that judges each page on its own, in the first pass.

    A recipe can name the user's own subclasses (``steps/own.py``). Each subclass may define ``Settings``, the schema of
    its keys, and ``version``, which the user raises when code outside of the step's module changes its outcome.
    """

    Settings: ClassVar[type[Section]] = Section
    version: ClassVar[int | str] = 1

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings

    @abstractmethod
    def run(self, batch: Batch) -> Outcome:
        """Return a reason or None for each page of a batch, and new values of columns. Must be a pure function."""

    def judge(self, batch: Batch, corpus: Corpus | None) -> Outcome:
        return self.run(batch)


class DocumentStep(Step):
    """A step that judges each page by what is known of the whole corpus, in the third pass."""

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings

    @abstractmethod
    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        """Return a reason or None for each page of a batch, and new values of columns."""

    def judge(self, batch: Batch, corpus: Corpus | None) -> Outcome:
        assert corpus is not None, f"{self.name} runs in the third pass"
        return self.run(batch, corpus)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a corpus step can look up besides its records.

    Attributes:
        pages: The files of the first pass, in the order of rows. Sketches are stored beside them.
    """

    pages: tuple[Path, ...]


class CorpusStep(ABC):
    """A step that compares pages across the corpus, by keys and row numbers alone, in the second pass.

    Attributes:
        name: Names the step's recipe section, its row in the funnel, and the documents it drops.
        reason: Why it drops them.
        columns: The columns of the pages from which it makes keys. It skips pages whose first column is null.
        record: The dtype of what is scattered: a key, a row, and what else the step compares.
    """

    name: str
    reason: str
    columns: tuple[str, ...]
    record: np.dtype[Any] = RECORD

    @property
    def keys_per_page(self) -> int:
        """How many keys a page has."""
        return 1

    @abstractmethod
    def keys(self, pages: pa.Table) -> Records:
        """Return the keys of pages (``row`` and ``columns``). Equal keys meet in one partition."""

    @abstractmethod
    def gather(self, records: Records, compared: Compared) -> NDArray[np.int64]:
        """Return (P, 2) pairs from all records of a partition: a row, and a row that it repeats."""

    def settle(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows to drop, ascending and each once, and the row that each repeats, from all pairs."""
        return pairs[:, 0], pairs[:, 1]


class Ledger:
    """Counts what steps did: the funnel, samples of kept and dropped pages, and CPU seconds."""

    def __init__(self, seed: int) -> None:
        self.funnel = Funnel()
        self.samples = Samples(seed)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the CPU time of a block to the seconds of ``name``."""
        started = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON-serializable values."""
        return {"funnel": self.funnel.as_json(), "samples": self.samples.as_json(), "seconds": self.seconds}

    def add(self, counts: dict[str, Any]) -> None:
        """Add what :meth:`as_json` of another ledger returned."""
        self.funnel.add(counts["funnel"])
        self.samples.add(counts["samples"])
        for name, seconds in counts["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def run_steps(batch: Batch, steps: Sequence[Step], ledger: Ledger, corpus: Corpus | None = None) -> None:
    """Take the pages of a batch that no step has dropped (``step`` is None) through ``steps``, in place."""
    for step in steps:
        remaining = still_in(batch)
        judged = [i for i in remaining if not (step.prose_only and batch["kind"][i] == "code")]
        with ledger.timed(step.name):
            outcome = step.judge(take(batch, judged), corpus) if judged else Outcome([])
        apply(batch, remaining, judged, outcome, name=step.name, ledger=ledger if step.filters else None)


def still_in(batch: Batch) -> list[int]:
    """Return the indices of the pages that no step has dropped."""
    return [i for i, step in enumerate(batch["step"]) if step is None]


def apply(
    batch: Batch, remaining: Sequence[int], judged: Sequence[int], outcome: Outcome, *, name: str, ledger: Ledger | None
) -> None:
    """Write a step's outcome for the pages ``judged`` into the batch, and count all pages that reached the step.

    Where the text changes, ``bytes`` and ``words`` are updated: up to extraction, a page's bytes are those read. So is
    ``split``, if the batch has it: the :class:`Words` of the text, which the steps share.
    """
    texts = list(batch["text"])
    before = take({key: batch[key] for key in ("bytes", "words")}, remaining)
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
        reasons = [batch["reason"][i] for i in remaining]
        with ledger.timed("account"):
            ledger.funnel.count(name, batch, remaining, reasons, before)
            ledger.samples.offer(name, batch, remaining, reasons)
