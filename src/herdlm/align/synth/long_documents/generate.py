"""Makes dialogs about long documents: questions about one section of them, and summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.long_documents.summaries import summaries
from herdlm.align.synth.passages import OPTIONS, Asked, Read, questions, read_documents
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.teacher_config import LongDocumentsConfig
from herdlm.align.synth.words import alike, is_in, numbers, unfinished

TASK = "long-documents"
ASK = (
    "Here is a section of a longer document.\n\n{section}\n\nWrite one question that this section answers. Whoever has "
    "the whole document must see from the question alone what is meant, so name things by their names and do not "
    "speak of a section or text. Then give the answer in a few words that stand in the section. Use the language of "
    "the section, and exactly this form:\nQuestion: ...\nAnswer: ..."
)
GIVEN = (
    "{document}\n\n{question}",
    "Here is a document.\n\n{document}\n\n{question}",
    "{document}\n\n---\n\n{question}",
)
SAME = 0.6  # share of words from which an answer without the document equals that of the section


def generate(setting: Setting, options: LongDocumentsConfig) -> Iterator[Made]:
    """Questions with answers, then summaries.

    Raises:
        InputError: there is no teacher, or no document that fits.
    """
    setting.need_teacher("asking about documents")
    documents = read_documents(
        setting, "asking about documents", shortest=options.shortest, longest=options.longest, section=options.section
    )
    if options.questions:
        asked: list[Asked] = []
        for each in questions(
            setting, documents, options.questions, ASK, temperature=options.temperature, max_tokens=options.max_tokens
        ):
            if isinstance(each, Made):
                yield each
            else:
                asked.append(each)
        yield from _answered(setting, options, asked)
    if options.summaries:
        yield from summaries(setting, options, _some(setting, documents, options.summaries))


def _some(setting: Setting, documents: Sequence[Read], count: int) -> list[Read]:
    return Draw(setting.random("summaries")).some(documents, count)


def _answered(setting: Setting, options: LongDocumentsConfig, asked: Sequence[Asked]) -> Iterator[Made]:
    """What the teacher cannot answer without the document, and answers with it as with the section alone."""
    name = setting.need_teacher("asking about documents").name
    alone = setting.ask(
        [[records.user(each.question)] for each in asked], "without the document", max_tokens=options.max_tokens
    )
    hard: list[Asked] = []
    for each, (answer,) in zip(asked, alone, strict=True):
        if each.judge(answer.text).passed or alike(each.answer, answer.text) >= SAME:
            yield dropped(each.row(text=answer.text), "answered without the document")
        else:
            hard.append(each)
    prompts = [[records.user(_given(setting, each))] for each in hard]
    answers = setting.ask(prompts, "with the document", max_tokens=options.max_tokens)
    for each, messages, (answer,) in zip(hard, prompts, answers, strict=True):
        text = answer.text.strip()
        wrong = unfinished(answer) or _wrong(each, text)
        if wrong:
            yield dropped(each.row(text=text), wrong)
            continue
        made = records.prompt(
            messages, task=TASK, source=each.document.id, verifier="text", answer=each.answer, options=OPTIONS
        )
        yield made
        yield records.dialog(
            [*messages, records.assistant(text)],
            task=TASK,
            source=name,
            origin=each.document.id,
            verdict="answered alike from the section and the document, and not without",
            asked=made.record["id"],
            section=each.place,
            sections=len(each.document.sections),
        )


def _given(setting: Setting, each: Asked) -> str:
    wording = Draw(setting.random("given", each.question)).one(GIVEN)
    return wording.format(document=each.document.text, question=each.question)


def _wrong(each: Asked, text: str) -> str:
    """What is wrong with an answer from the whole document."""
    if not each.judge(text).passed:
        return "answered otherwise from the whole document"
    if numbers(text).keys() - numbers(each.document.text).keys() - numbers(each.question).keys():
        return "has numbers that the document has not"
    if not is_in(each.document.language, text):
        return "answered in another language"
    return ""
