"""System prompts composed of wishes, each of them an instruction that the verifier "ifeval" checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.languages import NAMES
from herdlm.align.synth.texts import table

TEXTS = table("steerability/texts.toml")
CLASHES = (
    *({"language", other} for other in ("lowercase", "forbidden", "tone", "plain", "closing")),
    {"bullets", "sentences"},
    {"bullets", "highlight"},
    {"bullets", "quotation"},
    {"words", "sentences"},
    {"tone", "plain"},
)
"""Sorts of wishes of which a prompt has one at most: they contradict each other, or one cannot be checked beside it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """A system prompt with its instructions."""

    system: str
    sorts: tuple[str, ...]
    names: tuple[str, ...]
    kwargs: tuple[dict[str, Any], ...]

    @property
    def reference(self) -> dict[str, Any]:
        """What the verifier compares with."""
        return {"instruction_id_list": list(self.names), "kwargs": [dict(given) for given in self.kwargs]}


Wish = tuple[str, dict[str, Any], dict[str, Any]]


def _language(draw: Draw, languages: Sequence[str]) -> Wish:
    code = draw.one(languages)
    return "language:response_language", {"language": code}, {"language": NAMES[code]}


def _words(draw: Draw, _: Sequence[str]) -> Wish:
    number = draw.one((40, 50, 60, 80, 100))
    return "length_constraints:number_words", {"num_words": number, "relation": "less than"}, {"number": number}


def _sentences(draw: Draw, _: Sequence[str]) -> Wish:
    number = draw.number(3, 6)
    return "length_constraints:number_sentences", {"num_sentences": number, "relation": "less than"}, {"number": number}


def _bullets(draw: Draw, _: Sequence[str]) -> Wish:
    number = draw.number(2, 5)
    return "detectable_format:number_bullet_lists", {"num_bullets": number}, {"number": number}


def _highlight(draw: Draw, _: Sequence[str]) -> Wish:
    number = draw.number(2, 3)
    return "detectable_format:number_highlighted_sections", {"num_highlights": number}, {"number": number}


def _name(draw: Draw, _: Sequence[str]) -> Wish:
    name = draw.one(TEXTS["names"])
    return "keywords:existence", {"keywords": [rf"\b{name}\b"]}, {"name": name}


def _closing(draw: Draw, _: Sequence[str]) -> Wish:
    phrase = draw.one(TEXTS["words"]["closing"])
    return "startend:end_checker", {"end_phrase": phrase}, {"phrase": phrase}


def _forbidden(draw: Draw, _: Sequence[str]) -> Wish:
    words = draw.some(TEXTS["words"]["forbidden"], draw.number(2, 4))
    return "keywords:forbidden_words", {"forbidden_words": words}, {"words": _listed(words)}


def _tone(draw: Draw, _: Sequence[str]) -> Wish:
    ask, words = draw.one(list(TEXTS["tones"].items()))
    one_of = rf"\b(?:{'|'.join(map(re.escape, words))})\b"
    return "keywords:existence", {"keywords": [one_of]}, {"ask": ask, "words": _listed(words)}


def _plain(draw: Draw, _: Sequence[str]) -> Wish:
    ask, words = draw.one(list(TEXTS["plains"].items()))
    return "keywords:forbidden_words", {"forbidden_words": list(words)}, {"ask": ask, "words": _listed(words)}


def _fixed(name: str) -> Callable[[Draw, Sequence[str]], Wish]:
    return lambda draw, languages: (name, {}, {})


WISHES: dict[str, Callable[[Draw, Sequence[str]], Wish]] = {
    "language": _language,
    "words": _words,
    "sentences": _sentences,
    "bullets": _bullets,
    "highlight": _highlight,
    "lowercase": _fixed("change_case:english_lowercase"),
    "commas": _fixed("punctuation:no_comma"),
    "quotation": _fixed("startend:quotation"),
    "name": _name,
    "closing": _closing,
    "forbidden": _forbidden,
    "tone": _tone,
    "plain": _plain,
}


def compose(draw: Draw, most: int, languages: Sequence[str], first: str) -> Wishes:
    """A system prompt of one to ``most`` wishes that do not clash; ``first`` is one of them."""
    chosen, count = [first], draw.number(1, most)
    for sort in draw.some([sort for sort in WISHES if sort != "language" or languages], len(WISHES)):
        if len(chosen) == count:
            break
        if sort not in chosen and not any(sort in clash and clash & set(chosen) for clash in CLASHES):
            chosen.append(sort)
    made = [WISHES[sort](draw, languages) for sort in chosen]
    parts = [
        draw.one(TEXTS["wordings"][sort]).format(**shown) for sort, (_, _, shown) in zip(chosen, made, strict=True)
    ]
    opening = draw.one(TEXTS["openings"]).format(place=draw.one(TEXTS["places"]))
    system = " ".join(part for part in [opening, *parts] if part)
    return Wishes(system, tuple(chosen), tuple(name for name, _, _ in made), tuple(kwargs for _, kwargs, _ in made))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words[:-1]) + f' and "{words[-1]}"'
