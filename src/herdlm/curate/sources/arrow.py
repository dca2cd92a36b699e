"""Reads pages from the rows of Arrow and Feather files: IPC files and streams, as `save_to_disk` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.columns import page_of_fields
from herdlm.curate.sources.page import CUT_OFF, Page
from herdlm.curate.sources.parquet import check_schema, wanted_columns
from herdlm.curate.sources.reach import Reach

MAGIC = b"ARROW1"
SLICE_ROWS = 256


def read_arrow(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield a page for each row, numbered by row. A cut file gives the rows before the cut, and a page cut_off.

    Raises:
        InputError: The column with the text is missing or not text, or a column that is named is missing.
    """
    start = file.read(len(MAGIC))
    file.seek(0)
    at = 0
    for batch in _batches(file, is_file=start == MAGIC):
        if isinstance(batch, pa.Schema):
            check_schema(batch, name, config)
            columns = {column.partition(".")[0] for column in wanted_columns(batch, config)}
            continue
        if batch is None:
            yield Page(at, kind="text", fault=CUT_OFF)
            return
        narrow = batch.select([column for column in batch.schema.names if column in columns])
        for begin in range(0, narrow.num_rows, SLICE_ROWS):
            for fields in narrow.slice(begin, SLICE_ROWS).to_pylist():
                reach.at = at
                yield page_of_fields(at, fields, config)
                at += 1


def _batches(file: BinaryIO, is_file: bool) -> Iterator[Any]:
    """Yield the schema, then the batches of rows, and None where the file is cut."""
    source = pa.PythonFile(file, "r")
    if is_file:
        reader = pa.ipc.open_file(source)
        yield reader.schema
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        return
    stream = pa.ipc.open_stream(source)
    yield stream.schema
    try:
        yield from stream
    except (pa.ArrowInvalid, OSError):
        yield None
