"""Shows records as a model sees them: what is trained in brackets, and in green where the terminal has colors."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from herdlm.data.formats.form import Kind, Record
from herdlm.data.useless import sides
from herdlm.tokens.chat import text_of
from herdlm.tokens.chat_format import ChatFormat

OPEN, CLOSE = "⟦", "⟧"


def rendered(kind: Kind, record: Record, chat_format: ChatFormat) -> list[Text]:
    """A record's tokens as text, a pair's two sides one after the other.

    A run of tokens that are targets stands in brackets, after its weight if that is not 1. The rest is dim.
    """
    if kind == "text":
        return [Text(record["text"])]
    found = []
    titles = ("chosen", "rejected") if kind == "preferences" else ("",)
    for title, (messages, first) in zip(titles, sides(kind, record), strict=True):
        tokens = chat_format.render(messages, tools=record.get("tools"), first=first)
        text = Text(f"{title}:\n" if title else "", style="bold")
        for weight, run in groupby(zip(tokens.tokens, tokens.weights, strict=True), key=lambda pair: pair[1]):
            said = chat_format.tokenizer.decode([token for token, _ in run], keep_special=True)
            if weight:
                number = "" if weight == 1 else f"{weight:g}:"
                text.append(f"{OPEN}{number}{said}{CLOSE}", style="not bold green")
            else:
                text.append(said, style="not bold dim")
        found.append(text)
    return found


def plain(kind: Kind, record: Record) -> list[Text]:
    """A record's messages without a model: each after its role; assistant messages that are trained in brackets."""
    if kind == "text":
        return [Text(record["text"])]
    found = []
    titles = ("chosen", "rejected") if kind == "preferences" else ("",)
    for title, (messages, first) in zip(titles, sides(kind, record), strict=True):
        text = Text(f"{title}:\n" if title else "", style="bold")
        for index, message in enumerate(messages):
            calls = "".join(f" {call['function']}" for call in message.get("tool_calls", ()))
            weight = message.get("weight", 1.0) if message["role"] == "assistant" and index >= first else 0
            said = f"{text_of(message)}{calls}"
            text.append(f"{message['role']}: ", style="not bold cyan")
            number = "" if weight == 1 else f"{weight:g}:"
            text.append(
                f"{OPEN}{number}{said}{CLOSE}" if weight else said, style=f"not bold {'green' if weight else 'dim'}"
            )
            text.append("\n")
        found.append(text)
    return found
