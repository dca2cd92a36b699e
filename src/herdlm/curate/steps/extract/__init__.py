"""Extracts the main text of a page from its bytes: decodes it, and leaves out boilerplate and markup.

``decode`` finds the encoding, ``parse`` makes well-formed HTML with lexbor, ``reader`` splits it into runs of text
(``blocks``) in one pass, ``page_features`` and ``features`` describe the page, each block and its surroundings,
``model`` predicts the page's kind and which blocks are content, ``select`` chooses, and ``render`` writes the text. No
step recurses, and each takes time in proportion to the page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.decode import CONTROLS, decode
from herdlm.curate.steps.extract.markdown import render_markdown
from herdlm.curate.steps.extract.model import Model, model
from herdlm.curate.steps.extract.parse import Source, excessive, parse
from herdlm.curate.steps.extract.reader import read_blocks
from herdlm.curate.steps.extract.render import render
from herdlm.curate.steps.extract.select import select
from herdlm.curate.steps.extract_config import ExtractConfig

MAX_BYTES = 16 << 20  # HTML; Common Crawl cuts at 1 to 5 MiB
SHORT_TEXT = 200  # characters
GROUP_CHARS = 1 << 20  # characters of pages that are processed together, which bounds the memory
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TABS = re.compile(r"(?<=\S)[ \t]*\t[ \t]*")

__all__ = ["Extract", "decode", "extract", "extract_all", "main_text", "main_texts", "tidy"]


class Extract(PageStep):
    """Sets ``text`` to the main text of each page and ``page_type`` to the kind of web page that it is.

    Source code is decoded and otherwise left unchanged. Pages of unwanted types are dropped.
    """

    name = "extract"
    settings: ExtractConfig

    def run(self, batch: Batch) -> Outcome:
        pages = list(zip(batch["payload"], batch["charset"], batch["kind"], strict=True))
        texts = iter(
            extract_all(
                [(payload, charset, kind == "html") for payload, charset, kind in pages if kind != "code"],
                self.settings.markdown,
            )
        )
        results = [_code(payload) if kind == "code" else next(texts) for payload, _, kind in pages]
        reasons = [
            one.reason or (None if self.settings.wants(one.page_type) else "unwanted_page_type") for one in results
        ]
        return Outcome(
            reasons,
            {
                "text": [one.text for one in results],
                "page_type": [one.page_type for one in results],
                "listings": [one.listings for one in results],
            },
        )


class Extracted(NamedTuple):
    """The main text of a page, or "" and the reason why there is none; the type of a web page, else "".

    ``listings`` are the lines of its preformatted text, stripped, which rules about prose leave out.
    """

    text: str
    reason: str | None
    page_type: str = ""
    listings: frozenset[str] = frozenset()


def _code(payload: bytes) -> Extracted:
    text = decode(payload, "")
    if text is None:
        return Extracted("", "wrong_encoding")
    text = text.replace("\r\n", "\n").strip("\n")
    return Extracted(text, None) if text.strip() else Extracted("", "no_text")


def main_text(html: str) -> str:
    """Return the main content of a page as plain text, or "". The page must not be ``excessive``."""
    return main_texts([html])[0]


def main_texts(pages: Sequence[str], by: Model | None = None) -> list[str]:
    """Return the main content of each page, which does not depend on the other pages."""
    return [page.text for page in read_pages(pages, by)]


def read_pages(pages: Sequence[str], by: Model | None = None, markdown: bool = False) -> list[Extracted]:
    """Return the main content and the type of each page, by the shipped model unless another is given.

    A page that gives almost no text is read again with its ``<nav>`` and ``<footer>``.
    """
    by = by or model()
    found = _contents(pages, False, by, markdown)
    again = [number for number, page in enumerate(found) if len(page.text) < SHORT_TEXT]
    for number, other in zip(again, _contents([pages[n] for n in again], True, by, markdown), strict=True):
        found[number] = max(found[number], other, key=lambda page: len(page.text))
    return [page._replace(text=_normalized(page.text).strip("\n")) for page in found]


def _normalized(text: str) -> str:
    return text if text.isascii() else CONTROLS.sub("", unicodedata.normalize("NFC", text))


def _contents(pages: Sequence[str], keep_navigation: bool, by: Model, markdown: bool) -> list[Extracted]:
    texts: list[Extracted] = []
    sources: list[Source] = []
    size = 0
    for html in pages:
        sources.append(parse(html, keep_navigation))
        size += len(sources[-1].html)
        if size >= GROUP_CHARS:
            texts += _select_and_render(sources, by, markdown)
            sources, size = [], 0
    return texts + _select_and_render(sources, by, markdown)


def _select_and_render(sources: Sequence[Source], by: Model, markdown: bool) -> list[Extracted]:
    blocks = read_blocks(*(source.html for source in sources))
    write = render_markdown if markdown else render
    return [
        Extracted(write(blocks, kept), None, kind, listing_lines(blocks, kept))
        for kind, kept in select(blocks, sources, by)
    ]


def listing_lines(blocks: Blocks, kept: Sequence[int]) -> frozenset[str]:
    """Return the lines of the preformatted ones of the blocks ``kept``, stripped."""
    return frozenset(
        line.strip() for block in kept if blocks.preformatted[block] for line in blocks.text[block].split("\n")
    )


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
    return extract_all([(payload, charset, html)])[0][:2]


def extract_all(pages: Iterable[tuple[bytes, str, bool]], markdown: bool = False) -> list[Extracted]:
    """Return what :func:`extract` returns for each page, and its type, in less time."""
    found: list[Extracted] = []
    waiting: dict[int, str] = {}
    for payload, charset, html in pages:
        decoded, reason = _decoded(payload, charset, html)
        if html and reason is None:
            waiting[len(found)] = decoded
        found.append(Extracted(decoded if html else tidy(decoded), reason))
    for number, page in zip(waiting, read_pages(list(waiting.values()), None, markdown), strict=True):
        found[number] = page
    return [one if one.text or one.reason else one._replace(reason="no_text") for one in found]


def _decoded(payload: bytes, charset: str, html: bool) -> tuple[str, str | None]:
    if html and len(payload) > MAX_BYTES:
        return "", "too_large"
    decoded = decode(payload, charset)
    if decoded is None:
        return "", "wrong_encoding"
    return ("", "excessive_markup") if html and excessive(decoded) else (decoded, None)
