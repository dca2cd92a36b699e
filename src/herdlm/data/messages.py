"""Messages in OpenAI's, ShareGPT's and older forms, as canonical messages.

A canonical message has ``role`` (system, user, assistant, tool or ipython) and ``content``, which is text, or a list of
parts where a part is a special token; an assistant's may have
``tool_calls``, ``weight`` (what its tokens count in the loss, if not 1) and ``code``; a tool's ``tool_call_id`` and
``name``.
"""

from __future__ import annotations

import re
from typing import Any

from herdlm.data.row import Row, kind_of, parse_json
from herdlm.data.tools import json_value, tool_call, tool_calls

ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "bard", "bing", "function_call"),
    "tool": ("tool", "function", "observation", "function_response", "tool_response"),
    "ipython": ("ipython",),
}
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
WEIGHTS = ("weight", "loss_weight", "train", "training", "loss", "mask")
UNSUPPORTED = ("train_detail", "training_detail")
READ = {"role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name", "code", *WEIGHTS}
Messages = list[dict[str, Any]]
HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
ALPACA_PROMPT = re.compile(
    r"Below is an instruction.*?### Instruction:\n(.*?)(?:\n\n### Input:\n(.*?))?\n\n### Response:\s*", re.DOTALL
)


def user(content: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": content}


def text(row: Row, key: str, value: Any) -> str:
    """A text, or the joined parts of type "text".

    Raises:
        RowError: it is something else, such as a number or an image.
    """
    return value if isinstance(value, str) else "".join(part["text"] for part in _parts(row, key, value, ("text",)))


def content(row: Row, key: str, value: Any) -> str | list[dict[str, str]]:
    """A message's content: as :func:`text`, or its parts where one of them is of the type "special".

    Raises:
        RowError: it is something else, such as a number or an image.
    """
    if isinstance(value, str):
        return value
    parts = _parts(row, key, value, ("text", "special"))
    return parts if any(part["type"] == "special" for part in parts) else "".join(part["text"] for part in parts)


def _parts(row: Row, key: str, value: Any, kinds: tuple[str, ...]) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise row.error(key, f"it is {kind_of(value)}, not text", "Write text in quotation marks")
    found = []
    for index, part in enumerate(value):
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind not in kinds or not isinstance(part.get("text"), str):
            what = f"of type {kind!r}" if isinstance(kind, str) and kind not in kinds else kind_of(part)
            raise row.error(
                f"{key}[{index}]", f"a part of the content is {what}, not of type 'text'", "Only text can be learned"
            )
        found.append({"type": kind, "text": part["text"]})
    return found


def messages(row: Row, key: str, value: Any) -> Messages:
    """A list of messages, or one message, also as JSON in a text (as CSV has it).

    Raises:
        RowError: a message has no known role, no content, or a key that must not be passed over.
    """
    value = json_value(row, key, value)
    if isinstance(value, dict):
        return [_message(row, key, value)]
    if not isinstance(value, list):
        raise row.error(key, f"it is {kind_of(value)}, not a list of messages", 'Write [{"role": ..., "content": ...}]')
    return [_message(row, f"{key}[{index}]", item) for index, item in enumerate(value)]


def _message(row: Row, key: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise row.error(key, f"it is {kind_of(item)}, not a message", 'Write {"role": ..., "content": ...}')
    item = {name: value for name, value in item.items() if value is not None}
    for name in UNSUPPORTED:
        if name in item:
            raise row.error(f"{key}.{name}", "weights of parts of a message are not supported", "Use weight instead")
    named = "role" if "role" in item or "from" not in item else "from"
    given = item.get(named)
    role = ROLE_OF.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        what = "there is no role" if named not in item else f"role {given!r} is unknown"
        raise row.error(f"{key}.{named}", what, f"Use one of {', '.join(ROLE_OF)}")
    row.notes += [f"key {name!r} of messages was not used" for name in sorted(item.keys() - READ)]
    found = {"role": role, **_said(row, key, item, given == "function_call", role)}
    found |= {name: item[name] for name in ("tool_call_id", "name") if isinstance(item.get(name), str)}
    weight = _weight(row, key, item)
    if weight != 1.0 and role == "assistant":
        found["weight"] = weight
    elif role != "assistant" and weight not in (0.0, 1.0):
        row.notes.append(f"a weight of a message with the role {role} was not used")
    return found


def _said(row: Row, key: str, item: dict[str, Any], is_call: bool, role: str) -> dict[str, Any]:
    """The content of a message, and an assistant's calls of tools."""
    place = "content" if "content" in item or "value" not in item else "value"
    at = f"{key}.{place}"
    if is_call:
        calls = json_value(row, at, item.get(place))
        calls = calls if isinstance(calls, list) else [calls]
        return {"content": "", "tool_calls": [tool_call(row, at, call) for call in calls]}
    if place not in item and role != "assistant":
        raise row.error(at, "there is no content", 'Write "content": "..."')
    found: dict[str, Any] = {"content": content(row, at, item[place]) if place in item else ""}
    if role == "assistant":
        if made := tool_calls(row, key, item):
            found["tool_calls"] = made
        if item.get("code") is True:
            found["code"] = True
    return found


def _weight(row: Row, key: str, item: dict[str, Any]) -> float:
    """What a message counts in the loss; ``mask: true`` means that it is left out."""
    weight = 1.0
    for name in WEIGHTS:
        value = item.get(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1000:
            raise row.error(f"{key}.{name}", f"a weight is {value!r}", "Write true, false, or a number from 0 to 1,000")
        weight *= float(not value) if name == "mask" else float(value)
    return weight


def human_assistant(given: str) -> Messages | None:
    r"""The messages of a text in the form "\n\nHuman: ...\n\nAssistant: ..."; None if it does not begin so."""
    parts = HUMAN.split(given.lstrip())
    if parts[0].strip() or len(parts) < 3 or parts[1] != "Human":
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    found = [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]
    return found


def _are_messages(given: str) -> bool:
    """Whether a text is messages in JSON, as CSV has them; other JSON is what somebody said."""
    if not given.lstrip().startswith("["):
        return False
    try:
        value = parse_json(given)
    except ValueError:
        return False
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def prompt_messages(row: Row, key: str, value: Any) -> Messages:
    """A prompt that is text, "Human:/Assistant:" text, Alpaca's prompt text, or messages."""
    if isinstance(value, str) and not _are_messages(value):
        if turns := human_assistant(value):
            if turns[-1] == assistant(""):
                turns.pop()
            return turns
        if match := ALPACA_PROMPT.fullmatch(value):
            row.notes.append("Alpaca's prompt text was taken apart")
            return [user("\n\n".join(part for part in match.groups() if part))]
        return [user(value)]
    return messages(row, key, value)


def answer_messages(row: Row, key: str, value: Any) -> Messages:
    """An answer that is text or messages."""
    if isinstance(value, str) and not _are_messages(value):
        return [assistant(value)]
    return messages(row, key, value)
