"""Tells the kind of pages and selects their content blocks: the model's choice within the rules, without copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from herdlm.curate.steps.extract.block_statistics import BlockStatistics, Bools, Floats, Ints, block_statistics
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.context_features import context_features
from herdlm.curate.steps.extract.features import features
from herdlm.curate.steps.extract.model import Model
from herdlm.curate.steps.extract.page_features import KINDS, page_features
from herdlm.curate.steps.extract.parse import Source
from herdlm.curate.steps.extract.rules import RULES, apply_rules
from herdlm.curate.steps.extract.signals import BIT, word_bits

FEW_WORDS = 30
REPEATED_WORDS = 50  # a repeated block of so many words is a copy; a shorter one can be intended
WHOLES = frozenset(("table", "dl"))
WHOLE_BLOCKS, LONGEST_CELL = 4, 60  # blocks; words, above which a table lays out a page
SURE_ARTICLE = 0.5  # chance from which on blocks that rules doubt are out: comments, teasers, captions, notices
ARTICLE_CHANCE = 0.5  # what follows an article is like it, so that blocks below do not pass
LEAST_CHANCE, MOST_CHANCE = 0.15, 0.55  # bounds of a page's threshold
WHOLE_WORDS, WHOLE_SHARE, COVERED_SHARE = 100, 0.2, 0.4


class Selected(NamedTuple):
    """A page's kind and the indices of its content blocks, in order."""

    kind: str
    blocks: list[int]


def select(pages: Blocks, sources: Sequence[Source], model: Model) -> list[Selected]:
    """Return each page's kind and content blocks; no kind and no blocks if the page has no text."""
    if not pages.text:
        return [Selected("", []) for _ in pages.document]
    stats = block_statistics(pages, [source.title for source in sources], [source.description for source in sources])
    left = np.flatnonzero(~apply_rules(pages, stats))
    kinds = model.kind_chances(page_features(pages, stats, [source.facts for source in sources]))
    chance = np.zeros(len(pages.text), np.float32)
    if len(left):
        rows = features(pages, stats, left, kinds)
        chance[left] = model.first.predict(rows)
        chance[left] = model.second.predict(context_features(stats, left, rows, chance))
    doubted = (stats.flags & ~(1 << RULES.index("unseen"))) != 0
    articles = kinds[:, KINDS.index("article")] >= SURE_ARTICLE
    chance[doubted & articles[stats.page]] = 0
    filled = (stats.stop > stats.start).tolist()
    names = [KINDS[number] if some else "" for number, some in zip(kinds.argmax(axis=1).tolist(), filled, strict=True)]
    return list(map(Selected, names, choose(pages, stats, left, chance, articles)))


def choose(pages: Blocks, stats: BlockStatistics, left: Ints, chance: Floats, articles: Bools) -> list[list[int]]:
    """Return the blocks that give each page the best expected F1 by words; tables as a whole or not at all.

    On ``articles`` a block must be likelier than not. If almost nothing is left, all blocks from the headline on that
    are not links are returned.
    """
    chance = _whole_tables(pages, stats, left, chance)
    chosen = np.zeros(stats.count, bool)
    for low, high, is_article in zip(stats.start.tolist(), stats.stop.tolist(), articles.tolist(), strict=True):
        if low < high:
            best = best_threshold(chance[low:high], stats.words[low:high])
            chosen[low:high] = chance[low:high] >= (max(best, ARTICLE_CHANCE) if is_article else best)
    few = (stats.page_sums(np.where(chosen, stats.words, 0)) < FEW_WORDS)[stats.page]
    rest = few[left] & (left >= stats.headline_at[stats.page[left]]) & (stats.link_share[left] < 0.5)
    doubted = ((stats.signals[left] & word_bits("rights")) != 0) | ((stats.under[left] & BIT["<noscript>"]) != 0)
    chosen[left[rest & ~doubted]] = True
    return [
        without_copies(pages, (np.flatnonzero(chosen[low:high]) + low).tolist())
        for low, high in zip(stats.start.tolist(), stats.stop.tolist(), strict=True)
    ]


def best_threshold(chance: Floats, words: Floats) -> float:
    """Return the threshold above which a page's blocks have the highest expected F1 by words.

    With the likeliest blocks up to some rank, the expected number of right words is the sum of chance times words, and
    F1 is about twice that over the words chosen and expected (Lipton et al. 2014, arXiv 1402.1892).
    """
    order = np.argsort(-chance, kind="stable")
    weights = words[order].astype(np.float64)
    right = np.cumsum(chance[order] * weights)
    expected = 2 * right / np.maximum(np.cumsum(weights) + right[-1], 1)
    best = float(chance[order[int(expected.argmax())]])
    return min(max(best, LEAST_CHANCE), MOST_CHANCE)


def _whole_tables(pages: Blocks, stats: BlockStatistics, left: Ints, chance: Floats) -> Floats:
    """Give all cells of a table the mean chance of its words, unless it lays out a page or is of one row."""
    chance = chance.copy()
    allowed = np.zeros(stats.count, bool)
    allowed[left] = True
    covered = -1
    for number in [number for number, tag in enumerate(pages.name) if tag in WHOLES][::-1]:  # inner tables come first
        low, high = int(stats.first[number]), int(stats.last[number])
        if high - low < WHOLE_BLOCKS or (covered >= 0 and low <= covered < high):
            continue
        words = stats.words[low:high]
        if pages.name[number] == "table" and float(words.max()) > LONGEST_CELL:
            continue
        inside = allowed[low:high]
        if inside.any():
            covered = low
            total = float(words[inside].sum())
            mean = float((chance[low:high] * words)[inside].sum()) / max(total, 1.0)
            chance[low:high][inside] = mean
    return chance


def without_copies(page: Blocks, kept: list[int]) -> list[int]:
    """Drop repeated long blocks, and blocks that contain as a whole what other blocks say by paragraphs."""
    long = [block for block in kept if page.words[block] >= REPEATED_WORDS]
    total = sum(page.words[block] for block in kept)
    dropped: set[int] = set()
    seen: set[str] = set()
    for block in long:
        if page.text[block] in seen:
            dropped.add(block)
        seen.add(page.text[block])
    for block in long:
        if block in dropped or page.words[block] < max(WHOLE_WORDS, WHOLE_SHARE * total):
            continue
        whole = " ".join(page.text[block].split())
        covered = sum(
            page.words[other]
            for other in kept
            if other != block and other not in dropped and page.words[other] >= 10 and page.text[other] in whole
        )
        if covered > COVERED_SHARE * page.words[block]:
            dropped.add(block)
    return [block for block in kept if block not in dropped]
