"""Decodes pages: finds the encoding that a page is really in."""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

META_BYTES = 1024
DETECT_BYTES = 1 << 16
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# The encodings that browsers use for declared names (WHATWG Encoding Standard, section 4.2).
_BROWSERS = {
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "shift_jis": "cp932",
    "x-sjis": "cp932",
    "sjis": "cp932",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "x-x-big5": "big5",
}
# signs of text decoded with the wrong table: controls except tab and line ends, and the replacement character
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff]")
_RIGHT = re.compile("[^\x00-\x7f\ufffd]")
MAX_CONTROL_SHARE = 0.001
MAX_WRONG_SHARE = 0.0005


def decode(payload: bytes, charset: str) -> str | None:
    """Return a page's text, or None if no encoding fits.

    Tried in order: a byte order mark; UTF-8, if the bytes are valid UTF-8 whatever the page declares (other encodings
    almost never produce such sequences); the ``charset`` of the HTTP header; that of the ``<meta>`` tag; detection.
    Last, UTF-8 without a few wrong bytes, such as a cut character, at most one in two thousand.
    """
    for bom, encoding in _BOMS:
        if payload.startswith(bom):
            return _try(payload[len(bom) :], encoding)
    declared = [charset] if charset else []
    if meta := _META_CHARSET.search(payload[:META_BYTES]):
        declared.append(meta[1].decode("ascii", "replace"))
    seven_bit = any(name.lower().startswith(("iso-2022", "hz")) for name in declared)  # would be valid ASCII
    for encoding in [*([] if seven_bit else ["utf-8"]), *declared]:
        if (text := _try(payload, encoding)) is not None:
            return text
    damaged = payload.decode("utf-8", "replace")
    wrong = damaged.count("\ufffd")
    if wrong <= MAX_WRONG_SHARE * len(damaged) and len(_RIGHT.findall(damaged)) > wrong:
        text = damaged.replace("\ufffd", "")
        if len(CONTROLS.findall(text)) <= MAX_CONTROL_SHARE * len(text):
            return text
    detected = detect_encoding(payload[:DETECT_BYTES])
    return _try(payload, detected) if detected else None


def _try(payload: bytes, encoding: str) -> str | None:
    try:
        text = payload.decode(_BROWSERS.get(encoding.lower(), encoding))
    except (UnicodeDecodeError, LookupError, ValueError):
        return None
    return text if len(CONTROLS.findall(text)) <= MAX_CONTROL_SHARE * len(text) else None
