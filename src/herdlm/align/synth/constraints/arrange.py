"""How an answer by program is made to keep each kind of instruction, and which parameters follow from it.

An instruction's steps run in four phases: ``content`` chooses what is said, ``layout`` makes blocks of it, ``marks``
works inside and around blocks, ``whole`` changes the text. Parameters that count something are measured at the end, so
that they are true of a natural text instead of the text being stretched to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.constraints.draft import Draft, as_json, content_words
from herdlm.align.synth.constraints.measured import MEASURED
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table

Kwargs = dict[str, Any]
Step = Callable[[Draw, Draft], Kwargs | None]

TEXTS = table("constraints/words.toml")


# content


def no_comma_content(draw: Draw, draft: Draft) -> None:
    """Prefer sentences without commas."""
    draft.sentences = [each for each in draft.sentences if "," not in each] or draft.sentences[:1]
    draft.unused = [each for each in draft.unused if "," not in each]


# layout


def prose(draw: Draw, draft: Draft) -> None:
    """One to three paragraphs, where no instruction decides the form."""
    most = max(1, min(3, len(draft.sentences) // 3))
    closing, draft.closing = draft.closing, ""
    draft.blocks = draft.paragraphs(draw, draw.number(1, most))
    if closing and (not closing.endswith((".", "!", "?")) or draw.chance(0.5)):
        draft.blocks.append(closing)
    elif closing:
        draft.blocks[-1] += f" {closing}"


def bullets(draw: Draw, draft: Draft) -> Kwargs:
    """A point for each sentence."""
    mark = draw.one(("* ", "- "))
    lead = draft.opening
    if not lead and _english(draft) and draw.chance(0.5):
        lead = f"Here is what I can say about {draft.topic.name}:"
    points = "\n".join(f"{mark}{sentence}" for sentence in draft.sentences)
    draft.blocks = [part for part in (lead, points, draft.closing) if part]
    return {"num_bullets": len(draft.sentences)}


def divided(draw: Draw, draft: Draft) -> Kwargs:
    """Paragraphs between three stars."""
    count = draw.number(2, max(2, min(5, len(draft.sentences))))
    draft.blocks = draft.paragraphs(draw, count)
    draft.divider = "\n\n***\n\n" if draw.chance(0.6) else "\n***\n"
    return {"num_paragraphs": len(draft.blocks)}


def first_word(draw: Draw, draft: Draft) -> Kwargs:
    """Paragraphs between blank lines, one of which begins with a word."""
    draft.opening = draft.closing = ""
    count = draw.number(2, max(2, min(5, len(draft.sentences))))
    draft.blocks = draft.paragraphs(draw, count)
    nth = draw.number(1, len(draft.blocks))
    block = draft.blocks[nth - 1]
    start, _, rest = block.partition(" ")
    if start in TEXTS["starters"] and (len(start) < 3 or draw.chance(0.7)):
        word = draw.one(TEXTS["first_words"] if nth > 1 else ("Today", "Notably", "Generally", "Indeed"))
        comma = "" if draw.chance(0.5) and word in ("Today", "Also") else ","
        draft.blocks[nth - 1] = f"{word}{comma} {start.lower()} {rest}"
    else:
        word = re.split(r"[.,?!'\"]", start)[0]
    shown = word.lower() if draw.chance(0.5) else word
    return {"num_paragraphs": len(draft.blocks), "nth_paragraph": nth, "first_word": shown}


def sections(draw: Draw, draft: Draft) -> Kwargs:
    """Numbered sections."""
    mark = draw.one(TEXTS["section_marks"])
    count = draw.number(2, max(2, min(4, len(draft.sentences))))
    opening, closing, draft.opening, draft.closing = draft.opening, draft.closing, "", ""
    parts = draft.paragraphs(draw, count)
    after = draw.one(("\n", ": ", ". "))
    parts = [f"{mark} {number}{after}{part}" for number, part in enumerate(parts, 1)]
    draft.blocks = [part for part in (opening, *parts, closing) if part]
    return {"section_spliter": mark, "num_sections": count}


def two(draw: Draw, draft: Draft) -> Kwargs:
    """Two answers with different sentences."""
    half = len(draft.sentences) // 2
    first, second = draft.sentences[:half], draft.sentences[half:]
    draft.blocks = [" ".join(part) for part in (first, second)]
    draft.divider = "\n\n******\n\n" if draw.chance(0.7) else "\n******\n"
    return {}


def json_object(draw: Draw, draft: Draft) -> Kwargs:
    """JSON."""
    draft.blocks = [as_json(draw, draft)]
    return {}


def choice(draw: Draw, draft: Draft) -> Kwargs:
    """One of three sentences and a reason; the sentences are set by who chose the question."""
    answer, reason = draft.sentences
    draft.blocks = [draw.one((f"{answer} {reason}", answer, f"{answer}\n\n{reason}", f"{reason} {answer}"))]
    return {}


# marks


def highlights(draw: Draw, draft: Draft) -> Kwargs | None:
    """Stars around words that say something."""
    text = "\n".join(draft.blocks)
    words = content_words(text, least=6) if _english(draft) else re.findall(r"\w{6,}", text)
    bullet = "\n* " in f"\n{text}"
    if bullet:  # a star at the start of a line would pair with one of ours
        draft.blocks = [re.sub(r"(?m)^\* ", "- ", block) for block in draft.blocks]
    chosen = draw.some(words, draw.number(2, 4))
    if len(chosen) < 2:
        return None
    for word in chosen:
        for number, block in enumerate(draft.blocks):
            changed = re.sub(rf"(?<![\w*]){re.escape(word)}(?![\w*])", f"*{word}*", block, count=1)
            if changed != block:
                draft.blocks[number] = changed
                break
    return {"num_highlights": len(chosen)}


def capital_words(draw: Draw, draft: Draft) -> None:
    """Some words in capitals; how many there are in all is counted at the end."""
    words = draw.some(content_words("\n".join(draft.blocks), least=4), draw.number(1, 5))
    for word in words:
        for number, block in enumerate(draft.blocks):
            changed = re.sub(rf"\b{word}\b", word.upper(), block, count=1)
            if changed != block:
                draft.blocks[number] = changed
                break


def placeholders(draw: Draw, draft: Draft) -> Kwargs:
    """Lines to be filled in, above or below the text."""
    count = draw.number(2, 5)
    lines = "\n".join(draw.some(TEXTS["blanks"], count))
    if draw.chance(0.3):
        draft.put_first(lines)
    else:
        draft.put_last(lines)
    return {"num_placeholders": count}


def postscript(draw: Draw, draft: Draft) -> Kwargs:
    """A further sentence after the mark."""
    mark = draw.one(("P.S.", "P.P.S"))
    extra = draft.take() or f"There is much more to say about {draft.topic.name}."
    draft.put_last(f"{mark} {extra}")
    return {"postscript_marker": mark}


def title(draw: Draw, draft: Draft) -> Kwargs:
    """A title above the text."""
    name = draft.topic.called or draft.topic.name
    text = draw.one(TEXTS["titles"] if _english(draft) else TEXTS["titles"][:1]).format(topic=name)
    draft.put_first(f"<<{text[0].upper()}{text[1:]}>>")
    return {}


def repeat(draw: Draw, draft: Draft) -> Kwargs:
    """The request before the answer."""
    draft.put_first(draft.request)
    return {"prompt_to_repeat": draft.request}


def end(draw: Draw, draft: Draft) -> Kwargs:
    """A sentence of the user's at the end."""
    phrase = draw.one(TEXTS["end_phrases"])
    if draw.chance(0.5) or draft.blocks[-1].lstrip().startswith(("*", "-")):
        draft.put_last(phrase)
    else:
        draft.blocks[-1] += f" {phrase}"
    return {"end_phrase": phrase}


# whole


def no_comma(draw: Draw, draft: Draft) -> Kwargs:
    """Without the commas that are left."""
    draft.text = draft.text.replace(",", "")
    return {}


def capitals(draw: Draw, draft: Draft) -> Kwargs:
    """In capitals."""
    draft.text = draft.text.upper()
    return {}


def lowercase(draw: Draw, draft: Draft) -> Kwargs:
    """In small letters."""
    draft.text = draft.text.lower()
    return {}


def quotation(draw: Draw, draft: Draft) -> Kwargs:
    """In double quotes."""
    draft.text = f'"{draft.text}"'
    return {}


def language(draw: Draw, draft: Draft) -> Kwargs:
    """The language of the topic."""
    return {"language": draft.topic.language[0]}


def _english(draft: Draft) -> bool:
    return draft.topic.language[0] == "en"


PHASES: dict[str, dict[str, Step]] = {
    "content": {kinds.NO_COMMA: no_comma_content},
    "layout": {
        kinds.BULLETS: bullets,
        kinds.PARAGRAPHS: divided,
        kinds.FIRST_WORD: first_word,
        kinds.SECTIONS: sections,
        kinds.TWO: two,
        kinds.JSON: json_object,
        kinds.CHOICE: choice,
    },
    "marks": {
        kinds.HIGHLIGHTS: highlights,
        kinds.CAPITAL_WORDS: capital_words,
        kinds.PLACEHOLDERS: placeholders,
        kinds.POSTSCRIPT: postscript,
        kinds.TITLE: title,
        kinds.REPEAT: repeat,
        kinds.END: end,
    },
    "whole": {
        kinds.NO_COMMA: no_comma,
        kinds.CAPITAL: capitals,
        kinds.LOWERCASE: lowercase,
        kinds.QUOTATION: quotation,
        kinds.LANGUAGE: language,
    },
    "measured": dict(MEASURED),
}


def arrange(draw: Draw, draft: Draft, chosen: list[str]) -> dict[str, Kwargs] | None:
    """Make a draft keep the chosen kinds; returns the parameters of each, or None if the draft is not fit for one."""
    found: dict[str, Kwargs] = {}
    for phase, steps in PHASES.items():
        if phase == "layout" and not any(kind in steps for kind in chosen):
            prose(draw, draft)
        for kind in (kind for kind in steps if kind in chosen):
            kwargs = steps[kind](draw, draft)
            if kwargs is not None:
                found[kind] = kwargs
        if phase == "marks":
            draft.put_together()
    return found if all(kind in found for kind in chosen) else None
