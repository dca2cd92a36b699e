"""Repairs text: undoes wrong decodings, normalizes Unicode, and removes invisible characters.

The following is repeated in order until nothing changes, so repairing twice is the same as repairing once:

1. UTF-8 that was read as Latin-1 or Windows-1252, once or several times over, is decoded again, line by line, where
   there is strong evidence for it (``_repair_line``). Text read with other wrong tables is left alone.
2. Remaining C1 controls become the Windows-1252 characters that were meant, as in HTML. Line, paragraph and form
   separators become line ends. All other controls, private-use characters, lone surrogates, non-characters,
   replacement characters, byte order marks, bidirectional marks and soft hyphens are removed.
3. Zero-width joiners and non-joiners stay after letters of scripts that are spelled with them (Arabic, Indic,
   South-East Asian) and after pictographs. Zero-width spaces stay between letters of South-East Asian scripts, where
   they separate words. Elsewhere, they are removed.
4. Every horizontal space becomes U+0020; tabs stay.
5. Latin, Armenian and Arabic presentation forms (the ligature "fi" as one character) become plain letters; full-width
   letters and digits become ASCII; half-width Katakana becomes full-width. Full-width punctuation stays, since Chinese
   and Japanese use it. Superscripts, fractions, units and mathematical letters stay, since they carry meaning.
6. NFC.
7. Spaces at line ends, repeated empty lines, and space around the text are removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep


def _windows_1252() -> dict[int, str]:
    """Return what bytes 0x80 to 0x9F show in Windows-1252, except for the five that it leaves undefined."""
    table = {}
    for byte in range(0x80, 0xA0):
        try:
            table[byte] = bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            continue
    return table


_SHOWN = _windows_1252()
_TO_BYTE = {code: code for code in range(0x80, 0x100)} | {ord(shown): byte for byte, shown in _SHOWN.items()}
_TAIL = "\x80-\xbf" + "".join(_SHOWN.values())  # what the bytes after the first of a UTF-8 sequence show
_SEQUENCE = re.compile(f"[\xc2-\xdf][{_TAIL}]|[\xe0-\xef][{_TAIL}]{{2}}|[\xf0-\xf4][{_TAIL}]{{3}}")
# Punctuation that correct text has after accented letters, so a sequence of it alone proves little
_PUNCTUATION = frozenset(
    "\xa0«»·°¹²³ªº©®§\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2022\u2026\u2039\u203a\u2122"
)
_SIGNS = frozenset("«°¹²³ªº©®§")  # those that do not follow a capital A with tilde
_LETTERS = frozenset("\u0160\u017d\u0152\u0178\u0161\u017e\u0153")  # correct words can have these side by side
_LATIN_LEADS = "\xc4\xc5"  # first bytes of further Latin letters with marks
_STRAY = re.compile("[\xc0-\xff]")
_LOST_SPACE = re.compile(
    "[\xc2\xc3](?: (?= )|(?= |$))"
)  # "à" and the no-break space after their second byte became a space
MAX_STRAY_SHARE = 0.25  # accented letters outside of sequences, per strong sequence

_JOINED = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1a20-\u1aaf\ua840-\ua87f\ua8e0-\ua8ff\U00011000-\U000114ff"
)
_PICTURES = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u1a20-\u1aaf"
_JOINERS = re.compile(f"(?<![{_JOINED}{_PICTURES}])[\u200c\u200d]+|(?<=[\u200c\u200d])[\u200c\u200d]+")
_ZERO_SPACES = re.compile(f"(?<![{_SOUTH_EAST_ASIAN}])\u200b+|\u200b+(?![{_SOUTH_EAST_ASIAN}])|(?<=\u200b)\u200b+")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\u2028\u2029]")
_EMPTY_LINES = re.compile(r"\n{3,}")
_ASCII_CONTROLS = bytes([*range(9), *range(0xB, 0x20), 0x7F])

# What a character needs, as bits
LINE_END, INVISIBLE, C1, JOINER, FORM, SPACE, LEAD, TAIL = (1 << bit for bit in range(8))


def _spans(*bounds: tuple[int, int]) -> Iterable[int]:
    return chain.from_iterable(range(first, last + 1) for first, last in bounds)


def _needs() -> tuple[NDArray[np.uint8], dict[int, list[int]]]:
    """Return the needs of each of the 0x110000 code points, and the code points of each need."""
    members = {
        LINE_END: [0xB, 0xC, 0xD, 0x2028, 0x2029],
        INVISIBLE: [
            *_spans((0, 8), (0xE, 0x1F), (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0xD800, 0xF8FF)),
            *_spans((0xFDD0, 0xFDEF), (0xFFF0, 0xFFFF), (0xE0000, 0xE0FFF), (0xF0000, 0x10FFFF)),
            *(plane + last for plane in range(0x10000, 0xF0000, 0x10000) for last in (0xFFFE, 0xFFFF)),
            *(0x7F, 0xAD, 0x61C, 0x180E, 0xFEFF),
        ],
        C1: [*_spans((0x80, 0x9F))],
        JOINER: [0x200B, 0x200C, 0x200D],
        FORM: [
            *_spans((0xFB00, 0xFB06), (0xFB13, 0xFB17), (0xFB50, 0xFBB1), (0xFBD3, 0xFD3D), (0xFE70, 0xFEFC)),
            *_spans((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A), (0xFF66, 0xFF9F)),
        ],
        SPACE: [0xA0, 0x1680, *_spans((0x2000, 0x200A)), 0x202F, 0x205F, 0x3000],
        LEAD: [*_spans((0xC2, 0xF4))],
        TAIL: [*_TO_BYTE.keys() - set(_spans((0xC0, 0xFF)))],
    }
    needs = np.zeros(0x110000, np.uint8)
    for need, codes in members.items():
        needs[codes] |= need
    return needs, members


_NEEDS, _MEMBERS = _needs()
_FORMS = re.compile("[" + "".join(map(chr, _MEMBERS[FORM])) + "]+")
_TO_SHOWN = {code: _SHOWN.get(code, "") for code in _MEMBERS[C1]}


class Repair(PageStep):
    """Repairs ``text``, and drops pages of which nothing is left."""

    name = "repair"

    def run(self, batch: Batch) -> Outcome:
        texts = [repair(text) for text in batch["text"]]
        return Outcome([None if text.strip() else "no_text" for text in texts], {"text": texts})


def repair(text: str) -> str:
    """Return ``text`` as its author saw it, in NFC, by the policy above. Clean text is returned unchanged."""
    while (repaired := _repair_once(text)) != text:
        text = repaired
    return text


def _repair_once(text: str) -> str:
    if text.isascii():
        raw = text.encode()
        if len(raw.translate(None, _ASCII_CONTROLS)) != len(raw):
            text = _LINE_ENDS.sub("\n", text).encode().translate(None, _ASCII_CONTROLS).decode()
        return _tidy(text)
    found = _find(text)
    if found & LINE_END:
        text = _LINE_ENDS.sub("\n", text)
    if found & LEAD:
        text = "\n".join(map(_repair_line, text.split("\n")))
    if found & C1:
        text = text.translate(_TO_SHOWN)
    if found & SPACE:
        text = _with_plain_spaces(text)
    if found & INVISIBLE:
        text = _without(text, INVISIBLE)
    if found & JOINER:
        text = _ZERO_SPACES.sub("", _JOINERS.sub("", text))
    if found & FORM:
        text = _FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms[0]), text)
    return _tidy(unicodedata.normalize("NFC", text))


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _find(text: str) -> int:
    """Return the needs of a text's characters, with ``LEAD`` only if a ``TAIL`` follows."""
    needs = _NEEDS[_codes(text)]
    damage = needs[:-1] & (needs[1:] >> 1) & LEAD
    return int(np.bitwise_or.reduce(needs)) & ~LEAD | (LEAD if damage.any() else 0)


def _text(codes: NDArray[np.uint32]) -> str:
    return bytes(codes.data).decode("utf-32-le", "surrogatepass")


def _with_plain_spaces(text: str) -> str:
    codes = _codes(text).copy()
    codes[_NEEDS[codes] & SPACE > 0] = ord(" ")
    return _text(codes)


def _without(text: str, need: int) -> str:
    codes = _codes(text)
    return _text(codes[_NEEDS[codes] & need == 0])


def _tidy(text: str) -> str:
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def _repair_line(line: str) -> str:
    """Decode a line's UTF-8 sequences as often as there is strong evidence for it."""
    while not line.isascii() and (repaired := _decode_line(line)) != line:
        line = repaired
    return line


def _decode_line(line: str) -> str:
    """Decode the UTF-8 sequences of a line once, if its non-ASCII letters consist of them.

    At least one sequence must be strong, and accented letters outside of sequences can be a quarter of the strong ones:
    in a line that was read with the wrong table, every such letter is part of a sequence.
    """
    strong = 0
    pieces: list[str] = []
    position = end_of_last = 0
    for match in _SEQUENCE.finditer(line):
        decoded = _decode(match[0])
        if not decoded:
            continue
        in_run = match.start() == end_of_last and end_of_last > 0
        before, after = line[max(match.start() - 1, 0) : match.start()], line[match.end() : match.end() + 1]
        strong += _is_strong(match[0], before, after, in_run)
        pieces += line[position : match.start()], decoded
        position = end_of_last = match.end()
    if not strong:
        return line
    pieces.append(line[position:])
    strays = sum(len(_STRAY.findall(_LOST_SPACE.sub("", piece))) for piece in pieces[::2])
    if strays > MAX_STRAY_SHARE * strong:
        return line
    pieces[::2] = [_LOST_SPACE.sub(lambda lead: "\xe0" if lead[0][0] == "\xc3" else "", piece) for piece in pieces[::2]]
    return "".join(pieces)


def _decode(sequence: str) -> str:
    """Return the character that a sequence encodes, or "" if it is one that text does not contain."""
    try:
        character = bytes(_TO_BYTE[ord(shown)] for shown in sequence).decode()
    except UnicodeDecodeError:
        return ""
    return "" if unicodedata.category(character) in ("Cn", "Co", "Cs") else character


def _is_strong(sequence: str, before: str, after: str, in_run: bool) -> bool:
    """Return whether correct text would hardly ever have these characters side by side.

    An accented capital before a closing quotation mark is correct ("CAF\xc9\u201d"), so punctuation proves nothing
    unless it is inside a word. Letters of other scripts come in words, so they count from the second in a row.
    """
    lead, tail = sequence[0], sequence[1:]
    if len(sequence) == 4:
        return True
    if lead == "\xc2":
        return "\xa0" <= tail <= "\xbf" and tail != "\xbb"
    if lead == "\xc3":
        return tail not in _PUNCTUATION or tail in _SIGNS or after.isalpha() or not before.isupper()
    if lead in _LATIN_LEADS:
        return tail not in _PUNCTUATION or after.isalpha() or before.islower()
    if len(sequence) == 2:
        return in_run
    return in_run or not (_PUNCTUATION.issuperset(tail) or _LETTERS.issuperset(tail))
