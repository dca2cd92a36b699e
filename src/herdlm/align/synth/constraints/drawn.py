"""Parameters of instructions where no answer is at hand that they could follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table

TEXTS = table("constraints/words.toml")
WORDS, COMMON = TEXTS["keywords"], TEXTS["common"]


def drawn(draw: Draw, kind: str, request: str, chosen: Sequence[str]) -> dict[str, Any]:
    """The parameters of a kind of instruction; ``name`` is added to those of a language."""
    made = DRAWN.get(kind)
    if made is not None:
        return made(draw)
    if kind == kinds.REPEAT:
        return {"prompt_to_repeat": request}
    if kind == kinds.SENTENCES:
        short = not any(other in kinds.LAYOUTS for other in chosen) and draw.chance(0.5)
        return (
            {"relation": "less than", "num_sentences": draw.number(3, 12)}
            if short
            else {"relation": "at least", "num_sentences": draw.number(3, 12)}
        )
    if kind == kinds.WORDS:
        short = not any(other in kinds.LAYOUTS for other in chosen) and draw.chance(0.4)
        number = draw.number(4, 30) * 10
        return {"relation": "less than" if short else "at least", "num_words": number}
    return {}


def _existence(draw: Draw) -> dict[str, Any]:
    return {"keywords": draw.some(WORDS, draw.number(1, 4))}


def _frequency(draw: Draw) -> dict[str, Any]:
    if draw.chance(0.7):
        return {"keyword": draw.one(WORDS), "relation": "at least", "frequency": draw.number(2, 5)}
    return {"keyword": draw.one(COMMON[:-1]), "relation": "less than", "frequency": draw.number(2, 4)}


def _forbidden(draw: Draw) -> dict[str, Any]:
    return {"forbidden_words": draw.some((*WORDS, *COMMON), draw.number(1, 4))}


def _letter(draw: Draw) -> dict[str, Any]:
    if draw.chance(0.7):
        return {
            "letter": draw.one("aeioutnsrlhdcmpgb"),
            "let_relation": "at least",
            "let_frequency": draw.number(3, 15),
        }
    return {"letter": draw.one("jkqvwxzbg"), "let_relation": "less than", "let_frequency": draw.number(4, 10)}


def _first_word(draw: Draw) -> dict[str, Any]:
    count = draw.number(2, 5)
    nth = draw.number(1, count)
    word = draw.one((*(TEXTS["first_words"] if nth > 1 else ()), *WORDS[:20]))
    return {"num_paragraphs": count, "nth_paragraph": nth, "first_word": word.lower()}


def _language(draw: Draw) -> dict[str, Any]:
    code, name = draw.one(list(TEXTS["languages"].items()))
    return {"language": code, "name": name}


def _capital_words(draw: Draw) -> dict[str, Any]:
    if draw.chance(0.6):
        return {"capital_relation": "at least", "capital_frequency": draw.number(2, 10)}
    return {"capital_relation": "less than", "capital_frequency": draw.number(4, 15)}


DRAWN: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter,
    kinds.FIRST_WORD: _first_word,
    kinds.LANGUAGE: _language,
    kinds.CAPITAL_WORDS: _capital_words,
    kinds.PARAGRAPHS: lambda draw: {"num_paragraphs": draw.number(2, 6)},
    kinds.PLACEHOLDERS: lambda draw: {"num_placeholders": draw.number(2, 6)},
    kinds.POSTSCRIPT: lambda draw: {"postscript_marker": draw.one(("P.S.", "P.P.S"))},
    kinds.BULLETS: lambda draw: {"num_bullets": draw.number(2, 8)},
    kinds.HIGHLIGHTS: lambda draw: {"num_highlights": draw.number(2, 5)},
    kinds.SECTIONS: lambda draw: {
        "section_spliter": draw.one(TEXTS["section_marks"]),
        "num_sections": draw.number(2, 6),
    },
    kinds.END: lambda draw: {"end_phrase": draw.one(TEXTS["end_phrases"])},
}
