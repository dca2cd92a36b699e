"""Each process's part of a batch: some rows, and of those some places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.model.attention import Attend, DocumentAttention
from herdlm.parallel.context import ContextAttention, places_of
from herdlm.parallel.mesh import Mesh
from herdlm.tokens.batch import TENSORS, Batch


@dataclass(slots=True)
class BatchShard:
    """This process's part of a micro-batch.

    Attributes:
        batch: its rows and places; columns of pairs hold every n-th pair, so that each pair counts on one process.
        rows: the numbers of its rows in the micro-batch, [B].
        places: of its tokens in each row, [T].
        documents: of its rows, whole.
        document_count: in the whole micro-batch.
        ends: by side, where each pair of the whole micro-batch ends in ``batch``'s flattened places; -1: elsewhere.
    """

    batch: Batch
    rows: Tensor
    places: Tensor
    documents: Tensor
    document_count: int
    ends: dict[str, Tensor]

    def attend(self, mesh: Mesh) -> Attend:
        """Attention over this part's rows."""
        if mesh.sizes.cp > 1:
            return ContextAttention(self.documents, mesh.context)
        return DocumentAttention(self.documents)


def shard_batches(batches: Sequence[Batch], mesh: Mesh, rows_per_micro_batch: int | None) -> list[BatchShard]:
    """The parts of a step's micro-batches; every process has the same number of them.

    Raises:
        InputError: micro-batches of pairs are to be cut further, or rows cannot be cut into equal chunks.
    """
    return [shard_batch(batch, mesh) for whole in batches for batch in split_rows(whole, mesh, rows_per_micro_batch)]


def split_rows(batch: Batch, mesh: Mesh, rows: int | None) -> Iterator[Batch]:
    """A micro-batch in pieces of ``rows`` rows for each data-parallel rank."""
    count = len(batch.tokens)
    at_once = count if rows is None else rows * mesh.sizes.dp
    if at_once >= count:
        yield batch
        return
    if not all(_is_by_place(column, batch) for column in batch.columns.values()):
        raise InputError("parallel.rows_per_micro_batch does not go with pairs", "Lower the number of pairs in a batch")
    for first in range(0, count, at_once):
        rows_now = slice(first, first + at_once)
        part = Batch(*(getattr(batch, name)[rows_now] for name in TENSORS))
        part.columns = {name: column[rows_now] for name, column in batch.columns.items()}
        yield part


def _is_by_place(column: Tensor, batch: Batch) -> bool:
    """Whether a column has a value, or several, for every place [B, T, ...] and not for every pair."""
    return column.shape[:2] == batch.tokens.shape


def shard_batch(batch: Batch, mesh: Mesh) -> BatchShard:
    """This process's part of one micro-batch.

    Rows are dealt in runs of nearly equal length. A rank that is left without rows gets one whose targets weigh
    nothing: it has to take part in every exchange.
    """
    count, length = batch.tokens.shape
    sizes = mesh.sizes
    if length % sizes.row_pieces:
        raise InputError(
            f"rows of {length} tokens cannot be cut into {sizes.row_pieces} chunks (parallel.tp, parallel.cp)",
            f"Make seq_len a multiple of {sizes.row_pieces}",
        )
    rows = torch.arange(count).tensor_split(sizes.dp)[mesh.dp_rank]
    mine = len(rows) > 0
    rows = rows if mine else torch.zeros(1, dtype=torch.int64)
    places = torch.arange(length) if sizes.cp == 1 else places_of(mesh.cp_rank, sizes.cp, length)

    def held(values: Tensor) -> Tensor:
        return values[rows][:, places].to(mesh.device)

    tokens, targets, weights, documents, positions = (held(getattr(batch, name)) for name in TENSORS)
    if not mine:
        weights.zero_()
    where = torch.full((count, length), -1)
    if mine:
        where[rows[:, None], places] = torch.arange(len(rows) * len(places)).view(len(rows), -1)
    ends, columns = {}, {}
    for name, column in batch.columns.items():
        if name.endswith("_end"):
            ends[name] = where.flatten()[column].to(mesh.device)
        elif _is_by_place(column, batch):
            columns[name] = held(column)
        else:
            columns[name] = column[mesh.batch_rank :: sizes.dp * sizes.cp].to(mesh.device)
    return BatchShard(
        batch=Batch(tokens, targets, weights, documents, positions, columns),
        rows=rows,
        places=places,
        documents=batch.documents[rows].to(mesh.device),
        document_count=int(batch.documents.max()) + 1,
        ends=ends,
    )
