"""Parses pages with lexbor: any markup becomes well-formed HTML without scripts and other non-text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from herdlm.curate.steps.extract.mathml import linear
from herdlm.curate.steps.extract.structured import FACTS, facts_of, read_data, structured_html

NOT_TEXT = [
    "script",
    "style",
    "svg",
    "template",
    "iframe",
    "head",
    "select",
    "textarea",
    "object",
    "audio",
    "video",
    "canvas",
    "map",
    "noframes",
    "noembed",
    "datalist",
    "xmp",
    "plaintext",
    "progress",
    "meter",
]
NOT_CONTENT = [*NOT_TEXT, "nav", "footer"]
LINE_NUMBERS = (
    ".linenos, .linenodiv, .lineno, .line-numbers-rows, .blob-num, .gutter, .rouge-gutter, .hljs-ln-numbers, .lnt, "
    ".ln, .line-number, .line-numbers, .linenumber, .linenumbers, .react-syntax-highlighter-line-number, "
    ".code-line-number, "
    ".crayon-nums, .cl-ln"
)
_NUMBERS = re.compile(r"[\s\d.:|]*$")
_SHADOW = re.compile(r"<template\b[^>]*\bshadowroot(?:mode)?\b[^>]*>|<template\b[^>]*>|</template\s*>", re.IGNORECASE)
FORMULAS = 'math, script[type^="math/tex"]'
FORMULA_COPIES = ".katex-html, .MathJax_Preview, .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_DESCRIPTION = 'meta[property="og:description"], meta[name="description"]'
# The parser's time grows with the square of nesting and attributes. Real pages are far below these bounds.
MAX_DEPTH = 1_000
MAX_ATTRIBUTES = 2_000
CHECKED_TAGS = 8_000
# Not counted: elements that the parser closes itself or never opens, and the parts of drawings.
_NESTING = re.compile(
    r"<(/?)(?!(?:a|p|li|d[dt]|t[dhr]|tbody|thead|tfoot|option"
    r"|br|hr|img|input|link|meta|area|base|col|embed|param|source|track|wbr"
    r"|path|polygon|polyline|circle|rect|line|ellipse|use|stop|image|animate)\b)[a-z]",
    re.IGNORECASE,
)
LONG_TAG = 20_000
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


@dataclass(frozen=True, slots=True)
class Source:
    """A page's body as well-formed HTML without non-text, its title and description or "", and what its markup says."""

    html: str
    title: str
    description: str
    facts: tuple[bool, ...] = (False,) * len(FACTS)


def excessive(html: str) -> bool:
    """Return whether parsing can take long: tags nested beyond MAX_DEPTH, or with more than MAX_ATTRIBUTES attributes.

    Elements that close each other (``<p>``, ``<li>``, ``<a>``) and the parts of drawings do not count as nesting.
    """
    if html.count("<") > CHECKED_TAGS:
        depth = deepest = 0
        for slash in _NESTING.findall(html):
            if slash:
                depth -= depth > 0
            else:
                depth += 1
                deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            return True
    return any(len(_QUOTED.sub("", tag).split()) > MAX_ATTRIBUTES for tag in _long_tags(html))


def _long_tags(html: str) -> Iterator[str]:
    """Yield tags of LONG_TAG characters or more: each fills a window of half that length without a ``>``."""
    window = LONG_TAG // 2
    end = 0
    for at in range(0, len(html) - window, window):
        if at < end or html.find(">", at, at + window) >= 0:
            continue
        start = html.rfind("<", 0, at + 1)
        if start < 0 or html.find(">", start, at) >= 0 or not html[start + 1 : start + 2].isalpha():
            continue
        end = html.find(">", at)
        if end < 0:
            end = len(html)
        yield html[start:end]


def parse(html: str, keep_navigation: bool = False) -> Source:
    """Parse a page for which :func:`excessive` is false.

    ``<nav>`` and ``<footer>``, which are a third of an average page's markup, are removed by default. Formulas become
    LaTeX between dollar signs if the page has it (annotation, ``alttext``, MathJax script), else the text of their
    MathML. Copies made for display and line numbers beside code are removed. Prose that the page has only as data is
    appended (``structured``). Templates with a shadow root are shown, as browsers do.
    """
    if "shadowroot" in html:
        html = _with_shadow_roots(html)
    tree = LexborHTMLParser(html)
    title = tree.css_first("title")
    meta = tree.css_first(_DESCRIPTION)
    description = meta.attributes.get("content") if meta is not None else ""
    if tree.css_first(FORMULAS) is not None:
        _write_formulas(tree)
    _drop_line_numbers(tree, len(html))
    data = read_data(tree)
    name = title.text() if title is not None else ""
    tree.strip_tags(NOT_TEXT if keep_navigation else NOT_CONTENT)
    body = tree.body
    clean = (body.html if body is not None else tree.html) or ""
    if "<!--" in clean:
        clean = _COMMENT.sub("", clean)
    if "\x00" in clean:
        clean = clean.replace("\x00", "")
    if added := structured_html(data, clean):
        end = clean.rfind("</body>")
        clean = clean + added if end < 0 else clean[:end] + added + clean[end:]
    return Source(clean, name, description or "", facts_of(html, data))


def _drop_line_numbers(tree: LexborHTMLParser, size: int) -> None:
    """Remove the numbers beside lines of code. Reads no more text than twice the page, however its elements nest."""
    read = 0
    for node in reversed(tree.css(LINE_NUMBERS)):  # inner ones first: removing an element frees what is in it
        text = node.text()
        read += len(text)
        if read > 2 * size:
            return
        if _NUMBERS.match(text):
            node.decompose()


def _with_shadow_roots(html: str) -> str:
    """Turn the templates that browsers show as an element's content into plain elements."""
    shown: list[bool] = []

    def plain(tag: re.Match[str]) -> str:
        if tag[0].startswith("</"):
            return "</div>" if shown and shown.pop() else tag[0]
        shown.append("shadowroot" in tag[0].lower())
        return "<div>" if shown[-1] else tag[0]

    return _SHADOW.sub(plain, html)


def _write_formulas(tree: LexborHTMLParser) -> None:
    scripts = tree.css('script[type^="math/tex"]')
    if scripts:
        for node in tree.css(".MathJax, .MathJax_Display, .MathJax_SVG, .MathJax_CHTML"):
            node.decompose()
    for node in tree.css(FORMULA_COPIES):
        node.decompose()
    for node in scripts:
        _replace(node, node.text(), "mode=display" in (node.attributes.get("type") or ""))
    if tree.css_first("math math") is not None:  # only pages made to slow us down have that
        return
    for node in tree.css("math"):
        display = node.attributes.get("display") == "block"
        annotation = node.css_first('annotation[encoding*="tex" i], annotation[encoding*="TeX"]')
        if annotation is not None:
            _replace(node, annotation.text(), display)
        elif node.attributes.get("alttext"):
            _replace(node, node.attributes["alttext"] or "", display)
        else:
            node.replace_with(linear(node))


def _replace(node: LexborNode, tex: str, display: bool) -> None:
    mark = "$$" if display else "$"
    tex = " ".join(tex.split())
    if tex.startswith("{\\displaystyle ") and tex.endswith("}"):
        tex = tex[15:-1].strip()
    node.replace_with(f"{mark}{tex}{mark}" if tex else "")
