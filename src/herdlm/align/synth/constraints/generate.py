"""Makes prompts with checkable instructions, answers by program, and answers of a teacher that keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from herdlm.align.synth import records
from herdlm.align.synth.config import ConstraintsConfig
from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.constraints.compose import Composed, chosen_kinds, compose, compose_open
from herdlm.align.synth.constraints.taught import taught
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import Made, Setting
from herdlm.base.errors import InputError
from herdlm.verifiers.english import sentences
from herdlm.verifiers.ifeval import IFEval

TASK = "instruction-following"
SOURCE = "synth: constraints"
TRIES = 200
PASSAGE_SENTENCES = (4, 8)
PASSAGE_WORDS = 120
PASSAGES = 3000  # of the documents that are kept to draw from
BATCH = 64  # prompts that the teacher is asked about together


def generate(setting: Setting, options: ConstraintsConfig) -> Iterator[Made]:
    """Prompts, and dialogs whose answers the verifier passes.

    Raises:
        InputError: an option is wrong, or teacher_samples is set without a teacher.
    """
    try:
        known = kinds.kinds_of(options.kinds, options.without)
    except ValueError as error:
        raise InputError(f"{setting.name}.without: {error}", "Correct it") from error
    if options.teacher_samples:
        setting.need_teacher("teacher_samples")
    passages = _passages(setting) if setting.documents and options.passages else []
    verify = IFEval()
    waiting: list[tuple[Composed, str]] = []
    for number in range(options.count):
        composed = _new(setting, options, known, passages, number)
        made = records.prompt(
            [records.user(composed.prompt)],
            task=TASK,
            source=composed.source or SOURCE,
            verifier="ifeval",
            **composed.reference,
        )
        yield made
        if composed.answer is not None:
            yield from _by_program(setting, options, composed, made, number)
        waiting.append((composed, made.record["id"]))
        if options.teacher_samples and (len(waiting) == BATCH or number == options.count - 1):
            yield from taught(setting, options, waiting, verify)
            waiting = []


def _by_program(
    setting: Setting, options: ConstraintsConfig, composed: Composed, made: Made, number: int
) -> Iterator[Made]:
    """The dialog with the answer by program, for a share of the prompts."""
    if setting.random("program", number).random() >= options.program_share:
        return
    yield records.dialog(
        [records.user(composed.prompt), records.assistant(composed.answer or "")],
        task=TASK,
        source=records.PROGRAM,
        origin=composed.source or SOURCE,
        verdict="keeps all instructions",
        asked=made.record["id"],
        instructions=composed.names,
    )


def _new(
    setting: Setting,
    options: ConstraintsConfig,
    known: Sequence[str],
    passages: Sequence[tuple[str, list[str]]],
    number: int,
) -> Composed:
    """A prompt that was not made before. Each kind leads as often as any other."""
    verify = IFEval()
    for attempt in range(TRIES):
        draw = Draw(setting.random("prompt", number, attempt))
        is_open = draw.chance(options.open)
        first = known[(number + attempt // 20) % len(known)]
        chosen = chosen_kinds(draw, known, options.most, is_open=is_open, first=first)
        if is_open and kinds.CHOICE not in chosen:
            composed: Composed | None = compose_open(draw, chosen)
        else:
            passage = draw.one(passages) if passages and draw.chance(options.passages) else None
            composed = compose(draw, chosen, passage if _takes_passage(chosen) else None)
        if composed is None or (composed.answer is not None and not verify(composed.answer, composed.reference).passed):
            continue
        if setting.is_new(composed.prompt):
            return composed
    raise InputError(
        f"{setting.name}: no new prompt in {TRIES} tries after {number:,}", "Lower count, or allow more kinds"
    )


def _takes_passage(chosen: Sequence[str]) -> bool:
    return not {kinds.REPEAT, kinds.NO_COMMA, kinds.TITLE, kinds.POSTSCRIPT, kinds.TWO, kinds.CHOICE} & set(chosen)


def _passages(setting: Setting) -> list[tuple[str, list[str]]]:
    """Passages of whole sentences from paragraphs of the documents in English, with the documents' ids."""
    found: list[tuple[str, list[str]]] = []
    for document in setting.need_documents("passages"):
        if document.language not in ("en", "und", "eng"):
            continue
        for paragraph in re.split(r"\n+", document.text):
            text = " ".join(paragraph.split())
            if not re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:.?!'()\-]+[.?!]", text) or len(text.split()) > PASSAGE_WORDS:
                continue
            parts = sentences(text)
            if PASSAGE_SENTENCES[0] <= len(parts) <= PASSAGE_SENTENCES[1] and all(len(p.split()) > 3 for p in parts):
                found.append((document.id, parts))
        if len(found) >= PASSAGES:
            break
    if not found:
        raise InputError(
            f"{setting.name}: the documents hold no English paragraph of {PASSAGE_SENTENCES[0]} to "
            f"{PASSAGE_SENTENCES[1]} sentences",
            "Give others, or set passages = 0",
        )
    return found
