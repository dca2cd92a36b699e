"""Each process's shard of a batch: some of its rows, and some places of those."""

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
    """This process's shard of a micro-batch.

    Attributes:
        batch: its rows and places, on the device; columns of pairs hold every n-th pair, so that each pair counts on
            one process.
        rows: the indices of its rows in the micro-batch, [B].
        places: the indices of its tokens in each row, [T].
        documents: of its rows in full, on the CPU.
        whole_shape: of the micro-batch.
        document_count: in the whole micro-batch.
        ends: by side, where each pair of the whole micro-batch ends in ``batch``'s flattened places; -1: elsewhere.
    """

    batch: Batch
    rows: Tensor
    places: Tensor
    documents: Tensor
    whole_shape: torch.Size
    document_count: int
    ends: dict[str, Tensor]

    def attend(self, mesh: Mesh) -> Attend:
        """Attention over this shard's rows."""
        if mesh.sizes.cp > 1:
            return ContextAttention(self.documents, mesh.context, mesh.device)
        return DocumentAttention(self.documents, mesh.device)


def shard_batches(batches: Sequence[Batch], mesh: Mesh, rows_per_micro_batch: int | None) -> list[BatchShard]:
    """This process's shards of a step's micro-batches; every process has the same number of them.

    Raises:
        InputError: micro-batches of pairs would have to be split, or rows do not divide into equal chunks.
    """
    return [shard_batch(part, mesh) for batch in batches for part in split_rows(batch, mesh, rows_per_micro_batch)]


def split_rows(batch: Batch, mesh: Mesh, rows: int | None) -> Iterator[Batch]:
    """Split a micro-batch so that each data-parallel rank has at most ``rows`` rows of a piece."""
    count = len(batch.tokens)
    at_once = count if rows is None else rows * mesh.sizes.dp
    if at_once >= count:
        yield batch
        return
    if not all(_is_by_place(column, batch) for column in batch.columns.values()):
        raise InputError(
            "parallel.rows_per_micro_batch cannot split micro-batches of pairs",
            "Drop it and lower the number of pairs in a micro-batch",
        )
    for first in range(0, count, at_once):
        here = slice(first, first + at_once)
        part = Batch(*(getattr(batch, name)[here] for name in TENSORS))
        part.columns = {name: column[here] for name, column in batch.columns.items()}
        yield part


def _is_by_place(column: Tensor, batch: Batch) -> bool:
    """Whether a column has values for every place [B, T, ...] rather than for every pair."""
    return column.shape[:2] == batch.tokens.shape


def shard_batch(batch: Batch, mesh: Mesh) -> BatchShard:
    """This process's shard of one micro-batch on the CPU.

    Ranks get consecutive rows, nearly equally many. A rank without rows gets one whose targets weigh nothing, because
    it has to take part in every collective.
    """
    count, length = batch.tokens.shape
    sizes = mesh.sizes
    if length % sizes.row_pieces:
        raise InputError(
            f"rows of {length} tokens do not divide into {sizes.row_pieces} chunks (parallel.tp, parallel.cp)",
            f"Make seq_len a multiple of {sizes.row_pieces}",
        )
    rows = torch.arange(count).tensor_split(sizes.dp)[mesh.dp_rank]
    is_empty = len(rows) == 0
    rows = torch.zeros(1, dtype=torch.int64) if is_empty else rows
    places = torch.arange(length) if sizes.cp == 1 else places_of(mesh.cp_rank, sizes.cp, length)

    def held(values: Tensor) -> Tensor:
        return values[rows][:, places]

    tokens, targets, weights, documents, positions = (held(getattr(batch, name)) for name in TENSORS)
    where = torch.full((count, length), -1)
    if is_empty:
        weights.zero_()
    else:
        where[rows[:, None], places] = torch.arange(len(rows) * len(places)).view(len(rows), -1)
    ends, columns = {}, {}
    for name, column in batch.columns.items():
        if name.endswith("_end"):
            ends[name] = where.flatten()[column].to(mesh.device)
        elif _is_by_place(column, batch):
            columns[name] = held(column)
        else:
            columns[name] = column[mesh.batch_rank :: sizes.dp * sizes.cp]
    return BatchShard(
        batch=Batch(tokens, targets, weights, documents, positions, columns).to(mesh.device),
        rows=rows,
        places=places,
        documents=batch.documents[rows],
        whole_shape=batch.tokens.shape,
        document_count=batch.document_count,
        ends=ends,
    )
