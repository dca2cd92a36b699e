"""The pre-training loader: an endless, deterministic stream of packed rows from a weighted mixture of shards.

Row number r of a run is a pure function of seed and r. The loader's whole state is therefore the number of rows
already read, whatever the number of ranks, and any row can be made without those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.tokens.batch import Batch, Piece, assemble, pack_whole
from herdlm.tokens.shards import Shard


@dataclass(frozen=True, slots=True)
class Source:
    """One part of a mixture.

    Args:
        share: of the rows, relative to the other sources.
        loss_weight: what each target token of this source weighs in the loss.
    """

    name: str
    folder: Path
    share: float
    loss_weight: float = 1.0


class SourceRows:
    """The rows of one source in an order shuffled anew each epoch, over documents.

    Documents run on over row ends where every token is a target (prose). Where only some are (a question's answer),
    documents stay whole, so that no answer loses its question.
    """

    def __init__(self, source: Source, seq_len: int, seed: int) -> None:
        self.source, self.seq_len, self.seed = source, seq_len, seed
        self.shard = Shard(source.folder)
        if not self.shard.index.documents:
            raise InputError(f"{source.folder} holds no documents", "Give more data or drop it from the mix")
        self.lengths = self.shard.lengths()
        self.whole = self.shard.targets is not None
        if self.whole and self.lengths.max() - 1 > seq_len:
            raise InputError(
                f"{source.folder} holds a document of {self.lengths.max():,} tokens, rows have {seq_len:,}",
                "Raise seq_len or shorten the documents",
            )
        self._order: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._packed: dict[int, list[list[int]]] = {}
        self._first_row: list[int] = [0]

    def row(self, number: int) -> list[Piece]:
        """The documents, or parts of documents, in row ``number`` of this source."""
        return self._whole_row(number) if self.whole else self._running_row(number)

    def epoch_of(self, number: int) -> float:
        """How many times the source has been read when row ``number`` begins."""
        if self.whole:
            epoch = int(np.searchsorted(self._first_row, number, side="right")) - 1
            return epoch + (number - self._first_row[epoch]) / max(len(self._rows_of_epoch(epoch)), 1)
        return number * self.seq_len / int(self.lengths.sum())

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return stream(self.seed, "mixture", self.source.name, epoch).permutation(len(self.lengths))

    def _running_row(self, number: int) -> list[Piece]:
        total = int(self.lengths.sum())
        pieces, at, room = [], number * self.seq_len, self.seq_len
        while room > 0:
            epoch, inside = divmod(at, total)
            if epoch not in self._order:
                order = self._permutation(epoch)
                self._order = {epoch: (order, np.cumsum(self.lengths[order]))}
            order, ends = self._order[epoch]
            place = int(np.searchsorted(ends, inside, side="right"))
            document = int(order[place])
            skip = inside - (int(ends[place - 1]) if place else 0)
            take = min(int(self.lengths[document]) - skip, room)
            pieces.append(self._piece(document, skip, take))
            at, room = at + take, room - take
        return pieces

    def _rows_of_epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._packed:
            order = self._permutation(epoch)
            rows = pack_whole((self.lengths[order] - 1).tolist(), self.seq_len)
            self._packed = {epoch: [[int(order[i]) for i in row] for row in rows]}
        return self._packed[epoch]

    def _whole_row(self, number: int) -> list[Piece]:
        while self._first_row[-1] <= number:
            epoch = len(self._first_row) - 1
            self._first_row.append(self._first_row[-1] + len(self._rows_of_epoch(epoch)))
        epoch = int(np.searchsorted(self._first_row, number, side="right")) - 1
        documents = self._rows_of_epoch(epoch)[number - self._first_row[epoch]]
        return [self._piece(d, 0, int(self.lengths[d]) - 1) for d in documents]

    def _piece(self, document: int, skip: int, take: int) -> Piece:
        """Tokens ``skip`` to ``skip + take`` of a document as input, with the token after each as target."""
        begin = int(self.shard.offsets[document]) + skip
        has_next = skip + take < self.lengths[document]
        tokens = np.asarray(self.shard.tokens[begin : begin + take + has_next])
        weights = np.full(take, self.source.loss_weight, np.float32)
        if self.shard.targets is not None:
            weights *= np.asarray(self.shard.targets[begin + 1 : begin + take + 1])
        if not has_next:  # the document's last token has nothing to predict
            tokens = np.append(tokens, tokens[-1])
            weights[-1] = 0.0
        return Piece(tokens, weights)


class Mixture:
    """Rows drawn from several sources so that at any moment each has had its share, to within one row."""

    def __init__(self, sources: Sequence[Source], *, seq_len: int, seed: int, pad: int) -> None:
        if not sources or min(s.share for s in sources) < 0 or sum(s.share for s in sources) <= 0:
            raise InputError("a data mix needs at least one source with a share above zero", "Set mix shares")
        self.rows = [SourceRows(source, seq_len, seed) for source in sources]
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
