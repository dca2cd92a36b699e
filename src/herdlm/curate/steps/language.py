"""Identifies the language of a page by its text alone, since what a page declares is often wrong.

Untranslated pages of a translated site declare the language of the translation, and manuals mix prose with code, so
excerpts from all over the text are judged together. Scripts that only one language uses are decided by counting
letters, all others by fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759: a linear model over hashed character
n-grams), which knows 176 languages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.orthography import LANGUAGES
from herdlm.curate.step import PageStep

MODEL = Path(__file__).parents[1] / "models" / "lid.176.ftz"
MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
EXCERPTS = 10
EXCERPT_CHARS = 60
MIN_SCRIPT_SHARE = 0.5  # of the letters, from which a script decides
MAX_CAPITALS = 0.3  # of the letters
MIN_KANA_SHARE = 0.1  # of Kana and Han together, from which a page is Japanese; Chinese pages quote less

# Languages so close to another that even pure text scores for both: on translated manuals, 34% of Norwegian pages and
# 20% of Indonesian ones score below 0.65, but at most 12% of any other language (except Croatian, with three pages)
CLOSE = frozenset({"bs", "da", "gl", "hr", "id", "ms", "nn", "no", "sh", "sr"})
CLOSE_SHARE = 0.8

_LABEL = "__label__"
_LETTER = re.compile(r"[^\W\d_]")
# Scripts that only one of the model's languages uses, by their blocks of code points
_SCRIPTS = {
    "el": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "hy": ((0x530, 0x58F),),
    "dv": ((0x780, 0x7BF),),
    "pa": ((0xA00, 0xA7F),),
    "gu": ((0xA80, 0xAFF),),
    "or": ((0xB00, 0xB7F),),
    "ta": ((0xB80, 0xBFF),),
    "te": ((0xC00, 0xC7F),),
    "kn": ((0xC80, 0xCFF),),
    "ml": ((0xD00, 0xD7F),),
    "si": ((0xD80, 0xDFF),),
    "th": ((0xE00, 0xE7F),),
    "lo": ((0xE80, 0xEFF),),
    "km": ((0x1780, 0x17FF), (0x19E0, 0x19FF)),
    "ko": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "ja": ((0x3041, 0x3096), (0x30A1, 0x30FA)),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    "": (
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xC0, 0x24F),
        (0x400, 0x52F),
        (0x590, 0x6FF),
        (0x900, 0x9FF),
        (0xF00, 0x10FF),
        (0x1200, 0x137F),
        (0x1E00, 0x1EFF),
    ),
}
_NAMES = tuple(_SCRIPTS)
_OTHER = len(_NAMES)
_JA, _HAN = _NAMES.index("ja"), _NAMES.index("han")


class LanguageConfig(Section):
    """Which languages to keep, and how certain their identification must be."""

    keep: tuple[str, ...] = Field(
        ("en", "de", "fr", "es"), min_length=1, description="codes, ISO 639-1 where there is one"
    )
    min_score: float = Field(0.5, ge=0, le=1, description="0.8 times this for languages with close neighbors")
    thresholds: dict[str, float] = Field({}, description="by language, in place of min_score")

    @field_validator("keep")
    @classmethod
    def _languages_are_supported(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        _check_languages(languages)
        return languages

    @field_validator("thresholds")
    @classmethod
    def _thresholds_are_probabilities_of_supported_languages(cls, thresholds: dict[str, float]) -> dict[str, float]:
        _check_languages(thresholds)
        for language, value in thresholds.items():
            if not 0 <= value <= 1:
                raise ValueError(f"the threshold {value} of {language!r} is not between 0 and 1")
        return thresholds


def _check_languages(languages: Iterable[str]) -> None:
    if unknown := sorted(set(languages) - LANGUAGES):
        raise ValueError(f"language {unknown[0]!r} is not supported; choose from {', '.join(sorted(LANGUAGES))}")


class Language(PageStep):
    """Sets ``language`` (ISO 639) and ``language_score`` in [0, 1], and drops languages that are not wanted."""

    name, prose_only = "language", True
    settings: LanguageConfig

    def run(self, batch: Batch) -> Outcome:
        results = [identify(text) for text in batch["text"]]
        reasons = [check_language(code, score, self.settings) for code, score in results]
        columns: Batch = {"language": [code for code, _ in results], "language_score": [score for _, score in results]}
        return Outcome(reasons, columns)


def _script_table() -> NDArray[np.uint8]:
    table = np.full(0x10000, _OTHER, np.uint8)
    for number, blocks in enumerate(_SCRIPTS.values()):
        for first, last in blocks:
            table[first : last + 1] = number
    return table


_SCRIPT = _script_table()


@cache
def _model() -> Any:
    """Load lid.176, after checking its hash.

    Raises:
        InputError: The file is missing or different, or fasttext-predict is not installed.
    """
    try:
        content = MODEL.read_bytes()
    except OSError as error:
        raise InputError(f"{MODEL} cannot be read: {error.strerror}", "Install herdlm again") from error
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        raise InputError(f"{MODEL} is not the published lid.176.ftz", "Install herdlm again")
    try:
        import fasttext_pybind
    except ImportError as error:
        raise InputError("fasttext-predict is not installed", 'pip install "herdlm[curate]"') from error
    model = fasttext_pybind.fasttext()
    model.loadModel(str(MODEL))
    return model


def sample(text: str) -> str:
    """Return ``EXCERPTS`` excerpts of ``EXCERPT_CHARS`` characters from all over a text, joined, or a short text."""
    if len(text) <= EXCERPTS * EXCERPT_CHARS:
        return text
    step = (len(text) - EXCERPT_CHARS) / (EXCERPTS - 1)
    starts = [round(i * step) for i in range(EXCERPTS)]
    return " ".join([text[start : start + EXCERPT_CHARS] for start in starts])


def identify(text: str) -> tuple[str, float]:
    """Return the code of a text's language, one of ``orthography.LANGUAGES``, and a score in [0, 1].

    The score is the share of letters in the language's script, if that decides, else the model's probability. A text
    without letters gives ("", 0.0).
    """
    piece = sample(text)
    if not piece.isascii():
        language, share = _by_script(piece)
        if language:
            return language, share
    if not _LETTER.search(piece):
        return "", 0.0
    piece = _without_capitals(piece)
    predictions = _model().predict(piece.replace("\n", " ").replace("\0", " ") + "\n", 1, 0.0, "ignore")
    probability, label = predictions[0]
    return label.removeprefix(_LABEL), round(min(probability, 1.0), 4)


def _without_capitals(piece: str) -> str:
    """Return a text in capitals, or with much of it in capitals, in small letters, which the model was trained on."""
    capitals = sum(map(str.isupper, piece))
    if capitals <= MAX_CAPITALS * sum(map(str.isalpha, piece)):
        return piece
    return piece.replace("İ", "i").lower()


def _by_script(piece: str) -> tuple[str, float]:
    """Return the language whose own script has most of the letters, and their share, or "" and 0."""
    codes = np.frombuffer(piece.encode("utf-16-le", "surrogatepass"), np.uint16)
    counts = np.bincount(_SCRIPT[codes], minlength=_OTHER + 1)[:_OTHER]
    letters = int(counts.sum())
    if counts[_JA] > MIN_KANA_SHARE * (counts[_JA] + counts[_HAN]):
        counts[_JA] += counts[_HAN]
    counts[_HAN] = counts[-1] = 0  # used by several languages
    best = int(counts.argmax())
    if letters == 0 or counts[best] < MIN_SCRIPT_SHARE * letters:
        return "", 0.0
    return _NAMES[best], round(int(counts[best]) / letters, 4)


def check_language(language: str, score: float, config: LanguageConfig) -> str | None:
    """Return the reason to drop a page, ``other_language`` or ``uncertain_language`` (a low score), or None."""
    if language not in config.keep:
        return "other_language"
    return "uncertain_language" if score < threshold(language, config) else None


def threshold(language: str, config: LanguageConfig) -> float:
    """Return a language's threshold: its own, or the common one, which is lower for languages with close neighbors."""
    usual = config.min_score * (CLOSE_SHARE if language in CLOSE else 1.0)
    return config.thresholds.get(language, usual)
