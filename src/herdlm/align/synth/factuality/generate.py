"""Probes what the teacher knows, as section 4.3.6 of the Llama 3 report (arXiv 2407.21783) does.

Questions come from documents. The teacher answers each many times without its document. What it mostly answers right
is kept as it says it; where it is mostly and never otherwise than wrong, an answer is taught that says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.factuality.judge import Verdicts, judged
from herdlm.align.synth.passages import OPTIONS, Asked, questions, read_documents
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.teacher_config import FactualityConfig
from herdlm.align.synth.texts import lines

TASK = "factuality"
UNKNOWN = (
    r"(?i)\b(?:do not|don't) (?:know|have reliable knowledge)|\b(?:not|n't) (?:sure|certain)"
    r"|can(?:not|'t) say for certain"
)
ASK = (
    "Here is a passage.\n\n{section}\n\nWrite one question about a fact that it tells, for a quiz in which nobody sees "
    "the passage. The question names everything that it is about and has one short answer. Then give the answer in a "
    "few words that stand in the passage. Use the language of the passage, and exactly this form:\n"
    "Question: ...\nAnswer: ..."
)
WITH = "{section}\n\nAnswer briefly, from the passage above: {question}"
VAGUE = re.compile(r"\b(?:he|she|they|him|her|them|his|their|this|these|those|here)\b", re.IGNORECASE)


def generate(setting: Setting, options: FactualityConfig) -> Iterator[Made]:
    """Dialogs with what the teacher knows, and with "I don't know"; of these pairs, too.

    Raises:
        InputError: there is no teacher, or no document that fits.
    """
    setting.need_teacher("probing")
    documents = read_documents(
        setting,
        "probing",
        shortest=options.shortest,
        longest=20 * options.section + options.shortest,
        section=options.section,
    )
    asked: list[Asked] = []
    for each in questions(
        setting,
        documents,
        options.count,
        ASK,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        look=lambda question: "the question does not say what it is about" if VAGUE.search(question) else "",
    ):
        if isinstance(each, Made):
            yield each
        else:
            asked.append(each)
    answerable: list[Asked] = []
    told = setting.ask(
        [[records.user(WITH.format(section=each.section, question=each.question))] for each in asked],
        "with the passage",
        max_tokens=options.max_tokens,
    )
    for each, (answer,) in zip(asked, told, strict=True):
        if each.judge(answer.text).passed:
            answerable.append(each)
        else:
            yield dropped(each.row(text=answer.text), "answered otherwise with the passage")
    probes = setting.ask(
        [[records.user(each.question)] for each in answerable],
        "probe",
        samples=options.probes,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    texts = [[answer.text.strip() if answer.finish == "stop" else "" for answer in samples] for samples in probes]
    verdicts = judged(setting, options, answerable, texts, re.compile(UNKNOWN))
    for each, samples, found in zip(answerable, texts, verdicts, strict=True):
        yield from _taught(setting, options, each, samples, found)


def _taught(
    setting: Setting, options: FactualityConfig, each: Asked, samples: Sequence[str], found: Verdicts
) -> Iterator[Made]:
    """What is taught of a question, by the shares of its probes."""
    name, counts = setting.need_teacher("probing").name, Counter(found)
    shown: dict[str, Any] = {"right": counts["right"], "wrong": counts["wrong"], "probes": len(samples)}
    messages = [records.user(each.question)]
    if counts["right"] >= options.knows * len(samples):
        answer, source = _chosen(each, samples, found), name
        if not answer:  # the judge alone finds them right, so that the prompt's verifier would not
            yield dropped(each.row(answers=list(samples)), "right by the judge only")
            return
        verifier, reference, verdict = "text", {"answer": each.answer, "options": OPTIONS}, "consistently right"
    elif counts["wrong"] >= options.errs * len(samples) and not counts["right"] and not counts["undecided"]:
        answer, source = Draw(setting.random("unknown", each.question)).one(lines("factuality/unknown.txt")), "program"
        verifier, reference, verdict = "regex", {"answer": UNKNOWN}, "consistently wrong"
    else:
        yield dropped(each.row(answers=list(samples), **shown), _mixed(options, Counter[str](counts), len(samples)))
        return
    keys: dict[str, Any] = {**reference}
    made = records.prompt(messages, task=TASK, source=f"synth: asked of {each.document.id}", verifier=verifier, **keys)
    yield made
    origin = made.record["source"]
    yield records.dialog(
        [*messages, records.assistant(answer)],
        task=TASK,
        source=source,
        origin=origin,
        verdict=verdict,
        asked=made.record["id"],
        document=each.document.id,
        **shown,
    )
    if verdict == "consistently wrong":
        yield records.pair(
            messages,
            answer,
            samples[found.index("wrong")],
            rating="better",
            chosen_source=source,
            rejected_source=name,
            task=TASK,
            origin=origin,
            verdict=verdict,
            **shown,
        )


def _chosen(each: Asked, samples: Sequence[str], found: Verdicts) -> str:
    """The right answer that was given most often, of equals the shortest; "" if the verifier passes none."""
    right = [text for text, verdict in zip(samples, found, strict=True) if verdict == "right"]
    passed = Counter(text for text in right if each.judge(text).passed)
    return min(passed, key=lambda text: (-passed[text], len(text), text)) if passed else ""


def _mixed(options: FactualityConfig, counts: Counter[str], probes: int) -> str:
    """Why a question teaches nothing."""
    if counts["unknown"] > (1 - options.errs) * probes:
        return "the teacher says that it does not know"
    if counts["empty"] > (1 - options.errs) * probes:
        return "the answers are cut off"
    if counts["undecided"] and not counts["right"]:
        return "the judge does not agree with itself"
    return "informative, but at times right and at times wrong"
