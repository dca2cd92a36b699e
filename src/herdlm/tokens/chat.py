"""The messages of a dialog, and a dialog as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict


class Message(TypedDict):
    """One message of a dialog in the OpenAI form.

    The roles are system, user, assistant and tool (also "ipython", Llama's name of it). ``code`` marks an assistant's
    message that is code or a call of a built-in tool: it begins with ``<|python_tag|>`` and ends with ``<|eom_id|>``,
    after which the assistant waits for a tool's message. ``weight`` weighs an assistant's message in training; 0 leaves
    it out.

    Content may also be a list of parts, ``{"type": "text", "text": ...}``, of which those of the type "special" name a
    token of the tokenizer.
    """

    role: str
    content: str
    code: NotRequired[bool]
    weight: NotRequired[float]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


def text_of(message: Mapping[str, Any]) -> str:
    """A message's content as text; special parts are their tokens' names."""
    content: Any = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def special_parts(message: Mapping[str, Any]) -> list[str]:
    """The names of tokens among the parts of a message's content."""
    content: Any = message.get("content")
    return [part["text"] for part in content if part["type"] == "special"] if isinstance(content, list) else []


@dataclass(frozen=True, slots=True)
class Rendered:
    """A dialog as tokens.

    ``weights[i]`` weighs token i as a target: above 0 for what the assistant writes, which are the words and the end of
    its messages, not their headers. ``formatting[i]`` is true for special tokens and headers, which DPO leaves out of
    its loss.
    """

    tokens: list[int]
    weights: list[float]
    formatting: list[bool]
