"""Reads pages from plain text files, one per file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.page import TOO_LARGE, Page
from herdlm.curate.sources.reach import Reach


def read_text(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield the only page of a text file, number 0. Its address is the file's path."""
    payload = file.read(config.max_page_bytes + 1)
    reach.at = len(payload)
    fault = TOO_LARGE if len(payload) > config.max_page_bytes else None
    yield Page(0, payload if fault is None else b"", name, kind="text", fault=fault)
