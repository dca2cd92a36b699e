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
        html, main_content=True, preserve_formatting=True, list_bullets=False, alt_texts=True, skip_elements=_NAVIGATION
    )
    return tidy(text)


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
