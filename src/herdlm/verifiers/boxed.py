r"""Finds a final answer in ``\boxed{}``."""

from __future__ import annotations


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{}`` or ``\fbox{}``, whose braces may be nested; None without one."""
    for start in sorted((place for mark in (r"\boxed{", r"\fbox{") for place in _places(text, mark)), reverse=True):
        begin = text.index("{", start) + 1
        depth = 1
        for at in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if not depth:
                return text[begin:at]
    return None


def _places(text: str, mark: str) -> list[int]:
    found, at = [], text.find(mark)
    while at >= 0:
        found.append(at)
        at = text.find(mark, at + 1)
    return found
