"""The kinds of instructions, which of them may stand in one prompt, and the halves of them."""

from __future__ import annotations

from itertools import combinations

from herdlm.verifiers.ifeval_instructions import INSTRUCTIONS

KEYWORDS = ("keywords:existence", "keywords:frequency", "keywords:forbidden_words", "keywords:letter_frequency")
LANGUAGE = "language:response_language"
SENTENCES = "length_constraints:number_sentences"
PARAGRAPHS = "length_constraints:number_paragraphs"
WORDS = "length_constraints:number_words"
FIRST_WORD = "length_constraints:nth_paragraph_first_word"
PLACEHOLDERS = "detectable_content:number_placeholders"
POSTSCRIPT = "detectable_content:postscript"
BULLETS = "detectable_format:number_bullet_lists"
CHOICE = "detectable_format:constrained_response"
HIGHLIGHTS = "detectable_format:number_highlighted_sections"
SECTIONS = "detectable_format:multiple_sections"
JSON = "detectable_format:json_format"
TITLE = "detectable_format:title"
TWO = "combination:two_responses"
REPEAT = "combination:repeat_prompt"
END = "startend:end_checker"
QUOTATION = "startend:quotation"
CAPITAL_WORDS = "change_case:capital_word_frequency"
CAPITAL = "change_case:english_capital"
LOWERCASE = "change_case:english_lowercase"
NO_COMMA = "punctuation:no_comma"

LAYOUTS = (PARAGRAPHS, FIRST_WORD, BULLETS, SECTIONS, TWO, JSON, CHOICE)
"""Each decides the form of the whole answer."""

WITH_JSON = ("keywords:existence", "keywords:forbidden_words", "keywords:frequency", WORDS)
WITH_LANGUAGE = (BULLETS, WORDS, SENTENCES, PARAGRAPHS, TITLE, QUOTATION, HIGHLIGHTS)

AGAINST: dict[str, tuple[str, ...]] = {
    CAPITAL: (LOWERCASE, CAPITAL_WORDS, POSTSCRIPT, END, CHOICE, REPEAT, SECTIONS),
    LOWERCASE: (CAPITAL_WORDS, POSTSCRIPT, END, CHOICE, REPEAT, SECTIONS),
    QUOTATION: (REPEAT, BULLETS),
    REPEAT: (NO_COMMA, *KEYWORDS, CAPITAL_WORDS, FIRST_WORD, PARAGRAPHS, CHOICE, TWO),
    TWO: (POSTSCRIPT, END, TITLE, PLACEHOLDERS),
    CHOICE: (PLACEHOLDERS, TITLE, HIGHLIGHTS, "keywords:existence", "keywords:frequency"),
    FIRST_WORD: (TITLE, POSTSCRIPT, PLACEHOLDERS, END),  # they would be paragraphs of their own
    PARAGRAPHS: (PLACEHOLDERS,),
    HIGHLIGHTS: (PLACEHOLDERS,),
}
"""What cannot be kept together, or only by an answer that nobody would write."""


def _conflicts() -> frozenset[frozenset[str]]:
    found = {frozenset(pair) for pair in combinations(LAYOUTS, 2)}
    found |= {frozenset((one, other)) for one, others in AGAINST.items() for other in others}
    found |= {frozenset((JSON, kind)) for kind in INSTRUCTIONS if kind not in (JSON, *WITH_JSON)}
    found |= {frozenset((LANGUAGE, kind)) for kind in INSTRUCTIONS if kind not in (LANGUAGE, *WITH_LANGUAGE)}
    return frozenset(found)


CONFLICTS = _conflicts()
"""Pairs that are never composed."""

OPEN_CONFLICTS = frozenset(frozenset(pair) for pair in combinations((WORDS, SENTENCES, "keywords:letter_frequency"), 2))
"""Further pairs that are not composed where no answer is at hand that shows that both can be kept."""

FIRST_HALF = frozenset(sorted(INSTRUCTIONS)[::2])
"""Every other kind, so that each family is on both sides where it has two kinds or more."""


def kinds_of(half: str, without: tuple[str, ...]) -> list[str]:
    """The kinds of a recipe's ``kinds`` and ``without``, in order.

    Raises:
        ValueError: an id in ``without`` is unknown, or nothing is left.
    """
    if unknown := [kind for kind in without if kind not in INSTRUCTIONS]:
        raise ValueError(f"{unknown[0]!r} is not an instruction; known are {', '.join(INSTRUCTIONS)}")
    found = [
        kind
        for kind in sorted(INSTRUCTIONS)
        if kind not in without and (half == "all" or (kind in FIRST_HALF) == (half == "first half"))
    ]
    if not found:
        raise ValueError("leaves no instruction")
    return found


def fits(kind: str, chosen: list[str], *, is_open: bool) -> bool:
    """Whether a kind can stand beside those that were chosen."""
    pairs = [frozenset((kind, other)) for other in chosen]
    return kind not in chosen and not any(pair in CONFLICTS or (is_open and pair in OPEN_CONFLICTS) for pair in pairs)
