"""Which language a page is written in, judged by its text alone: what a page declares is often wrong.

Untranslated pages of a translated site declare the translation's language; so windows of the text itself are classified
(py3langid: naive Bayes over byte n-grams, 140 languages), and the page's score says how far they agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from functools import cache
from typing import Any

WINDOWS = 3
WINDOW_CHARS = 600


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def windows(text: str) -> list[str]:
    """At most ``WINDOWS`` stretches of ``WINDOW_CHARS`` characters: the start, the end, and evenly between."""
    if len(text) <= WINDOWS * WINDOW_CHARS:
        return [text]
    step = (len(text) - WINDOW_CHARS) / (WINDOWS - 1)
    return [text[round(i * step) : round(i * step) + WINDOW_CHARS] for i in range(WINDOWS)]


def identify(text: str) -> tuple[str, float]:
    """The ISO 639 code of a text's language and a score in [0, 1].

    The score is the mean over windows of the probability given to that language by the windows that chose it, so a page
    of two languages scores low even where each window is certain.
    """
    votes: dict[str, float] = defaultdict(float)
    pieces = windows(text)
    for piece in pieces:
        language, probability = _classifier().classify(piece)
        votes[language] += probability / len(pieces)
    language = max(sorted(votes), key=votes.__getitem__)
    return language, round(min(votes[language], 1.0), 4)


def check_language(language: str, score: float, languages: Collection[str], min_score: float) -> str | None:
    """None to keep a page, or why not: other_language, uncertain_language."""
    if language not in languages:
        return "other_language"
    return "uncertain_language" if score < min_score else None
