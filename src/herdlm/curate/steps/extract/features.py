"""What the model sees of a block: itself, its neighbours, its containers, and its place on the page, as numbers.

Everything is arithmetic on arrays over the blocks of pages. Sums over a container are differences of running sums, as a
container's blocks follow each other. Nothing reaches over the border between two pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from herdlm.curate.steps.extract.block_statistics import (
    LONGEST_WITH_CUES,
    SIGNS,
    Bools,
    Floats,
    Ints,
    Measures,
    Sums,
    bits,
    running,
)
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.signals import WORDS, word_bits

LEVELS = 3
SURE = 0.7
MAIN_SHARES = (0.4, 0.65, 0.9)
WINDOW = 6
FAR = 1 << 40  # blocks; further than any
ROUNDING = 1 << 24
COMMENT_OR_RELATED = word_bits("related", "comment")
OWN_CUES = (
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
    "hidden",
    "header",
    "paragraph",
    "answer",
)
UNDER_CUES = (
    *OWN_CUES,
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
)
Column = npt.NDArray[np.generic]


def features(page: Blocks, m: Measures, left: Ints) -> Floats:
    """``[left, features]``: rows of the blocks that rules leave, by their numbers ``left``."""
    sums = m.summed(m.words, m.words * (1 - m.link_share), m.good, m.heading)
    columns = [
        *_own(page, m, left),
        *_mains(m, sums, left),
        *_paths(m, left),
        *_containers(m, sums, left),
        *_neighbours(m, left),
        *_places(m, left),
    ]
    before = np.where(left > m.start[m.page[left]], m.cues[left - 1], 0)
    return np.hstack(
        [
            np.array(columns, np.float32).T,
            bits(m.near[left], OWN_CUES),
            bits(m.under[left], UNDER_CUES),
            _word_bits(m.cues[left]),
            _word_bits(before),
            _word_bits(m.opening[left]),
        ]
    )


def _own(page: Blocks, m: Measures, left: Ints) -> list[Column]:
    """The block itself; what takes reading its text only where rules leave it in."""
    text = [page.text[block] for block in left.tolist()]
    short = [t if len(t) <= LONGEST_WITH_CUES else "" for t in text]

    capitals, digits = _capitals_and_digits(short)
    words, size = m.words[left], m.size[left]
    return [
        np.log1p(words),
        *(
            one[left]
            for one in (m.link_share, m.bold_share, m.tags, m.ends, m.stops, m.preformatted, m.repeats, m.in_title)
        ),
        np.array([t.isupper() for t in text]),
        np.array([t[0].islower() for t in text]),
        digits / size,
        np.array([t.count("\n") for t in text]),
        size / np.maximum(words, 1),
        m.depth[m.at[left]],
        capitals / size,
        np.array([SIGNS.get(t[-1], 0) for t in text]),
        np.array([SIGNS.get(t[0], 0) for t in text]),
        np.array([("|" in t) + 2 * ("@" in t) + 4 * ("/" in t) for t in short]),
    ]


def _capitals_and_digits(texts: list[str]) -> tuple[Ints, Ints]:
    """How many of each text's characters are Latin, Greek or Cyrillic capitals, and how many European digits."""
    characters = np.frombuffer("".join(text + "\n" for text in texts).encode("utf-32-le", "replace"), np.uint32)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
    capital = (
        (characters - 0x41 < 26) | (characters - 0xC0 < 31) | (characters - 0x391 < 25) | (characters - 0x410 < 32)
    )
    digit = characters - 0x30 < 10
    return np.add.reduceat(capital, starts, dtype=np.int64), np.add.reduceat(digit, starts, dtype=np.int64)


def _mains(m: Measures, sums: Sums, left: Ints) -> list[Column]:
    """Where a block stands in the innermost containers that hold most of the good text, and in which branch of them."""
    page, depth = m.page[left], m.depth[m.at[left]]
    box_words, box_plain, box_good, _ = sums
    all_good = box_good[m.document]
    total = np.maximum(all_good, 1)
    is_document = m.parent == m.box
    columns: list[Column] = []
    for share in MAIN_SHARES:
        holds = is_document | ((box_good >= share * total[m.box_page]) & (all_good[m.box_page] >= 1))
        main = np.maximum.reduceat(np.where(holds, m.box, 0), m.document)
        low, high = m.first[main][page], m.last[main][page]
        columns += [
            (left >= low) & (left < high),
            depth - m.depth[main][page],
            (left - low) / np.maximum(high - low, 1),
        ]
        if share == MAIN_SHARES[-1]:
            continue
        branch = main[page]
        children = m.box[(m.parent == main[m.box_page]) & ~is_document]
        if len(children):
            child = children[np.clip(np.searchsorted(m.first[children], left, "right") - 1, 0, None)]
            branch = np.where((left >= m.first[child]) & (left < m.last[child]), child, branch)
        columns += [
            box_good[branch] / total[page],
            box_plain[branch] / np.maximum(box_words[branch], 1),
            np.log1p(box_words[branch]),
            (m.last - m.first)[branch],
        ]
    return columns


def _paths(m: Measures, left: Ints) -> list[Column]:
    """How much good text stands on the block's path of tags and names, and beside it."""
    page, path, above = m.page[left], m.path[m.at], m.parent[m.at]
    total = np.maximum(m.page_sums(m.good), 1)[page]
    columns: list[Column] = []
    for groups in (path, above):
        good = np.bincount(groups, weights=m.good)[groups]
        columns += [good[left] / total, good[left] / np.maximum(m.page_maxima(good), 1)[page]]
    columns.insert(2, np.log1p(np.bincount(path)[path[left]]))
    return columns


def _containers(m: Measures, sums: Sums, left: Ints) -> list[Column]:
    """The block's container and the ones around it; articles."""
    box_words, box_plain, box_good, box_heads = sums
    blocks = np.maximum(m.last - m.first, 1)
    total = np.maximum(box_good[m.document], 1)[m.page[left]]
    children = np.bincount(m.parent, minlength=len(m.parent))
    columns: list[Column] = []
    box = m.at[left]
    for _ in range(LEVELS):
        columns += [
            np.log1p(box_words[box]),
            box_plain[box] / np.maximum(box_words[box], 1),
            box_good[box] / total,
            np.log1p(blocks[box]),
            np.log1p(children[box]),
            box_heads[box] / blocks[box],
        ]
        box = m.parent[box]
    return columns


def _neighbours(m: Measures, left: Ints) -> list[Column]:
    """The two blocks before and after, and the words, plain and good, of the six before and after."""
    columns: list[Column] = []
    log_words, good = np.log1p(m.words), m.good > 0
    start, stop = m.start[m.page[left]], m.stop[m.page[left]]
    for distance in (-2, -1, 1, 2):
        columns += _at_distance(distance, left, start, stop, (log_words, m.link_share, m.ends, m.tags, good))
    for values in (m.words * (1 - m.link_share), m.words, m.good):
        total = running(values)
        columns += [
            np.log1p(total[left] - total[np.maximum(left - WINDOW, start)]),
            np.log1p(total[np.minimum(left + WINDOW + 1, stop)] - total[left + 1]),
        ]
    return columns


def _places(m: Measures, left: Ints) -> list[Column]:
    """Place on the page: by blocks, words and good text; from headline, headings, the described block, good blocks."""
    page = m.page[left]
    start, stop = m.start[page], m.stop[page]
    count = stop - start
    words, good = running(m.words), running(m.good)
    total = np.maximum(m.page_sums(m.words), 1)[page]
    total_good = np.maximum(m.page_sums(m.good), 1)[page]
    heading_at = np.maximum.accumulate(np.where(m.heading, m.here, -1))[left]
    headed = heading_at >= start
    heading_cues = np.where(headed, m.cues[heading_at], 0)
    since, until = _to_nearest(m.good > 0, m, left)
    headline_at, described_at = m.headline_at[page], m.described_at[page]
    return [
        (left - start) / count,
        (words[left + 1] - words[start]) / total,
        (good[left + 1] - good[start]) / total_good,
        np.log1p(total_good),
        total_good / total,
        np.log1p(count),
        np.where(headed, np.log1p(np.maximum(left - heading_at, 0)), -1),
        (heading_cues & COMMENT_OR_RELATED) != 0,
        m.headline[left],
        left == headline_at,
        np.where(headline_at < 0, -100, np.clip(left - headline_at, -60, 60)),
        m.described[left],
        np.where(described_at < 0, -100, np.clip(left - described_at, -50, 50)),
        np.log1p(np.minimum(np.minimum(since, left - start + 1), 100)),
        np.log1p(np.minimum(np.where(until < stop - left, until, stop - left + count), 100)),
    ]


def context_features(m: Measures, left: Ints, rows: Floats, chance: Floats) -> Floats:
    """What the second forest sees: the first one's ``chance`` of a block and all around it, and rows of features.

    The weight of a block is its words; "around" leaves the block itself out. Weighted chances are rounded to multiples
    of 2^-24, so that their sums are exact like those of words.
    """
    page = m.page[left]
    start, stop = m.start[page], m.stop[page]
    path = m.path[m.at]
    all_words = m.words.astype(np.float64)
    all_mass = np.rint(chance * all_words * ROUNDING) / ROUNDING
    words, mass, chances = all_words[left], all_mass[left], chance[left]
    sum_words, sum_mass = running(all_words), running(all_mass)
    box_words, box_mass = sum_words[m.last] - sum_words[m.first], sum_mass[m.last] - sum_mass[m.first]
    total = np.maximum(box_mass[m.document], 1)[page]
    columns: list[Column] = [chances, chances / np.maximum(m.page_maxima(chance), 1e-3)[page]]
    box = m.at[left]
    for _ in range(LEVELS + 1):
        columns += [
            box_mass[box] / np.maximum(box_words[box], 1),
            box_mass[box] / total,
            (box_mass[box] - mass) / np.maximum(box_words[box] - words, 1),
        ]
        box = m.parent[box]
    path_words = np.bincount(path, weights=all_words)[path[left]]
    path_mass = np.bincount(path, weights=all_mass)[path[left]]
    columns += [(path_mass - mass) / np.maximum(path_words - words, 1), path_mass / total]
    for reach in (1, 2, 4, 8, 16):
        low, high = np.maximum(left - reach, start), np.minimum(left + reach + 1, stop)
        columns += [
            (sum_mass[end] - sum_mass[begin]) / np.maximum(sum_words[end] - sum_words[begin], 1)
            for begin, end in ((low, left), (left + 1, high))
        ]
    before = sum_mass[left] - sum_mass[start]
    columns += [
        before / total,
        (total - before - mass) / total,
        np.log1p(total),
        total / np.maximum(box_words[m.document], 1)[page],
    ]
    for distance in (-3, -2, -1, 1, 2, 3):
        columns += _at_distance(distance, left, start, stop, (chance,))
    since, until = _to_nearest(chance > SURE, m, left)
    for distances, inside in ((since, left - start), (until, stop - left - 1)):
        columns.append(np.log1p(np.where(distances <= inside, np.minimum(distances, 50), 50)))
    return np.hstack([np.array(columns, np.float32).T, rows])


def _to_nearest(marked: Bools, m: Measures, left: Ints) -> tuple[Ints, Ints]:
    """How many blocks before and after each the nearest marked one is, 0 for itself; it may be on another page."""
    before = np.maximum.accumulate(np.where(marked, m.here, -FAR))
    after = np.minimum.accumulate(np.where(marked, m.here, FAR)[::-1])[::-1]
    return left - before[left], after[left] - left


def _at_distance(distance: int, left: Ints, start: Ints, stop: Ints, columns: Sequence[Column]) -> list[Column]:
    """What the blocks so far on have in ``columns``, -1 beyond the page."""
    other = left + distance
    inside = (other >= start) & (other < stop)
    other = np.where(inside, other, 0)
    return [np.where(inside, values[other], np.float32(-1)) for values in columns]


def _word_bits(masks: Ints) -> Floats:
    return ((masks[:, None] >> np.arange(len(WORDS))) & 1).astype(np.float32)
