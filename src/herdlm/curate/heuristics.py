"""Rules that tell running text from what a crawl is otherwise full of: navigation, tables, listings, spam.

Origins: [G] the quality rules and [R] the repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix
A.1.1); [C] C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2); [F] FineWeb (Penedo et al. 2024, arXiv 2406.17557,
section 3.6). Thresholds are ``HeuristicsConfig``'s; its defaults are theirs. Stop words are the page's own language's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.config import HeuristicsConfig
from herdlm.curate.stopwords import STOP_WORDS, UNSPACED
from herdlm.curate.words import split_words

BULLETS = ("•", "‣", "◦", "▪", "■", "●", "○", "-", "*", "–", "·")
ELLIPSES = ("...", "…", "[...]", "[…]")
TERMINALS = (".", "!", "?", ":", ";", '"', "”", "»", "…", "。", "！", "？", "：", "」", "）", ")")
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)


def check_text(text: str, language: str, config: HeuristicsConfig) -> str | None:
    """None to keep a text, or the name of the first rule it breaks."""
    words = split_words(text)
    return _check_words(text, words, language, config) or _check_lines(text, words, config) or _check_repetition(
        text, words, config
    )  # fmt: skip


def _check_words(text: str, words: Sequence[str], language: str, config: HeuristicsConfig) -> str | None:
    count = len(words)
    if count < config.min_words:
        return "too_few_words"  # [G]
    if count > config.max_words:
        return "too_many_words"  # [G]
    if language not in UNSPACED:
        mean = sum(map(len, words)) / max(count, 1)
        if mean < config.min_mean_word_chars:
            return "words_too_short"  # [G]
        if mean > config.max_mean_word_chars:
            return "words_too_long"  # [G]
    if max(text.count("#"), text.count("...") + text.count("…")) > config.max_symbols_per_word * count:
        return "too_many_symbols"  # [G]
    if sum(any(map(str.isalpha, word)) for word in words) < config.min_alphabetic_words * count:
        return "too_few_alphabetic_words"  # [G]
    stop_words = STOP_WORDS[language]
    if len(stop_words.intersection(word.lower() for word in words)) < config.min_stop_words:
        return "too_few_stop_words"  # [G], with a table per language
    return "placeholder_text" if "lorem ipsum" in text.lower() else None  # [C]


def _check_lines(text: str, words: Sequence[str], config: HeuristicsConfig) -> str | None:
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    count = len(lines)
    if sum(line.startswith(BULLETS) for line in lines) > config.max_bullet_lines * count:
        return "too_many_bullet_lines"  # [G]
    if sum(line.endswith(ELLIPSES) for line in lines) > config.max_ellipsis_lines * count:
        return "too_many_ellipsis_lines"  # [G]
    if sum(line.endswith(TERMINALS) for line in lines) < config.min_terminal_lines * count:
        return "too_few_sentence_ends"  # [F]; [C] drops such lines
    if sum(len(line) < config.short_line_chars for line in lines) > config.max_short_lines * count:
        return "too_many_short_lines"  # [F]
    if count > config.max_lines_per_word * len(words):
        return "list_like"  # [F]
    paragraphs = [paragraph for raw in text.split("\n\n") if (paragraph := raw.strip())]
    for unit, parts, max_parts, max_chars in (
        ("lines", lines, config.max_duplicate_lines, config.max_duplicate_line_chars),
        ("paragraphs", paragraphs, config.max_duplicate_paragraphs, config.max_duplicate_paragraph_chars),
    ):
        parts_repeated, chars_repeated = _repeated(parts)
        if parts_repeated > max_parts * len(parts) or chars_repeated > max_chars * len(text):
            return f"duplicate_{unit}"  # [R]
    return None


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and how many characters they have."""
    extra = {part: count - 1 for part, count in Counter(parts).items() if count > 1}
    return sum(extra.values()), sum(len(part) * count for part, count in extra.items())


def _check_repetition(text: str, words: Sequence[str], config: HeuristicsConfig) -> str | None:
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = max(int(lengths.sum()), 1)
    limits = dict(zip(TOP_NGRAMS, config.max_top_ngram_chars, strict=True))
    duplicate_limits = dict(zip(DUPLICATE_NGRAMS, config.max_duplicate_ngram_chars, strict=True))
    grams = ids
    for n in range(2, DUPLICATE_NGRAMS[-1] + 1):
        if len(grams) < 2:  # one n-gram or none: nothing can repeat in this length or longer ones
            return None
        grams = _extend(grams, ids, n)
        if n in limits and _top_ngram_chars(grams, lengths, n) > limits[n] * total:
            return f"top_{n}_gram"  # [R]
        if n in duplicate_limits and _duplicate_ngram_chars(grams, lengths, n) > duplicate_limits[n] * total:
            return f"duplicate_{n}_grams"  # [R]
    return None


def _extend(grams: NDArray[np.int64], ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Number the n-grams of words from the numbers of the (n-1)-grams: equal n-grams, equal numbers, no collisions."""
    pairs = grams[:-1] * (ids.max() + 1) + ids[n - 1 :]
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)


def _top_ngram_chars(grams: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """Characters of words within the occurrences of the commonest n-gram, if it occurs more than once."""
    counts = np.bincount(grams)
    top = int(counts.argmax())
    if counts[top] < 2:
        return 0
    first = int(np.flatnonzero(grams == top)[0])
    return int(counts[top]) * int(lengths[first : first + n].sum())


def _duplicate_ngram_chars(grams: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """Characters of words within n-grams that occurred before, each word counted once."""
    seen_before = np.ones(len(grams), bool)
    seen_before[np.unique(grams, return_index=True)[1]] = False
    edges = np.zeros(len(lengths) + 1, np.int64)
    starts = np.flatnonzero(seen_before)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + n, -1)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())
