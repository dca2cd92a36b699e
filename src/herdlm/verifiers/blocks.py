"""Finds fenced blocks in Markdown answers."""

from __future__ import annotations

import re

FENCE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<content>.*?)(?:^[ \t]*(?P=fence)[ \t]*$|\Z)", re.M | re.S
)


def last_block(answer: str) -> str | None:
    """The content of the last fenced block, which may lack its end; None without one."""
    last = None
    for match in FENCE.finditer(answer):
        last = match["content"]
    return last
