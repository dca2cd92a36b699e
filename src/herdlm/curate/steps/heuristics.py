"""Rules that tell running text from what a crawl is otherwise full of: navigation, tables, listings, spam.

Origins: [G] the quality rules and [R] the repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix
A.1.1); [C] C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2); [F] FineWeb (Penedo et al. 2024, arXiv 2406.17557,
section 3.6); [L] Llama 3 (Llama team 2024, arXiv 2407.21783, section 3.1.1). Thresholds are ``HeuristicsConfig``'s; its
defaults are theirs. They were chosen for English: word lengths are scaled by how long a language's words are, stop
words and ends of sentences are the language's own (``stopwords.py``, ``orthography.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

from herdlm.curate.config import HeuristicsConfig
from herdlm.curate.ngrams import NGrams
from herdlm.curate.orthography import SENTENCES_END_IN_SPACES, UNSPACED, line_ends, sentence_ends, word_length_ratio
from herdlm.curate.steps.dirty_words import dirty_words
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import Words, split_words

BULLETS = tuple("•‣◦▪■●○·-*\u2013")
ELLIPSES = ("...", "…", "[...]", "[…]")
ELLIPSIS_ENDS = ".…]"  # what those end with
PLACEHOLDERS = ("lorem ipsum", "Lorem ipsum", "Lorem Ipsum", "LOREM IPSUM")
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
UNSPACED_WORD_CHARS = 2  # about what a word has in the languages whose characters are counted as words
LINE_NGRAM = 5


def check_text(text: str, language: str, config: HeuristicsConfig, words: Words | None = None) -> str | None:
    """None to keep a text, or the name of the first rule it breaks; cheap rules are asked first.

    ``words`` are the text's, where they are at hand.
    """
    words = words or Words(text)
    rules = chain(
        _word_rules(text, words, language, config),
        _line_rules(text, words, language, config),
        _repetition_rules(words, language, config),
        _vocabulary_rules(text, words, language, config),
    )
    return next((reason for reason, broken in rules if broken), None)


def _word_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    count = words.count
    yield "too_few_words", count < config.min_words  # [G]
    yield "too_many_words", count > config.max_words  # [G]
    if language not in UNSPACED:
        mean = words.chars / max(count, 1) / word_length_ratio(language)
        yield "words_too_short", mean < config.min_mean_word_chars  # [G]
        yield "words_too_long", mean > config.max_mean_word_chars  # [G]
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    yield "too_many_symbols", symbols > config.max_symbols_per_word * count  # [G]
    yield "too_few_alphabetic_words", _lacks_letters(words, config.min_alphabetic_words * count)  # [G]
    yield "too_few_stop_words", _lacks_stop_words(words, language, config.min_stop_words)  # [G]
    yield "placeholder_text", any(map(text.__contains__, PLACEHOLDERS))  # [C]
    yield "curly_brackets", config.drop_curly_brackets and "{" in text  # [C]


def _lacks_letters(words: Words, least: float) -> bool:
    """Whether fewer than ``least`` words have a letter in them; most that do begin with one."""
    first = [word[0].isalpha() for word in words.unique]
    if int(words.often[first].sum()) >= least:
        return False
    return int(words.often[[any(map(str.isalpha, word)) for word in words.unique]].sum()) < least


def _lacks_stop_words(words: Words, language: str, least: int) -> bool:
    """Whether a text has fewer than ``least`` different stop words; never where the language has no table."""
    stop_words = STOP_WORDS.get(language)
    if stop_words is None or sum(map(words.unique.__contains__, stop_words)) >= least:
        return False
    return len(stop_words.intersection(words.lowered)) < least


def _line_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    lines = words.lines
    count = len(lines)
    firsts, lasts = Counter([line[0] for line in lines]), Counter([line[-1] for line in lines])
    bullets = sum([firsts[bullet] for bullet in BULLETS])
    yield "too_many_bullet_lines", bullets > config.max_bullet_lines * count  # [G]
    ellipses = sum([line[-1] in ELLIPSIS_ENDS and line.endswith(ELLIPSES) for line in lines])
    yield "too_many_ellipsis_lines", ellipses > config.max_ellipsis_lines * count  # [G]
    if language not in SENTENCES_END_IN_SPACES:
        ends = sum([lasts[end] for end in _line_ends(language)])
        yield "too_few_sentence_ends", ends < config.min_terminal_lines * count  # [F], after [C]
    short = sum([len(line) < config.short_line_chars for line in lines])
    yield "too_many_short_lines", short > config.max_short_lines * count  # [F]
    yield "list_like", count > config.max_lines_per_word * words.count  # [F]
    if language not in SENTENCES_END_IN_SPACES:
        yield "too_few_sentences", sum(map(text.count, sentence_ends(language))) < config.min_sentences  # [C]
    paragraphs = [paragraph for raw in text.split("\n\n") if (paragraph := raw.strip())]
    for reason, parts, max_parts, max_chars in (
        ("duplicate_lines", lines, config.max_duplicate_lines, config.max_duplicate_line_chars),
        ("duplicate_paragraphs", paragraphs, config.max_duplicate_paragraphs, config.max_duplicate_paragraph_chars),
    ):
        repeats, chars = _repeated(parts)
        yield reason, repeats > max_parts * len(parts) or chars > max_chars * len(text)  # [R]


_line_ends = cache(line_ends)


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and how many characters they have."""
    if len(set(parts)) == len(parts):
        return 0, 0
    extra = {part: count - 1 for part, count in Counter(parts).items() if count > 1}
    return sum(extra.values()), sum(len(part) * count for part, count in extra.items())


def _repetition_rules(words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    size = UNSPACED_WORD_CHARS if language in UNSPACED else 1
    grams = NGrams(words.ids, words.lengths)
    for n, share in zip(TOP_NGRAMS, config.max_top_ngram_chars, strict=True):
        yield f"top_{n}_gram", grams.top_chars_exceed(n * size, share * words.chars)  # [R]
    shares = config.max_duplicate_ngram_chars
    for i, n in enumerate(DUPLICATE_NGRAMS):
        covered = grams.duplicate_chars(n * size)
        yield f"duplicate_{n}_grams", covered > shares[i] * words.chars  # [R]
        if covered <= min(shares[i:]) * words.chars:
            return  # what longer n-grams cover, shorter ones cover too


def _vocabulary_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    if config.max_dirty_words < 1:
        dirty = dirty_words(text, language, words)
        many = dirty >= config.min_dirty_words and dirty > config.max_dirty_words * words.count
        yield "too_many_dirty_words", many  # [L]


def repetitive_lines(text: str, language: str, config: HeuristicsConfig) -> list[str]:
    """The lines that are mostly made of word 5-grams which stood in the same line before: logs, spam, error messages.

    Such lines are long and each is unlike the others, so no de-duplication of lines finds them ([L], with the coverage
    of [R]). Lines of fewer than ``repetitive_line_words`` words are not looked at. A page that is full of such lines
    breaks the rules of duplicate n-grams; of any other page the lines can be removed.
    """
    size = UNSPACED_WORD_CHARS if language in UNSPACED else 1
    found = []
    for line in text.split("\n"):
        if len(line) < config.repetitive_line_words:
            continue
        words = split_words(line)
        if len(words) < config.repetitive_line_words * size:
            continue
        chars = sum(map(len, words))
        limit = config.max_line_ngram_chars * chars
        if chars - sum(map(len, set(words))) <= limit:
            continue  # only words that stood before can be in n-grams that did
        numbered = Words(line)
        if NGrams(numbered.ids, numbered.lengths).duplicate_chars(LINE_NGRAM * size) > limit:
            found.append(line)
    return found


def remove_repetitive_lines(text: str, language: str, config: HeuristicsConfig) -> str:
    """``text`` without its repetitive lines."""
    lines = set(repetitive_lines(text, language, config))
    return "\n".join(line for line in text.split("\n") if line not in lines) if lines else text
