"""Summaries of long documents: of their parts, then of the summaries, until one is left.

Each is held against what it sums up, and the last one against the whole document, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.passages import Read, sections
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.teacher_config import LongDocumentsConfig
from herdlm.align.synth.words import is_in, numbers, share_in, unfinished, words
from herdlm.evaluate.requests import Answer

TASK = "summaries"
LEAST_WORDS = 12
MOST_SHARE = 0.5  # of the words of what is summed up
MOST_LEVELS = 6
SUM_UP = (
    "{text}\n\nSummarize this in at most {most} words. Use the language of the text and only what it says, keep the "
    "names and numbers that matter exactly, and write running text without an introduction."
)
REQUESTS = (
    "{text}\n\nSummarize this document.",
    "Please sum up the following document in at most {most} words.\n\n{text}",
    "{text}\n\nWhat are the main points of this? Use no more than {most} words.",
    "Here is a document.\n\n{text}\n\nWrite a short summary of it, of at most {most} words.",
)


@dataclass
class Tower:
    """A document on its way to a summary.

    Attributes:
        parts: what is to be summed up next.
        levels: how often parts were summed up.
        wrong: why it was given up.
    """

    document: Read
    parts: list[str]
    levels: int = 0
    wrong: str = ""
    summary: str = ""
    made: list[str] = field(default_factory=list)


def summaries(setting: Setting, options: LongDocumentsConfig, documents: Sequence[Read]) -> Iterator[Made]:
    """A dialog for each document whose summaries are good at all levels."""
    towers = [Tower(document, sections(document.text, options.part)) for document in documents]
    for level in range(MOST_LEVELS):
        open_ = [tower for tower in towers if not tower.wrong and not tower.summary]
        if not open_:
            break
        _sum_up(setting, options, open_, level)
    name = setting.need_teacher("summaries").name
    for number, tower in enumerate(towers):
        row = {"document": tower.document.id, "levels": tower.levels, "text": tower.summary or "\n\n".join(tower.made)}
        wrong = tower.wrong or ("" if tower.summary else "the summaries do not become one")
        if wrong or not setting.is_new(tower.document.text):
            yield dropped(row, wrong or "the document was there before")
            continue
        draw = Draw(setting.random("request", number))
        text = draw.one(REQUESTS).format(text=tower.document.text, most=_rounded(tower.summary))
        yield records.dialog(
            [records.user(text), records.assistant(tower.summary)],
            task=TASK,
            source=name,
            origin=tower.document.id,
            verdict="of good length, in the language and with the words and numbers of the document",
            asked=records.prompt_id([records.user(text)]),
            levels=tower.levels,
        )


def _sum_up(setting: Setting, options: LongDocumentsConfig, towers: Sequence[Tower], level: int) -> None:
    """Sum up the parts of all documents by one level; the first good one of each part's summaries is taken."""
    asked = [[records.user(SUM_UP.format(text=part, most=_most(part)))] for tower in towers for part in tower.parts]
    answers = iter(
        setting.ask(
            asked,
            "summarize",
            level,
            samples=options.attempts,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        )
    )
    for tower in towers:
        last = len(tower.parts) == 1
        tower.levels, tower.made = level + 1, []
        for part in tower.parts:
            found = next(answers)
            wrongs = [_wrong(tower, part, answer, options, last=last) for answer in found]
            if "" in wrongs:
                tower.made.append(found[wrongs.index("")].text.strip())
            else:
                tower.wrong = tower.wrong or f"a summary {wrongs[0]}"
        if last and not tower.wrong:
            tower.summary = tower.made[0]
        elif not tower.wrong:
            tower.parts = sections("\n\n".join(tower.made), options.part)


def _wrong(tower: Tower, part: str, answer: Answer, options: LongDocumentsConfig, *, last: bool) -> str:
    """What is wrong with a summary of a part, "" for nothing."""
    if unfinished(answer):
        return f"is {unfinished(answer)}"
    text = answer.text.strip()
    length = len(words(text))
    if not LEAST_WORDS <= length <= MOST_SHARE * len(words(part)):
        return "is too short" if length < LEAST_WORDS else "is too long"
    if not is_in(tower.document.language, text):
        return "is in another language"
    for source in (part, tower.document.text) if last else (part,):
        if numbers(text).keys() - numbers(source).keys():
            return "has numbers that the source has not"
        if share_in(text, source) < options.grounded:
            return "has too many words that the source has not"
    return ""


def _most(part: str) -> int:
    """How many words are asked for: a fourth of the text's, so that one that is too long by a half still passes."""
    return max(LEAST_WORDS + 8, min(150, len(words(part)) // 4 // 5 * 5))


def _rounded(summary: str) -> int:
    """A round number of words that the summary keeps to."""
    return -(-len(summary.split()) // 25) * 25
