"""Judges by equal text."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Any

from pydantic import Field

from herdlm.verifiers.reference import texts
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed

ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class Exact(Verifier):
    """Passes an answer that equals the reference, or one of several, character by character."""

    strip: bool = Field(True, description="leave out white space around both")

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        wanted = texts(reference)
        if self.strip:
            answer, wanted = answer.strip(), [text.strip() for text in wanted]
        return passed("equal") if answer in wanted else failed("different")


class Text(Verifier):
    """Passes an answer that equals the reference, or one of several, after normalization.

    By default as SQuAD compares (Rajpurkar et al. 2016): without case, punctuation, articles and repeated spaces.
    Unicode is in the form NFKC.
    """

    ignore_case: bool = True
    ignore_punctuation: bool = True
    ignore_articles: bool = Field(True, description="leave out a, an and the")
    contains: bool = Field(False, description="pass if the reference stands anywhere in the answer, as whole words")

    def normalize(self, text: str) -> str:
        """The text as it is compared."""
        text = unicodedata.normalize("NFKC", text)
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = "".join(character for character in text if not _is_punctuation(character))
        if self.ignore_articles:
            text = ARTICLES.sub(" ", text)
        return " ".join(text.split())

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        found, wanted = self.normalize(answer), [self.normalize(text) for text in texts(reference)]
        if found in wanted:
            return passed("equal", found=found)
        if self.contains and any(text and f" {text} " in f" {found} " for text in wanted):
            return passed("contained", found=found)
        return failed("different", found=found)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
