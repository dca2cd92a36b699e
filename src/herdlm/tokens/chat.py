"""The dialog format of Llama 3: header and end tokens around each message (report, section 4.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from herdlm.base.errors import InputError
from herdlm.tokens.tokenizer import (
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    PYTHON_TAG,
    START_HEADER,
    Tokenizer,
)

ROLES = ("system", "user", "assistant", "ipython")


class Message(TypedDict):
    """One message of a dialog in the OpenAI form.

    ``code`` marks an assistant's message that is code or a call of a built-in tool: it begins with ``<|python_tag|>``
    and ends with ``<|eom_id|>``, after which the assistant waits for an "ipython" message.
    """

    role: str
    content: str
    code: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A dialog as tokens.

    ``answer[i]`` is true if the model is to write token i: the words and the end of assistant messages, not their
    headers. ``formatting[i]`` is true for header and end tokens, which DPO leaves out of its loss.
    """

    tokens: list[int]
    answer: list[bool]
    formatting: list[bool]


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """A whole dialog as tokens.

    Raises:
        InputError: a role is unknown.
    """
    tokens, answer, formatting = [tokenizer.special(BEGIN_OF_TEXT)], [False], [True]
    for message in messages:
        header = _header(tokenizer, message["role"])
        if message.get("code"):
            words = [tokenizer.special(PYTHON_TAG), *tokenizer.encode(message["content"].strip())]
            end = END_OF_MESSAGE
        else:
            words, end = tokenizer.encode(_content(tokenizer, message["content"])), END_OF_TURN
        own = message["role"] == "assistant"
        tokens += [*header, *words, tokenizer.special(end)]
        answer += [False] * len(header) + [own] * (len(words) + 1)
        formatting += [True] * len(header) + [False] * len(words) + [True]
    return Rendered(tokens, answer, formatting)


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """A dialog as tokens, up to the start of the assistant's next message."""
    return render(tokenizer, messages).tokens + _header(tokenizer, "assistant")


def stop_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end an assistant's message."""
    return tuple(tokenizer.special(name) for name in (END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT))


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    if role not in ROLES:
        raise InputError(f"role {role!r} is unknown", f"Use one of {', '.join(ROLES)}")
    return [
        tokenizer.special(START_HEADER),
        *tokenizer.encode(role),
        tokenizer.special(END_HEADER),
        *tokenizer.encode("\n\n"),
    ]


def _content(tokenizer: Tokenizer, text: str) -> str:
    return (" " if tokenizer.leading_space else "") + text.strip()
