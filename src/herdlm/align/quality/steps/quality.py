"""Keeps what is in the top quarter by reward or has full marks (Llama 3 report, section 4.2.3).

Either signal is enough, since both miss much, and rarely the same. A verifier's verdict counts as a mark.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section

WITHOUT = 0.5


class QualityStepConfig(Section):
    """The top share by reward, or full marks."""

    top_share: float = Field(0.25, gt=0, le=1, description="share of each topic's rewarded examples, the best")
    keep_unscored: bool = Field(True, description="keep examples with neither a reward nor a mark")


class Quality(Step):
    """Drops what is neither among the best by reward nor has full marks."""

    name = "quality"
    config: QualityStepConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> Drop | None:
        if example.full_marks:
            return None
        if example.reward is None:
            if example.full_marks is None and self.config.keep_unscored:
                return None
            return Drop("not full marks" if example.full_marks is False else "no score")
        if example.score > 1 - self.config.top_share:
            return None
        return Drop("not in the top share", f"reward {example.reward:.3f}")


def set_scores(examples: Sequence[Example]) -> None:
    """Set each example's score: the share of its topic's rewards that are at most its own; full marks are 1."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for example in examples:
        if example.reward is not None:
            rewards[example.topic].append(example.reward)
    for found in rewards.values():
        found.sort()
    for example in examples:
        own = rewards[example.topic]
        if example.full_marks:
            example.score = 1.0
        elif example.reward is None:
            example.score = WITHOUT if example.full_marks is None else 0.0
        else:
            example.score = bisect_right(own, example.reward) / len(own)
