"""Pages are read as a browser lays them out: inline elements, what is not seen, formulas, listings, tables."""

from __future__ import annotations

import pytest

from herdlm.curate.steps.extract.markdown import render_markdown
from herdlm.curate.steps.extract.parse import parse
from herdlm.curate.steps.extract.reader import read_blocks
from herdlm.curate.steps.extract.render import render
from herdlm.curate.steps.extract.structured import PageData, structured_html


def everything(html: str) -> str:
    """The text of all blocks, as if every block were content."""
    blocks = read_blocks(parse(html).html)
    return render(blocks, range(len(blocks.text)))


CODE = """def tension(spokes):
    total = 0
    for spoke in spokes:
        if spoke.loose:
            continue

        total += spoke.note
    return total"""
LINES = CODE.split("\n")


def rows(cell: str, line: str) -> str:
    return "".join(
        f'<tr><td class="{cell}" data-line-number="{n}"></td><td class="{line}">{code or chr(10)}</td></tr>'
        for n, code in enumerate(LINES, 1)
    )


LAYOUTS = {
    "an element per line": "".join(
        f'<div class="ec-line"><div class="code"><span>{c}</span></div></div>' for c in LINES
    ),
    "a list item per line": '<ol class="linenums">'
    + "".join(f'<li class="L{n}">{c}</li>' for n, c in enumerate(LINES)),
    "spans and new lines": "\n".join(f'<span class="line">{c}</span>' for c in LINES),
    "spans and breaks": "<br>".join(f'<span class="line">{c}</span>' for c in LINES),
    "lines apart in the source": "\n".join(f"<div>{c}</div>" for c in LINES),
    "a button to copy": f'<button>Copy</button><div class="x"><code>{CODE}</code></div>',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_listings_are_exact_in_every_layout(layout: str) -> None:
    assert everything(f"<p>Before</p><pre>{LAYOUTS[layout]}</pre><p>After</p>") == f"Before\n\n{CODE}\n\nAfter"


NUMBERS = "".join(f'<span class="line">{n}</span><br>' for n in range(1, 9))
DIVS = "".join(f'<div class="line number{n}">{n}</div>' for n in range(1, 9))


def spaced(code: str) -> str:
    stripped = code.lstrip()
    indent = "&nbsp;" * (len(code) - len(stripped))
    return (
        f'<code class="spaces">{indent}</code><code class="plain">{stripped}</code>' if code else "<code>&nbsp;</code>"
    )


TABLES = {
    "a row per line": f'<table class="highlight js-file-line-container">{rows("blob-num", "blob-code")}</table>',
    "a row per line, numbered by a script": f'<table class="hljs-ln">{rows("hljs-ln-numbers", "hljs-ln-code")}</table>',
    "a gutter": f'<figure class="highlight"><table><tr><td class="gutter"><pre>{NUMBERS}</pre></td>'
    f'<td class="code"><pre>{"<br>".join(LINES)}</pre></td></tr></table></figure>',
    "a table of lines": f'<div class="syntaxhighlighter"><table><tr><td class="gutter">{DIVS}</td><td class="code">'
    + "<div>"
    + "".join(f'<div class="line">{spaced(c)}</div>' for c in LINES)
    + "</div></td></tr></table></div>",
    "space kept by style": f'<div class="sample"><code style="white-space: pre; display:block">{CODE}</code></div>',
    "hard spaces and breaks": "<p><code>"
    + "<br>\n".join(c.replace("  ", "&nbsp;&nbsp;") for c in LINES)
    + "</code></p>",
}


@pytest.mark.parametrize("layout", TABLES)
def test_listings_in_tables_and_by_style_are_exact(layout: str) -> None:
    assert everything(f"<p>Before</p>{TABLES[layout]}<p>After</p>") == f"Before\n\n{CODE}\n\nAfter"


def test_what_is_styled_to_keep_spaces_but_is_prose_stays_prose() -> None:
    assert everything('<p><span style="white-space:pre-wrap">One  two</span></p>') == "One two"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('He went <span style="display:none">ERROR: Usage</span>home', "He went home"),
        ('Turn the key <i class="material-icons" aria-hidden="true">arrow_forward</i> now', "Turn the key now"),
        ('<a href="#">the guide<span class="sr-only"> (opens in a new window)</span></a> for it', "the guide for it"),
        ('<div class="visually-hidden">Skip this</div>Text', "Text"),
        ("<span hidden>gone <b>as <i>a</i></b> whole <span>all</span></span>Text", "Text"),
        ('<span class="a-offscreen">$12.99</span><span aria-hidden="true">$12<sup>99</sup></span> each', "$12.99 each"),
        ('<span aria-hidden="true">h e l p</span><span class="sr-only">help</span> is here', "help is here"),
        ('<span class="sr-only md:not-sr-only">Search</span> it', "Search it"),
        ('<div hidden id="S:0"><p>Streamed</p></div>', "Streamed"),
        ("<h3><button>What is it?</button></h3>", "What is it?"),
        ("<p>Press the <button>OK</button> now</p>", "Press the OK now"),
        ("<button>Buy</button><button>Sell</button>", "Buy\n\nSell"),
        ('<x-a><template shadowrootmode="open"><p>Shadow</p></template></x-a><template><p>No</p></template>', "Shadow"),
        ("<noscript><p>Without scripts</p></noscript>", "Without scripts"),
    ],
)
def test_what_is_seen(html: str, text: str) -> None:
    assert everything(html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("{ <emu-val>true</emu-val>, loose: <emu-val>false</emu-val> }", "{ true, loose: false }"),
        ("by the shop <g-emoji>🎉</g-emoji> on <relative-time>May 3</relative-time>.", "by the shop 🎉 on May 3."),
        ("<x-list><x-item><p>One</p></x-item><x-item><div>Two</div></x-item></x-list>", "One\n\nTwo"),
    ],
)
def test_unknown_elements_are_inline_unless_they_hold_blocks(html: str, text: str) -> None:
    assert everything(f"<div>{html}</div>") == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("10<sup>6</sup> times, 10<sup>-3</sup> m, πr<sup>2</sup>", "10^6 times, 10^-3 m, πr^2"),
        ("5 m<sup>2</sup>, 2<sup>n+1</sup>, (a+b)<sup>2</sup>, e<sup>-x</sup>", "5 m^2, 2^(n+1), (a+b)^2, e^-x"),
        ("3<sup>rd</sup>, n<sup>th</sup>, 1<sup>er</sup>, the word<sup>2</sup>", "3rd, nth, 1er, the word2"),
        ('In 1990<sup><a href="#n1">1</a></sup> and.<sup class="r">[2]</sup>', "In 19901 and.[2]"),
        ("H<sub>2</sub>O", "H2O"),
    ],
)
def test_exponents_are_marked(html: str, text: str) -> None:
    assert everything(f"<p>{html}</p>") == text


def m(tag: str, *parts: str) -> str:
    return f"<{tag}>{''.join(parts)}</{tag}>"


X, TWO, N, I = "<mi>x</mi>", "<mn>2</mn>", "<mi>n</mi>", "<mi>i</mi>"  # noqa: E741


@pytest.mark.parametrize(
    ("mathml", "text"),
    [
        (
            m(
                "mfrac",
                m("mrow", "<mo>-</mo><mi>b</mi><mo>±</mo>", m("msqrt", m("msup", X, TWO), "<mo>-</mo>", TWO)),
                m("mrow", TWO, X),
            ),
            "(-b±√(x^2-2))/(2x)",
        ),
        (
            m("munderover", "<mo>∑</mo>", m("mrow", I, "<mo>=</mo><mn>1</mn>"), N) + m("msubsup", X, I, TWO),
            "∑_(i=1)^n x_i^2",
        ),
        (m("munder", "<mo>lim</mo>", m("mrow", N, "<mo>→</mo><mi>∞</mi>")) + X, "lim_(n→∞)x"),
        (m("msup", m("mrow", X, "<mo>+</mo>", N), TWO), "(x+n)^2"),
        (m("mroot", X, "<mn>3</mn>"), "√[3](x)"),
        (m("mtable", m("mtr", m("mtd", X), m("mtd", N)), m("mtr", m("mtd", TWO), m("mtd", I))), "[x, n; 2, i]"),
        (m("mover", X, "<mo>¯</mo>"), "x̄"),
        ('<mfenced open="[" close="]">' + X + N + "</mfenced>", "[x,n]"),
    ],
)
def test_mathml_keeps_what_its_layout_says(mathml: str, text: str) -> None:
    assert everything(f"<p>a <math>{mathml}</math> b</p>") == f"a {text} b"


def test_prose_that_is_data_only_is_a_source() -> None:
    prose = "The rim is turned by hand until it runs true, and that takes the patience of a saint."
    linked = f'<script type="application/ld+json">{{"@type": "Product", "description": "{prose}"}}</script>'
    state = f'<script id="__NEXT_DATA__" type="application/json">{{"a": [{{"body": "<p>{prose}</p>"}}]}}</script>'
    for script in (linked, state):
        assert everything(f"<body><div>Rim</div>{script}</body>") == f"Rim\n\n{prose}"
        assert everything(f"<body><p>{prose}</p>{script}</body>") == prose  # it is there already
    assert structured_html(PageData(["[" * 100_000], ["{"]), "") == ""


def test_markdown_shows_structure() -> None:
    html = """<h2>Title</h2><p>Text</p><ul><li>One<ul><li>Inner</li></ul></li><li>Two</li></ul>
    <ol><li>First</li><li>Second</li></ol>
    <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>x|y</td></tr></table><pre>if x:\n    y</pre>
    <blockquote><p>Said</p></blockquote>"""
    blocks = read_blocks(parse(html).html)
    assert render_markdown(blocks, range(len(blocks.text))) == (
        "## Title\n\nText\n\n- One\n  - Inner\n- Two\n\n1. First\n2. Second\n\n"
        "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n\n```\nif x:\n    y\n```\n\n> Said"
    )
