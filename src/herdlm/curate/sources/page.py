"""A page as it comes from a source, before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["html", "text", "code"]

# Why a page cannot be used. The funnel counts them under the step "read".
DAMAGED, CUT_OFF, TOO_LARGE, NO_TEXT = "damaged_record", "cut_off", "too_large", "no_text"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a source file.

    Args:
        number: where it stands in its file: an offset in bytes or a running number, by format. Ascending and unique.
        payload: HTML in ``charset`` (as its server declared it, or ""); UTF-8 where ``kind`` is text or code.
        language: of source code, such as ``code-python``; "" where it has to be found out.
        fault: why the page cannot be used, or None.
    """

    number: int
    payload: bytes = b""
    url: str = ""
    date: str = ""
    charset: str = ""
    kind: Kind = "html"
    language: str = ""
    fault: str | None = None
