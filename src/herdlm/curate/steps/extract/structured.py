"""What a page says of itself as data: its kind by its metadata, and text in JSON-LD or in the state of a script.

A page that a script builds has its text there only. Such text is a source, not the choice: it is appended to the page
as blocks of their own, and the model decides.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selectolax.lexbor import LexborHTMLParser

TEXT_KEYS = ("articleBody", "text", "reviewBody", "description")
LINKED_DATA = 'script[type="application/ld+json"]'
STATE = 'script#__NEXT_DATA__, script#__NUXT_DATA__, script[type="application/json"]'
MAX_SCRIPT = 4 << 20  # characters
MAX_TEXT = 60_000  # characters that are appended
MAX_TEXTS = 300
MIN_WORDS = 12
FEW_CHARACTERS = 1_200  # of text in the page itself, below which a script's state is read
OPENING = 40  # characters that tell whether a text is on the page already
# Facts about the page, in the order of the model's features: words of its head, or types in its linked data.
FACTS: dict[str, tuple[str, ...]] = {
    "article": ('type="article', "@article", "@newsarticle", "@blogposting", "@report", "@scholarlyarticle"),
    "published": ("article:published_time", "datepublished"),
    "product": ('="product', "og:price", "product:price", "@product", "@offer", "@aggregateoffer"),
    "products": ("@itemlist", "@collectionpage", "@offercatalog", "@searchresultspage", "@productgroup"),
    "shop": ("shopify", "woocommerce", "magento", "bigcommerce", "prestashop", "add-to-cart", "add_to_cart"),
    "forum": (
        *("@qapage", "@discussionforumposting", "discourse", "vbulletin", "phpbb", "xenforo", "xf-init", "invision"),
        *("flarum", "nodebb", "smf_", "vanilla-", "stackexchange", "forum"),
    ),
    "documentation": (
        *(
            "docusaurus",
            "sphinx",
            "mkdocs",
            "readthedocs",
            "gitbook",
            "vitepress",
            "@techarticle",
            "swagger",
            "javadoc",
        ),
        *("rustdoc", "doxygen", "antora", "mintlify", "nextra", "starlight", "docsearch", "/docs/", "apiref"),
    ),
    "business": ("@localbusiness", "@service", "@professionalservice", "@softwareapplication", "@faqpage"),
    "site": ('type" content="website',),
    "wordpress": ("wp-content",),
}
HEAD = 24_000  # characters in which facts are looked for
_TYPE = re.compile(r'"@type"\s*:\s*\[?\s*"(\w+)"')
_TAG = re.compile(r"<[^>]*>")
_SPACE = re.compile(r"\s+")
_RUNNING = re.compile(r"[a-z,] [a-z]")
_ENDS = re.compile(r"[.!?。](?:\s|$|<|\")")
_NOT_PROSE = re.compile(r"function\s*\(|=>|\{\s*\"|;\s*\}|^https?://|\bvar\(--")


@dataclass(frozen=True, slots=True)
class PageData:
    """The texts of a page's scripts that hold linked data, and of those that hold a state."""

    linked: list[str]
    states: list[str]


def read_data(tree: LexborHTMLParser) -> PageData:
    """Read the data of a page whose scripts are still there."""
    return PageData([node.text() for node in tree.css(LINKED_DATA)], [node.text() for node in tree.css(STATE)])


def facts_of(page: str, data: PageData) -> tuple[bool, ...]:
    """Return whether each of FACTS holds of a page's markup."""
    types = " ".join([f"@{name}" for script in data.linked for name in _TYPE.findall(script)])
    head = f"{page[:HEAD]} {types}".lower()
    return tuple(any(map(head.__contains__, words)) for words in FACTS.values())


def structured_html(data: PageData, visible: str) -> str:
    """Return the prose in a page's data that ``visible``, its serialized body, lacks, as a section of HTML, or ""."""
    texts: list[str] = []
    for script in data.linked:
        texts += _strings(script, TEXT_KEYS)
    if data.states and len(_SPACE.sub(" ", _TAG.sub(" ", visible))) < FEW_CHARACTERS:
        for script in data.states:
            texts += _strings(script, None)
    if not texts:
        return ""
    seen = _SPACE.sub(" ", visible)
    parts: list[str] = []
    size = 0
    for text in list(dict.fromkeys(texts))[:MAX_TEXTS]:
        prose = _as_html(text)
        opening = html.escape(_SPACE.sub(" ", html.unescape(_TAG.sub(" ", prose))).strip()[:OPENING], quote=False)
        if opening in seen or any(opening in part for part in parts):
            continue
        size += len(prose)
        if size > MAX_TEXT:
            break
        parts.append(prose)
    return f'<section class="structured-data">{"".join(parts)}</section>' if parts else ""


def _strings(script: str, keys: tuple[str, ...] | None) -> Iterator[str]:
    """Yield the prose among a script's values, those of ``keys`` only unless that is None, in order."""
    if len(script) > MAX_SCRIPT:
        return
    try:
        waiting: list[tuple[str, Any]] = [("", json.loads(script))]
    except (ValueError, RecursionError):
        return
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += reversed(value.items())
        elif isinstance(value, list):
            waiting += [(key, item) for item in reversed(value)]
        elif isinstance(value, str) and (keys is None or key in keys) and _is_prose(value):
            yield value


def _as_html(text: str) -> str:
    if "&lt;" in text and "<" not in text:
        text = html.unescape(text)
    if "</" in text or "<br" in text:
        tree = LexborHTMLParser(text)
        tree.strip_tags(["script", "style", "svg", "iframe", "template", "noscript"])
        body = tree.body
        inner = (body.html or "") if body is not None else ""
        return f"<div>{inner.removeprefix('<body>').removesuffix('</body>')}</div>"
    paragraphs = [line for line in html.unescape(text).splitlines() if line.strip()]
    return "".join(f"<p>{html.escape(line, quote=False)}</p>" for line in paragraphs)


def _is_prose(text: str) -> bool:
    if text.count(" ") < MIN_WORDS - 1 or _NOT_PROSE.search(text[:2_000]):
        return False
    return bool(_RUNNING.search(text) and _ENDS.search(text))
