"""From a page's bytes to its main text: the right encoding, the page's own content, no boilerplate, no markers.

The way of a page: ``decode`` finds its encoding, ``parse`` makes it well-formed HTML by lexbor, ``blocks`` cuts that
into runs of text in one pass, ``features`` describes each block and its surroundings, ``model`` says which are
content, ``select`` leaves out copies, ``render`` writes the text. No step recurses, and none takes longer than in
proportion to the page.
"""

from __future__ import annotations

import re
import unicodedata

from herdlm.curate.extract.blocks import read_blocks
from herdlm.curate.extract.decode import CONTROLS, decode
from herdlm.curate.extract.model import model
from herdlm.curate.extract.parse import excessive, parse
from herdlm.curate.extract.render import render
from herdlm.curate.extract.select import select

MAX_BYTES = 16 << 20  # HTML; Common Crawl cuts at 1 to 5 MiB
NEXT_TO_NOTHING = 200  # characters
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TABS = re.compile(r"(?<=\S)[ \t]*\t[ \t]*")

__all__ = ["decode", "extract", "main_text", "tidy"]


def main_text(html: str) -> str:
    """The main content of a page as plain text; "" where it has none. For pages that are not ``excessive``.

    A page that gives next to nothing is read again with what stands in ``<nav>`` and ``<footer>``.
    """
    text = _content(html, keep_navigation=False)
    if len(text) < NEXT_TO_NOTHING:
        text = max(text, _content(html, keep_navigation=True), key=len)
    if not text.isascii():
        text = CONTROLS.sub("", unicodedata.normalize("NFC", text))
    return text.strip("\n")


def _content(html: str, keep_navigation: bool) -> str:
    source = parse(html, keep_navigation)
    page = read_blocks(source.html)
    return render(page, select(page, source.title, source.description, model()))


def tidy(text: str) -> str:
    """Plain text: NFC, no controls, no space at line ends, one tab between cells, at most one blank line in a row."""
    text = CONTROLS.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))
    text = _TABS.sub("\t", text)
    return _BLANK_LINES.sub("\n\n", _TRAILING_SPACE.sub("", text)).strip()


def extract(payload: bytes, charset: str, html: bool) -> tuple[str, str | None]:
    """A page's main text and None, or "" and why there is none.

    Reasons: ``too_large`` (HTML over 16 MiB), ``wrong_encoding`` (no encoding fits: binary data, for one),
    ``excessive_markup`` (tags nested a thousand deep or with thousands of attributes), ``no_text``.
    """
    if html and len(payload) > MAX_BYTES:
        return "", "too_large"
    decoded = decode(payload, charset)
    if decoded is None:
        return "", "wrong_encoding"
    if html and excessive(decoded):
        return "", "excessive_markup"
    text = main_text(decoded) if html else tidy(decoded)
    return (text, None) if text else ("", "no_text")
