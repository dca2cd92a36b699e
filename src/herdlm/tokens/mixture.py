"""The pre-training loader: an endless, deterministic stream of packed rows from a weighted mixture of shards.

Row number r of a run is a pure function of seed and r. So the number of rows read is the loader's whole state, for any
number of ranks, and any row can be made without the ones before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from herdlm.base.artifact import hash_json
from herdlm.base.errors import InputError
from herdlm.tokens.batch import Batch, assemble
from herdlm.tokens.rows import Source, open_rows


class Mixture:
    """Rows of several sources, each of which has had its share, to within one row, at every point.

    The choice of sources repeats after ``PERIOD`` rows, so that any row of any run is found at once.

    Args:
        read: how many rows of each source were read before this mixture, which continues after them.
    """

    PERIOD = 1 << 16

    def __init__(
        self, sources: Sequence[Source], *, seq_len: int, seed: int, pad: int, read: Mapping[str, int] | None = None
    ) -> None:
        if not sources or min(s.share for s in sources) < 0 or sum(s.share for s in sources) <= 0:
            raise InputError("a data mix needs at least one source with a share above zero", "Set mix shares")
        self.rows = [open_rows(source, seq_len, seed) for source in sources]
        self.shares = np.array([s.share for s in sources], float) / sum(s.share for s in sources)
        self.seq_len, self.seed, self.pad = seq_len, seed, pad
        self.read = dict(read or {})
        self._first = np.array([self.read.get(s.name, 0) for s in sources], np.int64)
        self._choices = np.zeros(0, np.int64)
        self._counts = np.zeros((1, len(sources)), np.int64)

    def batch(self, first_row: int, rows: int) -> Batch:
        """Rows ``first_row`` to ``first_row + rows`` of the mixture."""
        self._choose(min(first_row + rows, self.PERIOD))
        picked = []
        for number in range(first_row, first_row + rows):
            choice = int(self._choices[number % self.PERIOD])
            picked.append(self.rows[choice].row(int(self._first[choice] + self._dealt(number)[choice])))
        return assemble(picked, self.seq_len, self.pad)

    def epochs(self, rows: int) -> dict[str, float]:
        """The epochs of each source in the mixture's first ``rows`` rows."""
        return {
            r.source.name: round(r.epoch_of(int(first + count)) - r.epoch_of(int(first)), 3)
            for r, first, count in zip(self.rows, self._first, self._dealt(rows), strict=True)
        }

    def read_after(self, rows: int) -> dict[str, int]:
        """How many rows of each source were read after ``rows`` rows of the mixture, and before it."""
        dealt = zip(self.rows, self._first, self._dealt(rows), strict=True)
        return self.read | {r.source.name: int(first + count) for r, first, count in dealt}

    def after(self, rows: int, sources: Sequence[Source]) -> Mixture:
        """A mixture of ``sources`` that continues each of them after ``rows`` rows of this mixture."""
        return Mixture(sources, seq_len=self.seq_len, seed=self.seed, pad=self.pad, read=self.read_after(rows))

    def content(self) -> str:
        """A hash of the shards and of how rows are drawn from them."""
        sources = [[r.source.name, r.shard.content(), r.source.share, r.source.loss_weight] for r in self.rows]
        return hash_json([sources, self.seq_len, self.seed, self.read])

    def _dealt(self, rows: int) -> NDArray[np.int64]:
        """How many of the first ``rows`` rows come from each source, [sources]."""
        periods, rest = divmod(rows, self.PERIOD)
        self._choose(self.PERIOD if periods else rest)
        dealt: NDArray[np.int64] = periods * self._counts[-1] + self._counts[rest] if periods else self._counts[rest]
        return dealt

    def _choose(self, rows: int) -> None:
        """Choose the source of each row up to ``rows``: always the one furthest behind its share."""
        if len(self._choices) >= rows:
            return
        upto = min(max(rows, 2 * len(self._choices), 1024), self.PERIOD)
        choices = np.zeros(upto, np.int64)
        counts = np.zeros((upto + 1, len(self.shares)), np.int64)
        for number in range(upto):
            choice = int(np.argmax((number + 1) * self.shares - counts[number]))
            choices[number] = choice
            counts[number + 1] = counts[number]
            counts[number + 1, choice] += 1
        self._choices, self._counts = choices, counts


class PretrainBatches:
    """The batches of a pre-training run in phases, each a mixture and its number of steps.

    The batches of a step are a pure function of its number.

    Args:
        rows_per_step: rows of each optimizer step; one number, or one per phase.
        rows_per_micro_batch: the most rows of a micro-batch; None: those of the step.
    """

    def __init__(
        self,
        phases: Sequence[tuple[Mixture, int]],
        *,
        rows_per_step: int | Sequence[int],
        rows_per_micro_batch: int | None = None,
    ) -> None:
        self.phases = phases
        self.rows_per_step = [rows_per_step] * len(phases) if isinstance(rows_per_step, int) else list(rows_per_step)
        assert len(self.rows_per_step) == len(phases)
        self.micro = rows_per_micro_batch

    @property
    def content(self) -> str:
        """A hash of the shards and of how rows are drawn from them, phase by phase; the last phase may get longer."""
        steps = [steps for _, steps in self.phases[:-1]]
        return hash_json([[mixture.content() for mixture, _ in self.phases], steps, self.rows_per_step])

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(steps for _, steps in self.phases)

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of one step, in micro-batches."""
        mixture, first, rows = self.find(step)
        micro = self.micro or rows
        return [mixture.batch(first + at, min(micro, rows - at)) for at in range(0, rows, micro)]

    def rows_of(self, step: int) -> int:
        """The number of rows of a step."""
        return self.find(step)[2]

    def rows(self, step: int, first: int, count: int) -> Batch:
        """``count`` rows of a step from its row number ``first``: one rank's rows without those of others."""
        mixture, begin, rows = self.find(step)
        assert 0 <= first <= first + count <= rows
        return mixture.batch(begin + first, count)

    def find(self, step: int) -> tuple[Mixture, int, int]:
        """A step's mixture, the number of its first row in it, and its number of rows."""
        for (mixture, steps), rows in zip(self.phases, self.rows_per_step, strict=True):
            if step < steps:
                return mixture, step * rows, rows
            step -= steps
        raise IndexError("step is past the end of the run")


class FirstSteps:
    """The first ``steps`` steps of a longer run's batches."""

    def __init__(self, batches: PretrainBatches, steps: int) -> None:
        assert steps <= batches.steps
        self.batches, self.steps = batches, steps

    @property
    def content(self) -> str:
        """That of the longer run: a run may be prolonged."""
        return self.batches.content

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of one step."""
        if step >= self.steps:
            raise IndexError("step is past the end of the run")
        return self.batches.micro_batches(step)
