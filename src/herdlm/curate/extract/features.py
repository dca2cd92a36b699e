"""What the model sees of a block: itself, its neighbours, its containers, and its place on the page, as numbers.

Everything is arithmetic on arrays over a page's blocks. Sums over a container are differences of running sums, as a
container's blocks follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from herdlm.curate.extract.blocks import Blocks
from herdlm.curate.extract.cues import WORDS, word_bits
from herdlm.curate.extract.measures import LONGEST_WITH_CUES, SIGNS, Floats, Ints, Measures, bits, running

LEVELS = 3
SURE = 0.7
MAIN_SHARES = (0.4, 0.65, 0.9)
WINDOW = 6
COMMENT_OR_RELATED = word_bits("related", "comment")
OWN_CUES = ("article", "body", "comment", "related", "list", "social", "navigation", "footer", "side", "advert",
    "subscribe",
            "byline", "date", "media", "tags", "title", "summary", "quote", "code", "section", "hidden", "header",
            "paragraph", "answer")  # fmt: skip
UNDER_CUES = (*OWN_CUES, "<article>", "<main>", "<section>", "<aside>", "<nav>", "<header>", "<footer>", "<form>",
    "<figure>",
              "<table>", "<ul>", "<ol>", "<li>", "<blockquote>", "<pre>", "<dl>", "<figcaption>", "articleBody",
              "main")  # fmt: skip
Column = npt.NDArray[np.generic]
Sums = npt.NDArray[np.float64]  # over containers: words, words outside links, good text, headings


def features(page: Blocks, m: Measures, left: Ints) -> Floats:
    """``[left, features]``: rows of the blocks that rules leave, by their numbers ``left``."""
    sums = m.summed(m.words, m.words * (1 - m.link_share), m.good, m.heading)
    columns = [*_own(page, m, left), *_mains(m, sums), *_paths(m), *_containers(m, sums), *_neighbours(m), *_places(m)]
    before = np.where(left > 0, m.cues[left - 1], 0)
    return np.hstack([
        _matrix(columns, left), bits(m.near[left], OWN_CUES), bits(m.under[left], UNDER_CUES),
        _word_bits(m.cues[left]), _word_bits(before), _word_bits(m.opening[left]),
    ])  # fmt: skip


def _matrix(columns: Sequence[Column], left: Ints) -> Floats:
    return np.array([column[left] for column in columns], np.float32).T


def _own(page: Blocks, m: Measures, left: Ints) -> list[Column]:
    """The block itself; what takes reading its text only where rules leave it in."""
    text = [page.text[block] for block in left.tolist()]
    short = [t if len(t) <= LONGEST_WITH_CUES else "" for t in text]

    capitals, digits = _capitals_and_digits(short)

    def spread(values: list[int] | Ints) -> Ints:
        column = np.zeros(m.count, np.int64)
        column[left] = values
        return column

    return [
        np.log1p(m.words), m.link_share, m.bold_share, m.tags, m.ends, m.stops, m.preformatted, m.repeats, m.in_title,
        spread([t.isupper() for t in text]), spread([t[0].islower() for t in text]),
        spread(digits) / m.size,
        spread([t.count("\n") for t in text]), m.size / np.maximum(m.words, 1), m.depth[m.at],
        spread(capitals) / m.size,
        spread([SIGNS.get(t[-1], 0) for t in text]), spread([SIGNS.get(t[0], 0) for t in text]),
        spread([("|" in t) + 2 * ("@" in t) + 4 * ("/" in t) for t in short]),
    ]  # fmt: skip


def _capitals_and_digits(texts: list[str]) -> tuple[Ints, Ints]:
    """How many of each text's characters are Latin, Greek or Cyrillic capitals, and how many European digits."""
    characters = np.frombuffer("".join(text + "\n" for text in texts).encode("utf-32-le", "replace"), np.uint32)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
    capital = (
        (characters - 0x41 < 26) | (characters - 0xC0 < 31) | (characters - 0x391 < 25) | (characters - 0x410 < 32)
    )
    digit = characters - 0x30 < 10
    return np.add.reduceat(capital, starts, dtype=np.int64), np.add.reduceat(digit, starts, dtype=np.int64)


def _mains(m: Measures, sums: Sums) -> list[Column]:
    """Where a block stands in the innermost containers that hold most of the good text, and in which branch of them."""
    here = np.arange(m.count)
    box_words, box_plain, box_good, _ = sums
    total = max(float(box_good[0]), 1.0)
    columns: list[Column] = []
    for share in MAIN_SHARES:
        main = int(np.flatnonzero(box_good >= share * total)[-1]) if box_good[0] >= 1 else 0
        low, high = int(m.first[main]), int(m.last[main])
        columns += [(here >= low) & (here < high), m.depth[m.at] - m.depth[main], (here - low) / max(high - low, 1)]
        if share == MAIN_SHARES[-1]:
            continue
        branch = np.full(m.count, main)
        children = m.box[(m.parent == main) & (m.box > 0)]
        if len(children):
            child = children[np.clip(np.searchsorted(m.first[children], here, "right") - 1, 0, None)]
            branch = np.where((here >= m.first[child]) & (here < m.last[child]), child, main)
        columns += [box_good[branch] / total, box_plain[branch] / np.maximum(box_words[branch], 1),
                    np.log1p(box_words[branch]), (m.last - m.first)[branch]]  # fmt: skip
    return columns


def _paths(m: Measures) -> list[Column]:
    """How much good text stands on the block's path of tags and names, and beside it."""
    path, above = m.path[m.at], m.parent[m.at]
    total = max(float(m.good.sum()), 1.0)
    on_path, beside = np.bincount(path, weights=m.good), np.bincount(above, weights=m.good)
    return [on_path[path] / total, on_path[path] / max(float(on_path.max()), 1), np.log1p(np.bincount(path)[path]),
            beside[above] / total, beside[above] / max(float(beside.max()), 1)]  # fmt: skip


def _containers(m: Measures, sums: Sums) -> list[Column]:
    """The block's container and the ones around it; articles."""
    box_words, box_plain, box_good, box_heads = sums
    blocks = np.maximum(m.last - m.first, 1)
    total = max(float(box_good[0]), 1.0)
    children = np.bincount(m.parent, minlength=len(m.parent))
    columns: list[Column] = []
    box = m.at
    for _ in range(LEVELS):
        columns += [np.log1p(box_words[box]), box_plain[box] / np.maximum(box_words[box], 1), box_good[box] / total,
                    np.log1p(blocks[box]), np.log1p(children[box]), box_heads[box] / blocks[box]]  # fmt: skip
        box = m.parent[box]
    return columns


def _neighbours(m: Measures) -> list[Column]:
    """The two blocks before and after, and the words, plain and good, of the six before and after."""
    columns: list[Column] = []
    log_words, good = np.log1p(m.words), m.good > 0
    for distance in (-2, -1, 1, 2):
        columns += [_shifted(values, distance) for values in (log_words, m.link_share, m.ends, m.tags, good)]
    here = np.arange(m.count)
    for values in (m.words * (1 - m.link_share), m.words, m.good):
        total = running(values)
        columns += [np.log1p(total[here] - total[np.maximum(here - WINDOW, 0)]),
                    np.log1p(total[np.minimum(here + WINDOW + 1, m.count)] - total[here + 1])]  # fmt: skip
    return columns


def _places(m: Measures) -> list[Column]:
    """Place on the page: by blocks, words and good text; from headline, headings, the described block, good blocks."""
    here = np.arange(m.count)
    total, total_good = max(float(m.words.sum()), 1.0), max(float(m.good.sum()), 1.0)
    one = np.ones(m.count)
    heading_at = np.maximum.accumulate(np.where(m.heading, here, -1))
    heading_cues = np.where(heading_at >= 0, m.cues[heading_at], 0)
    good_at = np.where(m.good > 0, here, -1)
    since = here - np.maximum.accumulate(good_at)
    until = np.minimum.accumulate(np.where(m.good > 0, here, 2 * m.count)[::-1])[::-1] - here
    described_at = int(m.described.argmax()) if m.described.max() > 0.5 else -1
    return [
        here / m.count, np.cumsum(m.words) / total, np.cumsum(m.good) / total_good,
        np.log1p(total_good) * one, total_good / total * one, np.log1p(m.count) * one,
        np.where(heading_at < 0, -1, np.log1p(here - heading_at)), (heading_cues & COMMENT_OR_RELATED) != 0,
        m.headline, here == m.headline_at, -100 * one if m.headline_at < 0 else np.clip(here - m.headline_at, -60, 60),
        m.described, -100 * one if described_at < 0 else np.clip(here - described_at, -50, 50),
        np.log1p(np.minimum(since, 100)), np.log1p(np.minimum(until, 100)),
    ]  # fmt: skip


def context_features(m: Measures, left: Ints, rows: Floats, chance: Floats) -> Floats:
    """What the second forest sees: the first one's ``chance`` of a block and all around it, and rows of features.

    The weight of a block is its words; "around" leaves the block itself out.
    """
    count = len(chance)
    words, path = m.words.astype(np.float64), m.path[m.at]
    mass = chance * words
    sum_words, sum_mass = running(words), running(mass)
    here = np.arange(count)
    box_words, box_mass = sum_words[m.last] - sum_words[m.first], sum_mass[m.last] - sum_mass[m.first]
    total = max(float(mass.sum()), 1.0)
    columns: list[Column] = [chance, chance / max(float(chance.max()), 1e-3)]
    box = m.at
    for _ in range(LEVELS + 1):
        columns += [box_mass[box] / np.maximum(box_words[box], 1), box_mass[box] / total,
                    (box_mass[box] - mass) / np.maximum(box_words[box] - words, 1)]  # fmt: skip
        box = m.parent[box]
    path_words, path_mass = np.bincount(path, weights=words), np.bincount(path, weights=mass)
    columns += [(path_mass[path] - mass) / np.maximum(path_words[path] - words, 1), path_mass[path] / total]
    for reach in (1, 2, 4, 8, 16):
        low, high = np.maximum(here - reach, 0), np.minimum(here + reach + 1, count)
        columns += [(sum_mass[here] - sum_mass[low]) / np.maximum(sum_words[here] - sum_words[low], 1),
                    (sum_mass[high] - sum_mass[here + 1]) / np.maximum(sum_words[high] - sum_words[here + 1],
                    1)]  # fmt: skip
    columns += [sum_mass[:-1] / total, (total - sum_mass[1:]) / total, np.full(count, np.log1p(total)),
                np.full(count, total / max(float(words.sum()), 1))]  # fmt: skip
    columns += [_shifted(chance, distance) for distance in (-3, -2, -1, 1, 2, 3)]
    sure = chance > SURE
    since = here - np.maximum.accumulate(np.where(sure, here, -50))
    until = np.minimum.accumulate(np.where(sure, here, count + 50)[::-1])[::-1] - here
    columns += [np.log1p(np.minimum(since, 50)), np.log1p(np.minimum(until, 50))]
    return np.hstack([_matrix(columns, left), rows])


def _word_bits(masks: Ints) -> Floats:
    return ((masks[:, None] >> np.arange(len(WORDS))) & 1).astype(np.float32)


def _shifted(values: Column, distance: int) -> Floats:
    result = np.full(len(values), -1, np.float32)
    if distance > 0:
        result[:-distance] = values[distance:]
    else:
        result[-distance:] = values[:distance]
    return result
