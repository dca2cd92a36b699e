"""Texts that are equal but for case, spacing and punctuation: the first of each is kept."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from herdlm.curate import dataframe

DIGEST_BYTES = 16


def digest(normalized: str) -> bytes:
    """128 bits of a normalised text: equal texts, equal digests; by chance about one in 10^18 among 10^10 texts."""
    return hashlib.blake2b(normalized.encode(), digest_size=DIGEST_BYTES).digest()


def exact_duplicates(documents: dataframe.Frame) -> pa.Table:
    """Among ``documents`` (columns row, digest), those to drop: columns ``row`` and ``first``, the row they repeat."""
    return dataframe.first_rows(documents, "digest", "row").sort_by("row")
