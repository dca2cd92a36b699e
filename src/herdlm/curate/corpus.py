"""What is known of the corpus as a whole, for the steps of the third pass to look up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from herdlm.base.artifact import write_text_durably
from herdlm.curate import shuffle


class Decisions(BaseModel):
    """What the counts over the whole corpus decide.

    Attributes:
        hosts: By host, the reason to drop all of its pages.
        cutoffs: By language, the lowest quality that stays.
        keep_shares: By domain, the share of documents that stays.
        buckets: The first row of each bucket over which lines are counted.
    """

    model_config = ConfigDict(extra="forbid")

    hosts: dict[str, str]
    cutoffs: dict[str, float]
    keep_shares: dict[str, float]
    buckets: list[int]

    def write(self, path: Path) -> None:
        """Write the decisions atomically."""
        write_text_durably(path, self.model_dump_json(indent=2) + "\n")


@dataclass(frozen=True)
class Corpus:
    """What a document step can look up.

    Attributes:
        seed: The seed of the curation.
        decisions_file: The file of :class:`Decisions`.
        lines_file: The file of repeated lines, with the dtype ``count_lines.LINE``.
        words_file: The file of the corpus's word counts, see ``outliers.WordCounts``.
    """

    seed: int
    decisions_file: Path
    lines_file: Path
    words_file: Path

    @cached_property
    def decisions(self) -> Decisions:
        """What the whole corpus decides."""
        return Decisions.model_validate_json(self.decisions_file.read_text(encoding="utf-8"))

    @cached_property
    def _lines(self) -> NDArray[np.void]:
        return shuffle.load(self.lines_file)

    def repeated_lines(self, row: int) -> NDArray[np.uint64]:
        """Return the keys of the lines that are repeated too often in the bucket of a row, ascending."""
        bucket = int(np.searchsorted(self.decisions.buckets, row, side="right")) - 1
        begin, end = np.searchsorted(self._lines["bucket"], [bucket, bucket + 1])
        keys: NDArray[np.uint64] = self._lines["key"][begin:end]
        return keys
