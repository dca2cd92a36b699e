"""Rules that tell running text from what a crawl is otherwise full of: navigation, tables, listings, spam.

Origins: [G] the quality rules and [R] the repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix
A.1.1); [C] C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2); [F] FineWeb (Penedo et al. 2024, arXiv 2406.17557,
section 3.6). Thresholds are ``HeuristicsConfig``'s; its defaults are theirs. Stop words are the page's own language's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.config import HeuristicsConfig
from herdlm.curate.orthography import UNSPACED
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import split_words

BULLETS = tuple("•‣◦▪■●○·-*\u2013")
ELLIPSES = ("...", "…", "[...]", "[…]")
TERMINALS = tuple('.!?:;")”»…。」\uff01\uff1f\uff1a\uff09')  # the last four: full-width ! ? : )
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
UNSPACED_WORD_CHARS = 2  # about what a word has in the languages whose characters are counted as words


def check_text(text: str, language: str, config: HeuristicsConfig) -> str | None:
    """None to keep a text, or the name of the first rule it breaks."""
    words = split_words(text)
    rules = chain(
        _word_rules(text, words, language, config),
        _line_rules(text, words, config),
        _repetition_rules(words, language, config),
    )
    return next((reason for reason, broken in rules if broken), None)


def _word_rules(text: str, words: Sequence[str], language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    count = len(words)
    yield "too_few_words", count < config.min_words  # [G]
    yield "too_many_words", count > config.max_words  # [G]
    if language not in UNSPACED:
        mean = sum(map(len, words)) / max(count, 1)
        yield "words_too_short", mean < config.min_mean_word_chars  # [G]
        yield "words_too_long", mean > config.max_mean_word_chars  # [G]
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    yield "too_many_symbols", symbols > config.max_symbols_per_word * count  # [G]
    alphabetic = sum(any(map(str.isalpha, word)) for word in words)
    yield "too_few_alphabetic_words", alphabetic < config.min_alphabetic_words * count  # [G]
    stop_words = STOP_WORDS[language].intersection(word.lower() for word in words)
    yield "too_few_stop_words", len(stop_words) < config.min_stop_words  # [G], with a table per language
    yield "placeholder_text", "lorem ipsum" in text.lower()  # [C]


def _line_rules(text: str, words: Sequence[str], config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    count = len(lines)
    bullets = sum(line.startswith(BULLETS) for line in lines)
    yield "too_many_bullet_lines", bullets > config.max_bullet_lines * count  # [G]
    ellipses = sum(line.endswith(ELLIPSES) for line in lines)
    yield "too_many_ellipsis_lines", ellipses > config.max_ellipsis_lines * count  # [G]
    ends = sum(line.endswith(TERMINALS) for line in lines)
    yield "too_few_sentence_ends", ends < config.min_terminal_lines * count  # [F], after [C]
    short = sum(len(line) < config.short_line_chars for line in lines)
    yield "too_many_short_lines", short > config.max_short_lines * count  # [F]
    yield "list_like", count > config.max_lines_per_word * len(words)  # [F]
    paragraphs = [paragraph for raw in text.split("\n\n") if (paragraph := raw.strip())]
    for reason, parts, max_parts, max_chars in (
        ("duplicate_lines", lines, config.max_duplicate_lines, config.max_duplicate_line_chars),
        ("duplicate_paragraphs", paragraphs, config.max_duplicate_paragraphs, config.max_duplicate_paragraph_chars),
    ):
        repeats, chars = _repeated(parts)
        yield reason, repeats > max_parts * len(parts) or chars > max_chars * len(text)  # [R]


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and how many characters they have."""
    extra = {part: count - 1 for part, count in Counter(parts).items() if count > 1}
    return sum(extra.values()), sum(len(part) * count for part, count in extra.items())


def _repetition_rules(words: Sequence[str], language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    size = UNSPACED_WORD_CHARS if language in UNSPACED else 1
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = int(lengths.sum())
    top = dict(zip(TOP_NGRAMS, config.max_top_ngram_chars, strict=True))
    duplicate = dict(zip(DUPLICATE_NGRAMS, config.max_duplicate_ngram_chars, strict=True))
    grams = ids
    for length in range(2, max(DUPLICATE_NGRAMS) * size + 1):
        if len(grams) < 2:  # one n-gram or none: nothing repeats in this length or a longer one
            return
        grams = _extend(grams, ids, length)
        n, rest = divmod(length, size)
        if rest == 0 and n in top:
            yield f"top_{n}_gram", _top_ngram_chars(grams, lengths, length) > top[n] * total  # [R]
        if rest == 0 and n in duplicate:
            yield f"duplicate_{n}_grams", _duplicate_ngram_chars(grams, lengths, length) > duplicate[n] * total  # [R]


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
