"""Scores how much a text reads like careful prose, in [0, 1], by countable properties: to rank by, not to filter.

The score is the geometric mean of five parts, so no strength makes up for a missing one. Each part rises linearly from
0 to 1 between two values:

========== ================================================================================ ==============
part       property                                                                         0 at, 1 at
========== ================================================================================ ==============
sentences  share of characters on lines of at least 6 words that end as sentences do         0.0, 1.0
function   share of words that are stop words of the text's language                         0.05, 0.45
letters    share of the characters other than spaces that are letters                        0.60, 0.95
variety    different words per word, the mean over segments of 200 words                     0.20, 0.70
length     logarithm of the number of words                                                  ln 40, ln 2,000
========== ================================================================================ ==============

Each part is at least ``FLOOR``, which keeps bad texts in order among themselves.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.orthography import line_ends
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import Words, count_letters, split_words

FLOOR = 0.01
SEGMENT_WORDS = 200
SENTENCE_WORDS = 6


def quality(text: str, language: str, words: Words | None = None) -> float:
    """Return the score of a text with 4 decimals, 0 if it is empty. ``words`` are those of the text, if available."""
    words = words or Words(text)
    if not words.count:
        return 0.0
    number: dict[str, int] = {}  # the index of each lower-case word among the unique words
    unique = np.fromiter(map(number.setdefault, words.lowered, range(len(words.lowered))), np.int64)
    often = np.bincount(unique, words.often)
    visible = int(words.often @ np.fromiter(map(len, words.lowered), np.int64))
    stop_words = STOP_WORDS.get(language, frozenset()) & number.keys()
    parts = (
        _ramp(_prose_chars(words, language) / sum(map(len, words.lines)), 0.0, 1.0),
        _ramp(sum(int(often[number[word]]) for word in stop_words) / words.count, 0.05, 0.45),
        _ramp(count_letters(text) / visible, 0.60, 0.95),
        _ramp(_variety(words.spread(unique)), 0.20, 0.70),
        _ramp(math.log(words.count), math.log(40), math.log(2000)),
    )
    return round(math.prod(max(part, FLOOR) for part in parts) ** (1 / len(parts)), 4)


def _prose_chars(words: Words, language: str) -> int:
    """Return the number of characters on lines of running text."""
    ends = _line_ends(language)
    lines = [line for line in words.lines if line[-1] in ends]
    if words.spaced:
        return sum([len(line) for line in lines if len(line.split(None, SENTENCE_WORDS - 1)) == SENTENCE_WORDS])
    return sum([len(line) for line in lines if len(split_words(line)) >= SENTENCE_WORDS])


@cache
def _line_ends(language: str) -> frozenset[str]:
    return frozenset(line_ends(language))


def _variety(ids: NDArray[np.int64]) -> float:
    """Return the different words per word, averaged over segments of the words numbered ``ids`` (N,), N > 0."""
    if len(ids) > SEGMENT_WORDS:  # the last segment can be short, and would look too varied
        ids = ids[: (len(ids) - 1) // SEGMENT_WORDS * SEGMENT_WORDS].reshape(-1, SEGMENT_WORDS)
    ordered = np.sort(np.atleast_2d(ids))
    different = 1 + np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1)
    shares: list[float] = (different / ordered.shape[1]).tolist()
    return sum(shares) / len(shares)


def _ramp(value: float, zero: float, one: float) -> float:
    return min(max((value - zero) / (one - zero), 0.0), 1.0)
