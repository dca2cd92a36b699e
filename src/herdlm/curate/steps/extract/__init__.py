"""Extracts the main text of a page from its bytes: decodes it, and leaves out boilerplate and markup.

``decode`` finds the encoding, ``parse`` makes well-formed HTML with lexbor, ``blocks`` splits it into runs of text in
one pass, ``features`` describes each block and its surroundings, ``model`` predicts which blocks are content,
``select`` leaves out copies, and ``render`` writes the text. No step recurses, and each takes time in proportion to the
page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep
from herdlm.curate.steps.extract.blocks import read_blocks
from herdlm.curate.steps.extract.decode import CONTROLS, decode
from herdlm.curate.steps.extract.model import model
from herdlm.curate.steps.extract.parse import Source, excessive, parse
from herdlm.curate.steps.extract.render import render
from herdlm.curate.steps.extract.select import select

MAX_BYTES = 16 << 20  # HTML; Common Crawl cuts at 1 to 5 MiB
SHORT_TEXT = 200  # characters
GROUP_CHARS = 1 << 20  # characters of pages that are processed together, which bounds the memory
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TABS = re.compile(r"(?<=\S)[ \t]*\t[ \t]*")

__all__ = ["Extract", "decode", "extract", "extract_all", "main_text", "main_texts", "tidy"]


class Extract(PageStep):
    """Sets ``text`` to the main text of each page. Source code is decoded and otherwise left unchanged."""

    name = "extract"

    def run(self, batch: Batch) -> Outcome:
        pages = list(zip(batch["payload"], batch["charset"], batch["kind"], strict=True))
        texts = iter(
            extract_all([(payload, charset, kind == "html") for payload, charset, kind in pages if kind != "code"])
        )
        results = [_code(payload) if kind == "code" else next(texts) for payload, _, kind in pages]
        return Outcome([reason for _, reason in results], {"text": [text for text, _ in results]})


def _code(payload: bytes) -> tuple[str, str | None]:
    text = decode(payload, "")
    if text is None:
        return "", "wrong_encoding"
    text = text.replace("\r\n", "\n").strip("\n")
    return (text, None) if text.strip() else ("", "no_text")


def main_text(html: str) -> str:
    """Return the main content of a page as plain text, or "". The page must not be ``excessive``."""
    return main_texts([html])[0]


def main_texts(pages: Sequence[str]) -> list[str]:
    """Return the main content of each page, which does not depend on the other pages.

    A page that gives almost no text is read again with its ``<nav>`` and ``<footer>``.
    """
    texts = _contents(pages, keep_navigation=False)
    again = [number for number, text in enumerate(texts) if len(text) < SHORT_TEXT]
    for number, text in zip(again, _contents([pages[n] for n in again], keep_navigation=True), strict=True):
        texts[number] = max(texts[number], text, key=len)
    return [
        (text if text.isascii() else CONTROLS.sub("", unicodedata.normalize("NFC", text))).strip("\n") for text in texts
    ]


def _contents(pages: Sequence[str], keep_navigation: bool) -> list[str]:
    texts: list[str] = []
    sources: list[Source] = []
    size = 0
    for html in pages:
        sources.append(parse(html, keep_navigation))
        size += len(sources[-1].html)
        if size >= GROUP_CHARS:
            texts += _select_and_render(sources)
            sources, size = [], 0
    return texts + _select_and_render(sources)


def _select_and_render(sources: Sequence[Source]) -> list[str]:
    blocks = read_blocks(*(source.html for source in sources))
    titles, descriptions = [source.title for source in sources], [source.description for source in sources]
    return [render(blocks, kept) for kept in select(blocks, titles, descriptions, model())]


def tidy(text: str) -> str:
    """Tidy plain text: NFC, no controls or trailing space, one tab between cells, at most one blank line in a row."""
    text = CONTROLS.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))
    text = _TABS.sub("\t", text)
    return _BLANK_LINES.sub("\n\n", _TRAILING_SPACE.sub("", text)).strip()


def extract(payload: bytes, charset: str, html: bool) -> tuple[str, str | None]:
    """Return a page's main text and None, or "" and the reason why there is none.

    Reasons: ``too_large`` (HTML over 16 MiB), ``wrong_encoding`` (no encoding fits, as for binary data),
    ``excessive_markup`` (tags nested a thousand deep, or with thousands of attributes), ``no_text``.
    """
    return extract_all([(payload, charset, html)])[0]


def extract_all(pages: Iterable[tuple[bytes, str, bool]]) -> list[tuple[str, str | None]]:
    """Return what :func:`extract` returns for each page, in less time."""
    found: list[tuple[str, str | None]] = []
    waiting: dict[int, str] = {}
    for payload, charset, html in pages:
        decoded, reason = _decoded(payload, charset, html)
        if html and reason is None:
            waiting[len(found)] = decoded
        found.append((decoded if html else tidy(decoded), reason))
    for number, text in zip(waiting, main_texts(list(waiting.values())), strict=True):
        found[number] = text, None
    return [(text, reason if text or reason else "no_text") for text, reason in found]


def _decoded(payload: bytes, charset: str, html: bool) -> tuple[str, str | None]:
    if html and len(payload) > MAX_BYTES:
        return "", "too_large"
    decoded = decode(payload, charset)
    if decoded is None:
        return "", "wrong_encoding"
    return ("", "excessive_markup") if html and excessive(decoded) else (decoded, None)
