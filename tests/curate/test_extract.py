"""Encodings and main text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.extract import decode, extract, keep_content_lists, tidy
from tests.curate.crawls import article, page

GERMAN = page("Grüße aus Köln: die Bäume blühen, und das Öl ist teuer.").decode()
JAPANESE = page(article("ja", "a")).decode()


@pytest.mark.parametrize(
    ("text", "encoding", "header", "head"),
    [
        (GERMAN, "utf-8", "", ""),
        (GERMAN, "utf-8", "iso-8859-1", ""),  # the header is wrong, the bytes are plainly UTF-8
        (GERMAN, "iso-8859-1", "iso-8859-1", ""),
        (GERMAN, "windows-1252", "", '<meta charset="windows-1252">'),
        (GERMAN, "iso-8859-15", "utf-8", '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-15">'),
        (GERMAN, "utf-16", "", ""),
        (JAPANESE, "shift_jis", "shift_jis", ""),
        (JAPANESE, "euc-jp", "", '<meta charset="euc-jp">'),
        (JAPANESE, "iso-2022-jp", "iso-2022-jp", ""),
        (JAPANESE, "shift_jis", "", ""),  # undeclared: detected
        (JAPANESE, "shift_jis", "no-such-charset", ""),
    ],
)
def test_decode(text: str, encoding: str, header: str, head: str) -> None:
    text = text.replace("</head>", f"{head}</head>")
    assert decode(text.encode(encoding), header) == text


@pytest.mark.parametrize("payload", [bytes(range(256)) * 20, b"\x00\x01\x02\x03" * 400, b"\xff\xfe\x00\xd8" * 100])
def test_what_is_no_text_is_not_decoded(payload: bytes) -> None:
    assert extract(payload, "utf-8", True) == ("", "wrong_encoding")


@given(st.binary(max_size=400), st.sampled_from(["", "utf-8", "latin-1", "utf-16", "shift_jis", "punycode", "\x00"]))
def test_any_bytes_give_text_or_a_reason(payload: bytes, charset: str) -> None:
    text, reason = extract(payload, charset, True)
    assert (text == "") == (reason is not None)
    text.encode()


def test_main_text_without_boilerplate_and_markers() -> None:
    html = """<html><head><title>T</title><script>var x = 1;</script><style>p {}</style></head><body>
    <nav><a href="/">Home</a> <a href="/up">Up</a></nav>
    <div class="navheader"><a href="p">Prev</a><a href="n">Next</a></div>
    <main><h1>The heading<a class="headerlink" href="#h">¶</a></h1>
    <div class="toc"><ul><li><a href="#one">One</a></li></ul></div>
    <p>A first   paragraph of text that is
    broken in the source but not on the page.</p><ul><li>One thing to do.</li><li>Another thing to do.</li></ul>
    <pre>if x:\n    return 1</pre><p>With a picture <img src="x.png" alt="E = mc2"> in it.</p>
    <table><tr><td>left</td><td>right</td></tr></table></main>
    <footer>Copyright</footer></body></html>"""
    text, reason = extract(html.encode(), "", True)
    assert reason is None
    lines = [line for line in text.split("\n") if line]
    assert lines == [
        "The heading",
        "A first paragraph of text that is broken in the source but not on the page.",
        "  One thing to do.",  # lists stay indented, without their markers
        "  Another thing to do.",
        "if x:",
        "    return 1",
        "With a picture E = mc2 in it.",
        "left\tright",
    ]  # fmt: skip


def test_lists_of_links_are_navigation_and_other_lists_are_not() -> None:
    html = (
        "<main><p>Before.</p><UL class='x'><li>Some text <a href='#'>link</a><ul><li>Nested.</li></ul></li></UL>"
        "<ul><li><a href='1'>One</a></li><li><a href='2'>Two</a></li></ul><ul><li>never closed</main>"
    )
    kept = keep_content_lists(html)
    assert kept.startswith(
        "<main><p>Before.</p><ol class='x'><li>Some text <a href='#'>link</a><ol><li>Nested.</li></ol>"
    )
    assert kept.endswith(
        "</li></ol><ul><li><a href='1'>One</a></li><li><a href='2'>Two</a></li></ul><ul><li>never closed</main>"
    )


@given(st.lists(st.sampled_from(["<ul>", "</ul>", "<a>", "</a>", "<li>", "word", "<", ">"]), max_size=30))
def test_lists_change_in_nothing_but_their_kind(pieces: list[str]) -> None:
    html = "".join(pieces)
    kept = keep_content_lists(html)
    assert kept.replace("<ol>", "<ul>").replace("</ol>", "</ul>") == html
    assert kept.count("<ol>") == kept.count("</ol>")


def test_pages_without_text() -> None:
    assert extract(b"<html><body><script>x()</script></body></html>", "", True) == ("", "no_text")
    assert extract(b"", "", True) == ("", "no_text")


def test_plain_text_is_tidied_and_not_parsed() -> None:
    assert extract(b"a <b>  \r\n\r\n\r\n\r\nc\x07 " + b"d" * 2000, "utf-8", False) == ("a <b>\n\nc " + "d" * 2000, None)


@given(st.text(max_size=200))
def test_tidying_twice_changes_nothing(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)
