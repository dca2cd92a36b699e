"""Decodes bytes as browsers do (WHATWG Encoding Standard): what is damaged becomes U+FFFD, and the rest stays.

Python's codecs have nearly the same tables. Where they differ, the difference is added: as characters that replace
others after decoding, or in the handler of what Python refuses.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Container

BAD = "\ufffd"
Handled = tuple[str, int]

# Names whose codec in Python has another name
_CODECS = {
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "shift_jis": "cp932",
    "ibm866": "cp866",
    "windows-874": "cp874",
    "macintosh": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "iso-8859-8-i": "iso-8859-8",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "iso-2022-kr": "iso2022_kr",
}
_PLAIN = frozenset({"utf-8", "utf-16le", "utf-16be", "hz", "iso-2022-kr"})
# What Python decodes to another character than the standard does
_OTHER_CHARACTERS = {
    "big5": dict(zip("•､‾∼♁☉¥¢£", "‧﹑¯～⊕⊙￥￠￡", strict=True)),  # noqa: RUF001
    "euc-jp": dict(zip("〜‖−¢£¬", "～∥－￠￡￢", strict=True)),  # noqa: RUF001
    "koi8-u": {"╝": "ў", "╬": "Ў"},
    "shift_jis": dict.fromkeys("\xa0\uf8f0\uf8f1\uf8f2\uf8f3", BAD),
    "gb18030": dict(
        zip(
            "\ue5e5\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796\ue7c7"
            "\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
            "\u3000\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19\u1e3f"
            "\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb",
            strict=True,
        )
    ),
}
_OTHER_CHARACTERS["gbk"] = _OTHER_CHARACTERS["gb18030"]
_TRANSLATE = {name: str.maketrans(of) for name, of in _OTHER_CHARACTERS.items()}
# Big5: characters that Python's table lacks, from the first pair of bytes on that each run begins with
_BIG5_RUNS = (
    "877A 㡵𡵓𣚞𦀡㻬𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆㓦珄𥶹瓆鿇垳䤯呌䄱𣚎堘 "
    "87C9 穲𧭥讏䚮𦺈䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋 8E69 箸 8E6F 簆 8E7E 糎 8EAB 緒 8EB4 縝 8ECD 者 "
    "8ED0 耨 8F57 菁 8F69 蒨 8F6E 萏 8FCB 覦覩 8FFE 起 906D 都 907A 銹 90DC 靜 90F1 響 91BF 鼖 9244 蔃 "
    "92AF 兙兛兝兞 92C8 鍮 92D1 瑹 9447 浧 94CA 禛 95D9 邗 9644 靝 96ED 瀞 96FC 嬨 9B76 爁 9B78 矗 9B7B 纇 "
    "9BC6 駖 9BDE 釔 9BEC 惞 9BF6 澶 9C42 輶 9C53 侻 9C62 營 9C68 鄄 9C6B 鷰 9C77 菏 9CBC 尐秣 9CD0 婧 "
    "9D57 輋 9D5A 筑 9DC4 拐 9EA9 恢 9EEF 痹 9EFD 汊 9F60 鬮 9F66 鼗 9FCB 僭 9FD8 弌 A063 蠏 A077 拎 A0D5 瑨 "
    "A0DF 煢 A0E4 牐 A3C0 ␀␁␂␃␄␅␆␇␈␉␊␋␌␍␎␏␐␑␒␓␔␕␖␗␘␙␚␛␜␝␞␟␡€ C6CF 廴 C6D3 无 C6D5 癶 C6D7 隶 C6DE 〃仝 "
    "FA5F 倩 FA66 偽 FABD 包 FAC5 卄 FAD5 卿 FB48 嘅 FBB8 婷 FBF3 幵 FBF9 廐 FC4F 彘 FC6C 悤 FCB9 撐 FCE2 晴 "
    "FCF1 杞 FDB7 沜渝 FDBB 港 FDF1 煮 FE52 猪 FE6F 瑜 FEAA 瓩 FEDD 砉"
)
_BIG5_TRAILS = (*range(0x40, 0x7F), *range(0xA1, 0xFF))


def _big5() -> dict[tuple[int, int], str]:
    words = _BIG5_RUNS.split()
    found = {}
    for first, characters in zip(words[::2], words[1::2], strict=True):
        lead, trail = bytes.fromhex(first)
        at = _BIG5_TRAILS.index(trail)
        for place, character in enumerate(characters, at):
            more, index = divmod(place, len(_BIG5_TRAILS))
            found[lead + more, _BIG5_TRAILS[index]] = character
    return found


_BIG5 = _big5()


def decode_as(payload: bytes, name: str) -> str:
    """Return the text of bytes in the encoding ``name`` of ``labels.LABELS``, with U+FFFD where they are wrong."""
    if name == "replacement":
        return BAD if payload else ""
    if name == "iso-2022-jp":
        return _iso_2022_jp(payload)
    if name == "x-user-defined":
        return payload.decode("latin-1").translate({byte: 0xF700 + byte for byte in range(0x80, 0x100)})
    codec = _CODECS.get(name, name)
    if name == "euc-jp":
        payload = payload.replace(b"\x8f\xa2\xb7", b"\xa1\xc1")  # the tilde of JIS X 0212; 8F is never a second byte
    errors = "replace" if name in _PLAIN else f"herdlm-{name if name in _HANDLERS else 'one-byte'}"
    text = payload.decode(codec, errors)
    table = _TRANSLATE.get(name)
    return text.translate(table) if table and not text.isascii() else text


def _one_byte(error: UnicodeError) -> Handled:
    """Bytes that a table of one byte leaves open: the controls of Latin-1 up to 0x9F, and above it nothing."""
    assert isinstance(error, UnicodeDecodeError)
    byte = error.object[error.start]
    return chr(byte) if byte < 0xA0 else BAD, error.start + 1


def _windows_1255(error: UnicodeError) -> Handled:
    assert isinstance(error, UnicodeDecodeError)
    return ("\u05ba", error.start + 1) if error.object[error.start] == 0xCA else _one_byte(error)


def _pair(known: Callable[[int, int], str], leads: Container[int]) -> Callable[[UnicodeError], Handled]:
    """Return a handler for an encoding with characters of two bytes, whose ``known`` ones Python lacks.

    A wrong second byte in ASCII is read again: a cut character must not cost the "<" of a tag.
    """

    def handle(error: UnicodeError) -> Handled:
        assert isinstance(error, UnicodeDecodeError)
        data, at = error.object, error.start
        lead, trail = data[at], data[at + 1] if at + 1 < len(data) else 0
        if lead not in leads:
            return known(lead, -1) or BAD, at + 1
        if character := known(lead, trail):
            return character, at + 2
        return BAD, at + (1 if trail < 0x80 else 2)

    return handle


def _gb18030(error: UnicodeError) -> Handled:
    assert isinstance(error, UnicodeDecodeError)
    data, at = error.object, error.start
    if data[at] == 0x80:
        return "€", at + 1
    if data[at] == 0xFF or at + 1 == len(data) or data[at + 1] < 0x80:
        cut = re.fullmatch(rb"[\x81-\xfe][0-9](?:[\x81-\xfe])?", data[at : at + 4]) if at + 4 > len(data) else None
        return BAD, len(data) if cut else at + 1
    return BAD, at + 2


def _euc_jp_pair(lead: int, trail: int) -> str:
    """Return a character of NEC's row 13 or IBM's rows 89 to 92, which Shift_JIS has as well."""
    if not (0xA1 <= lead <= 0xFE and 0xA1 <= trail <= 0xFE):
        return ""
    row, cell = lead - 0xA1, trail - 0xA1
    first, second = divmod(row * 94 + cell, 188)
    pair = bytes([first + (0x81 if first < 0x1F else 0xC1), second + (0x40 if second < 0x3F else 0x41)])
    try:
        return pair.decode("cp932")
    except UnicodeDecodeError:
        return ""


def _euc_jp(error: UnicodeError) -> Handled:
    assert isinstance(error, UnicodeDecodeError)
    data, at = error.object, error.start
    if data[at] == 0x8F and re.match(rb"[\xa1-\xfe]", data[at + 1 : at + 2]):
        third = data[at + 2] if at + 2 < len(data) else 0
        return BAD, at + (2 if third < 0x80 else 3)
    return _euc_jp_two(error)


_euc_jp_two = _pair(_euc_jp_pair, {0x8E, 0x8F, *range(0xA1, 0xFF)})
_HANDLERS: dict[str, Callable[[UnicodeError], Handled]] = {
    "one-byte": _one_byte,
    "windows-1255": _windows_1255,
    "gbk": _gb18030,
    "gb18030": _gb18030,
    "big5": _pair(lambda lead, trail: _BIG5.get((lead, trail), ""), range(0x81, 0xFF)),
    "euc-kr": _pair(lambda lead, trail: "", range(0x81, 0xFF)),
    "shift_jis": _pair(lambda lead, trail: "", range(0x81, 0xFD)),
    "euc-jp": _euc_jp,
}
for _name, _handler in _HANDLERS.items():
    codecs.register_error(f"herdlm-{_name}", _handler)

_ESCAPE = re.compile(rb"\x1b(\([BJI]|\$[@B])")
_ROMAN = str.maketrans("\\~", "¥‾")


def _iso_2022_jp(payload: bytes) -> str:
    """Decode ISO-2022-JP, whose escapes change between ASCII, JIS-Roman, half-width Katakana and JIS X 0208."""
    first, *rest = _ESCAPE.split(payload)
    parts = [first.decode("ascii", "replace")]
    for escape, piece in zip(rest[::2], rest[1::2], strict=True):
        if escape.startswith(b"$"):
            parts.append(_jis_x_0208(piece))
        elif escape == b"(I":
            parts.append("".join(chr(0xFF40 + b) if 0x21 <= b <= 0x5F else BAD for b in piece))
        else:
            text = piece.decode("ascii", "replace")
            parts.append(text.translate(_ROMAN) if escape == b"(J" else text)
    return "".join(parts)


def _jis_x_0208(piece: bytes) -> str:
    """Decode pairs of seven bits. Line ends and other bytes out of place stand for themselves or are wrong."""
    text = []
    for run in re.findall(rb"[\x21-\x7e]+|[^\x21-\x7e]+", piece):
        if 0x21 <= run[0] <= 0x7E:
            text.append(decode_as(bytes(byte | 0x80 for byte in run), "euc-jp"))
        else:
            text.append("".join(chr(byte) if byte in b"\n\r\t " else BAD for byte in run))
    return "".join(text)
