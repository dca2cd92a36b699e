"""Drops answers that refuse, outside of tasks in which refusing is right.

A model that is trained on its own refusals refuses more. What may be refused is a matter of safety data, whose tasks
are named by ``allowed``; and an assistant with tools rightly says what they cannot do.
"""

from __future__ import annotations

import re

from pydantic import Field

from herdlm.align.quality.example import Example, Turn
from herdlm.align.quality.step import Drop, TurnRule
from herdlm.base.recipe import Section
from herdlm.verifiers.refusals.classify import classify

PHRASE = 80  # characters of the words that decided
PLAYED = re.compile(
    r"\byou (?:can ?not|can['\u2019]?t|won['\u2019]?t)\b|"
    r"\b(?:refus\w+|decline|reject\w*|turn (?:\w+ )?down|say no|apolog\w+)\b",
    re.I,
)


class RefusalsConfig(Section):
    """Answers that refuse."""

    allowed: tuple[str, ...] = Field(("safety", "factuality"), description="tasks whose answers may refuse")


class Refusals(TurnRule):
    """Answers that refuse, as :mod:`herdlm.verifiers.refusals` finds them in six languages; partial refusals stay."""

    name = "refusals"
    config: RefusalsConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        task = example.row.get("task") or ""
        if example.row.get("tools") or any(task == name or task.startswith(f"{name}-") for name in self.config.allowed):
            return None
        found = classify(turn.answer)
        if found.kind != "refusal" or PLAYED.search(turn.asked):
            return None
        return Drop("refusal", found.phrase[:PHRASE])
