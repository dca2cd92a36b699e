"""The one module that knows the dataframe engine (daft, native runner); the rest of curation sees Arrow.

Text travels only through streaming maps. Shuffles (grouping, joining, exploding) carry row numbers and hashes; their
results come back as Arrow tables and are applied as filters on row numbers.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

os.environ["DO_NOT_TRACK"] = "true"  # before daft is imported: it reports its use otherwise
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

import daft
from daft.functions import minhash
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch

from herdlm.base.errors import HerdError

STALL_SECONDS = 0.5

Frame = Any


class ReadAhead:
    """Bounds how many bytes are read but not yet worked on; the engine itself would read a whole source ahead.

    Where nothing has been worked off for ``STALL_SECONDS`` although the bound is reached (the engine may gather several
    batches before it starts), one more batch is let through, so the bound can delay but never stop a query.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.outstanding = 0
        self.lock = threading.Lock()

    async def admit(self, size: int) -> None:
        before, waited = self.outstanding, 0.0
        while self.outstanding and self.outstanding + size > self.limit and waited < STALL_SECONDS:
            await asyncio.sleep(0.005)
            before, waited = (self.outstanding, waited + 0.005) if self.outstanding == before else (self.outstanding, 0)
        with self.lock:
            self.outstanding += size

    def worked_off(self, size: int) -> None:
        with self.lock:
            self.outstanding -= size


class Scan:
    """Record batches, each with its size in bytes, as a frame; read once and in order.

    ``failure`` holds the error that ended them, if one did: the engine would flatten it to text.
    """

    def __init__(self, batches: Iterator[tuple[pa.RecordBatch, int]], schema: pa.Schema, ahead: ReadAhead) -> None:
        self.batches, self.schema, self.ahead = batches, schema, ahead
        self.failure: BaseException | None = None
        self.whole = False
        self.rows = 0

    def frame(self) -> Frame:
        return _Source(self).read()

    def check(self, rows: int) -> None:
        """Make sure that everything was read and that all of it, ``rows`` rows, came out at the other end.

        The engine ends a query early without an error where it is interrupted.
        """
        if self.failure is not None:
            raise self.failure
        if not self.whole or rows != self.rows:
            raise HerdError(
                f"the dataframe engine was interrupted: {rows:,} of {self.rows:,} pages came through",
                "Run again; nothing of it was kept",
            )


class _Source(DataSource):
    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    @property
    def name(self) -> str:
        return "pages"

    @property
    def schema(self) -> Any:
        return daft.Schema.from_pyarrow_schema(self._scan.schema)

    async def get_tasks(self, pushdowns: Any) -> AsyncIterator[DataSourceTask]:
        yield _Task(self._scan)


class _Task(DataSourceTask):
    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    @property
    def schema(self) -> Any:
        return daft.Schema.from_pyarrow_schema(self._scan.schema)

    async def read(self) -> AsyncIterator[RecordBatch]:
        scan = self._scan
        try:
            for batch, size in scan.batches:
                await scan.ahead.admit(size)
                scan.rows += batch.num_rows
                yield RecordBatch.from_arrow_record_batches([batch], scan.schema)
            scan.whole = True
        except GeneratorExit:
            raise
        except BaseException as error:  # a panic in a compiled reader is no Exception; Scan.check raises it
            scan.failure = error


def map_batches(
    frame: Frame,
    function: Callable[[pa.RecordBatch], pa.RecordBatch],
    schema: pa.Schema,
    *,
    batch_rows: int,
    workers: int = 1,
) -> Frame:
    """``function`` over batches of at most ``batch_rows`` rows, in order; ``schema`` is what it returns.

    It runs in up to ``workers`` processes of the engine, so it must be a module's function or a partial of one.
    """
    names = list(frame.column_names)
    result = daft.DataType.struct({f.name: daft.DataType.from_arrow_type(f.type) for f in schema})

    class Mapper:
        def __init__(self, function: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
            self.function = function

        @daft.method.batch(return_dtype=result, unnest=True, batch_size=batch_rows)
        def run(self, *columns: Any) -> pa.Array:
            batch = pa.RecordBatch.from_arrays([_array(column) for column in columns], names=names)
            mapped = self.function(batch)
            return pa.StructArray.from_arrays(mapped.columns, names=schema.names)

    mapper = daft.cls(Mapper, use_process=workers > 1, max_concurrency=workers)(function)
    return frame.select(mapper.run(*[frame[name] for name in names]))


def _array(column: Any) -> pa.Array:
    array = column.to_arrow()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def with_minhash(frame: Frame, words: str, signature: str, *, hashes: int, ngram_words: int, seed: int) -> Frame:
    """Replace the column ``words`` (words with single spaces between, or null) by its MinHash ``signature``.

    The signature has ``hashes`` unsigned 32-bit minima over the ``ngram_words``-grams of words.
    """
    hashed = minhash(frame[words], num_hashes=hashes, ngram_size=ngram_words, seed=seed, hash_function="xxhash3_64")
    return frame.with_column(signature, hashed).exclude(words)


def stream(frame: Frame) -> Iterator[pa.RecordBatch]:
    """Run a frame and pass its batches on in order as they are ready."""
    yield from frame.to_arrow_iter()


def read_columns(path: Path, columns: list[str]) -> Frame:
    """Some columns of a Parquet file as a frame."""
    return daft.read_parquet(str(path)).select(*columns)


def from_arrow(table: pa.Table) -> Frame:
    """A table in memory as a frame."""
    return daft.from_arrow(table)


def first_rows(frame: Frame, key: str, row: str) -> pa.Table:
    """For every row that is not the first with its ``key``: columns ``row`` and ``first``, the smallest row with it.

    ``key`` is a number or a string; daft 0.7.26 joins binary keys wrongly (every row meets every other).
    """
    assert not frame.schema()[key].dtype.is_binary()
    firsts = frame.groupby(key).agg(frame[row].min().alias("first"))
    joined = frame.join(firsts, on=key)
    return joined.where(joined[row] != joined["first"]).select(row, "first").distinct().to_arrow()


def explode(frame: Frame, column: str) -> Frame:
    """One row per element of the list ``column``."""
    return frame.explode(frame[column])


def without_rows(frame: Frame, row: str, rows: pa.Array) -> Frame:
    """The frame without the given rows: an anti-join on row numbers."""
    return frame.join(daft.from_arrow(pa.table({row: rows})), on=row, how="anti")
