"""Every rule drops what it is meant for, at its threshold, and prose passes them all."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.curate.orthography import (
    LANGUAGES,
    MEAN_WORD_CHARS,
    SENTENCES_END_IN_SPACES,
    UNSPACED,
    line_ends,
    sentence_ends,
    word_length_ratio,
)
from herdlm.curate.steps import heuristics
from herdlm.curate.steps.dirty_words import dirty_words
from herdlm.curate.steps.heuristics import HeuristicsConfig, check_text
from herdlm.curate.steps.quality.countable import quality
from herdlm.curate.steps.repetitive_lines import RepetitiveLinesConfig, remove_repetitive_lines, repetitive_lines
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import normalize, split_words
from tests.curate.crawls import article
from tests.curate.test_ngrams import duplicate_chars, top_chars

DEFAULT = HeuristicsConfig()
LOOSE = HeuristicsConfig(
    min_words=0,
    min_stop_words=0,
    min_sentences=0,
    min_mean_word_chars=0,
    max_lines_per_word=9,
    max_short_lines=1,
    min_terminal_lines=0,
    max_symbols_per_word=9,
    min_alphabetic_words=0,
    max_ellipsis_lines=1,
)
LOOSER = LOOSE.model_copy(
    update={"max_duplicate_lines": 1.0, "max_duplicate_line_chars": 1.0, "max_top_ngram_chars": (0.5, 0.4, 0.3)}
)
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
)
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


def slow_check(text: str, language: str, config: HeuristicsConfig) -> str | None:
    """The rules as one would write them down, in the same order."""
    words = split_words(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    chars = sum(len(word) for word in words)
    size = 2 if language in UNSPACED else 1
    stop_words = STOP_WORDS.get(language)
    ends = line_ends(language)
    spaced_ends = language in SENTENCES_END_IN_SPACES
    found = []
    found.append(("too_few_words", len(words) < config.min_words))
    found.append(("too_many_words", len(words) > config.max_words))
    if language not in UNSPACED:
        mean = chars / max(len(words), 1) / word_length_ratio(language)
        found.append(("words_too_short", mean < config.min_mean_word_chars))
        found.append(("words_too_long", mean > config.max_mean_word_chars))
    for symbols in (text.count("#"), text.count("...") + text.count("…")):
        found.append(("too_many_symbols", symbols > config.max_symbols_per_word * len(words)))
    lettered = [word for word in words if any(c.isalpha() for c in word)]
    found.append(("too_few_alphabetic_words", len(lettered) < config.min_alphabetic_words * len(words)))
    if stop_words is not None:
        different = {word for word in words if word in stop_words} | {
            w.lower() for w in words if w.lower() in stop_words
        }
        found.append(("too_few_stop_words", len(different) < config.min_stop_words))
    bullets = [line for line in lines if line.startswith(tuple(heuristics.BULLETS))]
    found.append(("too_many_bullet_lines", len(bullets) > config.max_bullet_lines * len(lines)))
    trailing = [line for line in lines if line.endswith(heuristics.ELLIPSES)]
    found.append(("too_many_ellipsis_lines", len(trailing) > config.max_ellipsis_lines * len(lines)))
    if not spaced_ends:
        ended = [line for line in lines if line.endswith(ends)]
        found.append(("too_few_sentence_ends", len(ended) < config.min_terminal_lines * len(lines)))
    short = [line for line in lines if len(line) < config.short_line_chars]
    found.append(("too_many_short_lines", len(short) > config.max_short_lines * len(lines)))
    found.append(("list_like", len(lines) > config.max_lines_per_word * len(words)))
    if not spaced_ends:
        sentences = sum(c in sentence_ends(language) for c in text)
        found.append(("too_few_sentences", sentences < config.min_sentences))
    for name, parts, most, most_chars in (
        ("duplicate_lines", lines, config.max_duplicate_lines, config.max_duplicate_line_chars),
        ("duplicate_paragraphs", paragraphs, config.max_duplicate_paragraphs, config.max_duplicate_paragraph_chars),
    ):
        again = [part for i, part in enumerate(parts) if part in parts[:i]]
        found.append((name, len(again) > most * len(parts) or sum(map(len, again)) > most_chars * len(text)))
    for n, share in zip((2, 3, 4), config.max_top_ngram_chars, strict=True):
        found.append((f"top_{n}_gram", top_chars(words, n * size) > share * chars))
    for n, share in zip(range(5, 11), config.max_duplicate_ngram_chars, strict=True):
        found.append((f"duplicate_{n}_grams", duplicate_chars(words, n * size) > share * chars))
    dirty = dirty_words(text, language)
    found.append(("too_many_dirty_words", dirty >= config.min_dirty_words and dirty > 0.01 * len(words)))
    return next((name for name, broken in found if broken), None)


PIECES = st.sampled_from(
    [
        "the",
        "of",
        "and",
        "in",
        "harbour",
        "Boat",
        "12",
        "...",
        "…",
        "#",
        "- ",
        "* x",
        "The end of it.",
        "これは本です。",
        "и не в",
        "die und der",
        "\n",
        "\n\n",
        ".",
        "?",
        "porn",
        "a b c d e f g",
        "EACH OF THEM",
        "日",
        "ก็ดี",
        "است در",
    ]
)


@settings(max_examples=400)
@given(
    st.lists(PIECES, max_size=60).map(" ".join),
    st.sampled_from(["en", "de", "ja", "ru", "th", "zh", "xmf"]),
    st.sampled_from([DEFAULT, LOOSE, LOOSER]),
)
def test_the_fast_check_gives_what_a_slow_one_gives(text: str, language: str, config: HeuristicsConfig) -> None:
    assert check_text(text, language, config) == slow_check(text, language, config)


@pytest.mark.parametrize("language", ["en", "de", "fr", "ja"])
def test_articles_with_repetitions_get_the_same_verdict(language: str) -> None:
    text = " ".join(article(language, key) for key in "abc")
    words = split_words(text)
    glue = "" if language == "ja" else " "
    for repeat in range(0, len(words), 7):
        repeated = text + glue + glue.join(words[:repeat])
        assert check_text(repeated, language, LOOSE) == slow_check(repeated, language, LOOSE)


def test_word_lengths_and_sentence_ends_are_the_languages_own() -> None:
    finnish = "Järjestelmänvalvojan käyttöoikeustasomäärittely on yhteensopivuustarkistuksen ja kokonaisuus ei muutu."
    german = " ".join(["Donaudampfschifffahrt und die Betriebsgesellschaft der Oberbuchhaltung."] * 2)
    strict = HeuristicsConfig(min_words=1, min_sentences=1, max_duplicate_lines=1)
    assert check_text(finnish, "en", strict) == "words_too_long"
    assert check_text(finnish, "fi", strict) is None
    assert check_text(german, "en", strict) == "words_too_long"
    hindi = "यह एक वाक्य है और इसमें कई शब्द हैं।\nवह किताब लेने के लिए बाज़ार गया था।"
    assert check_text(hindi, "hi", strict) is None
    assert check_text(hindi.replace("।", ""), "hi", strict) == "too_few_sentence_ends"


def test_languages_without_a_table_use_the_stated_default() -> None:
    text = article("en", "a")
    assert "xmf" not in STOP_WORDS
    assert check_text(text, "xmf", DEFAULT) is None
    assert word_length_ratio("xmf") == pytest.approx(6.0 / 5.3)


def test_tables_cover_many_languages() -> None:
    assert len(LANGUAGES) == 176
    assert set(STOP_WORDS) <= LANGUAGES
    assert len(STOP_WORDS) >= 45
    assert set(MEAN_WORD_CHARS) <= LANGUAGES
    assert set(STOP_WORDS) - UNSPACED <= set(MEAN_WORD_CHARS)
    for language, words in STOP_WORDS.items():
        assert len(words) >= 18, language
        assert all(split_words(word) == [word] and word == word.lower() for word in words), language


def test_repetitive_lines_are_found_and_removed() -> None:
    log = " ".join(f"{i} error while reading the block from the disk" for i in range(12))
    prose = article("en", "a").replace("\n", " ")
    text = f"{prose}\n{log}\n{article('en', 'b')}"
    default = RepetitiveLinesConfig()
    assert repetitive_lines(text, "en", default) == [log]
    assert remove_repetitive_lines(text, "en", default) == f"{prose}\n{article('en', 'b')}"
    assert remove_repetitive_lines(prose, "en", default) == prose
    assert repetitive_lines(text, "en", RepetitiveLinesConfig(min_words=200)) == []


def test_marks_belong_to_their_letters() -> None:
    assert split_words("ที่นี่ดี") == ["ที่", "นี่", "ดี"]
    assert normalize("हिन्दी, भाषा!") == "हिन्दी भाषा"
    assert normalize("Don't  STOP—now_é") == "don t stop now é"


def test_no_text_breaks_the_rules_themselves() -> None:
    loose = HeuristicsConfig(min_words=0, min_stop_words=0, min_mean_word_chars=0, min_sentences=0)
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


HOWTO = (
    "In this article we set up a small server that shows one page. We use nothing but what comes with the system, so "
    "that you can follow it on any machine.\n\n{}\n\nFirst the list of packages is brought up to date, and then the "
    "server is installed and started. The wall is opened for the two ports that it listens on, and the page is fetched "
    "once.\n\nAt last we look at the files of the server and have it check them itself. That is all there is to it, "
    "and it takes less time than reading this page twice."
)
COMMANDS = [f"sudo apt install package-{n}" for n in range(12)]
TABLE = "\n".join(f"{n}\t{n * 17}\t{n * 3.5}" for n in range(40))


def test_listings_and_tables_in_an_article_are_not_judged_as_prose() -> None:
    listing = HOWTO.format("\n".join(COMMANDS))
    assert check_text(listing, "en", DEFAULT) == "too_many_short_lines"
    assert check_text(listing, "en", DEFAULT, None, frozenset(COMMANDS)) is None
    assert check_text(HOWTO.format(TABLE), "en", DEFAULT) is None


def test_listings_do_not_save_a_page_without_prose() -> None:
    short = "Install it so:\n" + "\n".join(COMMANDS) + "\nand be happy with it, for that is all there is."
    assert check_text(short, "en", DEFAULT, None, frozenset(COMMANDS)) == "too_few_words"
    assert check_text(TABLE, "en", DEFAULT) == "too_few_words"
    spam = HOWTO.format("\n".join(COMMANDS)).replace("In this article", "lorem ipsum")
    assert check_text(spam, "en", DEFAULT, None, frozenset(COMMANDS)) == "placeholder_text"
