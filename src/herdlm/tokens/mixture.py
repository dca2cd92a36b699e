"""The pre-training loader: an endless, deterministic stream of packed rows from a weighted mixture of shards.

Row number r of a run is a pure function of seed and r. The loader's whole state is therefore the number of rows
already read, whatever the number of ranks, and any row can be made without those before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from herdlm.base.errors import InputError
from herdlm.tokens.batch import Batch, assemble
from herdlm.tokens.rows import Source, open_rows


class Mixture:
    """Rows drawn from several sources so that at any moment each has had its share, to within one row."""

    def __init__(self, sources: Sequence[Source], *, seq_len: int, seed: int, pad: int) -> None:
        if not sources or min(s.share for s in sources) < 0 or sum(s.share for s in sources) <= 0:
            raise InputError("a data mix needs at least one source with a share above zero", "Set mix shares")
        self.rows = [open_rows(source, seq_len, seed) for source in sources]
        self.shares = np.array([s.share for s in sources], float) / sum(s.share for s in sources)
        self.seq_len, self.pad = seq_len, pad
        self._choices = np.zeros(0, np.int64)
        self._counts = np.zeros((1, len(sources)), np.int64)

    def batch(self, first_row: int, rows: int) -> Batch:
        """Rows ``first_row`` to ``first_row + rows`` of the mixture."""
        self._choose(first_row + rows)
        picked = []
        for number in range(first_row, first_row + rows):
            choice = int(self._choices[number])
            picked.append(self.rows[choice].row(int(self._counts[number, choice])))
        return assemble(picked, self.seq_len, self.pad)

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each source has been read after ``rows`` rows."""
        self._choose(rows)
        counts = self._counts[rows]
        return {r.source.name: round(r.epoch_of(int(n)), 3) for r, n in zip(self.rows, counts, strict=True)}

    def _choose(self, rows: int) -> None:
        """Decide which source each row comes from, up to ``rows``: always the one furthest behind its share."""
        if len(self._choices) >= rows:
            return
        upto = max(rows, 2 * len(self._choices), 1024)
        choices = np.zeros(upto, np.int64)
        counts = np.zeros((upto + 1, len(self.shares)), np.int64)
        for number in range(upto):
            choice = int(np.argmax((number + 1) * self.shares - counts[number]))
            choices[number] = choice
            counts[number + 1] = counts[number]
            counts[number + 1, choice] += 1
        self._choices, self._counts = choices, counts


class PretrainBatches:
    """The batches of a pre-training run whose mixture changes on the way: (mixture, steps) after (mixture, steps).

    Args:
        rows_per_step: of each optimizer step, read in micro-batches of at most ``rows_per_micro_batch`` rows.
    """

    def __init__(
        self, phases: Sequence[tuple[Mixture, int]], *, rows_per_step: int, rows_per_micro_batch: int | None = None
    ) -> None:
        self.phases, self.rows_per_step = phases, rows_per_step
        self.micro = rows_per_micro_batch or rows_per_step

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(steps for _, steps in self.phases)

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of one step, of the phase it falls into."""
        for mixture, steps in self.phases:
            if step < steps:
                first, end = step * self.rows_per_step, (step + 1) * self.rows_per_step
                return [mixture.batch(row, min(self.micro, end - row)) for row in range(first, end, self.micro)]
            step -= steps
        raise IndexError("step is past the end of the run")
