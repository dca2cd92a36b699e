"""Identifies the language of a text by langdetect, which IFEval uses, with a fixed seed so that verdicts repeat."""

from __future__ import annotations

from functools import cache
from typing import Any

from herdlm.verifiers.extra import not_installed


@cache
def _library() -> tuple[Any, type[Exception]]:
    """Langdetect's factory of detectors with our seed, and what they raise at a text without letters."""
    try:
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
        from langdetect.lang_detect_exception import LangDetectException
    except ImportError as error:
        raise not_installed("identifying languages", error) from error
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory, LangDetectException


def languages() -> list[str]:
    """The codes of the languages that are known: ISO 639-1, and zh-cn and zh-tw."""
    return sorted(_library()[0].get_lang_list())


def detect_language(text: str) -> str | None:
    """The code of a text's language; None if it has no letters to tell by."""
    factory, nothing = _library()
    detector = factory.create()
    detector.append(text)
    try:
        found: str = detector.detect()
    except nothing:
        return None
    return found
