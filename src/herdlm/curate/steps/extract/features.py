"""The features of a block: numbers about the block, its neighbors, its containers, and its place on the page.

All features are array arithmetic over the blocks of pages. Sums over a container are differences of running sums, since
a container's blocks are consecutive. Nothing crosses the border between two pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from herdlm.curate.steps.extract.block_statistics import (
    MAX_SIGNAL_CHARS,
    SIGNS,
    BlockStatistics,
    Bools,
    Floats,
    Ints,
    Sums,
    bits,
    running,
)
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.rules import RULES
from herdlm.curate.steps.extract.signals import WORDS, word_bits

LEVELS = 3
MAIN_SHARES = (0.4, 0.65, 0.9)
WINDOW = 6
PRICE_SIGNS = frozenset("$€£¥₹")
MAX_PRICE_CHARS = 60
FAR = 1 << 40  # blocks; more than any distance
COMMENT_OR_RELATED = word_bits("related", "comment")
OWN_SIGNALS = (
    "article",
    "body",
    "comment",
    "related",
    "list",
    "social",
    "navigation",
    "footer",
    "side",
    "advert",
    "subscribe",
    "byline",
    "date",
    "media",
    "tags",
    "title",
    "summary",
    "quote",
    "code",
    "section",
    "unseen",
    "header",
    "paragraph",
    "answer",
    "structured",
)
UNDER_SIGNALS = (
    *OWN_SIGNALS,
    "<article>",
    "<main>",
    "<section>",
    "<aside>",
    "<nav>",
    "<header>",
    "<footer>",
    "<form>",
    "<figure>",
    "<table>",
    "<ul>",
    "<ol>",
    "<li>",
    "<blockquote>",
    "<pre>",
    "<dl>",
    "<figcaption>",
    "articleBody",
    "main",
    "<button>",
    "<noscript>",
    "<address>",
)
Column = npt.NDArray[np.generic]


def features(page: Blocks, stats: BlockStatistics, left: Ints, kinds: Floats) -> Floats:
    """Return the features of the blocks ``left`` by the rules, ``[left, features]``.

    ``kinds`` are the probabilities of each page's kind, ``[pages, kinds]``, which come first.
    """
    sums = stats.summed(stats.words, stats.words * (1 - stats.link_share), stats.good, stats.heading)
    columns = [
        *_own(page, stats, left),
        *_mains(stats, sums, left),
        *_paths(stats, left),
        *_containers(stats, sums, left),
        *_neighbors(stats, left),
        *_places(stats, left),
        *_items(page, stats, left),
    ]
    before = np.where(left > stats.start[stats.page[left]], stats.signals[left - 1], 0)
    return np.hstack(
        [
            kinds[stats.page[left]],
            np.array(columns, np.float32).T,
            ((stats.flags[left, None] >> np.arange(len(RULES))) & 1).astype(np.float32),
            bits(stats.near[left], OWN_SIGNALS),
            bits(stats.under[left], UNDER_SIGNALS),
            _word_bits(stats.signals[left]),
            _word_bits(before),
            _word_bits(stats.opening[left]),
        ]
    )


def _own(page: Blocks, stats: BlockStatistics, left: Ints) -> list[Column]:
    """Features of the block itself, and what needs its text, only for the blocks left by the rules."""
    text = [page.text[block] for block in left.tolist()]
    short = [t if len(t) <= MAX_SIGNAL_CHARS else "" for t in text]

    capitals, digits = _capitals_and_digits(short)
    words, size = stats.words[left], stats.size[left]
    return [
        np.log1p(words),
        *(
            one[left]
            for one in (
                stats.link_share,
                stats.bold_share,
                stats.tags,
                stats.ends,
                stats.stops,
                stats.preformatted,
                stats.repeats,
                stats.in_title,
            )
        ),
        np.array([t.isupper() for t in text]),
        np.array([t[0].islower() for t in text]),
        digits / size,
        np.array([t.count("\n") for t in text]),
        size / np.maximum(words, 1),
        stats.depth[stats.at[left]],
        capitals / size,
        np.array([SIGNS.get(t[-1], 0) for t in text]),
        np.array([SIGNS.get(t[0], 0) for t in text]),
        np.array([("|" in t) + 2 * ("@" in t) + 4 * ("/" in t) for t in short]),
    ]


def _capitals_and_digits(texts: list[str]) -> tuple[Ints, Ints]:
    """Count the Latin, Greek and Cyrillic capitals and the European digits of each text."""
    characters = np.frombuffer("".join(text + "\n" for text in texts).encode("utf-32-le", "replace"), np.uint32)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
    capital = (
        (characters - 0x41 < 26) | (characters - 0xC0 < 31) | (characters - 0x391 < 25) | (characters - 0x410 < 32)
    )
    digit = characters - 0x30 < 10
    return np.add.reduceat(capital, starts, dtype=np.int64), np.add.reduceat(digit, starts, dtype=np.int64)


def _mains(stats: BlockStatistics, sums: Sums, left: Ints) -> list[Column]:
    """The block's place in the innermost containers with most of the good text, and its branch of them."""
    page, depth = stats.page[left], stats.depth[stats.at[left]]
    box_words, box_plain, box_good, _ = sums
    all_good = box_good[stats.document]
    total = np.maximum(all_good, 1)
    is_document = stats.parent == stats.box
    columns: list[Column] = []
    for share in MAIN_SHARES:
        holds = is_document | ((box_good >= share * total[stats.box_page]) & (all_good[stats.box_page] >= 1))
        main = np.maximum.reduceat(np.where(holds, stats.box, 0), stats.document)
        low, high = stats.first[main][page], stats.last[main][page]
        columns += [
            (left >= low) & (left < high),
            depth - stats.depth[main][page],
            (left - low) / np.maximum(high - low, 1),
        ]
        if share == MAIN_SHARES[-1]:
            continue
        branch = main[page]
        children = stats.box[(stats.parent == main[stats.box_page]) & ~is_document]
        if len(children):
            child = children[np.clip(np.searchsorted(stats.first[children], left, "right") - 1, 0, None)]
            branch = np.where((left >= stats.first[child]) & (left < stats.last[child]), child, branch)
        columns += [
            box_good[branch] / total[page],
            box_plain[branch] / np.maximum(box_words[branch], 1),
            np.log1p(box_words[branch]),
            (stats.last - stats.first)[branch],
        ]
    return columns


def _paths(stats: BlockStatistics, left: Ints) -> list[Column]:
    """The good text on the block's path of tags and names, and beside it."""
    page, path, above = stats.page[left], stats.path[stats.at], stats.parent[stats.at]
    total = np.maximum(stats.page_sums(stats.good), 1)[page]
    columns: list[Column] = []
    for groups in (path, above):
        good = np.bincount(groups, weights=stats.good)[groups]
        columns += [good[left] / total, good[left] / np.maximum(stats.page_maxima(good), 1)[page]]
    columns.insert(2, np.log1p(np.bincount(path)[path[left]]))
    return columns


def _containers(stats: BlockStatistics, sums: Sums, left: Ints) -> list[Column]:
    """The block's container and the ones around it; articles."""
    box_words, box_plain, box_good, box_heads = sums
    blocks = np.maximum(stats.last - stats.first, 1)
    total = np.maximum(box_good[stats.document], 1)[stats.page[left]]
    children = np.bincount(stats.parent, minlength=len(stats.parent))
    columns: list[Column] = []
    box = stats.at[left]
    for _ in range(LEVELS):
        columns += [
            np.log1p(box_words[box]),
            box_plain[box] / np.maximum(box_words[box], 1),
            box_good[box] / total,
            np.log1p(blocks[box]),
            np.log1p(children[box]),
            box_heads[box] / blocks[box],
        ]
        box = stats.parent[box]
    return columns


def _neighbors(stats: BlockStatistics, left: Ints) -> list[Column]:
    """The two blocks before and after, and the words and good words of the six before and after."""
    columns: list[Column] = []
    log_words, good = np.log1p(stats.words), stats.good > 0
    start, stop = stats.start[stats.page[left]], stats.stop[stats.page[left]]
    for distance in (-2, -1, 1, 2):
        columns += at_distance(distance, left, start, stop, (log_words, stats.link_share, stats.ends, stats.tags, good))
    for values in (stats.words * (1 - stats.link_share), stats.words, stats.good):
        total = running(values)
        columns += [
            np.log1p(total[left] - total[np.maximum(left - WINDOW, start)]),
            np.log1p(total[np.minimum(left + WINDOW + 1, stop)] - total[left + 1]),
        ]
    return columns


def _items(page: Blocks, stats: BlockStatistics, left: Ints) -> list[Column]:
    """What is alike on the page: words, links and prices of the blocks on a path, and how many items hold them."""
    path = stats.path[stats.at]
    count = np.maximum(np.bincount(path), 1)
    plain = np.bincount(path, weights=stats.words * (1 - stats.link_share))
    words = np.bincount(path, weights=stats.words)
    priced = np.zeros(stats.count)
    for block in np.flatnonzero(stats.size <= MAX_PRICE_CHARS).tolist():
        priced[block] = not PRICE_SIGNS.isdisjoint(page.text[block])
    prices = running(priced)
    own, start, stop = path[left], stats.start[stats.page[left]], stats.stop[stats.page[left]]
    alike = np.bincount(stats.path)
    box, above = stats.at[left], stats.parent[stats.at[left]]
    columns: list[Column] = [
        np.log1p(words[own] / count[own]),
        plain[own] / np.maximum(words[own], 1),
        count[own] / (stop - start),
        priced[left],
        np.log1p(prices[np.minimum(left + WINDOW + 1, stop)] - prices[np.maximum(left - WINDOW, start)]),
        np.log1p(prices[stop] - prices[start]),
    ]
    for _ in range(LEVELS):
        columns += [np.log1p(alike[stats.path[box]])]
        box, above = above, stats.parent[above]
    return columns


def _places(stats: BlockStatistics, left: Ints) -> list[Column]:
    """The place on the page: by blocks, words and good text; from headline, headings, described block, good blocks."""
    page = stats.page[left]
    start, stop = stats.start[page], stats.stop[page]
    count = stop - start
    words, good = running(stats.words), running(stats.good)
    total = np.maximum(stats.page_sums(stats.words), 1)[page]
    total_good = np.maximum(stats.page_sums(stats.good), 1)[page]
    heading_at = np.maximum.accumulate(np.where(stats.heading, stats.here, -1))[left]
    headed = heading_at >= start
    heading_signals = np.where(headed, stats.signals[heading_at], 0)
    since, until = to_nearest(stats.good > 0, stats, left)
    headline_at, described_at = stats.headline_at[page], stats.described_at[page]
    return [
        (left - start) / count,
        (words[left + 1] - words[start]) / total,
        (good[left + 1] - good[start]) / total_good,
        np.log1p(total_good),
        total_good / total,
        np.log1p(count),
        np.where(headed, np.log1p(np.maximum(left - heading_at, 0)), -1),
        (heading_signals & COMMENT_OR_RELATED) != 0,
        stats.headline[left],
        left == headline_at,
        np.where(headline_at < 0, -100, np.clip(left - headline_at, -60, 60)),
        stats.described[left],
        np.where(described_at < 0, -100, np.clip(left - described_at, -50, 50)),
        np.log1p(np.minimum(np.minimum(since, left - start + 1), 100)),
        np.log1p(np.minimum(np.where(until < stop - left, until, stop - left + count), 100)),
    ]


def to_nearest(marked: Bools, stats: BlockStatistics, left: Ints) -> tuple[Ints, Ints]:
    """Return the distances to the nearest marked block before and after each, which can be on another page."""
    before = np.maximum.accumulate(np.where(marked, stats.here, -FAR))
    after = np.minimum.accumulate(np.where(marked, stats.here, FAR)[::-1])[::-1]
    return left - before[left], after[left] - left


def at_distance(distance: int, left: Ints, start: Ints, stop: Ints, columns: Sequence[Column]) -> list[Column]:
    """Return ``columns`` of the blocks at an offset, -1 beyond the page."""
    other = left + distance
    inside = (other >= start) & (other < stop)
    other = np.where(inside, other, 0)
    return [np.where(inside, values[other], np.float32(-1)) for values in columns]


def _word_bits(masks: Ints) -> Floats:
    return ((masks[:, None] >> np.arange(len(WORDS))) & 1).astype(np.float32)
