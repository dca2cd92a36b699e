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

HELP = (
    r"(?:help|assist|provide|fulfill?|comply|answer|do (?:that|this)|discuss|engage|support|create|generate|write|give|"
    r"offer|recommend|advise|suggest|tell|share|participate|access|browse|see|view|open|perform|complete|"
    r"continue|determine|judge)"
)
CANNOT = (
    r"(?:can ?not|can['\u2019]?t|am (?:not able|unable|not allowed)|['\u2019]m (?:not able|unable|not allowed)|"
    r"won['\u2019]?t|will not)"
)
SORRY = (
    r"(?:i['\u2019]?m |i am )?(?:so |very |really |deeply )?(?:sorry|afraid)[^.!?\n]{0,80}?[,.!]? ?(?:but )?|"
    r"(?:i )?apologi[sz]e[^.!?\n]{0,30}?[,.!]? (?:but )?|unfortunately,? "
)
START = rf"^\W*(?:(?:oh|no|well|hmm?)[,.!]? )?(?:{SORRY})?"
REFUSES = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"{START}(?:as an? [^.\n]{{0,40}}, )?i ?(?:really |simply |just )?{CANNOT} (?:to )?{HELP}\b",
        rf"{START}i ?{CANNOT} [^.\n]{{0,60}}\b(?:request|illegal|harmful|unethical|against)\b",
        rf"{START}[^.\n]{{0,60}}?\bas an? (?:[\w-]+ ){{0,3}}(?:ai|language model|assistant|chatbot)\b[^.\n]{{0,40}}?, ?"
        rf"i ?(?:{CANNOT} (?:to )?{HELP}|(?:do not|don['\u2019]?t|lack) (?:have )?(?:the |any )?"
        r"(?:access|ability|capabilit\w+|capacity))\b",
        r"^\W*(?:i (?:must|have to) (?:decline|refuse)|i (?:decline|refuse) to|i['\u2019]?d rather not)\b",
        r"\b(?:goes against|violates?) my (?:guidelines|programming|policy|policies|principles)\b",
        r"^\W*(?:i['\u2019]?m )?sorry[,.!]? (?:but )?(?:that|this|your request) (?:is|isn['\u2019]?t|goes|violates)\b",
        r"^\W*(?:i apologi[sz]e, but )?it(?:['\u2019]s| is) not (?:appropriate|ethical|acceptable)[^.\n]* to "
        r"(?:provide|suggest|promote|deny|discriminate|make|use|ask)\b",
    )
)
PLAYED = re.compile(
    r"\byou (?:can ?not|can['\u2019]?t|won['\u2019]?t)\b|"
    r"\b(?:refus\w+|decline|reject\w*|turn (?:\w+ )?down|say no|apolog\w+)\b",
    re.I,
)


class RefusalsConfig(Section):
    """Answers that refuse."""

    allowed: tuple[str, ...] = Field(("safety", "factuality"), description="tasks whose answers may refuse")


class Refusals(TurnRule):
    """Answers that begin with a refusal; opinions that a model says it does not have are none."""

    name = "refusals"
    config: RefusalsConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        task = example.row.get("task") or ""
        if example.row.get("tools") or any(task == name or task.startswith(f"{name}-") for name in self.config.allowed):
            return None
        found = refusal(turn.answer)
        if found is None or PLAYED.search(turn.asked):
            return None
        return Drop("refusal", found)


def refusal(answer: str) -> str | None:
    """The words with which an answer refuses, or None."""
    for pattern in REFUSES:
        if found := pattern.search(answer):
            return " ".join(found[0].split())[:80]
    return None
