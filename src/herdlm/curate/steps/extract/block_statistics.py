"""Statistics of a page's blocks and containers, as arrays, from which rules and features are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.signals import BIT, word_signals

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Sums = npt.NDArray[np.float64]

TAG_CODE = {
    tag: code
    for code, tag in enumerate(
        (
            "p",
            "div",
            "li",
            "td",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "pre",
            "blockquote",
            "dt",
            "dd",
            "figcaption",
            "th",
            "section",
            "article",
            "center",
            "caption",
            "address",
            "header",
            "footer",
            "summary",
            "body",
            "button",
            "tr",
            "main",
            "noscript",
            "legend",
            "details",
            "form",
            "a",
        ),
        1,
    )
}
MAX_SIGNAL_CHARS = 300  # keywords mean nothing in a longer block
# Ends of sentences of many scripts, escaped if they look like ASCII.
ENDS = frozenset('.!?。\uff01\uff1f…।؟\u06d4:”"\u2019»)')
SIGNS = {sign: code for code, sign in enumerate(".!?:,;)]”\"'…([“-\u2013—•*|>©#@。\uff01\uff1f\uff1a」", 1)}
LONGEST_TITLE = 250
OPENING = 24  # characters


@dataclass(slots=True)
class BlockStatistics:
    """Arrays over blocks (``at``: a block's container), containers (``parent`` to ``box``) and pages (``document`` on).

    Sums of words, also of words outside links, are exact: they are multiples of 2^-24 (a float32 share of 1 subtracted
    from 1), of which a float64 holds 2^53. So the statistics of a page do not depend on the pages beside it.

    The rules fill in ``good``, a block's words if it looks like running text in an allowed place, else 0, and
    ``signals`` and ``opening``, which are 0 for the blocks that are ruled out, and ``flags``.
    """

    count: int
    at: Ints
    page: Ints
    here: Ints  # a block's own index
    words: Floats
    size: Floats
    link_share: Floats
    bold_share: Floats
    tags: Ints
    heading: Bools
    ends: Bools
    stops: Ints
    preformatted: Bools
    signals: Ints  # of keywords, in short blocks
    opening: Ints  # of the first few characters
    flags: Ints  # rules that doubt the block
    repeats: Ints
    in_title: Floats
    headline: Floats
    described: Floats
    under: Ints
    near: Ints
    parent: Ints
    first: Ints
    last: Ints
    depth: Ints
    path: Ints
    box: Ints  # indices of the containers
    box_page: Ints
    good: Floats
    document: Ints
    start: Ints  # blocks of a page: start <= b < stop
    stop: Ints
    headline_at: Ints  # -1 if a page has none
    described_at: Ints  # the block most like the description, or -1

    def page_sums(self, values: npt.NDArray[np.generic]) -> Sums:
        """Return sums over the blocks of each page, ``[pages]``."""
        sums: Sums = np.bincount(self.page, weights=values, minlength=len(self.start)).astype(np.float64, copy=False)
        return sums

    def page_maxima(self, values: npt.NDArray[Any]) -> Sums:
        """Return maxima over the blocks of each page, ``[pages]``; 0 if it has none."""
        maxima = np.zeros(len(self.start))
        filled = self.start < self.stop
        maxima[filled] = np.maximum.reduceat(values, self.start[filled])
        return maxima

    def summed(self, *values: npt.NDArray[np.generic]) -> Sums:
        """Return sums over the blocks of each container, ``[values, containers]``."""
        total = np.zeros((len(values), self.count + 1))
        for row, one in zip(total, values, strict=True):
            np.cumsum(one, dtype=np.float64, out=row[1:])
        sums: Sums = total[:, self.last] - total[:, self.first]
        return sums


def running(values: npt.NDArray[np.generic]) -> Sums:
    """Return sums of the first 0, 1, ... n values, ``[n + 1]``."""
    return np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))


def block_statistics(page: Blocks, titles: Sequence[str], descriptions: Sequence[str]) -> BlockStatistics:
    """Compute the statistics of pages that together have at least one block."""
    text, count = page.text, len(page.text)
    at, parent, own = np.array(page.container), np.array(page.parent), np.array(page.own)
    first, last, document = np.array(page.first), np.array(page.last), np.array(page.document)
    start, stop = first[document], last[document]
    words = np.array(page.words, np.float32)
    size = np.array([len(t) for t in text], np.float32)
    tags = np.array([TAG_CODE.get(page.name[c], 0) for c in page.container])
    link_share = np.minimum(np.array(page.link, np.float32) / size, 1)
    likely = (words >= 3) & (link_share < 0.9)
    repeats: list[int] = []
    headlines: list[tuple[Floats, Floats, int]] = []
    descriptions_in: list[tuple[Floats, int]] = []
    spans = zip(start.tolist(), stop.tolist(), titles, descriptions, strict=True)
    for low, high, title, description in spans:
        own_text = text[low:high]
        times = Counter(own_text)
        repeats += [1] * (high - low) if len(times) == high - low else [times[t] for t in own_text]
        headlines.append(_headline(own_text, tags[low:high], likely[low:high], title))
        descriptions_in.append(_described(own_text, page.words[low:high], description))
    headline_at = np.array([at for _, _, at in headlines])
    described_at = np.array([at for _, at in descriptions_in])
    return BlockStatistics(
        count=count,
        at=at,
        page=np.repeat(np.arange(len(document)), stop - start),
        here=np.arange(count),
        words=words,
        size=size,
        link_share=link_share,
        bold_share=np.minimum(np.array(page.bold, np.float32) / size, 1),
        tags=tags,
        heading=(tags >= TAG_CODE["h1"]) & (tags <= TAG_CODE["h6"]),
        ends=np.array([t[-1] in ENDS for t in text]),
        stops=np.array(
            [
                0
                if w < 4
                else t.count(". ")
                + t.count(", ")
                + (0 if t.isascii() else t.count("。") + t.count("、") + t.count("\uff0c"))
                for t, w in zip(text, page.words, strict=True)
            ]
        ),
        preformatted=np.array(page.preformatted),
        signals=np.zeros(count, np.int64),
        opening=np.zeros(count, np.int64),
        flags=np.zeros(count, np.int64),
        repeats=np.array(repeats),
        in_title=np.concatenate([shares for shares, _, _ in headlines]),
        headline=np.concatenate([values for _, values, _ in headlines]),
        described=np.concatenate([shares for shares, _ in descriptions_in]),
        under=np.array(page.inherited)[at],
        near=own[at] | own[parent[at]],
        parent=parent,
        first=first,
        last=np.maximum(last, first),  # a container that damaged markup closed early is empty
        depth=np.array(page.depth),
        path=np.array(page.path),
        box=np.arange(len(parent)),
        box_page=np.repeat(np.arange(len(document)), np.diff(document, append=len(parent))),
        good=np.zeros(count, np.float32),
        document=document,
        start=start,
        stop=stop,
        headline_at=np.where(headline_at < 0, -1, start + headline_at),
        described_at=np.where(described_at < 0, -1, start + described_at),
    )


def read_words(page: Blocks, stats: BlockStatistics, out: Bools) -> None:
    """Fill in the signals of the short blocks that are not ruled out."""
    short = np.flatnonzero(~out & (stats.size <= MAX_SIGNAL_CHARS))
    stats.signals[short] = stats.opening[short] = word_signals([page.text[block] for block in short.tolist()])
    longer = short[(stats.signals[short] != 0) & (stats.size[short] > OPENING)]
    stats.opening[longer] = word_signals([page.text[block][:OPENING] for block in longer.tolist()])


def _headline(text: list[str], tags: Ints, likely: Bools, title: str) -> tuple[Floats, Floats, int]:
    """Return, for a page, each block's share of words in the title, its score as a headline, and the best headline."""
    in_title, headline = np.zeros(len(text), np.float32), np.zeros(len(text), np.float32)
    title_words = set(title.lower().split())
    li, h1, h6 = TAG_CODE["li"], TAG_CODE["h1"], TAG_CODE["h6"]
    for number in np.flatnonzero(likely | (tags == h1)).tolist():
        if len(text[number]) < LONGEST_TITLE and tags[number] != li:
            own = text[number].lower().split()
            common = len(title_words.intersection(own))
            if common:
                in_title[number] = common / max(len(set(own)), 3)
            if common >= 2 or (common and tags[number] == h1):
                headline[number] = in_title[number] + common / max(len(title_words), 1)
    headline += (headline > 0) * (0.6 * (tags == h1) + 0.3 * ((tags > h1) & (tags <= h6))).astype(np.float32)
    best = int(headline.argmax()) if text else -1
    return in_title, headline, best if text and headline[best] > 0.7 else -1


def _described(text: list[str], words: list[int], description: str) -> tuple[Floats, int]:
    """Return each block's share of the description's words (0 if the description is short), and the best block.

    The best block is -1 if it has no more than half of the words.
    """
    described = np.zeros(len(text), np.float32)
    wanted = set(description.lower().split())
    if len(wanted) >= 8:
        for number, t in enumerate(text):
            if words[number] >= 8:
                described[number] = len(wanted.intersection(t[:500].lower().split())) / len(wanted)
    best = int(described.argmax()) if text else -1
    return described, best if text and described[best] > 0.5 else -1


def bits(masks: Ints, names: tuple[str, ...]) -> Floats:
    """Return 1 if a mask has the signal, ``[blocks, names]``."""
    wanted = np.array([BIT[name] for name in names])
    found: Floats = ((masks[:, None] & wanted) != 0).astype(np.float32)
    return found
