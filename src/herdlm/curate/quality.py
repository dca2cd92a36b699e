"""How much a text reads like careful prose: a score in [0, 1] from countable properties, to rank by and not to filter.

The score is the geometric mean of five parts, so that no strength makes up for a missing one. Each part rises linearly
from 0 to 1 between two values:

========== ================================================================================ ==============
part       property                                                                         0 at, 1 at
========== ================================================================================ ==============
sentences  share of characters on lines of at least 6 words that end as sentences do         0.0, 1.0
function   share of words that are stop words of the text's language                         0.05, 0.45
letters    share of the characters other than spaces that are letters                        0.60, 0.95
variety    different words per word, the mean over stretches of 200 words                    0.20, 0.70
length     logarithm of the number of words                                                  ln 40, ln 2,000
========== ================================================================================ ==============

A part never counts for less than ``FLOOR``, which keeps bad texts in order among themselves.
"""

from __future__ import annotations

import math

from herdlm.curate.orthography import line_ends
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import split_words

FLOOR = 0.01
STRETCH_WORDS = 200
SENTENCE_WORDS = 6


def quality(text: str, language: str) -> float:
    """The score of a text, rounded to 4 places; 0 for an empty one."""
    words = [word.lower() for word in split_words(text)]
    visible = sum(map(len, words))
    if not visible:
        return 0.0
    lines = [line.strip() for line in text.split("\n")]
    ends = line_ends(language)
    prose = sum(len(s) for s in lines if s.endswith(ends) and len(split_words(s)) >= SENTENCE_WORDS)
    stop_words = STOP_WORDS.get(language, frozenset())
    stretches = [words[i : i + STRETCH_WORDS] for i in range(0, len(words), STRETCH_WORDS)]
    if len(stretches) > 1:  # a short last stretch would look more varied than it is
        stretches.pop()
    parts = (
        _ramp(prose / sum(map(len, lines)), 0.0, 1.0),
        _ramp(sum(word in stop_words for word in words) / len(words), 0.05, 0.45),
        _ramp(sum(map(str.isalpha, text)) / visible, 0.60, 0.95),
        _ramp(sum(len(set(s)) / len(s) for s in stretches) / len(stretches), 0.20, 0.70),
        _ramp(math.log(len(words)), math.log(40), math.log(2000)),
    )
    return round(math.prod(max(part, FLOOR) for part in parts) ** (1 / len(parts)), 4)


def _ramp(value: float, zero: float, one: float) -> float:
    return min(max((value - zero) / (one - zero), 0.0), 1.0)
