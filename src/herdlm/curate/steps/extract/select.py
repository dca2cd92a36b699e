"""Which blocks are content: the model's choice within the rules, without what the page says twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from herdlm.curate.steps.extract.block_statistics import Bools, Floats, Ints, Measures, measure
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.features import context_features, features
from herdlm.curate.steps.extract.model import Model
from herdlm.curate.steps.extract.rules import apply_rules
from herdlm.curate.steps.extract.signals import word_bits

FEW_WORDS = 30
REPEATED_WORDS = 50  # a block of so many words that stands on the page again is a copy, a shorter one may be meant
WHOLES = frozenset(("table", "dl"))
WHOLE_BLOCKS, MOST = 4, 0.6
WHOLE_WORDS, WHOLE_SHARE, COVERED_SHARE = 100, 0.2, 0.4


def select(pages: Blocks, titles: Sequence[str], descriptions: Sequence[str], model: Model) -> list[list[int]]:
    """Each page's content blocks by number, in order; none where no block passes for content or running text."""
    if not pages.text:
        return [[] for _ in pages.document]
    measures = measure(pages, titles, descriptions)
    left = np.flatnonzero(~apply_rules(pages, measures))
    if not len(left):
        return [[] for _ in pages.document]
    rows = features(pages, measures, left)
    chance = np.zeros(len(pages.text), np.float32)
    chance[left] = model.first.predict(rows)
    chance[left] = model.second.predict(context_features(measures, left, rows, chance))
    return choose(pages, measures, left, chance, model.threshold)


def choose(pages: Blocks, m: Measures, left: Ints, chance: Floats, threshold: float) -> list[list[int]]:
    """The blocks whose ``chance`` is above ``threshold``; a table or list of definitions as a whole, if most of it is.

    A page of few words, such as one function's reference, is unlike the articles that the model has seen: where next to
    nothing passes, a third of the threshold does, and after that whatever is no link from the headline on.
    """
    chosen = chance > threshold

    def on_pages_of_few_words() -> Bools:
        return (m.page_sums(np.where(chosen, m.words, 0)) < FEW_WORDS)[m.page]

    chosen |= on_pages_of_few_words() & (chance > threshold / 3)
    rest = on_pages_of_few_words()[left] & (left >= m.headline_at[m.page[left]]) & (m.link_share[left] < 0.5)
    chosen[left[rest & ((m.cues[left] & word_bits("rights")) == 0)]] = True
    for number in [number for number, tag in enumerate(pages.name) if tag in WHOLES]:
        low, high = np.searchsorted(left, (m.first[number], m.last[number]))
        inside = left[low:high]
        if len(inside) >= WHOLE_BLOCKS and m.words[inside][chosen[inside]].sum() > MOST * m.words[inside].sum():
            chosen[inside] = True
    return [
        without_copies(pages, (np.flatnonzero(chosen[low:high]) + low).tolist())
        for low, high in zip(m.start.tolist(), m.stop.tolist(), strict=True)
    ]


def without_copies(page: Blocks, kept: list[int]) -> list[int]:
    """Drop long blocks that repeat, and a block that says as a whole what others say by paragraphs."""
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
