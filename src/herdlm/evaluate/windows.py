"""Divides a text that is longer than a model's context."""

from __future__ import annotations

from collections.abc import Sequence


def text_windows(tokens: Sequence[int], prefix: int, context: int) -> list[tuple[list[int], list[int]]]:
    """Contexts and continuations by which each token after the first ``prefix`` is scored once.

    Each window but the first starts where the one before ended, behind as many tokens as fit.
    """
    at, pairs = prefix, []
    while at < len(tokens):
        end = min(at + context - (prefix if at == prefix else 1), len(tokens))
        begin = max(min(at - 1, end - context), 0)
        pairs.append((list(tokens[begin:at]), list(tokens[at:end])))
        at = end
    return pairs
