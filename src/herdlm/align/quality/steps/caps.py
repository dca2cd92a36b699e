"""Limits how much of the data one topic is, so that what is easy to get does not crowd out the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section


class CapsConfig(Section):
    """Most examples of a topic."""

    per_topic: int | None = Field(None, ge=1, description="most examples of any topic; none: all")
    topics: dict[str, int] = Field({}, description="most examples by topic, in place of per_topic")


class Caps(Step):
    """Examples beyond their topic's limit; the best by quality times difficulty stay."""

    name = "caps"
    config: CapsConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        drops: list[Drop | None] = [None] * len(examples)
        by_topic: dict[str, list[int]] = defaultdict(list)
        for number, example in enumerate(examples):
            by_topic[example.topic].append(number)
        for topic, numbers in by_topic.items():
            limit = self.config.topics.get(topic, self.config.per_topic)
            if limit is not None:
                for number in sorted(numbers, key=lambda n: examples[n].preference)[limit:]:
                    drops[number] = Drop("beyond the topic's limit", topic)
        return drops
