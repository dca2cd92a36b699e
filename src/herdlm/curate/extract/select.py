"""Which blocks are content: the model's choice within the rules, without what the page says twice."""

from __future__ import annotations

import numpy as np

from herdlm.curate.extract.blocks import Blocks
from herdlm.curate.extract.cues import word_bits
from herdlm.curate.extract.features import context_features, features
from herdlm.curate.extract.measures import Floats, Ints, Measures, measure
from herdlm.curate.extract.model import Model
from herdlm.curate.extract.rules import apply_rules

FEW_WORDS = 30
REPEATED_WORDS = 50  # a block of so many words that stands on the page again is a copy, a shorter one may be meant
WHOLES = frozenset(("table", "dl"))
WHOLE_BLOCKS, MOST = 4, 0.6
WHOLE_WORDS, WHOLE_SHARE, COVERED_SHARE = 100, 0.2, 0.4


def select(page: Blocks, title: str, description: str, model: Model) -> list[int]:
    """Numbers of the content blocks, in order; none where no block passes for content or running text."""
    if not page.text:
        return []
    measures = measure(page, title, description)
    left = np.flatnonzero(~apply_rules(page, measures))
    if not len(left):
        return []
    rows = features(page, measures, left)
    chance = np.zeros(len(page.text), np.float32)
    chance[left] = model.first.predict(rows)
    chance[left] = model.second.predict(context_features(measures, left, rows, chance))
    return choose(page, measures, left, chance, model.threshold)


def choose(page: Blocks, m: Measures, left: Ints, chance: Floats, threshold: float) -> list[int]:
    """The blocks whose ``chance`` is above ``threshold``; a table or list of definitions as a whole, if most of it is.

    A page of few words, such as one function's reference, is unlike the articles that the model has seen: where next to
    nothing passes, a third of the threshold does, and after that whatever is no link from the headline on.
    """
    chosen = chance > threshold
    if m.words[chosen].sum() < FEW_WORDS:
        chosen = chance > threshold / 3
    if m.words[chosen].sum() < FEW_WORDS:
        rest = left[(left >= m.headline_at) & (m.link_share[left] < 0.5) & ((m.cues[left] & word_bits("rights")) == 0)]
        chosen[rest] = True
    for number, tag in enumerate(page.name):
        if tag in WHOLES:
            inside = left[(left >= m.first[number]) & (left < m.last[number])]
            if len(inside) >= WHOLE_BLOCKS and m.words[inside][chosen[inside]].sum() > MOST * m.words[inside].sum():
                chosen[inside] = True
    return without_copies(page, np.flatnonzero(chosen).tolist())


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
