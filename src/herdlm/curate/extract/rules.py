"""Rules that hold whatever a model thinks: where main content does not stand, by the standard's own words or by habit.

Each rule gives way where it would throw out most of a page's running text: a page may be all one ``<form>``.
"""

from __future__ import annotations

import re

import numpy as np

from herdlm.curate.extract.blocks import Blocks
from herdlm.curate.extract.cues import BIT, word_bits
from herdlm.curate.extract.measures import LONGEST_WITH_CUES, TAG_CODE, Bools, Measures, read_words

PLACES = ("<nav>", "<aside>", "<footer>", "<form>", "<address>", "hidden")
MAX_LOST = 0.4  # of the running text
MAX_LOST_BESIDE_HEADLINE = 0.85  # where the headline stays
SURE_HEADLINE = 1.2
TEXT_WORDS = 12
OUTER_WORDS = 60
_COMMENTS = re.compile(
    r"^(?:(?:top|user|reader|view|all|latest|recent)\s+(?:rated\s+)?)?\W*\d*\s*(?:comments?|responses?|kommentare?|commentaires?|comentarios?|comentários?"
    r"|commenti|reacties|komentar|комментарии|コメント|评论|評論|leave a (?:reply|comment)|join the (?:discussion|conversation))\b",
    re.IGNORECASE,
)  # fmt: skip
_PROMOTION = re.compile(
    r"^\W*(?:related|read more|read also|also read|see (?:also|more)|more:|more (?:on|from)|watch:|don.t miss|click here|sign up|subscribe"
    r"|follow (?:us|him|her)|advertisement|story continues|continue reading|recommended|lire aussi|lees ook|leia (?:também|mais)"
    r"|lea también|leggi anche|baca juga|lesen sie auch|читайте также|関連記事)\b",
    re.IGNORECASE,
)  # fmt: skip
_CAPTION = re.compile(
    r"\((?:image|photo|picture|credit|foto|getty|pic)s?\b[^()]{0,60}\)\s*$|^image \d+ of \d+$|^image (?:copyright|caption)\b|^(?:photo|image|credit|foto)\s*:",
    re.IGNORECASE,
)  # fmt: skip
_SERVICE = re.compile(
    r"\bfollow\b.{1,60}\bon\b.{0,30}\b(?:facebook|twitter|instagram)|\b(?:in|to) your inbox\b|\bsign up (?:for|to)\b.{0,60}\bnewsletter"
    r"|\b(?:may|can) be reached (?:at|on)\b|^reach\b.{0,60}@|^(?:e-?mail|contact)\b.{0,60}@|^have a tip\b|^got a tip\b"
    r"|\bcontributed to this (?:report|story|article)|^\(?(?:additional )?reporting by\b|^\(?writing by\b",
    re.IGNORECASE,
)  # fmt: skip
# groups of set words one of which each pattern needs; looking for the words first saves most searches
_PROMOTION_CUES = word_bits("related", "share", "subscribe", "advert", "view")
_CAPTION_CUES = word_bits("rights")
_SERVICE_CUES = word_bits("share", "subscribe", "contact", "rights")
LONGEST_COOKIE_NOTICE = 2_000  # characters
LONGEST_COMMENT_HEADING = 60  # characters


def apply_rules(page: Blocks, m: Measures) -> Bools:
    """The blocks that are ruled out; also sets ``m.good``, ``m.cues`` and ``m.opening``."""
    plain = m.words * (1 - m.link_share)
    running = np.where((m.words >= TEXT_WORDS) & (m.link_share < 0.35) & (m.ends | (m.stops >= 2) | m.preformatted), plain, 0)
    total = float(running.sum())
    out = np.zeros(m.count, bool)

    def rule_out(blocks: Bools, max_lost: float = MAX_LOST) -> None:
        if float(running[blocks & ~out].sum()) <= max_lost * total:
            out[blocks] = True

    notices = np.zeros(m.count, bool)
    headline = m.headline_at
    for place in PLACES:
        inside = (m.under & BIT[place]) != 0
        rule_out(inside, MAX_LOST if headline < 0 or inside[headline] else MAX_LOST_BESIDE_HEADLINE)
    captions = ((m.under & (BIT["<figcaption>"] | BIT["<figure>"])) != 0) & ~m.preformatted & ((m.under & BIT["<table>"]) == 0)
    rule_out(captions)
    rule_out(_inner_articles(page, m, running), MAX_LOST_BESIDE_HEADLINE)
    rule_out(_after_comment_headings(page, m, running), 1.0)
    if headline >= 0 and (m.tags[headline] == TAG_CODE["h1"] or (m.heading[headline] and m.headline[headline] > SURE_HEADLINE)):
        before = np.arange(m.count) < headline
        rule_out(before & ((m.link_share > 0.2) | ((m.tags == TAG_CODE["li"]) & (m.link_share > 0))), MAX_LOST_BESIDE_HEADLINE)
    rule_out((m.repeats > 1) & (m.words >= 8) & (m.tags == TAG_CODE["div"]))  # captions of galleries, teasers
    read_words(page, m, out)
    for block in np.flatnonzero(~out & (m.size <= LONGEST_WITH_CUES) & ~m.heading & ~m.preformatted).tolist():
        text, linked, words, cues = page.text[block], m.link_share[block], m.words[block], int(m.cues[block])
        promotes = (linked > 0.3 or words <= 3) and cues & _PROMOTION_CUES and _PROMOTION.match(text)
        if (
            promotes
            or (linked > 0.8 and text.isupper())
            or (cues & _CAPTION_CUES and _CAPTION.search(text))
            or (words < 60 and cues & _SERVICE_CUES and _SERVICE.search(text))
        ):
            notices[block] = True
    rule_out(notices)
    m.good = np.where(out, 0, running).astype(np.float32)
    main = _main(m)
    for block in np.flatnonzero(~out & (m.size < LONGEST_COOKIE_NOTICE)).tolist():
        if not m.first[main] <= block < m.last[main] and "cookie" in page.text[block].lower():
            out[block] = True
    m.good[out] = 0
    return out


def _main(m: Measures) -> int:
    """The innermost container with most of the good text."""
    box_good = m.summed(m.good)
    return int(np.flatnonzero(box_good >= 0.65 * max(float(box_good[0]), 1e-3))[-1]) if box_good[0] > 0 else 0


def _inner_articles(page: Blocks, m: Measures, running: np.ndarray) -> Bools:
    """Articles inside an article that has text of its own: by the HTML standard (4.3.2) comments and the like."""
    out = np.zeros(m.count, bool)
    numbers = [number for number, tag in enumerate(page.name) if tag == "article"]
    for outer in numbers:
        inside = np.zeros(m.count, bool)
        for inner in numbers:
            if inner != outer and m.first[outer] <= m.first[inner] and m.last[inner] <= m.last[outer] and inner > outer:
                inside[m.first[inner] : m.last[inner]] = True
        if inside.any():
            span = slice(m.first[outer], m.last[outer])
            if float(running[span][~inside[span]].sum()) >= OUTER_WORDS:
                out |= inside
    return out


def _after_comment_headings(page: Blocks, m: Measures, running: np.ndarray) -> Bools:
    """From a heading such as "3 comments" to the end of the container that it heads, if an article comes before it.

    A heading may be wrapped up alone: the container it heads is the innermost with more behind the heading.
    """
    out = np.zeros(m.count, bool)
    for block in np.flatnonzero(m.heading).tolist():
        text = page.text[block]
        if len(text) <= LONGEST_COMMENT_HEADING and _COMMENTS.match(text) and running[:block].sum() >= OUTER_WORDS:
            container = m.at[block]
            while container and m.last[container] <= block + 1:
                container = m.parent[container]
            out[block : m.last[container]] = True
    return out
