"""Says what an example is about: its task, or the task of the labelled examples that its prompt is most like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section

UNKNOWN = "other"


class TopicsConfig(Section):
    """Topics of examples without a task."""

    neighbors: int = Field(5, ge=1, description="nearest labelled prompts that vote")
    min_similarity: float = Field(0.2, ge=-1, le=1, description="a prompt less like the nearest has no topic")
    most_labelled: int = Field(2000, ge=1, description="labelled prompts to compare with, divided among the topics")


class Topics(Step):
    """Sets ``topic``, and drops nothing."""

    name = "topics"
    config: TopicsConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        unknown = [example for example in examples if example.topic == UNKNOWN]
        labelled = self._labelled(examples, shared)
        if unknown and labelled and shared.embed is not None:
            asked = shared.embed([example.asked for example in unknown])
            known = shared.embed([text for text, _ in labelled])
            center = np.mean(np.concatenate([known, asked]), axis=0)
            names = [topic for _, topic in labelled]
            for example, row in zip(unknown, centered(asked, center) @ centered(known, center).T, strict=True):
                nearest = np.argsort(-row, kind="stable")[: self.config.neighbors]
                if row[nearest[0]] >= self.config.min_similarity:
                    votes: Counter[str] = Counter()
                    for n in nearest:
                        votes[names[n]] += max(float(row[n]), 0.0)  # type: ignore[assignment]
                    example.topic = min(votes, key=lambda name: (-votes[name], name))
                    example.notes["topic_from"] = "nearest labelled prompts"
        shared.report[self.name] = {"topics": dict(sorted(Counter(e.topic for e in examples).items()))}
        return [None] * len(examples)

    def _labelled(self, examples: Sequence[Example], shared: Shared) -> list[tuple[str, str]]:
        """Texts with their topics, as many of each topic as there may be."""
        by_topic: dict[str, list[str]] = defaultdict(list)
        for text, topic in [*shared.seeds, *((e.asked, e.row["task"]) for e in examples if e.row.get("task"))]:
            by_topic[topic].append(text)
        if len(by_topic) < 2:
            return []
        most = max(self.config.most_labelled // len(by_topic), 1)
        return [(text, topic) for topic, texts in sorted(by_topic.items()) for text in sorted(set(texts))[:most]]


def centered(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Vectors less a center, scaled to length 1. All states of a language model share a direction that says nothing."""
    moved = vectors - center
    found: np.ndarray = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return found
