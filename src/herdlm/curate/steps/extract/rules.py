"""Rules about places where, by the HTML standard or by habit, main content seldom is.

A few of them override the model. The others are features of the blocks they concern, and hold on articles: comments are
the content of a forum. A rule that would remove most of a page's running text is not applied: a whole page can be one
``<form>``.
"""

from __future__ import annotations

import re
from itertools import groupby

import numpy as np

from herdlm.curate.steps.extract.block_statistics import (
    MAX_SIGNAL_CHARS,
    TAG_CODE,
    BlockStatistics,
    Bools,
    Floats,
    Ints,
    Sums,
    read_words,
)
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.signals import BIT, word_bits

PLACES = ("<nav>", "<aside>", "<footer>", "<form>", "<address>", "hidden", "unseen")
SURE_PLACES = ("<nav>", "<footer>", "hidden")
RULES = ("place", "unseen", "caption", "article", "comments", "before", "repeated", "notice")  # bits of a block's flags
MAX_LOST = 0.4  # of the running text
MAX_LOST_BESIDE_HEADLINE = 0.85  # the headline stays there
SURE_HEADLINE = 1.2
TEXT_WORDS = 12
LINKS = 0.8
OUTER_WORDS = 60
MAX_ARTICLES = 100
_COMMENTS = re.compile(
    r"^(?:(?:top|user|reader|view|all|latest|recent)\s+(?:rated\s+)?)?\W*\d*\s*(?:comments?|responses?|kommentare?|commentaires?|comentarios?|comentários?"
    r"|commenti|reacties|komentar|комментарии|コメント|评论|評論|leave a (?:reply|comment)|join the (?:discussion"
    r"|conversation))\b",
    re.IGNORECASE,
)
_PROMOTION = re.compile(
    r"^\W*(?:related|read more|read also|also read|see (?:also|more)|more:|more (?:on|from)|watch:|don.t miss"
    r"|click here|sign up|subscribe"
    r"|follow (?:us|him|her)|advertisement|story continues|continue reading|recommended|lire aussi|lees ook|leia "
    r"(?:também|mais)"
    r"|lea también|leggi anche|baca juga|lesen sie auch|читайте также|関連記事)\b",
    re.IGNORECASE,
)
_CAPTION = re.compile(
    r"\((?:image|photo|picture|credit|foto|getty|pic)s?\b[^()]{0,60}\)\s*$|^image \d+ of \d+$|^image "
    r"(?:copyright|caption)\b|^(?:photo|image|credit|foto)\s*:",
    re.IGNORECASE,
)
_SERVICE = re.compile(
    r"\bfollow\b.{1,60}\bon\b.{0,30}\b(?:facebook|twitter|instagram)|\b(?:in|to) your inbox\b|\bsign up (?:for"
    r"|to)\b.{0,60}\bnewsletter"
    r"|\b(?:may|can) be reached (?:at|on)\b|^reach\b.{0,60}@|^(?:e-?mail|contact)\b.{0,60}@|^have a tip\b|^got a tip\b"
    r"|\bcontributed to this (?:report|story|article)|^\(?(?:additional )?reporting by\b|^\(?writing by\b",
    re.IGNORECASE,
)
# each pattern needs a keyword of one of these groups; checking for keywords first saves most searches
_PROMOTION_SIGNALS = word_bits("related", "share", "subscribe", "advert", "view")
_CAPTION_SIGNALS = word_bits("rights")
_SERVICE_SIGNALS = word_bits("share", "subscribe", "contact", "rights")
LONGEST_COOKIE_NOTICE = 2_000  # characters
LONGEST_COMMENT_HEADING = 60  # characters


def apply_rules(page: Blocks, stats: BlockStatistics) -> Bools:
    """Return the blocks that are ruled out. Sets ``stats.good``, ``flags``, ``signals`` and ``opening``."""
    plain = stats.words * (1 - stats.link_share)
    running = np.where(
        (stats.words >= TEXT_WORDS)
        & (stats.link_share < 0.35)
        & (stats.ends | (stats.stops >= 2) | stats.preformatted),
        plain,
        0,
    )
    total = stats.page_sums(running)
    out, doubtful = np.zeros(stats.count, bool), np.zeros(stats.count, bool)

    def rule_out(rule: str, blocks: Bools, max_lost: float | Sums = MAX_LOST, sure: bool = False) -> None:
        nonlocal out, doubtful
        if blocks.any():
            lost = stats.page_sums(np.where(blocks & ~doubtful, running, 0))
            found = blocks & (lost <= max_lost * total)[stats.page]
            stats.flags |= found.astype(np.int64) << RULES.index(rule)
            doubtful |= found
            if sure:
                out |= found

    notices = np.zeros(stats.count, bool)
    for place in PLACES:
        inside = (stats.under & BIT[place]) != 0
        at_stake = (stats.headline_at < 0) | inside[stats.headline_at]
        most = np.where(at_stake, MAX_LOST, MAX_LOST_BESIDE_HEADLINE)
        rule_out("unseen" if place == "unseen" else "place", inside, most, place in SURE_PLACES)
    out |= ((stats.under & BIT["contents"]) != 0) & (stats.link_share > LINKS)  # a table of contents; no running text
    captions = (
        ((stats.under & (BIT["<figcaption>"] | BIT["<figure>"])) != 0)
        & ~stats.preformatted
        & ((stats.under & BIT["<table>"]) == 0)
    )
    rule_out("caption", captions)
    rule_out("article", _other_articles(page, stats, running), MAX_LOST_BESIDE_HEADLINE)
    rule_out("comments", _after_comment_headings(page, stats, running), MAX_LOST_BESIDE_HEADLINE)
    sure = (stats.tags == TAG_CODE["h1"]) | (stats.heading & (stats.headline > SURE_HEADLINE))
    before = (
        stats.here < np.where((stats.headline_at >= 0) & sure[stats.headline_at], stats.headline_at, -1)[stats.page]
    )
    rule_out(
        "before",
        before & ((stats.link_share > 0.2) | ((stats.tags == TAG_CODE["li"]) & (stats.link_share > 0))),
        MAX_LOST_BESIDE_HEADLINE,
        sure=True,
    )
    rule_out(
        "repeated", (stats.repeats > 1) & (stats.words >= 8) & (stats.tags == TAG_CODE["div"])
    )  # captions of galleries, teasers
    read_words(page, stats, out)
    short = ~out & (stats.size <= MAX_SIGNAL_CHARS) & ~stats.heading & ~stats.preformatted
    for suspects, is_notice in (
        (
            ((stats.link_share > 0.3) | (stats.words <= 3)) & ((stats.signals & _PROMOTION_SIGNALS) != 0),
            _PROMOTION.match,
        ),
        ((stats.link_share > 0.8) & (stats.words >= 2), _shouts),
        ((stats.signals & _CAPTION_SIGNALS) != 0, _CAPTION.search),
        ((stats.words < 60) & ((stats.signals & _SERVICE_SIGNALS) != 0), _SERVICE.search),
    ):
        for block in np.flatnonzero(short & suspects).tolist():
            notices[block] = notices[block] or bool(is_notice(page.text[block]))
    rule_out("notice", notices)
    stats.good = np.where(doubtful, 0, running).astype(np.float32)
    main = _main(stats)
    inside = (stats.here >= stats.first[main][stats.page]) & (stats.here < stats.last[main][stats.page])
    outside = ~out & ~inside & (stats.size < LONGEST_COOKIE_NOTICE)
    for block in np.flatnonzero(outside).tolist():
        if "cookie" in page.text[block].lower():
            out[block] = True
    stats.good[out] = 0
    return out


def _shouts(text: str) -> bool:
    return 2 * sum(map(str.isupper, text)) > len(text)


def _main(stats: BlockStatistics) -> Ints:
    """Return, for each page, the innermost container with most of the good text."""
    box_good = stats.summed(stats.good)[0]
    least = 0.65 * np.maximum(box_good[stats.document], 1e-3)
    holds = box_good >= least[stats.box_page]
    holds[stats.document] = True
    return np.maximum.reduceat(np.where(holds, stats.box, 0), stats.document)


def _other_articles(page: Blocks, stats: BlockStatistics, running: Floats) -> Bools:
    """Rule out articles inside an article with text of its own, and beside the one with the headline and text.

    By the HTML standard (4.3.2), nested articles are comments and the like.
    """
    out = np.zeros(stats.count, bool)
    articles = [number for number, tag in enumerate(page.name) if tag == "article"]
    for of_page, group in groupby(articles, lambda number: int(stats.box_page[number])):
        numbers = list(group)[:MAX_ARTICLES]
        headline = int(stats.headline_at[of_page])
        for outer in numbers:
            low, high = int(stats.first[outer]), int(stats.last[outer])
            inside = np.zeros(high - low, bool)
            for inner in numbers:
                if inner > outer and stats.last[inner] <= high:
                    inside[stats.first[inner] - low : stats.last[inner] - low] = True
            if float(running[low:high][~inside].sum()) >= OUTER_WORDS:
                out[low:high] |= inside
                if low <= headline < high and stats.tags[headline] == TAG_CODE["h1"]:
                    for other in numbers:
                        if stats.first[other] >= high:
                            out[stats.first[other] : stats.last[other]] = True
    return out


def _after_comment_headings(page: Blocks, stats: BlockStatistics, running: Floats) -> Bools:
    """Rule out what follows a heading such as "3 comments" in the container that it heads, if an article precedes it.

    A heading can be wrapped alone, so the container is the innermost one with more after the heading. If that has
    another heading of the same rank with text, the heading is part of the document.
    """
    out = np.zeros(stats.count, bool)
    for block in np.flatnonzero(stats.heading & (stats.size <= LONGEST_COMMENT_HEADING)).tolist():
        if not _COMMENTS.match(page.text[block]) or running[stats.start[stats.page[block]] : block].sum() < OUTER_WORDS:
            continue
        container = int(stats.at[block])
        while container != stats.parent[container] and stats.last[container] <= block + 1:
            container = int(stats.parent[container])
        end = int(stats.last[container])
        others = (
            np.flatnonzero(stats.heading[block + 1 : end] & (stats.tags[block + 1 : end] <= stats.tags[block]))
            + block
            + 1
        )
        if not len(others) or running[others[0] : end].sum() < OUTER_WORDS:
            out[block:end] = True
    return out
