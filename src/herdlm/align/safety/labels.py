"""Reads labeled prompts and answers in the forms that people have.

A row gives a prompt to judge, an answer to judge, or both. What a row does not say is not made up: a pair of a better
and a worse answer does not say that the worse one is unsafe, so of pairs only answers that refuse are taken, as safe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from herdlm.align.safety.categories import CategoryNames
from herdlm.base.errors import InputError
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import convert, known_form
from herdlm.data.messages import messages as read_messages
from herdlm.data.row import Row, RowError
from herdlm.serve.guard.guard import Subject
from herdlm.tokens.chat import Message
from herdlm.verifiers.refusals.classify import classify

PROMPTS = ("prompt", "user_input", "question", "instruction", "text")
ANSWERS = ("response", "model_output", "completion", "answer", "output")
UNSAFE = ("unsafe", "is_unsafe", "toxicity", "harmful", "flagged")  # true or 1: unsafe
SAFE = ("is_safe", "safe", "is_response_safe")  # true or 1: safe
WORDS = ("label", "verdict")  # of what stands last: "safe" or "unsafe"
PROMPT_WORDS = ("prompt_label", "prompt_harm_label")
ANSWER_WORDS = ("response_label", "response_harm_label")
NAMES = ("categories", "category", "violated_categories", "subcategory")
MEANS = {"safe": False, "unharmful": False, "harmless": False, "unsafe": True, "harmful": True}
XSTEST = {"contrast_privacy": ("S7",), "contrast_discr": ("S10",)}
"""Types of XSTest's prompts that lie within one category; its others do not say which harm they mean."""

NOT_SAID = "a pair says which answer is better, not whether one is safe"
NO_LABEL = "without a label"
IN_PART = "refused in part"


@dataclass(frozen=True, slots=True)
class Labeled:
    """A conversation whose last turn is safe or not.

    Attributes:
        subject: what is judged: the prompt, or the answer at the end.
        codes: the categories that an unsafe turn violates; empty if the data does not say.
        group: the data's own name of its kind, by which figures are reported.
        source: the file's name.
    """

    messages: tuple[Message, ...]
    subject: Subject
    unsafe: bool
    codes: tuple[str, ...]
    group: str
    source: str


def read_labeled(files: Sequence[Path], names: CategoryNames) -> tuple[list[Labeled], Counter[str]]:
    """The labeled turns of files, each conversation once, and why others were dropped.

    Raises:
        InputError: a row cannot be read, has no label or an unknown category, equal conversations have different
            labels, or nothing is left.
    """
    found: dict[tuple[str, ...], Labeled] = {}
    dropped: Counter[str] = Counter()
    for path in files:
        for row in read_rows(path, is_row=lambda row: row.first(*PROMPTS, "messages", "chosen") is not None):
            if isinstance(row, RowError):
                raise row
            for made in _turns(row, names, dropped):
                key = (made.subject, *(f"{each['role']}: {each['content']}" for each in made.messages))
                if key in found and found[key].unsafe != made.unsafe:
                    raise row.error("", "an equal conversation before it has the other label", "Correct one of them")
                dropped["a duplicate"] += key in found
                found.setdefault(key, made)
    if not found:
        reasons = "; ".join(f"{count} {reason}" for reason, count in dropped.items()) or "they have no rows"
        raise InputError(f"no row of {', '.join(map(str, files))} can be used: {reasons}", "See docs/guard.md")
    return list(found.values()), +dropped


def _turns(row: Row, names: CategoryNames, dropped: Counter[str]) -> Iterator[Labeled]:
    if "chosen" in row and "rejected" in row:
        yield from _of_pair(row, dropped)
        return
    asked, answered = _conversation(row)
    if "final_label" in row:
        yield from _of_annotated_refusals(row, asked, answered, dropped)
        return
    labels: list[tuple[Subject, bool | None]] = []
    if row.first(*PROMPT_WORDS, *ANSWER_WORDS):
        labels.append(("prompt", _word(row, PROMPT_WORDS)))
        labels.append(("answer", _word(row, ANSWER_WORDS) if answered else None))
    else:
        labels.append(("answer" if answered else "prompt", _label(row)))
    codes, group = _categories(row, names)
    for subject, unsafe in labels:
        if unsafe is None:
            dropped[NO_LABEL] += 1
            continue
        messages = [*asked, *answered] if subject == "answer" else asked
        yield _labeled(row, messages, subject, unsafe, codes if unsafe else (), group=group)


def _of_pair(row: Row, dropped: Counter[str]) -> Iterator[Labeled]:
    for record in convert(row, known_form(row), "preferences"):
        prompt = [message for message in record["prompt"] if message["role"] != "system"]
        for side in ("chosen", "rejected"):
            answer = record[side]
            if answer and classify(str(answer[-1]["content"])).kind == "refusal" and answer[-1]["content"].strip():
                yield _labeled(row, [*prompt, *answer], "answer", False, (), group="refusal")
            else:
                dropped[NOT_SAID] += 1


def _of_annotated_refusals(
    row: Row, asked: list[Message], answered: list[Message], dropped: Counter[str]
) -> Iterator[Labeled]:
    """XSTest's completions: refusals are safe, answers to unsafe prompts are not, answers to safe prompts are."""
    kind, label = str(row.get("type")), str(row.get("final_label"))
    unsafe = kind.startswith("contrast")
    yield _labeled(row, asked, "prompt", unsafe, XSTEST.get(kind, ()) if unsafe else (), group=kind)
    if not answered:
        return
    if label.endswith("partial_refusal") and unsafe:
        dropped[IN_PART] += 1
        return
    violates = unsafe and label.endswith("full_compliance")
    yield _labeled(row, [*asked, *answered], "answer", violates, XSTEST.get(kind, ()) if violates else (), group=kind)


def _conversation(row: Row) -> tuple[list[Message], list[Message]]:
    """A row's messages up to the user's last, and the answer to it, if there is one."""
    if "messages" in row:
        found = list(read_messages(row, "messages", row.get("messages")))
        cut = len(found) - (found[-1]["role"] == "assistant") if found else 0
        return cast(list[Message], found[:cut]), cast(list[Message], found[cut:])
    key = row.first(*PROMPTS)
    if key is None:
        raise row.error("", "no prompt", f"Write one of {', '.join(PROMPTS)}, or messages")
    asked: list[Message] = [{"role": "user", "content": _text(row, key)}]
    if (said := row.first(*ANSWERS)) is None:
        return asked, []
    return asked, [{"role": "assistant", "content": _text(row, said)}]


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise row.error(key, "not a text, or empty", "Write the text that is judged")
    return value


def _label(row: Row) -> bool | None:
    for keys, means in ((UNSAFE, True), (SAFE, False)):
        if key := row.first(*keys):
            value = row.get(key)
            number = {"true": 1, "1": 1, "false": 0, "0": 0}.get(str(value).strip().lower())
            if number is None:
                raise row.error(key, f"{value!r} is neither true nor false", "Write true or false")
            return bool(number) == means
    if row.first(*WORDS):
        return _word(row, WORDS)
    raise row.error("", "no label", f"Write one of {', '.join((*UNSAFE, *SAFE, *WORDS))}")


def _word(row: Row, keys: Sequence[str]) -> bool | None:
    key = row.first(*keys)
    if key is None or not str(row.get(key)).strip():
        return None
    word = str(row.get(key)).strip().lower()
    if word not in MEANS:
        raise row.error(key, f"{word!r} is neither safe nor unsafe", f"Write one of {', '.join(MEANS)}")
    return MEANS[word]


def _categories(row: Row, names: CategoryNames) -> tuple[tuple[str, ...], str]:
    """The codes of a row's categories, and the name of its group."""
    key = row.first(*NAMES)
    if key is None:
        kind = str(row.get("type") or "")
        return XSTEST.get(kind, ()), kind
    value: Any = row.get(key)
    if isinstance(value, dict):  # each name with whether it applies
        value = [name for name, applies in value.items() if applies]
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise row.error(key, f"{value!r} is no list of names", "Write names, or an object of names with true or false")
    listed = [name.strip() for name in listed if name.strip()]
    try:
        return names.codes(listed), ", ".join(listed)
    except KeyError as error:
        unknown = next(name for name in listed if not _known(names, name))
        raise row.error(
            key, f"category {unknown!r} is unknown", f"Add --category {unknown!r}=S1, or =none if no code fits"
        ) from error


def _known(names: CategoryNames, name: str) -> bool:
    try:
        names.codes([name])
    except KeyError:
        return False
    return True


def _labeled(
    row: Row, messages: Sequence[Message], subject: Subject, unsafe: bool, codes: tuple[str, ...], *, group: str
) -> Labeled:
    return Labeled(tuple(messages), subject, unsafe, codes, group, row.path.name)
