"""Repairs answers by rule: what an instruction asks of the form can often be added without changing the content."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from herdlm.align.synth.constraints import kinds

Repair = Callable[[str, Mapping[str, Any]], str]


def _title(answer: str, kwargs: Mapping[str, Any]) -> str:
    """A heading of Markdown in the first line becomes the title."""
    first, _, rest = answer.strip().partition("\n")
    heading = re.fullmatch(r"(?:#+\s*|\*\*|Title:\s*)+(.+?)\**", first.strip())
    return f"<<{heading[1].strip()}>>\n{rest}" if heading else answer


def _end(answer: str, kwargs: Mapping[str, Any]) -> str:
    return f"{answer.rstrip()}\n\n{kwargs['end_phrase']}"


def _quotation(answer: str, kwargs: Mapping[str, Any]) -> str:
    return f'"{answer.strip().strip(chr(34))}"'


def _no_comma(answer: str, kwargs: Mapping[str, Any]) -> str:
    return re.sub(r"(?<=\d),(?=\d)", "", answer).replace(",", "")


def _repeat(answer: str, kwargs: Mapping[str, Any]) -> str:
    return f"{kwargs['prompt_to_repeat']}\n\n{answer.strip()}"


def _bullets(answer: str, kwargs: Mapping[str, Any]) -> str:
    """Numbered points become bullets; too many bullets are cut where nothing follows them."""
    text = re.sub(r"(?m)^\s*(?:\d+[.)]|•)\s+", "* ", answer.strip())
    lines = text.split("\n")
    points = [number for number, line in enumerate(lines) if re.match(r"\s*(?:\*[^*]|-)", line)]
    if len(points) > kwargs["num_bullets"] > 0:
        return "\n".join(lines[: points[kwargs["num_bullets"]]]).rstrip()
    return text


def _paragraphs(answer: str, kwargs: Mapping[str, Any]) -> str:
    """Blank lines become dividers, if there are as many as are asked for."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", answer.replace("***", "").strip()) if part.strip()]
    return "\n\n***\n\n".join(parts) if len(parts) == kwargs["num_paragraphs"] else answer


def _json(answer: str, kwargs: Mapping[str, Any]) -> str:
    """What stands around a block of JSON is left out."""
    block = re.search(r"```(?:json)?\s*(\{.*?\}|\[.*?\])\s*```", answer, re.DOTALL | re.IGNORECASE)
    return block[1] if block else answer


REPAIRS: dict[str, Repair] = {
    kinds.NO_COMMA: _no_comma,
    kinds.BULLETS: _bullets,
    kinds.PARAGRAPHS: _paragraphs,
    kinds.JSON: _json,
    kinds.TITLE: _title,
    kinds.END: _end,
    kinds.CAPITAL: lambda answer, _: answer.upper(),
    kinds.LOWERCASE: lambda answer, _: answer.lower(),
    kinds.QUOTATION: _quotation,
    kinds.REPEAT: _repeat,
}
"""Repairs in the order in which they are applied: content, then form, then what stands around the whole."""


def repaired(answer: str, names: Sequence[str], kwargs: Sequence[Mapping[str, Any]], kept: Sequence[bool]) -> str:
    """An answer with what its broken instructions ask for, as far as rules can do it."""
    broken = {name: given for name, given, one in zip(names, kwargs, kept, strict=True) if not one}
    for name, repair in REPAIRS.items():
        if name in broken:
            answer = repair(answer, broken[name])
    return answer
