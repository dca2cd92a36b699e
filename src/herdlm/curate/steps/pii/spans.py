"""Replaces pieces of text by typed placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

KINDS = ("key", "email", "iban", "card", "ip", "phone")
PLACEHOLDERS = {kind: f"[{kind.upper()}]" for kind in KINDS}
CONTEXT_CHARS = 32


def replace(
    pattern: re.Pattern[str], kind: str, text: str, is_one: Callable[[re.Match[str]], bool], group: str | int = 0
) -> tuple[str, int]:
    """Replace the matches of a pattern (or of a group) that pass the check. Return the text and their number."""
    spans = [match.span(group) for match in pattern.finditer(text) if is_one(match)]
    return put(PLACEHOLDERS[kind], text, spans), len(spans)


def put(placeholder: str, text: str, spans: Sequence[tuple[int, int]]) -> str:
    if not spans:
        return text
    pieces: list[str] = []
    position = 0
    for start, end in spans:
        pieces += [text[position:start], placeholder]
        position = end
    return "".join([*pieces, text[position:]])
