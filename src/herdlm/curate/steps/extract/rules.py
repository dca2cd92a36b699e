"""Rules that hold whatever a model thinks: where main content does not stand, by the standard's own words or by habit.

Each rule gives way where it would throw out most of a page's running text: a page may be all one ``<form>``.
"""

from __future__ import annotations

import re
from itertools import groupby

import numpy as np

from herdlm.curate.steps.extract.block_statistics import (
    LONGEST_WITH_CUES,
    TAG_CODE,
    Bools,
    Floats,
    Ints,
    Measures,
    Sums,
    read_words,
)
from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.signals import BIT, word_bits

PLACES = ("<nav>", "<aside>", "<footer>", "<form>", "<address>", "hidden")
MAX_LOST = 0.4  # of the running text
MAX_LOST_BESIDE_HEADLINE = 0.85  # where the headline stays
SURE_HEADLINE = 1.2
TEXT_WORDS = 12
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
# groups of set words one of which each pattern needs; looking for the words first saves most searches
_PROMOTION_CUES = word_bits("related", "share", "subscribe", "advert", "view")
_CAPTION_CUES = word_bits("rights")
_SERVICE_CUES = word_bits("share", "subscribe", "contact", "rights")
LONGEST_COOKIE_NOTICE = 2_000  # characters
LONGEST_COMMENT_HEADING = 60  # characters


def apply_rules(page: Blocks, m: Measures) -> Bools:
    """The blocks that are ruled out; also sets ``m.good``, ``m.cues`` and ``m.opening``."""
    plain = m.words * (1 - m.link_share)
    running = np.where(
        (m.words >= TEXT_WORDS) & (m.link_share < 0.35) & (m.ends | (m.stops >= 2) | m.preformatted), plain, 0
    )
    total = m.page_sums(running)
    out = np.zeros(m.count, bool)

    def rule_out(blocks: Bools, max_lost: float | Sums = MAX_LOST) -> None:
        nonlocal out
        if blocks.any():
            out |= blocks & (m.page_sums(np.where(blocks & ~out, running, 0)) <= max_lost * total)[m.page]

    notices = np.zeros(m.count, bool)
    for place in PLACES:
        inside = (m.under & BIT[place]) != 0
        at_stake = (m.headline_at < 0) | inside[m.headline_at]
        rule_out(inside, np.where(at_stake, MAX_LOST, MAX_LOST_BESIDE_HEADLINE))
    captions = (
        ((m.under & (BIT["<figcaption>"] | BIT["<figure>"])) != 0) & ~m.preformatted & ((m.under & BIT["<table>"]) == 0)
    )
    rule_out(captions)
    rule_out(_other_articles(page, m, running), MAX_LOST_BESIDE_HEADLINE)
    rule_out(_after_comment_headings(page, m, running), MAX_LOST_BESIDE_HEADLINE)
    sure = (m.tags == TAG_CODE["h1"]) | (m.heading & (m.headline > SURE_HEADLINE))
    before = m.here < np.where((m.headline_at >= 0) & sure[m.headline_at], m.headline_at, -1)[m.page]
    rule_out(
        before & ((m.link_share > 0.2) | ((m.tags == TAG_CODE["li"]) & (m.link_share > 0))), MAX_LOST_BESIDE_HEADLINE
    )
    rule_out((m.repeats > 1) & (m.words >= 8) & (m.tags == TAG_CODE["div"]))  # captions of galleries, teasers
    read_words(page, m, out)
    short = ~out & (m.size <= LONGEST_WITH_CUES) & ~m.heading & ~m.preformatted
    for suspects, is_notice in (
        (((m.link_share > 0.3) | (m.words <= 3)) & ((m.cues & _PROMOTION_CUES) != 0), _PROMOTION.match),
        ((m.link_share > 0.8) & (m.words >= 2), _shouts),
        ((m.cues & _CAPTION_CUES) != 0, _CAPTION.search),
        ((m.words < 60) & ((m.cues & _SERVICE_CUES) != 0), _SERVICE.search),
    ):
        for block in np.flatnonzero(short & suspects).tolist():
            notices[block] = notices[block] or bool(is_notice(page.text[block]))
    rule_out(notices)
    m.good = np.where(out, 0, running).astype(np.float32)
    main = _main(m)
    inside = (m.here >= m.first[main][m.page]) & (m.here < m.last[main][m.page])
    outside = ~out & ~inside & (m.size < LONGEST_COOKIE_NOTICE)
    for block in np.flatnonzero(outside).tolist():
        if "cookie" in page.text[block].lower():
            out[block] = True
    m.good[out] = 0
    return out


def _shouts(text: str) -> bool:
    return 2 * sum(map(str.isupper, text)) > len(text)


def _main(m: Measures) -> Ints:
    """Of each page: the innermost container with most of the good text."""
    box_good = m.summed(m.good)[0]
    least = 0.65 * np.maximum(box_good[m.document], 1e-3)
    holds = box_good >= least[m.box_page]
    holds[m.document] = True
    return np.maximum.reduceat(np.where(holds, m.box, 0), m.document)


def _other_articles(page: Blocks, m: Measures, running: Floats) -> Bools:
    """Articles inside an article that has text of its own, by the HTML standard (4.3.2) comments and the like, and
    articles beside the one that has the page's headline and text."""
    out = np.zeros(m.count, bool)
    articles = [number for number, tag in enumerate(page.name) if tag == "article"]
    for of_page, group in groupby(articles, lambda number: int(m.box_page[number])):
        numbers = list(group)[:MAX_ARTICLES]
        headline = int(m.headline_at[of_page])
        for outer in numbers:
            low, high = int(m.first[outer]), int(m.last[outer])
            inside = np.zeros(high - low, bool)
            for inner in numbers:
                if inner > outer and m.last[inner] <= high:
                    inside[m.first[inner] - low : m.last[inner] - low] = True
            if float(running[low:high][~inside].sum()) >= OUTER_WORDS:
                out[low:high] |= inside
                if low <= headline < high and m.tags[headline] == TAG_CODE["h1"]:
                    for other in numbers:
                        if m.first[other] >= high:
                            out[m.first[other] : m.last[other]] = True
    return out


def _after_comment_headings(page: Blocks, m: Measures, running: Floats) -> Bools:
    """From a heading such as "3 comments" to the end of the container it heads, if an article comes before it.

    A heading may be wrapped up alone: the container it heads is the innermost with more behind the heading. Where that
    goes on under another heading of the same rank, the heading is one of a document's own.
    """
    out = np.zeros(m.count, bool)
    for block in np.flatnonzero(m.heading & (m.size <= LONGEST_COMMENT_HEADING)).tolist():
        if not _COMMENTS.match(page.text[block]) or running[m.start[m.page[block]] : block].sum() < OUTER_WORDS:
            continue
        container = int(m.at[block])
        while container != m.parent[container] and m.last[container] <= block + 1:
            container = int(m.parent[container])
        end = int(m.last[container])
        others = np.flatnonzero(m.heading[block + 1 : end] & (m.tags[block + 1 : end] <= m.tags[block])) + block + 1
        if not len(others) or running[others[0] : end].sum() < OUTER_WORDS:
            out[block:end] = True
    return out
