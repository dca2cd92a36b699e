"""Drops texts into which a chat template leaked: special tokens as text, role names before turns, instruction headings.

A model that learns them writes them, and goes on talking to itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from herdlm.align.quality.example import Example, Turn
from herdlm.align.quality.step import Drop, Shared, TurnRule
from herdlm.base.recipe import Section

TOKENS = re.compile(
    r"<\|[A-Za-z][\w ]{0,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>(?=\s|$|\[)|<(?:bos|eos|pad|unk)>"
    r"|\[(?:PAD|UNK|CLS|SEP)\]"
)
HEADINGS = re.compile(r"^###? ?(?:Instruction|Response|Human|Assistant|User|Input|Output)\s*:", re.M | re.I)
ROLES = re.compile(r"^\W{0,4}(?:Human|User|Assistant|System|AI|Bot|ChatGPT|GPT-?4?)\W{0,3}:(?!\d|//)", re.M)
LABELS = re.compile(r"^\W{0,4}([^\W\d_]{2,20})\W{0,3}:", re.M)
NAMES = {"human", "user", "assistant", "system", "ai", "bot", "chatgpt"}
MANY = 2  # other words before colons, which make a list of it
TALK = re.compile(r"\b(?:dialog\w*|conversation|script|chat|interview|transcript|role.?play|scene|act as|skit)\b", re.I)


class LeaksConfig(Section):
    """Rests of chat templates in messages."""


class Leaks(TurnRule):
    """Special tokens, headings and role names that the prompt does not have itself."""

    name = "leaks"
    config: LeaksConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """As the rule, and also by the prompts: there, special tokens and headings."""
        drops = super().run(examples, shared)
        return [drop or self._prompt(example) for drop, example in zip(drops, examples, strict=True)]

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        if (found := TOKENS.search(turn.answer)) and found[0] not in example.asked:
            return Drop("special token", found[0])
        if (found := HEADINGS.search(turn.prose)) and found[0].lower() not in example.asked.lower():
            return Drop("heading of a template", found[0])
        found = ROLES.search(turn.prose)
        others = {label.lower() for label in LABELS.findall(turn.prose)} - NAMES
        if (
            found
            and len(others) < MANY
            and not TALK.search(turn.asked)
            and found[0].strip().lower() not in example.asked.lower()
        ):
            return Drop("role name before a turn", found[0].strip())
        return None

    def _prompt(self, example: Example) -> Drop | None:
        asked = example.asked
        if len(HEADINGS.findall(asked)) > 1:
            return Drop("template around the prompt", HEADINGS.findall(asked)[0])
        return None
