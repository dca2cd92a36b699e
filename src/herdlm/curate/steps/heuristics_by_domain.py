"""Which heuristics do not hold for code and for mathematics: they were made for prose.

Programs have short lines, few stop words and as many symbols as words; formulas have words of one letter. A rule that
such a text breaks by its nature is switched off for its domain, or given room; all others hold as they are, so that a
page of navigation does not become a corpus because it looks like code.

============================== ======================= ============ ================================================
key                            code                    mathematics  why
============================== ======================= ============ ================================================
min_mean_word_chars            off                     off          operators and variables are words of one character
max_mean_word_chars            at most 40              as it is     dotted names and calls are one word
min_alphabetic_words           at least 0.3            at least 0.4 operators, brackets and numbers stand alone
max_symbols_per_word           off                     as it is     comments, directives and prompts begin with #
min_stop_words                 at least 1              as it is     a function without prose has no two of them
min_terminal_lines             off                     off          statements and equations do not end as sentences do
max_short_lines                off                     at most 0.9  lines are short
max_lines_per_word             at most 0.6             at most 0.5  lines have few words
max_duplicate_lines            at most 0.5             as it is     closing brackets and returns repeat
max_duplicate_line_chars       at most 0.3             as it is
max_top_ngram_chars            1.5 times               1.5 times    idioms and steps of a derivation repeat
max_duplicate_ngram_chars      2 times                 1.5 times
============================== ======================= ============ ================================================

"At most" and "at least" relax: a threshold that is already more lenient stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from herdlm.curate.config import HeuristicsConfig
from herdlm.curate.steps.domains.rules import CODE, MATHEMATICS

Relax = Callable[[Any], Any]


def _at_most(limit: float) -> Relax:
    return lambda value: max(value, limit)


def _at_least(limit: float) -> Relax:
    return lambda value: min(value, limit)


def _times(factor: float) -> Relax:
    return lambda values: tuple(min(value * factor, 1.0) for value in values)


RELAXED: Mapping[str, Mapping[str, Relax]] = {
    CODE: {
        "min_mean_word_chars": _at_least(0.0),
        "max_mean_word_chars": _at_most(40.0),
        "min_alphabetic_words": _at_least(0.3),
        "max_symbols_per_word": _at_most(1.0),
        "min_stop_words": _at_least(1),
        "min_terminal_lines": _at_least(0.0),
        "max_short_lines": _at_most(1.0),
        "max_lines_per_word": _at_most(0.6),
        "max_duplicate_lines": _at_most(0.5),
        "max_duplicate_line_chars": _at_most(0.3),
        "max_top_ngram_chars": _times(1.5),
        "max_duplicate_ngram_chars": _times(2.0),
    },
    MATHEMATICS: {
        "min_mean_word_chars": _at_least(0.0),
        "min_alphabetic_words": _at_least(0.4),
        "min_terminal_lines": _at_least(0.0),
        "max_short_lines": _at_most(0.9),
        "max_lines_per_word": _at_most(0.5),
        "max_top_ngram_chars": _times(1.5),
        "max_duplicate_ngram_chars": _times(1.5),
    },
}


def heuristics_for(domain: str, config: HeuristicsConfig) -> HeuristicsConfig:
    """The thresholds that hold for a domain: ``config``, relaxed where the table above says so."""
    relaxed = RELAXED.get(domain, {})
    changes = {key: relax(getattr(config, key)) for key, relax in relaxed.items()}
    return type(config).model_validate(config.model_dump() | changes)
