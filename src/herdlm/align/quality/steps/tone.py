"""Drops answers that overdo it: apologies, emoji, exclamation marks (Llama 3 report, section 4.2.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example, Turn
from herdlm.align.quality.step import Drop, Shared, Step, TurnRule
from herdlm.base.recipe import Section

APOLOGY = re.compile(
    r"\b(?:i|we)(?:['\u2019]m| am|['\u2019]re| are)? (?:\w+ ){0,2}(?:sorry|apologi[sz]e)\b"
    r"|\b(?:my|our) (?:\w+ )?apologies\b"
    r"|^\W*(?:sorry|apologies)(?=[,.!]| (?:for|about|but|if|that|i|we|again|to)\b)",
    re.I | re.M,
)
SYMPATHY = re.compile(
    r"sorry (?:to hear|to learn|for your|that you|about your|you(?:['\u2019]re| are)|you feel|this happened)"
    r"|sorry .{0,20}loss",
    re.I,
)
EMOJI = re.compile(
    "[\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001faff\u2600-\u26ff\u2728\u2764\u2b50\U0001f1e6-\U0001f1ff]"
)
MARKS = re.compile(r"[!\uff01]+")
SENTENCES = re.compile(r"[.!?。\uff01\uff1f]+(?=\s|$|[\"'\u201d\u2019)])")
WANTED = re.compile(
    r"\b(?:apolog\w*|sorry|complain\w*|customer|letter|e-?mail|dialog\w*|conversation|role|script)\b", re.I
)
EMOJI_WANTED = re.compile(r"\bemojis?\b|\bemoticons?\b|\bsocial media\b|\btweet|\binstagram\b", re.I)
LOUD = re.compile(
    r"\b(?:exclamation|enthusias\w+|excited|ad(?:vert\w*)?|slogan|tweet|instagram|social media|caption|poem|song|"
    r"story|lyrics|shanty|verse|style of|shakespeare\w*|in character|persona|"
    r"dialog\w*|script|speech|cheer|birthday|invitation|announce\w*|persuasive|campaign|post)\b",
    re.I,
)

SHOUTED = re.compile(r"[!\uff01]{2}|![^\n]*!")


class ApologiesConfig(Section):
    """Answers that apologize."""

    most: int = Field(2, ge=0, description="most apologies in an answer")
    max_share: float = Field(0.02, ge=0, le=1, description="most answers that may open with an apology; the best stay")


class EmojiConfig(Section):
    """Answers with many emoji."""

    most: int = Field(3, ge=0, description="most emoji in an answer to a prompt without any")


class ExclamationsConfig(Section):
    """Answers that shout."""

    most: int = Field(3, ge=0, description="most exclamation marks in an answer that is mostly other sentences")
    max_share: float = Field(0.3, ge=0, le=1, description="share of sentences with one, above which they are too many")
    most_in_a_row: int = Field(2, ge=1, description="most exclamation marks in a row")


class Apologies(Step):
    """Apologies where the prompt wants none; words of sympathy are none.

    An apology for a mistake is in order, and a model that opens every other answer with one is not. So answers that
    open with an apology are thinned out, and only those with several are always dropped. Those of assistants with
    tools, which say what they cannot do, are not counted.
    """

    name = "apologies"
    config: ApologiesConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        drops: list[Drop | None] = [None] * len(examples)
        opening = {}
        for number, example in enumerate(examples):
            for turn in example.turns if not example.row.get("tools") else ():
                found = apologies(turn)
                if len(found) > self.config.most:
                    drops[number] = Drop("several apologies", found[0][0].strip())
                elif found and not turn.prose[: found[0].start()].strip(" \n*_>\"'"):
                    opening[number] = found[0][0].strip()
        left = [number for number in opening if drops[number] is None]
        most = int(self.config.max_share * sum(bool(example.turns) for example in examples))
        for number in sorted(left, key=lambda n: examples[n].preference)[most:]:
            drops[number] = Drop("opens with an apology", opening[number])
        return drops


def apologies(turn: Turn) -> list[re.Match[str]]:
    """The apologies of an answer whose prompt wants none."""
    if WANTED.search(turn.asked):
        return []
    return [m for m in APOLOGY.finditer(turn.prose) if not SYMPATHY.match(turn.prose, _sorry(turn.prose, m))]


def _sorry(text: str, match: re.Match[str]) -> int:
    """Where the word sorry of an apology begins, or the apology."""
    at = text.lower().find("sorry", match.start(), match.end())
    return match.start() if at < 0 else at


class Emoji(TurnRule):
    """Emoji where the prompt has none and does not ask for them."""

    name = "emoji"
    config: EmojiConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        found = EMOJI.findall(turn.prose)
        if len(found) <= self.config.most or EMOJI.search(turn.asked) or EMOJI_WANTED.search(turn.asked):
            return None
        return Drop("emoji", "".join(found[:10]))


class Exclamations(TurnRule):
    """Many sentences with an exclamation mark, or several marks in a row, where the prompt wants none of the kind."""

    name = "exclamations"
    config: ExclamationsConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        marks: list[str] = MARKS.findall(re.sub(r"!=|\d!|https?:\S+|\$[^$\n]*\$|\b[a-z]!", " ", turn.prose))
        if LOUD.search(example.asked) or SHOUTED.search(turn.asked):
            return None
        if any(len(run) > self.config.most_in_a_row for run in marks):
            return Drop("exclamation marks in a row", max(marks, key=len)[:20])
        share = len(marks) / max(len(SENTENCES.findall(turn.prose)), len(marks), 1)
        if len(marks) > self.config.most and share > self.config.max_share:
            return Drop("exclamation marks", f"{len(marks)}, in {share:.0%} of sentences")
        return None
