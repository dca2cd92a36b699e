"""Drops answers that end in the middle: code that is not closed, a sentence that must go on."""

from __future__ import annotations

import re

from pydantic import Field

from herdlm.align.quality.example import Example, Turn
from herdlm.align.quality.step import Drop, TurnRule
from herdlm.base.recipe import Section

OPEN_END = re.compile(
    r"(?<![.!?\"']),$|\b(?:and|or|but|the|an|of|to|with|for|because|such as|including|which|their|its|from)$", re.I
)


class TruncationConfig(Section):
    """Answers that stop in the middle."""

    min_words: int = Field(25, ge=1, description="shorter answers are not judged by how they end")


class Truncation(TurnRule):
    """An open code fence, or a last word or comma after which the sentence must go on.

    A missing full stop says nothing: people leave out the last one.
    """

    name = "truncation"
    config: TruncationConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        if turn.answer.count("```") % 2:
            return Drop("code is not closed")
        if turn.calls or len(turn.prose.split()) < self.config.min_words or turn.answer.endswith("```"):
            return None
        line = turn.prose.splitlines()[-1].strip()
        return Drop("ends with an open word", " ".join(line[-60:].split())) if OPEN_END.search(line) else None
