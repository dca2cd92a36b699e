"""Makes dialogs and prompts in other languages: translated ones, and requests that are made up and answered there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.languages import NAMES
from herdlm.align.synth.multilingual.native import TASK, native
from herdlm.align.synth.multilingual.translate import Translation, prose, translate
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.teacher_config import MultilingualConfig
from herdlm.base.errors import InputError
from herdlm.data.read import converted
from herdlm.data.row import RowError
from herdlm.verifiers.detect import detect_language

STAYS = ("number", "choice", "code", "tests")
"""Verifiers whose references hold in all languages."""
REFERENCES = ("answer", "tests", "reference", "entry_point", "setup", "options")
VERDICT = "in the language, numbers and code kept, translated back alike"


@dataclass
class Given:
    """A dialog or prompt of a file, its language, and its translations by message."""

    kind: Literal["dialogs", "prompts"]
    record: dict[str, Any]
    origin: str
    source: str
    language: str
    texts: list[Translation] = field(default_factory=list)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Of the original."""
        found: list[dict[str, Any]] = self.record["messages" if self.kind == "dialogs" else "prompt"]
        return found

    @property
    def row(self) -> dict[str, Any]:
        """What is written of a dropped one."""
        return {"messages": self.messages, "language": self.language, "file": self.origin}


def generate(setting: Setting, options: MultilingualConfig) -> Iterator[Made]:
    """Translations, then native requests.

    Raises:
        InputError: there is no teacher, nothing is asked for, or a file cannot be read.
    """
    name = setting.need_teacher("translating").name
    if not (options.dialogs or options.prompts or options.native):
        raise InputError(f"{setting.name}: nothing is asked for", "Name dialogs or prompts, or set native")
    given: list[Given] = []
    for each in _read(setting, options):
        if isinstance(each, Made):
            yield each
        else:
            given.append(each)
    translate(setting, options, [text for each in given for text in each.texts])
    for each in given:
        yield from _translated(each, name)
    if options.native:
        yield from native(setting, options)


def _read(setting: Setting, options: MultilingualConfig) -> Iterator[Given | Made]:
    """Each dialog and prompt once for each language into which it is translated."""
    kinds: tuple[tuple[Literal["dialogs", "prompts"], Sequence[Path]], ...] = (
        ("dialogs", options.dialogs),
        ("prompts", options.prompts),
    )
    for kind, paths in kinds:
        for number, (record, origin) in enumerate(_records(kind, paths)):
            if options.limit is not None and number >= options.limit:
                break
            messages = record["messages" if kind == "dialogs" else "prompt"]
            source = detect_language(prose("\n".join(str(message["content"]) for message in messages)))
            wrong = _unfit(kind, record, source)
            if wrong or source is None:
                yield dropped({"messages": messages, "file": origin}, wrong or "its language cannot be told")
                continue
            others = [code for code in options.languages if code.partition("-")[0] != source.partition("-")[0]]
            if not others:
                yield dropped({"messages": messages, "file": origin}, "is in the language already")
            for code in Draw(setting.random(kind, number)).some(others, options.each):
                each = Given(kind, record, origin, source, code)
                each.texts = [Translation(message["content"], source, code) for message in messages]
                yield each


def _records(kind: Literal["dialogs", "prompts"], paths: Sequence[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    for path in paths:
        for found in converted(path, kind):
            if isinstance(found, RowError):
                raise found
            for record in found.records:
                yield dict(record), path.name


def _unfit(kind: str, record: dict[str, Any], source: str | None) -> str:
    """Why a record is not translated."""
    messages = record["messages" if kind == "dialogs" else "prompt"]
    if record.get("tools") or any("tool_calls" in each or each["role"] == "tool" for each in messages):
        return "calls of tools are not translated"
    if not all(isinstance(each["content"], str) and each["content"].strip() for each in messages):
        return "a message has no text"
    if kind == "prompts" and record.get("verifier") not in (None, *STAYS):
        return f"the verifier {record['verifier']} does not hold in other languages"
    return "" if source in NAMES else "its language cannot be told"


def _translated(each: Given, name: str) -> Iterator[Made]:
    """The translated record, or why it is dropped."""
    wrongs = [text.wrong for text in each.texts if text.wrong]
    if wrongs:
        yield dropped(each.row | {"translations": [text.text for text in each.texts]}, wrongs[0])
        return
    messages = [{**message, "content": text.text} for message, text in zip(each.messages, each.texts, strict=True)]
    source = f"synth: translated {each.origin}"
    if each.kind == "prompts":
        verifier = each.record.get("verifier")
        reference = {key: each.record[key] for key in REFERENCES if key in each.record}
        yield records.prompt(
            messages,
            task=str(each.record.get("task") or TASK),
            source=source,
            verifier=verifier or "language",
            **(reference if verifier else {"reference": each.language}),
            translated={"from": each.source, "to": each.language, "verdict": VERDICT},
        )
        return
    last = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
    asked = records.prompt(messages[:last], task=TASK, source=source, verifier="language", reference=each.language)
    yield asked
    yield records.dialog(
        messages,
        task=TASK,
        source=name,
        origin=source,
        verdict=VERDICT,
        asked=asked.record["id"],
        language=each.language,
        translated_from=each.source,
    )
