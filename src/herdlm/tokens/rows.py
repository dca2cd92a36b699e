"""The rows of one source of a mixture: endless, shuffled each epoch, each made without the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed, stream
from herdlm.tokens.batch import Piece
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.permutation import permuted
from herdlm.tokens.shards import Shard


@dataclass(frozen=True, slots=True)
class Source:
    """One part of a mixture.

    Args:
        share: its share of the rows, relative to the other sources.
        loss_weight: the weight in the loss of each of its target tokens.
    """

    name: str
    folder: Path
    share: float
    loss_weight: float = 1.0


class RunningRows:
    """Rows of text in which every token is a target: documents continue across row ends.

    The shard is a ring of tokens. Each epoch draws a point, cuts the ring into rows from there, and shuffles the rows,
    so that neighbors in the file do not meet in a step, however long a document is. Every token is read once per epoch.
    Only the shard's memory map is kept.
    """

    def __init__(self, source: Source, shard: Shard, seq_len: int, seed: int) -> None:
        self.source, self.shard, self.seq_len, self.seed = source, shard, seq_len, seed
        self.rows_per_epoch = -(-shard.index.tokens // seq_len)

    def row(self, number: int) -> list[Piece]:
        """The documents, or parts of documents, of row ``number``; an epoch's last row may be shorter."""
        epoch, place = divmod(number, self.rows_per_epoch)
        total = self.shard.index.tokens
        cut = derive_seed(self.seed, "cut", self.source.name, epoch) % total
        row = permuted(place, self.rows_per_epoch, derive_seed(self.seed, "mixture", self.source.name, epoch))
        room = min(self.seq_len, total - row * self.seq_len)
        at = (row * self.seq_len + cut) % total
        pieces = []
        while room > 0:
            document = int(np.searchsorted(self.shard.offsets, at, side="right")) - 1
            end = int(self.shard.offsets[document + 1])
            take = min(end - at, room)
            pieces.append(make_piece(self.shard, at, take, is_end=at + take == end, weight=self.source.loss_weight))
            at, room = (at + take) % total, room - take
        return pieces

    def epoch_of(self, number: int) -> float:
        """The epochs of the source that were read before row ``number``."""
        return number / self.rows_per_epoch


class WholeRows:
    """Rows of whole documents in which only some tokens are targets, so that no answer loses its question.

    The order and packing of an epoch are kept in memory, so the source must be much smaller than memory.
    """

    def __init__(self, source: Source, shard: Shard, seq_len: int, seed: int) -> None:
        self.source, self.shard, self.seq_len, self.seed = source, shard, seq_len, seed
        self.lengths = shard.lengths()
        if self.lengths.max() - 1 > seq_len:
            raise InputError(
                f"{source.folder} holds a document of {self.lengths.max():,} tokens, rows have {seq_len:,}",
                "Raise seq_len or shorten the documents",
            )
        self._packed: dict[int, list[list[int]]] = {}
        self._first_row: list[int] = [0]

    def row(self, number: int) -> list[Piece]:
        """The documents of row ``number``."""
        epoch, place = self._find(number)
        return [
            make_piece(
                self.shard,
                int(self.shard.offsets[document]),
                int(self.lengths[document]) - 1,
                is_end=False,
                weight=self.source.loss_weight,
            )
            for document in self._rows_of_epoch(epoch)[place]
        ]

    def epoch_of(self, number: int) -> float:
        """The epochs of the source that were read before row ``number``."""
        epoch, place = self._find(number)
        return epoch + place / len(self._rows_of_epoch(epoch))

    def _find(self, number: int) -> tuple[int, int]:
        """The epoch of a row and its place in it. The number of rows differs by epoch, so earlier ones are counted."""
        while self._first_row[-1] <= number:
            self._first_row.append(self._first_row[-1] + len(self._rows_of_epoch(len(self._first_row) - 1)))
        epoch = int(np.searchsorted(self._first_row, number, side="right")) - 1
        return epoch, number - self._first_row[epoch]

    def _rows_of_epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._packed:
            order: NDArray[np.int64] = stream(self.seed, "mixture", self.source.name, epoch).permutation(
                len(self.lengths)
            )
            rows = pack_whole((self.lengths[order] - 1).tolist(), self.seq_len)
            self._packed = {epoch: [[int(order[i]) for i in row] for row in rows]}
        return self._packed[epoch]


def open_rows(source: Source, seq_len: int, seed: int) -> RunningRows | WholeRows:
    """The rows of a source: of whole documents if its shard marks targets.

    Raises:
        InputError: the shard is empty, or a document that must stay whole is longer than a row.
        DamagedError: a file of the shard is missing or truncated.
    """
    shard = Shard(source.folder)
    if not shard.index.documents:
        raise InputError(f"{source.folder} holds no documents", "Add data, or remove the source from the mix")
    return (RunningRows if shard.targets is None else WholeRows)(source, shard, seq_len, seed)


def make_piece(shard: Shard, begin: int, take: int, *, is_end: bool, weight: float) -> Piece:
    """Tokens ``begin`` to ``begin + take`` of a shard as input, with the token after each as target.

    ``is_end``: the last token ends its document, so it has no target.
    """
    tokens = np.asarray(shard.tokens[begin : begin + take + (not is_end)])
    weights = np.full(take, weight, np.float32)
    if shard.targets is not None:
        weights *= np.asarray(shard.targets[begin + 1 : begin + take + 1])
    if is_end:
        tokens = np.append(tokens, tokens[-1])
        weights[-1] = 0.0
    return Piece(tokens, weights)
