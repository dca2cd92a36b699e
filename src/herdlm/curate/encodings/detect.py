"""Guesses the encoding of bytes that declare none.

Encodings of East Asia are known by their most frequent characters: in each, one area of the table has nearly all of
ordinary text, and in the others the same bytes fall outside of it. Between encodings of one byte, resiliparse decides.
"""

from __future__ import annotations

import re

from resiliparse.parse.encoding import detect_encoding

from herdlm.curate.encodings.decoder import decode_as
from herdlm.curate.encodings.labels import name_of

DETECT_BYTES = 1 << 16
MIN_SHARE = 0.8  # of the characters outside of ASCII, from which an encoding is taken for that of the text
MIN_KANA = 0.1  # of them, without which a text is not Japanese
MAX_WRONG = 0.02
MIN_PAIRS = 4
MIN_HIGH_SHARE = 0.3  # of second bytes outside of ASCII: accented letters before others look like Big5
# What pages are in when they seem to be in a rare encoding; KOI8-U has all letters of KOI8-R
_ON_THE_WEB = {"koi8-r": "koi8-u", "iso-8859-13": "windows-1257"} | dict.fromkeys(
    ("utf-8", "iso-8859-3", "iso-8859-10", "iso-8859-14", "iso-8859-15", "iso-8859-16"), "windows-1252"
)
_ESCAPE = re.compile(rb"\x1b(?:\([BJI]|\$[@B])")
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")
_MARKS = "\u3000-\u303f\uff01-\uff5e\u2010-\u203a\u00b7"
# The frequent characters of each encoding, and how many of each pair of bytes count
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fc]")
_LEVEL_1 = {
    "euc-kr": re.compile(rb"[\xb0-\xc8][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]"),
    "gbk": re.compile(rb"[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]"),
    "big5": re.compile(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]|[\xa1-\xa3][\x40-\x7e\xa1-\xfe]"),
    "euc-jp": re.compile(rb"[\xa4\xa5\xb0-\xcf][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]"),
    "shift_jis": re.compile(rb"[\x81-\x83\x88-\x98][\x40-\x7e\x80-\xfc]"),
}
_PAIRS = {
    "big5": re.compile(rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]|[\x80-\xff]"),
    "shift_jis": re.compile(rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]|[\x80-\xff]"),
}
_PAIR = re.compile(rb"[\x81-\xfe][\xa1-\xfe]|[\x81-\xfe][\x40-\xa0]|[\x80-\xff]")


def detect(payload: bytes) -> str | None:
    """Return the encoding that bytes are most likely in, of ``labels.LABELS``, or None."""
    data = payload[:DETECT_BYTES]
    if _ESCAPE.search(data) and data.isascii():
        return "iso-2022-jp"
    if data.isascii():
        return "hz" if _HZ.search(data) else "utf-8"
    shares = {name: _share(data, name) for name in _LEVEL_1}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= MIN_SHARE:
        return best
    guess = name_of(detect_encoding(data) or "") or "utf-8"
    if guess == "utf-8" and "\ufffd" not in decode_as(data, guess)[:-1]:
        return guess
    return _ON_THE_WEB.get(guess, guess)


def _share(data: bytes, name: str) -> float:
    """Return the share of frequent characters among those outside of ASCII, or 0 if too many are wrong."""
    pairs = _PAIRS.get(name, _PAIR).findall(data)
    frequent = sum(map(bool, map(_LEVEL_1[name].fullmatch, pairs)))
    share = frequent / len(pairs)
    high = sum(len(pair) > 1 and pair[1] > 0x7F for pair in pairs)
    if share < MIN_SHARE or len(pairs) < MIN_PAIRS or high < MIN_HIGH_SHARE * len(pairs):
        return 0.0
    text = decode_as(data, name)
    if text.count("\ufffd") > max(MAX_WRONG * len(pairs), 1):
        return 0.0
    if name in ("euc-jp", "shift_jis"):
        return share + 0.01 if len(_KANA.findall(text)) > MIN_KANA * len(pairs) else 0.0
    return share
