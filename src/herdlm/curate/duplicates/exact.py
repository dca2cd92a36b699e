"""Texts that are equal but for case, spacing and punctuation: the first of each is kept."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from herdlm.curate import dataframe

DIGEST_BYTES = 16


def digest(normalized: str) -> str:
    """128 bits of a normalised text in hexadecimal: equal for equal texts, else next to never."""
    return hashlib.blake2b(normalized.encode(), digest_size=DIGEST_BYTES).hexdigest()


def exact_duplicates(documents: dataframe.Frame) -> pa.Table:
    """Among ``documents`` (columns row, digest), those to drop: columns ``row`` and ``first``, the row they repeat."""
    return dataframe.first_rows(documents, "digest", "row").sort_by("row")
