"""Every rule drops what it is meant for, at its threshold, and prose passes them all."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate import heuristics
from herdlm.curate.config import HeuristicsConfig
from herdlm.curate.heuristics import check_text
from herdlm.curate.quality import quality
from herdlm.curate.words import split_words
from tests.curate.crawls import article

DEFAULT = HeuristicsConfig()
EN = article("en", "a")


@pytest.mark.parametrize("language", ["en", "de", "fr", "ja"])
def test_prose_passes(language: str) -> None:
    text = "\n".join(article(language, key) for key in "abc")
    assert check_text(text, language, DEFAULT) is None


def numbered(count: int, line: str = "and the {} of it was found in that house on the hill") -> str:
    return "\n".join(line.format(f"{i}th") for i in range(count))


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("too_few_words", "The end of it, and that is all."),
        ("too_many_words", EN),
        ("words_too_short", EN + " a b c d e f g" * 50),
        ("words_too_long", EN + " incomprehensibilities-unquestionably" * 60),
        ("too_many_symbols", EN + " #tag" * 40),
        ("too_many_symbols", EN.replace(". ", "... ") + " so ..." * 20),
        ("too_few_alphabetic_words", EN + " 1234 5678" * 40),
        ("too_few_stop_words", "Harbour boats arrive. " * 30),
        ("placeholder_text", EN + " Lorem ipsum dolor sit amet."),
        ("too_many_bullet_lines", "\n".join("- " + s for s in EN.split(". "))),
        ("too_many_ellipsis_lines", EN.replace(". ", " …\n")),
        ("too_few_sentence_ends", numbered(40)),
        ("too_many_short_lines", "\n".join(["It was the harbour that."] * 3 + [EN]).replace(" was", " was", 1)),
        ("list_like", "\n".join(f"Of that {word}." for word in EN.split())),
        ("duplicate_lines", "\n".join([*EN.split(". ")[:6], *["It was the same line again and again."] * 6])),
        ("duplicate_paragraphs", "\n\n".join([EN, article("en", "b"), EN, EN])),
        ("top_2_gram", EN + " " + " ".join(f"{w} harbour harbour." for w in EN.split()[:60])),
        ("duplicate_5_grams", EN + " So then. " + EN),
    ],
)  # fmt: skip
def test_each_rule_drops_what_it_is_for(reason: str, text: str) -> None:
    config = DEFAULT
    if reason == "too_many_words":
        config = HeuristicsConfig(max_words=100)
    if reason == "too_many_short_lines":
        config = HeuristicsConfig(max_short_lines=0.5, max_duplicate_lines=1, max_duplicate_line_chars=1)
    if reason in ("list_like", "duplicate_paragraphs", "words_too_short"):
        config = HeuristicsConfig(max_short_lines=1, max_duplicate_lines=1, max_duplicate_line_chars=1)
    assert check_text(text, "en", config) == reason


def test_stop_words_are_those_of_the_language() -> None:
    assert check_text(article("de", "a"), "de", DEFAULT) is None
    assert check_text(article("fr", "a"), "ja", DEFAULT) == "too_few_stop_words"


def test_characters_are_the_words_of_unspaced_languages() -> None:
    assert split_words("ab 日本語 c") == ["ab", "日", "本", "語", "c"]
    assert split_words("한국어 문장") == ["한국어", "문장"]


SMALL_TEXTS = st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), min_size=1, max_size=40)


@given(SMALL_TEXTS, st.integers(2, 10))
def test_ngram_counts_match_their_definition(words: list[str], n: int) -> None:
    lengths = np.array([len(word) for word in words], np.int64)
    ids = np.unique(words, return_inverse=True)[1].astype(np.int64)
    grams = ids
    for size in range(2, n + 1):
        if len(grams) < 2:
            return
        grams = heuristics._extend(grams, ids, size)
    plain = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(grams) == len(plain)

    counts = Counter(plain)
    most = max(counts.values())
    top = {sum(map(len, gram)) * most for gram, count in counts.items() if count == most} if most > 1 else {0}
    assert heuristics._top_ngram_chars(grams, lengths, n) in top

    seen, covered = set(), set()
    for i, gram in enumerate(plain):
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    assert heuristics._duplicate_ngram_chars(grams, lengths, n) == sum(len(words[i]) for i in covered)


def test_no_text_breaks_the_rules_themselves() -> None:
    loose = HeuristicsConfig(min_words=0, min_stop_words=0, min_mean_word_chars=0)
    for text in ("", " ", "word", "two words", "\n\n\n"):
        assert check_text(text, "en", loose) in (None, "too_few_sentence_ends", "too_many_short_lines", "list_like")


def test_quality_orders_texts() -> None:
    rng = Random(1)
    prose = "\n".join(article("en", key) for key in "abcdef")
    listing = "\n".join(f"option_{i} {rng.randint(0, 99)} 0x{i:04x}" for i in range(400))
    repeated = "It was the same in that house. " * 100
    scores = {name: quality(text, "en") for name, text in (("prose", prose), ("list", listing), ("same", repeated))}
    assert 0 <= scores["list"] < scores["same"] < scores["prose"] <= 1
    assert quality(prose[:300], "en") < scores["prose"]  # shorter, else alike
    assert quality("", "en") == 0
    assert quality("\n\t ", "en") == 0
