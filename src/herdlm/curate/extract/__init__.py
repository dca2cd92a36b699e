"""From a page's bytes to its main text: the right encoding, the page's own content, no boilerplate, no markers."""

from __future__ import annotations

import codecs
import re
import unicodedata

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding

META_BYTES = 1024
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# signs of a text decoded with the wrong table: controls other than tab and line ends, and the replacement character
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff]")
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TABS = re.compile(r"(?<=\S)[ \t]*\t[ \t]*")
# Navigation by its standard elements and by the names that documentation generators give it: links of headings to
# themselves, bars to the pages before and after, paths to the page, lists of its translations, tables of contents.
_NAVIGATION = [
    "nav", "[role=navigation]", "a.headerlink", "a.anchorlink", "a.permalink",
    ".navheader", ".navfooter", ".docnav", ".breadcrumb", ".breadcrumbs", "#breadcrumbs", "#path", ".toplang",
    ".bottomlang", ".toc", "#toc", ".table-of-contents", ".skip-link",
]  # fmt: skip
MAX_CONTROL_SHARE = 0.001
_LIST_OR_LINK = re.compile(r"<(/?)(ul|a)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
MAX_LINK_SHARE = 0.35


def decode(payload: bytes, charset: str) -> str | None:
    """A page's text, or None where no encoding fits.

    Tried in order: a byte order mark; UTF-8, when the bytes are valid UTF-8 whatever the page declares (other encodings
    produce such sequences next to never); the HTTP header's ``charset``; the ``<meta>`` tag's; detection.
    """
    for bom, encoding in _BOMS:
        if payload.startswith(bom):
            return _try(payload[len(bom) :], encoding)
    declared = [charset] if charset else []
    if meta := _META_CHARSET.search(payload[:META_BYTES]):
        declared.append(meta[1].decode("ascii", "replace"))
    seven_bit = any(name.lower().startswith(("iso-2022", "hz")) for name in declared)  # would pass for ASCII
    for encoding in [*([] if seven_bit else ["utf-8"]), *declared]:
        if (text := _try(payload, encoding)) is not None:
            return text
    detected = detect_encoding(payload)
    return _try(payload, detected) if detected else None


def _try(payload: bytes, encoding: str) -> str | None:
    try:
        text = payload.decode(encoding)
    except (UnicodeDecodeError, LookupError, ValueError):
        return None
    return text if len(_CONTROLS.findall(text)) <= MAX_CONTROL_SHARE * len(text) else None


def main_text(html: str) -> str:
    """The main content of a page as plain text: paragraphs and list items on lines of their own, image texts kept."""
    text = extract_plain_text(
        keep_content_lists(html),
        main_content=True,
        preserve_formatting=True,
        list_bullets=False,
        alt_texts=True,
        skip_elements=_NAVIGATION,
    )
    return tidy(text)


def keep_content_lists(html: str) -> str:
    """Turn every ``<ul>`` whose text is mostly not links into an ``<ol>``.

    The extractor takes all unordered lists for navigation and drops them, and keeps all ordered ones.
    """
    pieces: list[str] = []
    open_lists: list[tuple[int, int, int]] = []  # index of the opening tag in pieces, characters of text, of links
    position, in_link = 0, False
    for tag in _LIST_OR_LINK.finditer(html):
        between = html[position : tag.start()]
        if open_lists:
            at, text, links = open_lists[-1]
            seen = len(_TAG.sub("", between).strip())
            open_lists[-1] = at, text + seen, links + seen * in_link
        pieces += between, tag[0]
        position = tag.end()
        closing, is_list = bool(tag[1]), tag[2].lower() == "ul"
        if not is_list:
            in_link = not closing
        elif not closing:
            open_lists.append((len(pieces) - 1, 0, 0))
        elif open_lists:
            at, text, links = open_lists.pop()
            if links <= MAX_LINK_SHARE * text:
                pieces[at] = f"<ol{pieces[at][3:]}"
                pieces[-1] = "</ol>"
            if open_lists:  # what is in a list is in the list around it, too
                around = open_lists[-1]
                open_lists[-1] = around[0], around[1] + text, around[2] + links
    pieces.append(html[position:])
    return "".join(pieces)


def tidy(text: str) -> str:
    """NFC, no controls, no space at line ends, one tab between table cells, at most one blank line in a row."""
    text = _CONTROLS.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))
    text = _TABS.sub("\t", text)
    return _BLANK_LINES.sub("\n\n", _TRAILING_SPACE.sub("", text)).strip()


def extract(payload: bytes, charset: str, html: bool) -> tuple[str, str | None]:
    """A page's main text and None, or "" and why there is none: wrong_encoding, unparsable, no_text."""
    decoded = decode(payload, charset)
    if decoded is None:
        return "", "wrong_encoding"
    try:
        text = main_text(decoded) if html else tidy(decoded)
    except (ValueError, RuntimeError):
        return "", "unparsable"
    return (text, None) if text else ("", "no_text")
