"""Dirty words count as whole words, in the page's language and in English."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.orthography import LANGUAGES
from herdlm.curate.steps.dirty_words import ANYWHERE, DIRTY_WORDS, dirty_words
from herdlm.curate.steps.heuristics import HeuristicsConfig, check_text
from tests.curate.crawls import article


def test_tables_are_lower_case_words_of_known_languages() -> None:
    assert set(DIRTY_WORDS) <= LANGUAGES
    for language, words in DIRTY_WORDS.items():
        assert all(word == word.lower() for word in words), language
        assert language in ANYWHERE or all(re.fullmatch(r"[^\W\d_]+", w) or not w.isascii() for w in words)
        assert language not in ANYWHERE or all(len(word) >= 2 for word in words)


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("Porn, PORN! (porn) porn-star's “porn” sexy/porn", "en", 6),
        ("Essex, Scunthorpe, cockpit, analysis, circumstances, cumulative, Titsey, document", "en", 0),
        ("ficken porno xxx", "de", 3),
        ("ficken", "en", 0),
        ("смотреть порно онлайн", "ru", 1),
        ("これは無修正の動画 porn", "ja", 2),
        ("", "en", 0),
    ],
)
def test_whole_words_count(text: str, language: str, count: int) -> None:
    assert dirty_words(text, language) == count


@given(st.lists(st.sampled_from(["porn", "tits", "titsy", "a", ",", " ", ".", "\n", "-", "é", "“"])).map("".join))
def test_counts_match_a_regular_expression(text: str) -> None:
    words = re.split(r"[\x00-/:-@\[-`{-\x7f\s“”]+", text.lower())
    assert dirty_words(text, "en") == sum(word in DIRTY_WORDS["en"] for word in words)


def test_a_page_full_of_them_is_dropped_and_a_few_are_not() -> None:
    text = "\n".join(article("en", key) for key in "ab")
    assert check_text(text + " So porn it was.", "en", HeuristicsConfig()) is None
    dirty = text.replace(" harbour", " porn").replace(" the ", " the nude ")
    assert check_text(dirty, "en", HeuristicsConfig(max_dirty_words=0.005)) == "too_many_dirty_words"
    glued = "porn-porn-porn"  # three in one word: more than all words there are
    loose = HeuristicsConfig(
        min_words=0,
        min_stop_words=0,
        min_sentences=0,
        max_mean_word_chars=99,
        max_lines_per_word=1,
        min_terminal_lines=0,
    )
    loose = loose.model_copy(update={"max_short_lines": 1.0})
    assert check_text(glued, "en", loose) == "too_many_dirty_words"
    assert check_text(glued, "en", loose.model_copy(update={"max_dirty_words": 1.0})) is None
    assert check_text(dirty, "en", HeuristicsConfig(max_dirty_words=1)) != "too_many_dirty_words"
