"""Says how difficult a prompt is: by how many things it wants (Llama 3 report, section 4.2.3), or as a judge said."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example, prose
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section

QUESTION = re.compile(r"[?\uff1f]+(?=\s|$|[\"'\u201d\u2019)])")
VERBS = (
    "write|list|explain|describe|give|name|create|make|find|compute|calculate|translate|summari[sz]e|compare|classify|"
    "generate|rewrite|edit|identify|suggest|provide|implement|show|tell|design|analy[sz]e|convert|extract|answer|solve|"
    "discuss|outline|propose|choose|sort|include|mention|use|add|avoid|start|begin|end|finish|wrap|repeat|keep|return"
)
IMPERATIVE = re.compile(
    rf"(?:^|[.!?:;\n]\s*|\b(?:and|then|also|please|,)\s+)(?:please |also |then )?(?:{VERBS})\b", re.I
)
CONSTRAINT = re.compile(
    r"\b(?:(?:at (?:least|most)|no (?:more|less|fewer) than|exactly)(?: \d+ \w+)?|must|should|"
    r"without|do not|don['\u2019]t|avoid|only|"
    r"between \d+ and|less than|more than|fewer than|in (?:all )?(?:lowercase|uppercase|capital)|"
    r"in the (?:style|form|format) of|\d+ (?:words|sentences|paragraphs|bullet|items|lines|examples))\b",
    re.I,
)
MOST = 5


class DifficultyConfig(Section):
    """How many things a prompt wants, from 1 to 5."""

    min_intents: int = Field(1, ge=1, le=MOST, description="drop prompts that want fewer things")


class Difficulty(Step):
    """Sets ``difficulty``, and drops what is too easy, if that is asked for."""

    name = "difficulty"
    config: DifficultyConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        for example in examples:
            judged = example.row.get("difficulty")
            example.difficulty = max(1, min(MOST, judged)) if isinstance(judged, int) else intents(example)
        least = self.config.min_intents
        return [Drop("too easy", str(e.difficulty)) if e.difficulty < least else None for e in examples]


def intents(example: Example) -> int:
    """How many things a prompt wants, from 1 to 5: instructions to check, or questions, commands and constraints."""
    if listed := example.row.get("instruction_id_list"):
        return min(len(listed) + 1, MOST)
    asked = prose(example.asked)
    turns = sum(message["role"] == "user" for message in example.messages)
    wanted = len(QUESTION.findall(asked)) + len(IMPERATIVE.findall(asked))
    return max(1, turns, min(wanted + len(CONSTRAINT.findall(asked)), MOST)) if turns < MOST else MOST
