"""Reads the pages of a shard, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources import arrow, jsonl, parquet, plain_text, source_code, warc
from herdlm.curate.sources.columns import for_file
from herdlm.curate.sources.file import unreadable
from herdlm.curate.sources.page import Page, admitted
from herdlm.curate.sources.reach import Reach
from herdlm.curate.sources.shards import Shard


def read_shard(shard: Shard, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield the pages of a shard, in order.

    Raises:
        InputError: The file does not have its format, or no longer exists.
    """
    return map(admitted, _read_shard(shard, reach, config))


def _read_shard(shard: Shard, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    file = shard.file
    config = for_file(file.path, file.given, config)
    if shard.start == shard.end:
        return  # the record before extends to the end of the file
    if file.format == "code":
        yield from source_code.read_tree(file, shard.begin, shard.members, reach, config)
        return
    try:
        with file.open() as opened:
            if file.format == "warc":
                yield from warc.read_warc(opened, file.path, reach, config)
            elif file.format == "jsonl":
                yield from jsonl.read_jsonl(opened, file.path, reach, config)
            elif file.format == "parquet":
                yield from parquet.read_parquet(opened, file.path, reach, config)
            elif file.format == "arrow":
                yield from arrow.read_arrow(opened, file.path, reach, config)
            else:
                yield from plain_text.read_text(opened, file.path, reach, config)
    except FileNotFoundError as error:
        raise InputError(f"source {file.path} no longer exists", "Check the path or address") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(file, error) from error
