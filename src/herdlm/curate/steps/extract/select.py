"""Selects content blocks: the model's choice within the rules, without copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from herdlm.curate.steps.extract.block_statistics import BlockStatistics, Bools, Floats, Ints, block_statistics
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.features import context_features, features
from herdlm.curate.steps.extract.model import Model
from herdlm.curate.steps.extract.rules import apply_rules
from herdlm.curate.steps.extract.signals import word_bits

FEW_WORDS = 30
REPEATED_WORDS = 50  # a repeated block of so many words is a copy; a shorter one can be intended
WHOLES = frozenset(("table", "dl"))
WHOLE_BLOCKS, MOST = 4, 0.6
WHOLE_WORDS, WHOLE_SHARE, COVERED_SHARE = 100, 0.2, 0.4


def select(pages: Blocks, titles: Sequence[str], descriptions: Sequence[str], model: Model) -> list[list[int]]:
    """Return the indices of each page's content blocks, in order; none if the page has no content or running text."""
    if not pages.text:
        return [[] for _ in pages.document]
    stats = block_statistics(pages, titles, descriptions)
    left = np.flatnonzero(~apply_rules(pages, stats))
    if not len(left):
        return [[] for _ in pages.document]
    rows = features(pages, stats, left)
    chance = np.zeros(len(pages.text), np.float32)
    chance[left] = model.first.predict(rows)
    chance[left] = model.second.predict(context_features(stats, left, rows, chance))
    return choose(pages, stats, left, chance, model.threshold)


def choose(pages: Blocks, stats: BlockStatistics, left: Ints, chance: Floats, threshold: float) -> list[list[int]]:
    """Return the blocks whose ``chance`` exceeds ``threshold``; tables and definition lists as a whole, if most does.

    Pages of few words, such as the reference of a function, differ from the articles that the model was trained on. If
    almost nothing passes, a third of the threshold is used, and then all blocks from the headline on that are not
    links.
    """
    chosen = chance > threshold

    def on_pages_of_few_words() -> Bools:
        return (stats.page_sums(np.where(chosen, stats.words, 0)) < FEW_WORDS)[stats.page]

    chosen |= on_pages_of_few_words() & (chance > threshold / 3)
    rest = (
        on_pages_of_few_words()[left] & (left >= stats.headline_at[stats.page[left]]) & (stats.link_share[left] < 0.5)
    )
    chosen[left[rest & ((stats.signals[left] & word_bits("rights")) == 0)]] = True
    for number in [number for number, tag in enumerate(pages.name) if tag in WHOLES]:
        low, high = np.searchsorted(left, (stats.first[number], stats.last[number]))
        inside = left[low:high]
        if len(inside) >= WHOLE_BLOCKS and stats.words[inside][chosen[inside]].sum() > MOST * stats.words[inside].sum():
            chosen[inside] = True
    return [
        without_copies(pages, (np.flatnonzero(chosen[low:high]) + low).tolist())
        for low, high in zip(stats.start.tolist(), stats.stop.tolist(), strict=True)
    ]


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
