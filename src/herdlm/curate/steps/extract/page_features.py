"""The features of a page as a whole, by which its kind is told before its blocks are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from herdlm.curate.steps.extract.block_statistics import TAG_CODE, BlockStatistics, Floats, Sums
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.features import MAX_PRICE_CHARS, PRICE_SIGNS
from herdlm.curate.steps.extract.rules import RULES
from herdlm.curate.steps.extract.signals import BIT, WORDS
from herdlm.curate.steps.extract_config import PAGE_TYPES

KINDS: tuple[str, ...] = PAGE_TYPES
SHORT, LONG = 3, 25  # words
NAMED = (
    *("article", "body", "comment", "related", "list", "social", "advert", "subscribe", "byline", "date", "media"),
    *(
        "tags",
        "code",
        "section",
        "answer",
        "unseen",
        "paragraph",
        "summary",
        "<article>",
        "<main>",
        "<aside>",
        "<form>",
    ),
    *(
        "<figure>",
        "<table>",
        "<ul>",
        "<ol>",
        "<blockquote>",
        "<pre>",
        "<dl>",
        "articleBody",
        "structured",
        "<noscript>",
    ),
)
TAGGED = ("p", "li", "td", "th", "h1", "h2", "h3", "h4", "pre", "dt", "dd", "div", "button", "figcaption")


def page_features(page: Blocks, stats: BlockStatistics, facts: Sequence[Sequence[bool]]) -> Floats:
    """Return the features of pages, ``[pages, features]``. Sums are exact, so pages do not touch each other."""
    count = np.maximum(stats.stop - stats.start, 1).astype(np.float64)
    words = np.maximum(stats.page_sums(stats.words), 1)

    def share(values: np.ndarray) -> Sums:
        found: Sums = stats.page_sums(values.astype(np.float64)) / count
        return found

    priced = np.zeros(stats.count)
    for block in np.flatnonzero(stats.size <= MAX_PRICE_CHARS).tolist():
        priced[block] = not PRICE_SIGNS.isdisjoint(page.text[block])
    asks = np.array([text[-1] == "?" for text in page.text], np.float64)
    path = stats.path[stats.at]
    alike = np.bincount(path)[path].astype(np.float64)
    path_words = np.bincount(path, weights=stats.words)[path]
    boxes = np.diff(stats.document, append=len(stats.parent))
    headline_at = np.where(stats.headline_at < 0, -1.0, (stats.headline_at - stats.start) / count)
    columns = [
        np.log1p(words),
        np.log1p(count),
        words / count,
        np.log1p(boxes),
        stats.page_sums(stats.words * (1 - stats.link_share)) / words,
        stats.page_sums(stats.good) / words,
        np.log1p(stats.page_maxima(stats.words)),
        stats.page_maxima(stats.words) / words,
        share(stats.words <= SHORT),
        share(stats.words >= LONG),
        share(stats.heading),
        share(stats.ends),
        share(stats.preformatted),
        stats.page_sums(np.where(stats.preformatted, stats.words, 0)) / words,
        share(stats.repeats > 1),
        share(priced),
        np.log1p(stats.page_sums(priced)),
        share(asks),
        stats.page_maxima(alike) / count,
        stats.page_maxima(path_words) / words,
        headline_at,
        stats.page_maxima(stats.described),
        *(share(stats.tags == TAG_CODE[tag]) for tag in TAGGED),
        *(share((stats.under & BIT[name]) != 0) for name in NAMED),
        *(share((stats.signals >> number) & 1) for number in range(len(WORDS))),
        *(share((stats.flags >> number) & 1) for number in range(len(RULES))),
    ]
    return np.hstack([np.array(columns, np.float32).T, np.array(facts, np.float32).reshape(len(count), -1)])
