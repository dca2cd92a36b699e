"""Decoders against the tables that the Encoding Standard publishes, labels, prescan and detection."""

from __future__ import annotations

import hashlib

import pytest

from herdlm.curate.encodings.decoder import decode_as
from herdlm.curate.encodings.detect import detect
from herdlm.curate.encodings.labels import LABELS, name_of
from herdlm.curate.encodings.prescan import prescan
from herdlm.curate.steps.extract import decode
from tests.curate.crawls import article

# SHA-256 of what all bytes, or all pairs with a line end after each, decode to. Made by a decoder that follows the
# standard step by step, from its own index files (whatwg/encoding, a985b62), and not from Python's tables.
TABLES = {
    "big5": "e1735fc87dab5f0f",
    "euc-kr": "42e8e5e2b5646caf",
    "shift_jis": "06eef6314f687274",
    "euc-jp": "729da9b1379c2dbd",
    "gb18030": "0dfd53ac1e467329",
    "gbk": "9cc45cb5d63e234d",
    "ibm866": "3c8cc5cb485f93d2",
    "iso-8859-2": "a5871b0f978b840b",
    "iso-8859-3": "e83895f2b7d7b82b",
    "iso-8859-4": "449076e20ebf45eb",
    "iso-8859-5": "9f31ddc0f7444afa",
    "iso-8859-6": "beba4e6cf97dce83",
    "iso-8859-7": "71069977a6798ab7",
    "iso-8859-8": "b43535e7aaeb7bcf",
    "iso-8859-10": "282514fbd01219c4",
    "iso-8859-13": "4426f6d2f1b025cd",
    "iso-8859-14": "f03afb7e01e66cac",
    "iso-8859-15": "9b58b26dbd8fbff2",
    "iso-8859-16": "2de1faef4dc524c9",
    "koi8-r": "fb0243455e64ef70",
    "koi8-u": "896c218aaf12ca1b",
    "macintosh": "54112bce885d7b1a",
    "windows-874": "6a2c7940c3d68216",
    "windows-1250": "03772ed2e875bd12",
    "windows-1251": "b16600cf4e6d1a2d",
    "windows-1252": "cc916e51644a12e8",
    "windows-1253": "e4570135cbc6e3d5",
    "windows-1254": "4a8e99647c3e28e6",
    "windows-1255": "870c5c5e687fabcd",
    "windows-1256": "6f6e8626197b1b6b",
    "windows-1257": "d19a4e888879e36a",
    "windows-1258": "e79b48db126bc71d",
    "x-mac-cyrillic": "784db55e1c90195e",
    "iso-8859-8-i": "b43535e7aaeb7bcf",
}
TWO_BYTES = {"big5", "euc-kr", "shift_jis", "euc-jp", "gb18030"}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_standard(name: str) -> None:
    payload = bytes(range(256))
    if name in TWO_BYTES:
        pairs = [bytes([first, second, 10]) for first in range(256) for second in range(256)]
        # Python has one character each for the two fullwidth slashes of Big5
        payload = b"".join(pair for pair in pairs if name != "big5" or pair[:2] not in (b"\xa2\x41", b"\xa2\x42"))
    digest = hashlib.sha256(decode_as(payload, name).encode("utf-8", "surrogatepass")).hexdigest()
    assert digest[:16] == TABLES[name]


@pytest.mark.parametrize(
    ("name", "payload", "text"),
    [
        ("big5", b"\x80<p>\xb0\xea\xaa", "\ufffd<p>國\ufffd"),
        ("big5", b"\x88\x62\x9d\xef\xf9\xd6", "Ê̄嘅碁"),
        ("gbk", b"\xce\xd2<b>\xce</b>\x80", "我<b>\ufffd</b>€"),
        ("gb18030", b"\x81\x35\xf4\x36\x84\x31\xa4\x37\x81\x30", "\u1e3e\ufffd\ufffd"),
        ("euc-jp", b"\xad\xa1\x8e\xb1\x8f\xb0\xa1\x8f\xa1\xff\xfc\xe3", "①ｱ丂\ufffd髜"),
        ("shift_jis", b"\x87\x40\x83<\xb1\xa0\x82", "①\ufffd<ｱ\ufffd\ufffd"),
        ("euc-kr", b"\xb0\xa1\x8c\x63\xb0<", "가똠\ufffd<"),
        ("iso-2022-jp", b"\x1b$B-!8l\n<h\x1b(J\\~\x1b(I1\x1b(Ba", "①語\n取¥‾ｱa"),
        ("utf-8", b"a\xe3\x81b\xc3\xa4\xff", "a\ufffdbä\ufffd"),
        ("utf-16le", b"a\x00\x00\xd8b\x00c", "a\ufffdb\ufffd"),
        ("windows-1252", b"\x80\x81\x9d", "€\x81\x9d"),
        ("x-user-defined", b"a\x80\xff", "a\uf780\uf7ff"),
        ("replacement", b"anything", "\ufffd"),
        ("hz", b"~{VPND~}", "中文"),
    ],
)
def test_what_is_damaged_is_replaced_and_read_on(name: str, payload: bytes, text: str) -> None:
    assert decode_as(payload, name) == text


def test_every_label_has_a_decoder() -> None:
    labels = [label for labels in LABELS.values() for label in labels.split()]
    assert len(labels) == len(set(labels)) >= 228
    for label in labels:
        name = name_of(f" {label.upper()}\n")
        assert name is not None and isinstance(decode_as(b"abc", name), str)
    for label, name in {
        "cseuckr": "euc-kr",
        "ks_c_5601-1989": "euc-kr",
        "x-sjis": "shift_jis",
        "l9": "iso-8859-15",
    }.items():
        assert name_of(label) == name
    assert name_of("utf-7") is name_of("unicode_escape") is name_of("") is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'<meta charset="euc-kr">', "euc-kr"),
        (b"<META\nCHARSET = 'KS_C_5601-1989'/>", "euc-kr"),
        (b"<meta charset=sjis>", "shift_jis"),
        (b'<meta content="text/html; charset=big5" http-equiv=Content-Type>', "big5"),
        (b"<meta http-equiv='content-type' content='text/html;charset = \"gbk\"; x'>", "gbk"),
        (b'<meta name="keywords" content="text/html; charset=big5">', None),  # no pragma
        (b'<!-- <meta charset="big5"> --><meta charset="koi8-r">', "koi8-r"),
        (b"<!--><meta charset=big5>", "big5"),  # this comment is closed
        (b"<!-- <meta charset=big5>", None),
        (b"<p title='<meta charset=big5>'><meta charset=gbk>", "gbk"),
        (b"<? <meta charset=big5 ?><meta charset=gbk>", "gbk"),
        (b"<metadata charset=big5>", None),
        (b"<meta charset=no-such><meta charset=gbk>", "gbk"),
        (b"<meta charset=utf-16le>", "utf-8"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b'<?xml version="1.0" encoding="windows-1251"?><html>', "windows-1251"),
        (b" " * 1024 + b"<meta charset=gbk>", None),
    ],
)
def test_prescan_reads_what_browsers_read(head: bytes, name: str | None) -> None:
    assert prescan(b"<html><head>" + head if not head.startswith(b"<?xml") else head) == name


KOREAN = "자전거 바퀴를 바로잡는 일은 힘보다 인내가 필요합니다. 먼저 타이어를 빼고 림을 깨끗하게 닦습니다."
CHINESE = "自行车的车轮需要耐心调整。先把轮胎拆下来，用布擦干净轮圈，因为沙子会让测量出现偏差。"
TRADITIONAL = "調整自行車的車輪，需要的是耐心而不是力氣。首先把輪胎拆下來，用布把輪圈擦乾淨。"
JAPANESE = "自転車の車輪を調整するには、力よりも根気が必要です。まずタイヤを外し、リムをきれいに拭きます。"
RUSSIAN = "Выправить колесо велосипеда можно только при большом терпении. Сначала снимают покрышку и протирают обод."
POLISH = "Centrowanie koła wymaga więcej cierpliwości niż siły. Najpierw zdejmuje się oponę i wyciera obręcz."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (KOREAN, "euc-kr"),
        (CHINESE, "gbk"),
        (TRADITIONAL, "big5"),
        (JAPANESE, "euc-jp"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "iso-2022-jp"),
        (CHINESE, "hz"),
        (RUSSIAN, "windows-1251"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "iso-8859-5"),
        (POLISH, "iso-8859-2"),
        (article("de", "a"), "windows-1252"),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_undeclared_encodings_are_detected(text: str, encoding: str, damaged: bool) -> None:
    payload = f"<p>{text}</p>".encode(encoding)
    if damaged and encoding not in ("hz", "iso-2022-jp"):
        payload += b"\xff"
    name = detect(payload)
    assert name is not None and decode_as(payload, name).rstrip("\ufffd\xff˙яЪџ") == f"<p>{text}</p>"


GERMAN = "<p>Zum Schluß zupft man an den Speichen und hört zu. Für 20 € gibt es eine neue Felge.</p>\n" * 10


@pytest.mark.parametrize("where", [0, 100, 500])
@pytest.mark.parametrize("bad", [b"\xfc", b"\xff", b"\xe2\x82", b"\x80", b"\xc3"])
def test_one_bad_byte_costs_itself_only(where: int, bad: bytes) -> None:
    encoded = GERMAN.encode()
    at = encoded.index(b"\n", where)
    assert decode(encoded[:at] + bad + encoded[at:], "utf-8") == GERMAN


def test_parts_of_a_page_in_another_encoding_are_read_in_it() -> None:
    comment = "<p>Gäste schrieben: schön, größer, Grüße aus Köln</p>"
    assert decode(GERMAN.encode() + comment.encode("latin-1"), "utf-8") == GERMAN + comment
    footer = f"<p>{CHINESE}</p>"
    assert decode((GERMAN * 2).encode() + footer.encode("gbk"), "") == GERMAN * 2 + footer


def test_pasted_quotes_of_another_encoding_are_read_in_it() -> None:
    payload = GERMAN.encode("windows-1252") + "“Zitat” – 5 €".encode()
    assert decode(payload, "iso-8859-1") == GERMAN + "“Zitat” – 5 €"
    russian = RUSSIAN.encode("windows-1251") + "“–”".encode()
    assert decode(russian, "windows-1251") == RUSSIAN + "“–”"


def test_much_damage_costs_the_page() -> None:
    encoded = GERMAN.encode()
    assert decode(encoded + b"\0" * 70, "utf-8") is None  # in a row: text is lost, or it is something else
    assert decode(b"".join(encoded[i : i + 20] + b"\x01" for i in range(0, len(encoded), 20)), "utf-8") is None
    assert decode("Grüße".encode("utf-16le"), "utf-8") is None


def test_a_page_that_declares_one_encoding_and_quotes_another_keeps_its_own() -> None:
    latin = GERMAN.encode("latin-1", "replace") + "é".encode()
    assert "Schluß" in (decode(latin, "iso-8859-1") or "")
