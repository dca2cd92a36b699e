"""A text's words, numbered once: against counts that are slow and obvious."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from herdlm.curate.steps.pii.step import _FINDERS, _possible
from herdlm.curate.words import Words, beyond_ascii, count_letters, normalize, split_words

TEXTS = st.text() | st.lists(
    st.sampled_from(["Wort", "wort", "ΣΑΣ", "İ", "漢字", "ไทย", "a-b", "\u0300", "\x1c", "½", "\n", "\ud800"])
).map(" ".join)


def slowly_normalized(text: str) -> str:
    """Character by character: what is neither letter, digit nor mark parts words."""
    lowered = text.lower()
    kept = "".join(c if re.match(r"[^\W_]", c) or unicodedata.category(c)[0] == "M" else " " for c in lowered)
    return " ".join(word for word in split_words(kept))


@settings(deadline=None)  # the table is made once
@given(TEXTS)
@example("Σas ΟΔΟΣ İstanbul 漢字")
def test_words_are_counted_and_lowered_as_one_by_one(text: str) -> None:
    words = Words(text)
    assert words.list == split_words(text) and words.chars == sum(map(len, words.list))
    assert dict(zip(words.unique, words.often.tolist(), strict=True)) == Counter(words.list)
    assert [words.list[place] for place in words.ids.tolist()] == words.list
    assert words.lowered == [word.lower() for word in words.unique]
    assert words.lines == [line.strip() for line in text.split("\n") if line.strip()]
    assert words.vocabulary == set(" ".join(words.normalized).split())
    assert " ".join(words.normalized) == normalize(text)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF)) | st.text(st.sampled_from("AaΣςİſẞÉé_-·漢カ字 \t\n.9")))
def test_normalizing_by_a_table_is_normalizing_by_the_character(text: str) -> None:
    assert normalize(text) == slowly_normalized(text)


@given(TEXTS)
def test_letters_and_what_is_beyond_ascii(text: str) -> None:
    assert count_letters(text) == sum(map(str.isalpha, text))
    assert beyond_ascii(text) == "".join(c for c in text if ord(c) > 127)


PIECES = st.sampled_from(
    [
        "DE89 3704 0044 0532 0130 00",
        "4539 1488 0343 6467",
        "3759 876543 21001",
        "4539148803436467",
        "+49 30 1234567",
        "tel: 030 / 12-34.567",
        "(030) 12\u2011345678",
        "0+1234567",
        " ",
        "12",
        "-",
        "é",
        "x",
    ]
)


@given(st.lists(PIECES, max_size=6).map("".join) | st.text(st.sampled_from("0123456789 +-()./AB\u2011\n"), max_size=40))
def test_no_kind_of_personal_data_is_passed_by_for_its_shape(text: str) -> None:
    missed = {kind for kind, find in _FINDERS.items() if kind not in _possible(text) and find(text)[1]}
    assert not missed
