"""Answers of a teacher that keep the instructions, at once, after a repair by rule, or after being told what fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.config import ConstraintsConfig
from herdlm.align.synth.constraints.compose import Composed
from herdlm.align.synth.constraints.repair import repaired
from herdlm.align.synth.constraints.wording import worded
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.verifiers.ifeval import IFEval

TASK = "instruction-following"
SOURCE = "synth: constraints"
AGAIN = "Your answer does not keep this: {rules} Write the whole answer again so that it keeps everything."


@dataclass
class Sample:
    """A teacher's answer on its way.

    Attributes:
        asked: the number of the prompt.
        dialog: what was said so far, the answer included.
        kept: which instructions it keeps.
    """

    asked: int
    number: int
    answer: str
    kept: list[bool]
    dialog: list[dict[str, Any]] = field(default_factory=list)
    source: str = ""
    rounds: int = 0


def taught(
    setting: Setting, options: ConstraintsConfig, waiting: Sequence[tuple[Composed, str]], verify: IFEval
) -> Iterator[Made]:
    """The teacher's answers to prompts: those that keep all instructions as dialogs, one of each kind of way.

    An answer that breaks an instruction is repaired by rule, and else the teacher is told what it breaks. A repaired
    answer and the one it was made of become a pair with the rating "edited".
    """
    teacher = setting.need_teacher("teacher_samples")
    dialogs = [[records.user(composed.prompt)] for composed, _ in waiting]
    answers = setting.ask(
        dialogs,
        "answer",
        samples=options.teacher_samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    open_: list[Sample] = []
    for asked, samples in enumerate(answers):
        composed, id = waiting[asked]
        for number, answer in enumerate(samples):
            if answer.finish != "stop":
                yield dropped(_row(composed, answer.text), "cut off")
                continue
            sample = Sample(asked, number, answer.text.strip(), _kept(verify, composed, answer.text.strip()))
            sample.dialog = [*dialogs[asked], records.assistant(sample.answer)]
            yield from _judged(sample, composed, id, verify=verify, teacher=teacher.name, open_=open_)
    for turn in range(options.repairs):
        if not open_:
            return
        again = [
            [*sample.dialog, records.user(_complaint(setting, waiting[sample.asked][0], sample))] for sample in open_
        ]
        answers = setting.ask(again, "again", turn, temperature=options.temperature, max_tokens=options.max_tokens)
        still: list[Sample] = []
        for sample, dialog, (answer,) in zip(open_, again, answers, strict=True):
            composed, id = waiting[sample.asked]
            text = answer.text.strip()
            if answer.finish != "stop" or not text:
                yield dropped(_row(composed, text), "cut off")
                continue
            later = Sample(sample.asked, sample.number, text, _kept(verify, composed, text), rounds=turn + 1)
            later.dialog = [*dialog, records.assistant(text)]
            yield from _judged(later, composed, id, verify=verify, teacher=teacher.name, open_=still)
        open_ = still
    for sample in open_:
        composed, _ = waiting[sample.asked]
        broken = composed.names[sample.kept.index(False)]
        yield dropped(_row(composed, sample.answer), f"breaks {broken}")


def _judged(
    sample: Sample, composed: Composed, id: str, *, verify: IFEval, teacher: str, open_: list[Sample]
) -> Iterator[Made]:
    """The dialog of a good answer, a repaired one with its pair; others are put into ``open_``."""
    if all(sample.kept):
        yield _dialog(sample.answer, composed, id, sample, teacher)
        return
    better = repaired(sample.answer, composed.names, composed.kwargs, sample.kept)
    if better != sample.answer and all(_kept(verify, composed, better)):
        yield _dialog(better, composed, id, sample, "edited", written=teacher)
        yield records.pair(
            [records.user(composed.prompt)],
            better,
            sample.answer,
            rating="edited",
            chosen_source="edited",
            rejected_source=teacher,
            task=TASK,
            origin=composed.source or SOURCE,
            verdict="keeps all instructions after a repair",
            sample=sample.number,
        )
        return
    open_.append(sample)


def _dialog(answer: str, composed: Composed, id: str, sample: Sample, source: str, **lineage: Any) -> Made:
    return records.dialog(
        [records.user(composed.prompt), records.assistant(answer)],
        task=TASK,
        source=source,
        origin=composed.source or SOURCE,
        verdict="keeps all instructions",
        asked=id,
        sample=sample.number,
        told_again=sample.rounds,
        instructions=composed.names,
        **lineage,
    )


def _complaint(setting: Setting, composed: Composed, sample: Sample) -> str:
    draw = Draw(setting.random("again", composed.prompt, sample.number))
    broken = [
        worded(draw, name, {"name": composed.language, **kwargs})
        for name, kwargs, kept in zip(composed.names, composed.kwargs, sample.kept, strict=True)
        if not kept
    ]
    return AGAIN.format(rules=" ".join(broken))


def _kept(verify: IFEval, composed: Composed, answer: str) -> list[bool]:
    strict: list[bool] = list(verify(answer, composed.reference).details["strict"])
    return strict


def _row(composed: Composed, answer: str) -> dict[str, Any]:
    return {"prompt": [records.user(composed.prompt)], "answer": answer, **composed.reference}
