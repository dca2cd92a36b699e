"""Says what an example is about: its task, or the task of the labeled examples that its prompt is most like."""

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

    neighbors: int = Field(5, ge=1, description="nearest labeled prompts that vote")
    min_similarity: float = Field(0.2, ge=-1, le=1, description="a prompt less like the nearest has no topic")
    most_labeled: int = Field(2000, ge=1, description="labeled prompts to compare with, divided among the topics")


class Topics(Step):
    """Sets ``topic``, and drops nothing."""

    name = "topics"
    config: TopicsConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        unknown = [example for example in examples if example.topic == UNKNOWN]
        labeled = self._labeled(examples, shared)
        if unknown and labeled and shared.embed is not None:
            asked = shared.embed([example.asked for example in unknown])
            known = shared.embed([text for text, _ in labeled])
            center = np.mean(np.concatenate([known, asked]), axis=0)
            names = [topic for _, topic in labeled]
            for example, row in zip(unknown, centered(asked, center) @ centered(known, center).T, strict=True):
                nearest = np.argsort(-row, kind="stable")[: self.config.neighbors]
                if row[nearest[0]] >= self.config.min_similarity:
                    votes: Counter[str] = Counter()
                    for n in nearest:
                        votes[names[n]] += max(float(row[n]), 0.0)  # type: ignore[assignment]
                    example.topic = min(votes, key=lambda name: (-votes[name], name))
                    example.notes["topic_from"] = "nearest labeled prompts"
        shared.report[self.name] = {"topics": dict(sorted(Counter(e.topic for e in examples).items()))}
        return [None] * len(examples)

    def _labeled(self, examples: Sequence[Example], shared: Shared) -> list[tuple[str, str]]:
        """Texts with their topics, as many of each topic as there may be."""
        by_topic: dict[str, list[str]] = defaultdict(list)
        for text, topic in [*shared.seeds, *((e.asked, e.row["task"]) for e in examples if e.row.get("task"))]:
            by_topic[topic].append(text)
        if len(by_topic) < 2:
            return []
        most = max(self.config.most_labeled // len(by_topic), 1)
        return [(text, topic) for topic, texts in sorted(by_topic.items()) for text in sorted(set(texts))[:most]]


def centered(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Vectors less a center, scaled to length 1. All states of a language model share a direction that says nothing."""
    moved = vectors - center
    found: np.ndarray = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return found
