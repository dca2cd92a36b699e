"""Encodings, main text, and pages that are damaged or made to take our time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.extract import rates, read_pages, score, shingles
from herdlm.curate.steps.extract import decode, extract, extract_all, main_text, main_texts, tidy
from herdlm.curate.steps.extract.block_statistics import block_statistics
from herdlm.curate.steps.extract.context_features import context_features
from herdlm.curate.steps.extract.features import features
from herdlm.curate.steps.extract.model import model
from herdlm.curate.steps.extract.page_features import page_features
from herdlm.curate.steps.extract.parse import excessive, parse
from herdlm.curate.steps.extract.reader import read_blocks
from herdlm.curate.steps.extract.render import render
from herdlm.curate.steps.extract.rules import apply_rules
from tests.curate.crawls import article, page

GERMAN = page("Grüße aus Köln: die Bäume blühen, und das Öl ist teuer.").decode()
JAPANESE = page(article("ja", "a")).decode()
SHIPPED = Path(__file__).parent / "articles"


@pytest.mark.parametrize(
    ("text", "encoding", "header", "head"),
    [
        (GERMAN, "utf-8", "", ""),
        (GERMAN, "utf-8", "iso-8859-1", ""),  # the header is wrong, the bytes are plainly UTF-8
        (GERMAN, "iso-8859-1", "iso-8859-1", ""),
        (GERMAN, "windows-1252", "", '<meta charset="windows-1252">'),
        (GERMAN, "iso-8859-15", "utf-8", '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-15">'),
        (GERMAN, "utf-16", "", ""),
        (GERMAN, "utf-8-sig", "iso-8859-1", ""),
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


def test_what_pages_call_latin_1_is_what_browsers_take_it_for() -> None:
    assert decode("“quoted” – dash".encode("windows-1252"), "iso-8859-1") == "“quoted” – dash"


def test_a_cut_character_does_not_cost_the_page() -> None:
    payload = (GERMAN * 20).encode()
    cut = payload[:1000] + "ä".encode()[:1] + payload[1000:]
    assert decode(cut, "utf-8") == GERMAN * 20


@pytest.mark.parametrize("payload", [bytes(range(256)) * 20, b"\x00\x01\x02\x03" * 400, b"\xff\xfe\x00\xd8" * 100])
def test_what_is_no_text_is_not_decoded(payload: bytes) -> None:
    assert extract(payload, "utf-8", True) == ("", "wrong_encoding")


CHARSETS = ["", "utf-8", "latin-1", "utf-16", "shift_jis", "punycode", "\x00", "idna", "unicode_escape", "hex", "rot13"]


@given(st.binary(max_size=400), st.sampled_from(CHARSETS), st.booleans())
def test_any_bytes_give_text_or_a_reason(payload: bytes, charset: str, html: bool) -> None:
    text, reason = extract(payload, charset, html)
    assert (text == "") == (reason is not None)
    text.encode()


TAGS = (
    "div p ul li ol table tr td a b pre br article section aside nav form math svg template script h1 select option "
    "code dl dt dd img hr"
)
PIECES = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS.split()] + [f"</{tag}>" for tag in TAGS.split()]),
    st.sampled_from(
        [
            '<div class="comment" id=x hidden>',
            "<a href='>",
            '<div a"b>',
            '</div"">',
            '<p title="a>b">',
            "<!--",
            "-->",
            "<![CDATA[",
            "<",
            "&",
            "&#0;",
            "\x00",
        ]
    ),
    st.text(max_size=30),
    st.just("A sentence that is long enough to be taken for text, with a comma. "),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40))
def test_any_soup_of_tags_gives_text_or_a_reason(pieces: list[str]) -> None:
    text, reason = extract("".join(pieces).encode("utf-8", "replace"), "utf-8", True)
    assert (text == "") == (reason is not None)
    assert "\x00" not in text


def everything(html: str) -> list[str]:
    """The lines of all blocks of a page, as if every block were content."""
    blocks = read_blocks(parse(html).html)
    return [line for line in render(blocks, range(len(blocks.text))).split("\n") if line]


def test_main_text_without_boilerplate_and_markers() -> None:
    sentences = "This sentence is here so that the page has some text, as pages do. " * 3
    html = f"""<html><head><title>The heading - a site</title><script>var x = 1;</script><style>p {{}}</style></head><body>
    <nav><a href="/">Home</a> <a href="/up">Up</a></nav>
    <div class="navheader"><a href="p">Prev</a><a href="n">Next</a></div>
    <main><h1>The heading<a class="headerlink" href="#h">¶</a></h1>
    <div class="toc"><ul><li><a href="#one">One</a></li></ul></div>
    <p>{sentences}A first   paragraph of text that is
    broken in the source but not on the page.</p><p>What to do, in short, is this:</p>
    <ul><li>One thing to do, which is hard.</li><li>Another thing to do, which is easy.</li></ul>
    <pre>if x:\n    return 1</pre><p>{sentences}With a picture <img src="x.png" alt="E = mc2"> in it.</p></main>
    <footer>Copyright</footer></body></html>"""  # noqa: E501
    text, reason = extract(html.encode(), "", True)
    assert reason is None
    lines = [line for line in text.split("\n") if line]
    assert lines == [
        "The heading",
        f"{sentences}A first paragraph of text that is broken in the source but not on the page.",
        "What to do, in short, is this:",
        "One thing to do, which is hard.",
        "Another thing to do, which is easy.",
        "if x:",
        "    return 1",
        f"{sentences}With a picture E = mc2 in it.",
    ]


def test_code_keeps_its_space_without_line_numbers() -> None:
    html = (
        '<table class="highlighttable"><tr><td class="linenos"><pre>1\n2</pre></td><td><pre><span '
        'class="k">def</span> f(a):\n\n'
        "        return a &lt; 1</pre></td></tr></table>"
    )
    blocks = read_blocks(parse(html).html)
    assert blocks.text == ["def f(a):\n\n        return a < 1"]
    assert render(blocks, [0]) == blocks.text[0]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (
            r"<math><semantics><mi>x</mi><annotation "
            r'encoding="application/x-tex">\frac{a}{b}</annotation></semantics></math>',
            r"$\frac{a}{b}$",
        ),
        (r'<math alttext="a&lt;b" display="block"><mi>q</mi></math>', "$$a<b$$"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mi>a</mi><mi>b</mi></mfrac></math>", "x^2+a/b"),
        ('<span class="MathJax">xx</span><script type="math/tex">x &lt; y^2</script>', "$x &lt; y^2$"),
        (r'<script type="math/tex; mode=display">\sum_i i</script>', r"$$\sum_i i$$"),
        (
            '<span class="katex"><span class="katex-mathml"><math><semantics><annotation '
            'encoding="application/x-tex">c^2'
            '</annotation></semantics></math></span><span class="katex-html" aria-hidden="true">c2</span></span>',
            "$c^2$",
        ),
        (
            '<span class="mwe-math-element"><math><semantics><annotation '
            'encoding="application/x-tex">{\\displaystyle E}'
            '</annotation></semantics></math><img class="mwe-math-fallback-image-inline" alt="{\\displaystyle '
            'E}"></span>',
            "$E$",
        ),
        (r'<img class="math" src="f.png" alt="\alpha + 1">', r"\alpha + 1"),
    ],
)
def test_formulas_keep_their_source(html: str, text: str) -> None:
    assert everything(f"<p>before {html} after</p>") == [f"before {text} after"]


def test_images_are_text_where_they_stand_for_it() -> None:
    html = '<p>Press <img src="k.png" alt="Enter"> now.</p><p><img src="a.jpg" alt="A man on a street">Text.</p><img alt="😀">'  # noqa: E501
    assert everything(html) == ["Press Enter now.", "Text.", "😀"]


def test_lists_and_tables_are_readable() -> None:
    html = """<ul><li>One<ul><li>Inner</li></ul></li><li><p>Two</p></li></ul><p>Between</p>
    <table><tr><th>Name</th><th>Size</th></tr><tr><td>a</td><td><p>1</p></td></tr></table>
    <dl><dt>Term</dt><dd>What it means</dd></dl>"""
    blocks = read_blocks(parse(html).html)
    assert render(blocks, range(len(blocks.text))) == (
        "One\n  Inner\nTwo\n\nBetween\n\nName\tSize\na\t1\n\nTerm\nWhat it means"
    )


def test_line_breaks_stay_and_empty_lines_part_paragraphs() -> None:
    assert everything("<div>A verse<br>and one<br><br>Another  verse\n&nbsp;here</div>") == [
        "A verse",
        "and one",
        "Another verse here",
    ]
    assert len(read_blocks("<div>A<br>b<br><br>c</div>").text) == 2


def test_chinese_and_japanese_lines_are_joined_without_a_space() -> None:
    assert everything("<p>港は静かな\n  船が入って。 Debian は\nよい</p>") == ["港は静かな船が入って。 Debian はよい"]


def test_attributes_with_angle_brackets_are_no_tags() -> None:
    assert everything('<p title="a > b <i>"><a href="x?a=1&amp;b=>">link</a> text</p>') == ["link text"]
    assert everything('<p class="[&>p]:mt"><img src="x" alt="<=>">word <img src="x" alt=">"> word</p>') == [
        "<=> word > word"
    ]


PARAGRAPHS = [
    "The council met on Tuesday to discuss the bridge, which has been closed since the storm of last winter. ",
    "Members agreed that repairs could not wait, although the money for them has yet to be found by the treasurer. ",
    "“We shall open it before the summer,” the mayor said, and nobody in the hall seemed to believe a word of that. ",
]


def test_an_article_loses_comments_teasers_captions_and_notices() -> None:
    body = "".join(f"<p>{paragraph * 2}</p>" for paragraph in PARAGRAPHS)
    html = f"""<html><head><title>Bridge stays closed | The Herald</title></head><body>
    <header><ul><li><a href="/">News</a></li><li><a href="/s">Sport</a></li></ul></header>
    <article><h1>Bridge stays closed</h1><div class="byline">By <a href="/j">Jane Doe</a></div>
    <figure><img src="a.jpg"><figcaption>The bridge in May. Photo: J. Doe</figcaption></figure>
    {body}<p><a href="/x">Related: Storm takes roof off the school and of the church</a></p></article>
    <div id="comments"><h2>2 Comments</h2><div class="comment"><p>I cross this bridge every day, it is a scandal, says
    I, and always was. Where does the money go, I ask.</p></div></div>
    <div>This website uses cookies to improve your experience, and by using it you accept that.</div>
    <footer>Copyright 2026 The Herald. All rights reserved.</footer></body></html>"""
    text = main_text(html)
    for paragraph in PARAGRAPHS:
        assert (paragraph * 2).strip() in text
    for unwanted in ("Sport", "Photo:", "Related", "scandal", "cookies", "Copyright"):
        assert unwanted not in text


def test_a_forum_thread_keeps_its_answers() -> None:
    posts = "".join(
        f'<div class="post" id="p{n}"><div class="author"><a href="/u{n}">user{n}</a></div><div '
        f'class="postbody"><p>{text * 2}</p></div></div>'
        for n, text in enumerate(PARAGRAPHS)
    )
    html = f"""<html><head><title>How do I open the bridge? - Forum</title></head><body><div class="nav"><a href="/">Index</a></div>
    <h1>How do I open the bridge?</h1><div class="thread">{posts}</div><div class="footer"><a href="/imprint">Imprint</a></div></body></html>"""  # noqa: E501
    text = main_text(html)
    for paragraph in PARAGRAPHS:
        assert (paragraph * 2).strip() in text
    assert "Imprint" not in text


def test_a_pages_text_does_not_depend_on_the_pages_beside_it() -> None:
    pages = [html for _, html, _ in read_pages(SHIPPED).values()]
    pages += ["", "<p>A", "<body><div><ul></ul></div>", f"<title>The bridge</title><article><p>{PARAGRAPHS[0] * 3}"]
    pages += [f"<nav>{PARAGRAPHS[1]}</nav>", f"<h1>A table</h1><table>{'<tr><td>a<td>cell of it' * 5}</table>", GERMAN]
    alone = [main_text(html) for html in pages]
    assert main_texts(pages) == alone
    assert main_texts([*pages[::-1], *pages]) == [*alone[::-1], *alone]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.lists(PIECES, max_size=20).map("".join), st.booleans()), max_size=6))
def test_soups_of_tags_give_the_same_together_as_alone(pages: list[tuple[str, bool]]) -> None:
    payloads = [(soup.encode("utf-8", "replace"), "", html) for soup, html in pages]
    assert [page[:2] for page in extract_all(payloads)] == [extract(*page) for page in payloads]


def test_chances_are_the_same_to_the_bit_whatever_pages_are_judged_together() -> None:
    sources = [parse(html) for _, html, _ in read_pages(SHIPPED).values()]
    sources += [parse(f"<p>{text}</p>") for text in PARAGRAPHS]

    def judged(*numbers: int) -> list[bytes]:
        blocks = read_blocks(*(sources[n].html for n in numbers))
        stats = block_statistics(blocks, [sources[n].title for n in numbers], [sources[n].description for n in numbers])
        left = np.flatnonzero(~apply_rules(blocks, stats))
        kinds = model().kind_chances(page_features(blocks, stats, [sources[n].facts for n in numbers]))
        rows = features(blocks, stats, left, kinds)
        first = np.zeros(stats.count, np.float32)
        first[left] = model().first.predict(rows)
        context = context_features(stats, left, rows, first)
        second = np.zeros(stats.count, np.float32)
        second[left] = model().second.predict(context)
        page = stats.page[left]
        return [context[page == n].tobytes() + second[stats.page == n].tobytes() for n in range(len(numbers))]

    numbers = range(len(sources))
    alone = [judged(number)[0] for number in numbers]
    assert judged(*numbers) == alone
    assert judged(*numbers, *numbers[::-1]) == [*alone, *alone[::-1]]


def test_pages_without_text() -> None:
    assert extract(b"<html><body><script>x()</script></body></html>", "", True) == ("", "no_text")
    assert extract(b"", "", True) == ("", "no_text")


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 100_000 + "text",
        "<div>" * 100_000 + "text" + "</div>" * 100_000,
        "<ul><li>" * 100_000,
        "".join(f"<font a={n}>" for n in range(100_000)) + "</p>" * 10_000,
        "<p " + " ".join(f"a{n}=1" for n in range(100_000)) + ">x",
        "<math>" * 3_000 + "x",
        "<span>" * 100_000 + "x",
        "<table><tr><td>" * 50_000,
        "<b><p>" * 50_000,
        "<" * 1_000_000,
        "<!--" * 200_000,
        "<article>" * 900 + "<p>Some words, which are text.</p>",
        "<h2>Comments</h2><p>x</p>" * 3_000,
    ],
)
def test_markup_made_to_take_our_time_is_survived(html: str) -> None:
    text, reason = extract(html.encode(), "utf-8", True)  # in time with the square of its size this would not end
    assert (text == "") == (reason is not None)


def test_deep_nesting_and_large_pages_have_their_reasons() -> None:
    assert extract(b"<div>" * 100_000, "utf-8", True) == ("", "excessive_markup")
    assert extract(b"<p>words and more words.</p>" * 8_000_000, "utf-8", True) == ("", "too_large")
    assert not excessive("<p>unclosed<li>item<td>cell<br>" * 5_000)


def test_a_null_byte_is_left_out() -> None:
    payload = GERMAN.replace("Bäume", "Bäu\x00me").encode() + b" " * 2_000
    text, reason = extract(payload, "utf-8", True)
    assert reason is None
    assert "Bäume blühen" in text


def test_plain_text_is_tidied_and_not_parsed() -> None:
    assert extract(b"a <b>  \r\n\r\n\r\n\r\nc\x07 " + b"d" * 2000, "utf-8", False) == ("a <b>\n\nc " + "d" * 2000, None)


@given(st.text(max_size=200))
def test_tidying_twice_changes_nothing(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


def test_the_shipped_articles_are_extracted_as_well_as_when_they_were_chosen() -> None:
    found = [rates(shingles(body), shingles(main_text(html))) for _, html, body in read_pages(SHIPPED).values()]
    assert len(found) >= 5
    assert score(found)[0] > 0.95


@pytest.mark.skipif("HERDLM_DATA" not in os.environ, reason="HERDLM_DATA names no folder with extraction/")
def test_the_benchmark_is_extracted_as_well_as_promised() -> None:
    found = [
        rates(shingles(body), shingles(main_text(html)))
        for _, html, body in read_pages(Path(os.environ["HERDLM_DATA"]) / "extraction").values()
    ]
    assert all(right or wrong for right, wrong, _ in found)  # no page is empty
    assert score(found)[0] >= 0.97


@pytest.mark.skipif("HERDLM_DATA" not in os.environ, reason="HERDLM_DATA names no folder with web/")
def test_documentation_keeps_its_body() -> None:
    from fastwarc.warc import ArchiveIterator

    expected = {
        "/python3.11/html/library/fractions.html": [
            "A Fraction instance can be constructed",
            "Fraction(16, -10)",
            "limit_denominator",
        ],
        "/python-django-doc/html/ref/urls.html": ["Returns an element for inclusion in", "path("],
        "/nodejs/api/modules.html": ["Modules: CommonJS modules", "const circle = require('./circle.js');"],
    }
    seen = 0
    with (Path(os.environ["HERDLM_DATA"]) / "web/docs.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, parse_http=True):
            url = record.headers.get("WARC-Target-URI") or ""
            for path, phrases in expected.items():
                if url.endswith(path):
                    text, reason = extract(record.reader.read(), "utf-8", True)
                    assert reason is None
                    for phrase in phrases:
                        assert phrase in text
                    seen += 1
    assert seen == len(expected)


def test_the_measure_is_the_benchmarks() -> None:
    """By hand: of the three shingles of five and more words two are common; short texts are one shingle."""
    assert rates(shingles("a b c d e"), shingles("a b c d x")) == (1, 1, 1)
    assert rates(shingles("a b c d e f"), shingles("a b c d e")) == (2, 0, 1)
    assert rates(shingles("a b"), shingles("A, b.")) == (0, 1, 1)
    assert rates(shingles("a b"), shingles("")) == (0, 0, 1)
    f1, precision, recall = score([(1, 1, 1), (2, 0, 1), (0, 0, 3)])
    assert (precision, recall) == (pytest.approx(0.75), pytest.approx((1 / 2 + 2 / 3 + 0) / 3))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
