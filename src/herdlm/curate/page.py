"""A page as it comes from a source, before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Page:
    """``payload`` is HTML in ``charset`` (as its server declared it, or "") or, where ``html`` is False, UTF-8 text.

    ``fault`` names why the page cannot be used, or is None.
    """

    payload: bytes = b""
    url: str = ""
    date: str = ""
    charset: str = ""
    html: bool = True
    fault: str | None = None


PAGE_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # the page's number in the crawl: pages stay in this order throughout
        ("id", pa.large_string()),
        ("source", pa.large_string()),
        ("url", pa.large_string()),
        ("date", pa.large_string()),
        ("payload", pa.large_binary()),
        ("charset", pa.large_string()),
        ("html", pa.bool_()),
        ("fault", pa.large_string()),
        ("read_bytes", pa.int64()),  # how far reading the sources went on with this page
    ]
)
