"""Why a record teaches nothing: it has no target, its sides are equal, it is a duplicate, it is too long."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from herdlm.base.errors import InputError
from herdlm.data.formats.form import KEPT, Kind, Record
from herdlm.data.messages import Messages
from herdlm.tokens.chat import Message, text_of
from herdlm.tokens.chat_format import ChatFormat, RewrittenError

NO_ANSWER = "no assistant message"
EMPTY_ANSWERS = "only empty answers"
ZERO_WEIGHT = "all answers have weight 0"
NOTHING_MADE = "nothing can be made of the row"
EQUAL = "equal answers"
EMPTY_SIDE = "an empty answer"
NOT_ASSISTANT = "an answer that is not the assistant's"
NO_PROMPT = "no prompt"
DUPLICATE = "duplicate"
DUPLICATE_ACROSS = "duplicate of a row in another file"
TOO_LONG = "too long"
REFUSED = "refused by the chat template"
REWRITTEN = "rewritten by the chat template as the dialog goes on"


def says(message: dict[str, Any]) -> bool:
    """Whether a message has words or calls."""
    return bool(text_of(message).strip() or message.get("tool_calls"))


def flaw(kind: Kind, record: Record) -> str | None:
    """Why a record of this kind teaches nothing, whatever the model; None if it teaches something."""
    if kind == "dialogs":
        return _dialog_flaw(record["messages"])
    if kind == "text":
        return None if record["text"].strip() else "no text"
    if not any(says(message) for message in record["prompt"]):
        return NO_PROMPT
    if kind == "preferences":
        return _pair_flaw(record["chosen"], record["rejected"])
    if kind == "thumbs":
        return _answer_flaw(record["completion"])
    return None


def _dialog_flaw(messages: Messages) -> str | None:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        return NO_ANSWER
    if not any(says(message) for message in answers):
        return EMPTY_ANSWERS
    return None if any(says(m) and m.get("weight", 1.0) for m in answers) else ZERO_WEIGHT


def _pair_flaw(chosen: Messages, rejected: Messages) -> str | None:
    found = _answer_flaw(chosen) or _answer_flaw(rejected)
    return found or (EQUAL if _bare(chosen) == _bare(rejected) else None)


def _answer_flaw(messages: Messages) -> str | None:
    if not messages:
        return EMPTY_SIDE
    if messages[0]["role"] != "assistant" or messages[-1]["role"] != "assistant":
        return NOT_ASSISTANT
    if not says(messages[-1]):
        return EMPTY_SIDE
    return _dialog_flaw(messages)


def _bare(messages: Messages) -> list[Any]:
    contents = [message["content"] for message in messages]
    texts = [content.strip() if isinstance(content, str) else content for content in contents]
    return [(m["role"], text, m.get("tool_calls")) for m, text in zip(messages, texts, strict=True)]


def sides(kind: Kind, record: Record) -> list[tuple[list[Message], int]]:
    """The dialogs that a record is rendered as, each with the number of its first message that may be a target."""
    if kind == "dialogs":
        return [(record["messages"], 0)]
    if kind == "prompts":
        return [(record["prompt"], len(record["prompt"]))]
    names = ("chosen", "rejected") if kind == "preferences" else ("completion",)
    return [([*record["prompt"], *record[name]], len(record["prompt"])) for name in names]


class Sieve:
    """Decides what is kept; remembers what it has seen, to find duplicates within and across files."""

    def __init__(self, *, chat_format: ChatFormat | None = None, seq_len: int | None = None) -> None:
        self.chat_format, self.seq_len = chat_format, seq_len
        self._seen: dict[bytes, str] = {}

    def reason(self, kind: Kind, record: Record, path: str) -> tuple[str | None, int]:
        """Why a record is dropped, or None; and its length, in tokens with a chat format, else in characters."""
        if found := flaw(kind, record):
            return found, characters(record)
        key = digest({name: value for name, value in record.items() if name not in KEPT})
        if (other := self._seen.get(key)) is not None:
            return DUPLICATE if other == path else DUPLICATE_ACROSS, characters(record)
        self._seen[key] = path
        if self.chat_format is None or kind == "text":
            return None, characters(record)
        return self._rendered(self.chat_format, kind, record)

    def _rendered(self, chat_format: ChatFormat, kind: Kind, record: Record) -> tuple[str | None, int]:
        length = 0
        for messages, first in sides(kind, record):
            try:
                rendered = chat_format.render(messages, tools=record.get("tools"), first=first)
            except RewrittenError:
                return REWRITTEN, characters(record)
            except InputError as error:
                return f"{REFUSED}: {error.what}", characters(record)
            length = max(length, len(rendered.tokens))
            if kind != "prompts" and not any(rendered.weights):
                return EMPTY_ANSWERS, length
        if self.seq_len is not None and length > self.seq_len:
            return f"{TOO_LONG} for {self.seq_len:,} tokens", length
        return None, length


def by_answer(record: Record) -> list[Record]:
    """A dialog as one for each answer with a weight, which ends with it; answers before it weigh nothing."""
    made, said = [], record["messages"]
    for number, message in enumerate(said):
        if message["role"] == "assistant" and message.get("weight", 1.0):
            before = [{**m, "weight": 0.0} if m["role"] == "assistant" else m for m in said[:number]]
            made.append({**record, "messages": [*before, message]})
    return made


def characters(record: Record) -> int:
    """The characters of a record's texts; of the longer side of a pair."""
    if "text" in record:
        return len(record["text"])
    parts = [sum(len(text_of(message)) for message in record.get(key, ())) for key in ("messages", "prompt")]
    answers = [sum(len(text_of(m)) for m in record.get(key, ())) for key in ("chosen", "rejected", "completion")]
    return sum(parts) + max(answers)


def digest(value: Any) -> bytes:
    """A hash of a record, which does not depend on the order of keys."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()
