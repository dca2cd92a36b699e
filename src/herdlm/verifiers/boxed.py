r"""Finds a final answer in ``\boxed{}``."""

from __future__ import annotations

import re

BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\{)|[{}]")


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{}`` or ``\fbox{}``, whose braces may be nested; None without one."""
    opened: list[int | None] = []  # for each open brace, where a box's content begins, or None for another brace
    last, content = -1, None
    for brace in BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace.end() if brace["box"] else None)
        elif opened and (begin := opened.pop()) is not None and begin > last:
            last, content = begin, text[begin : brace.start()]
    return content
