"""What kind of page a page is, and recipes that keep or drop kinds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.extract import read_pages as read_articles
from benchmarks.extract_types import bag, word_f1
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.extract import Extract, read_pages
from herdlm.curate.steps.extract.select import best_threshold
from herdlm.curate.steps.extract_config import ExtractConfig
from tests.curate.test_extract import PARAGRAPHS, SHIPPED

HEAD = '<title>Bridge stays closed | The Herald</title><meta property="og:type" content="article">'
BODY = "".join(f"<p>{text * 2}</p>" for text in PARAGRAPHS * 2)
ARTICLE = f"<html><head>{HEAD}</head><body><article><h1>Bridge stays closed</h1>{BODY}</article></body></html>"
POSTS = "".join(
    f'<div class="post"><div class="author"><a href="/u{n}">user{n}</a></div><div class="postbody"><p>{text}</p></div>'
    "</div>"
    for n, text in enumerate(PARAGRAPHS * 3)
)
FORUM = (
    '<html><head><title>How do I open the bridge? - Forum</title><meta name="generator" content="phpBB"></head>'
    f'<body class="phpbb forum"><h1>How do I open the bridge?</h1><div class="thread topic">{POSTS}</div></body></html>'
)


NEWS = [html for _, html, _ in read_articles(SHIPPED).values()]


def test_the_kind_of_a_page_is_told() -> None:
    kinds = [page.page_type for page in read_pages([*NEWS, FORUM, ""])]
    assert kinds.count("article") >= 0.8 * len(NEWS)
    assert kinds[-2:] == ["forum", ""]


def news() -> str:
    return next(html for html, page in zip(NEWS, read_pages(NEWS), strict=True) if page.page_type == "article")


def batch(*pages: tuple[str, str]) -> dict[str, list[object]]:
    return {
        "payload": [payload.encode() for payload, _ in pages],
        "charset": ["utf-8"] * len(pages),
        "kind": [kind for _, kind in pages],
    }


def test_recipes_keep_or_drop_kinds_of_web_pages_only() -> None:
    pages = batch((news(), "html"), (FORUM, "html"), ("Plain text of some words.", "text"), ("x = 1", "code"))
    kept = Extract(ExtractConfig(keep_types=("article",))).run(pages)
    assert kept.reasons == [None, "unwanted_page_type", None, None]
    assert kept.columns["page_type"] == ["article", "forum", "", ""]
    assert Extract(ExtractConfig(drop_types=("article",))).run(pages).reasons[:2] == ["unwanted_page_type", None]
    assert Extract(ExtractConfig()).run(pages).reasons == [None] * 4


def test_keys_are_checked() -> None:
    with pytest.raises(ValueError, match="keep_types and in drop_types"):
        CurateConfig(extract={"keep_types": ["forum"], "drop_types": ["forum"]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep_types"):
        CurateConfig(extract={"keep_types": ["fora"]})  # type: ignore[arg-type]


def test_markdown_is_written_only_when_asked_for() -> None:
    plain = Extract(ExtractConfig()).run(batch((ARTICLE, "html"))).columns["text"][0]
    marked = Extract(ExtractConfig(markdown=True)).run(batch((ARTICLE, "html"))).columns["text"][0]
    assert "# " not in plain
    assert marked.startswith("# Bridge stays closed\n\n")


def test_the_threshold_has_the_highest_expected_f1() -> None:
    """By trying all: of blocks of one word, F1 is twice the right words over those chosen and expected."""
    draw = np.random.default_rng(1)
    for _ in range(20):
        chance = np.sort(draw.uniform(0.16, 0.54, 12).astype(np.float32))
        expected = [2 * chance[n:].sum() / (12 - n + chance.sum()) for n in range(12)]
        assert best_threshold(chance, np.ones(12, np.float32)) == pytest.approx(chance[int(np.argmax(expected))])


def test_words_are_compared_as_bags() -> None:
    assert word_f1(bag("A b, b c"), bag("b B d")) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    assert word_f1(bag(""), bag("")) == (1.0, 1.0, 1.0)
    assert word_f1(bag("a"), bag("")) == word_f1(bag(""), bag("a")) == (0.0, 0.0, 0.0)


def test_notes_of_an_article_stay_and_a_table_of_links_is_whole_or_absent() -> None:
    rows = "".join(
        f'<tr><td><a href="/p{n}">Part {n}</a></td><td><a href="/m">Maker</a></td><td>light</td></tr>' for n in range(5)
    )
    table = f"<table><tr><th>Part</th><th>Maker</th><th>Note</th></tr>{rows}</table>"
    text = read_pages([ARTICLE.replace("</h1>", f"</h1><p>{PARAGRAPHS[0]}</p>{table}", 1)])[0].text
    whole = "\n".join(["Part\tMaker\tNote", *(f"Part {n}\tMaker\tlight" for n in range(5))])
    assert whole in text or "Maker" not in text
