"""Decodes pages: finds the encoding that a page is really in, and repairs or leaves out what is damaged."""

from __future__ import annotations

import codecs
import re

from herdlm.curate.encodings.decoder import BAD, decode_as
from herdlm.curate.encodings.detect import detect
from herdlm.curate.encodings.labels import name_of
from herdlm.curate.encodings.prescan import prescan

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"))
# signs of text decoded with the wrong table: controls except tab and line ends, and the replacement character
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff]")
_RUN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff]+")
MAX_DAMAGED_SHARE = 0.02  # of a page's characters; above it, the encoding is another, or the page is no text
FEW_DAMAGED = 3  # of them are no damage to speak of in a text of ``SHORT`` characters
SHORT = 50
MAX_DAMAGED_RUN = 64  # characters one after the other: a picture or an archive within the page, or lost text
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_PIECES = re.compile(rb"[^<>\r\n]+")
MIN_WRONG_IN_PIECE = (
    2  # characters, from which a piece of a page is in another encoding; a single one is a cut character
)
# Quotation marks, dashes and the euro sign of UTF-8, pasted into a page of one byte per character
_PASTED = re.compile(rb"\xe2(?:\x80[\x90-\xaf\xb0-\xbe]|\x82\xac)")
_SEVEN_BIT = frozenset({"iso-2022-jp", "iso-2022-kr", "hz"})  # their bytes would be valid UTF-8


def decode(payload: bytes, charset: str) -> str | None:
    """Return a page's text without what is damaged in it, or None if no encoding fits.

    Tried in order: a byte order mark; UTF-8, if nearly all bytes outside of ASCII are valid whatever the page declares
    (other encodings almost never produce such sequences); the ``charset`` of the HTTP header; that of the ``<meta>``
    tag; detection. An encoding fits if at most 2% of the characters are damaged, and no 64 of them in a row.
    """
    for bom, name in _BOMS:
        if payload.startswith(bom):
            return _tidy(decode_as(payload[len(bom) :], name))
    named = [name_of(charset) if charset else None, prescan(payload)]
    declared = list(dict.fromkeys(name for name in named if name))
    if not _SEVEN_BIT.intersection(declared):
        if payload.isascii() and not declared and detect(payload) in _SEVEN_BIT:
            return _tidy(decode_as(payload, detect(payload) or ""))
        if (wrong := _wrong(payload)) == 0 or wrong <= len(_UTF8.findall(payload)):
            return _tidy(_utf_8(payload))
    for name in declared:
        if (text := _tidy(_decode(payload, name))) is not None:
            return text
    detected = detect(payload)
    return _tidy(_decode(payload, detected)) if detected and detected not in declared else None


def _utf_8(payload: bytes) -> str:
    """Decode a page in UTF-8 of which some lines or elements, such as comments or a footer, are in another encoding."""
    found = [piece for piece in _PIECES.findall(payload) if _is_other(piece)] if _wrong(payload) else []
    if not found:
        return payload.decode("utf-8", "replace")
    name = detect(b"\n".join(found)) or "utf-8"

    def repair(match: re.Match[bytes]) -> bytes:
        return decode_as(match[0], name).encode() if _is_other(match[0]) else match[0]

    return _PIECES.sub(repair, payload).decode("utf-8", "replace")


def _wrong(data: bytes) -> int:
    """Return how many characters of UTF-8 are damaged."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").count(BAD)
    return 0


def _is_other(piece: bytes) -> bool:
    """Return whether a piece of a page in UTF-8 has several bytes outside of ASCII, most of which are not UTF-8."""
    if piece.isascii():
        return False
    wrong = _wrong(piece)
    return wrong >= MIN_WRONG_IN_PIECE and wrong > len(_UTF8.findall(piece))


def _decode(payload: bytes, name: str) -> str:
    if not name.startswith(("windows-", "iso-8859-")):
        return decode_as(payload, name)
    pieces: list[str] = []
    at = 0
    for pasted in _PASTED.finditer(payload):
        pieces += [decode_as(payload[at : pasted.start()], name), pasted[0].decode()]
        at = pasted.end()
    return "".join([*pieces, decode_as(payload[at:], name)])


def _tidy(text: str) -> str | None:
    """Return a text without damaged characters, or None if they are too many, altogether or one after the other."""
    damaged = _RUN.findall(text)
    if not damaged:
        return text
    if max(map(len, damaged)) > MAX_DAMAGED_RUN:
        return None
    count = sum(map(len, damaged))
    if count > max(MAX_DAMAGED_SHARE * len(text), FEW_DAMAGED if len(text) >= SHORT else 0):
        return None
    return _RUN.sub("", text)
