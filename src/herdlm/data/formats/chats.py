"""Dialogs: messages, conversations, and a prompt with its answer; with a thumb up or down, KTO's form."""

from __future__ import annotations

from herdlm.data.formats.form import Form, Record, chat, extras, has, request, with_system
from herdlm.data.messages import Messages, answer_messages, assistant, messages, text, user
from herdlm.data.row import Row, kind_of
from herdlm.data.tools import json_value
from herdlm.tokens.chat import text_of

CHATS = ("messages", "conversations", "conversation")
QUESTION = ("prompt", "instruction", "question", "query", "problem", "input", "context")
ANSWER = ("completion", "response", "output", "answer", "solution", "generated_solution")
LABELS = ("label", "kto_tag")
TRUE, FALSE = ("true", "1", "1.0", "yes", "up"), ("false", "0", "0.0", "no", "down")


def _whole(row: Row) -> Messages:
    """All messages of a row: a chat, or a question with its answer."""
    if key := row.first(*CHATS):
        return with_system(row, chat(row, key))
    question, answer = _question(row), _answer(row)
    assert question and answer
    asked = request(row, question)
    answered = answer_messages(row, answer, row.get(answer))
    if len(answered) > len(asked) and answered[: len(asked)] == asked:
        row.notes.append("the prompt was repeated in the answer")
        answered = answered[len(asked) :]
    elif repeats(row, question, answered):
        answered = [assistant(answered[0]["content"][len(row.value[question]) :].lstrip())]
    return [*asked, *answered]


def repeats(row: Row, key: str, answered: Messages) -> bool:
    """Whether a text answer begins with its prompt of several words; notes it."""
    asked = row.value[key]
    found = (
        isinstance(asked, str)
        and len(asked.split()) > 3
        and len(answered) == 1
        and answered == [assistant(text_of(answered[0]))]
        and answered[0]["content"].startswith(asked)
    )
    if found:
        row.notes.append("the prompt was repeated in the answer")
    return found


def _question(row: Row) -> str | None:
    return row.first(*QUESTION)


def _answer(row: Row) -> str | None:
    return row.first(*(key for key in ANSWER if key != _question(row)))


def dialogs(row: Row) -> list[Record]:
    """One dialog."""
    return [{"messages": _whole(row), **extras(row)}]


def thumbs(row: Row) -> list[Record]:
    """One rated answer: the last message of a dialog, or a prompt's completion."""
    (label,) = (row.get(key) for key in LABELS if key in row)
    found = _whole(row)
    first = len(found) - 1
    if not row.first(*CHATS):
        question = _question(row)
        assert question
        first = len(request(row, question))
    return [{"prompt": found[:first], "completion": found[first:], "label": is_up(label), **extras(row)}]


def is_up(label: object) -> bool | None:
    """A label as true or false, or None if it is neither."""
    word = str(label).lower() if isinstance(label, bool | int | float | str) else ""
    return True if word in TRUE else False if word in FALSE else None


def _rated(row: Row) -> bool:
    labels = [row.value[key] for key in LABELS if key in row]
    return len(labels) == 1 and is_up(labels[0]) is not None and _is_dialog(row)


def _is_dialog(row: Row) -> bool:
    return bool(row.first(*CHATS)) or bool(_question(row) and _answer(row))


def _number_label(row: Row) -> bool:
    """A completion whose label is a number other than 0 and 1, so that it can be neither a thumb nor ignored."""
    label = row.value.get("label")
    return isinstance(label, int | float) and is_up(label) is None and "completion" in row and "prompt" in row


def _turns(row: Row) -> list[Record]:
    """UltraChat's list of texts in turn."""
    return [{"messages": with_system(row, chat(row, "data")), **extras(row)}]


def _is_turns(row: Row) -> bool:
    value = row.value.get("data")
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _seeds(row: Row) -> list[Record]:
    """Self-instruct's instruction with several inputs and outputs: a dialog for each."""
    instruction = text(row, "instruction", row.get("instruction"))
    listed = json_value(row, "instances", row.get("instances"))
    if not isinstance(listed, list):
        raise row.error("instances", f"it is {kind_of(listed)}, not a list", 'Write [{"input": ..., "output": ...}]')
    found = []
    for index, item in enumerate(listed):
        place = f"instances[{index}]"
        if not isinstance(item, dict) or item.get("output") is None:
            raise row.error(place, "it has no output", 'Write {"input": ..., "output": ...}')
        asked = [instruction, text(row, f"{place}.input", item.get("input") or "")]
        answer = text(row, f"{place}.output", item["output"])
        found.append({"messages": [user("\n\n".join(part for part in asked if part)), assistant(answer)]})
    return found


def only_prompts(row: Row) -> list[Record]:
    """A prompt without an answer: for sampling answers to it. Of MT-bench's turns, the first."""
    if "turns" in row:
        turns = json_value(row, "turns", row.get("turns"))
        if not isinstance(turns, list) or not turns:
            raise row.error("turns", "it is not a list of texts", "Write a list of texts")
        return [{"prompt": with_system(row, [user(text(row, "turns[0]", turns[0]))])}]
    question = _question(row)
    assert question
    value = row.value[question]
    if isinstance(value, list) and value and isinstance(value[0], list):  # BFCL: turns that are lists of messages
        row.value[question] = value[0]
        if isinstance(row.value.get("function"), list):
            row.value["tools"] = row.get("function")
    return [{"prompt": request(row, question), **extras(row)}]


def _calls(row: Row) -> list[Record]:
    """A query with the calls that answer it, as JSON text."""
    answer = {**assistant(""), "tool_calls": row.get("answers")}
    return [{"messages": [*request(row, "query"), *messages(row, "answers", [answer])], **extras(row)}]


CALLS = Form(
    "query and calls (xLAM)", ("query", "answers", "tools"), has("query", "answers", "tools"), {"dialogs": _calls}
)
THUMBS = Form("thumbs", ("prompt", "completion", "label"), _rated, {"thumbs": thumbs})
BAD_LABEL = Form(
    "thumbs with other labels",
    ("prompt", "completion", "label"),
    _number_label,
    refusal="key label is neither 0 nor 1, neither true nor false",
)
MESSAGES = Form("messages", ("messages",), has("messages"), {"dialogs": dialogs})
SHAREGPT = Form("conversations (ShareGPT)", ("conversations",), has("conversations"), {"dialogs": dialogs})
CONVERSATION = Form("conversation", ("conversation",), has("conversation"), {"dialogs": dialogs})
TURNS = Form("turns of text (UltraChat)", ("data",), _is_turns, {"dialogs": _turns})
SEEDS = Form("self-instruct", ("instruction", "instances"), has("instruction", "instances"), {"dialogs": _seeds})
ALPACA = Form(
    "instruction and answer (Alpaca)",
    ("instruction", "input", "output"),
    lambda row: "instruction" in row and _is_dialog(row),
    {"dialogs": dialogs},
)
ANSWERED = Form("prompt and answer", ("prompt", "completion"), _is_dialog, {"dialogs": dialogs})
PROMPT = Form(
    "prompts only",
    ("prompt",),
    lambda row: bool(row.first("turns", "prompt", "instruction", "question", "query", "problem")),
    {"prompts": only_prompts},
)
