"""A page as it comes from a source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["html", "text", "code"]

# Why a page cannot be used: the reasons of the step "read".
DAMAGED, CUT_OFF, TOO_LARGE, NO_TEXT = "damaged_record", "cut_off", "too_large", "no_text"
LONG_ADDRESS = "long_address"
ADDRESS_CHARS = 8192  # browsers and servers take no longer ones; files keep addresses in their footers, too
DATE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a source file.

    Attributes:
        number: Its place in the file: an offset in bytes or a running number, by format. Ascending and unique.
        payload: HTML in ``charset`` (as declared by its server, or ""), text, or source code.
        language: Of source code, such as ``code-python``; "" if it has to be identified.
        robots: What the server asks of crawlers by X-Robots-Tag.
        fault: Why the page cannot be used, or None.
    """

    number: int
    payload: bytes = b""
    url: str = ""
    date: str = ""
    charset: str = ""
    kind: Kind = "html"
    language: str = ""
    robots: str = ""
    fault: str | None = None


def admitted(page: Page) -> Page:
    """Return the page, or one with a fault if its address or date is too long or no text that a file can hold."""
    if len(page.url) > ADDRESS_CHARS:
        return replace(page, payload=b"", url="", date="", fault=page.fault or LONG_ADDRESS)
    try:
        (page.url + page.date + page.charset).encode()
    except UnicodeEncodeError:  # half a character, as JSON can spell it
        return replace(page, payload=b"", url="", date="", charset="", fault=page.fault or DAMAGED)
    return page if len(page.date) <= DATE_CHARS else replace(page, date="", fault=page.fault or DAMAGED)
