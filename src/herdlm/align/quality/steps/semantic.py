"""Drops examples that mean the same as a better one: embeddings, k-means, then greedily within each cluster.

Embeddings are those of a model of ours, less their mean. Examples are clustered, and in each cluster those of most
quality times difficulty come first. One stays if its nearest neighbor of those that stay is below the threshold
(SemDeDup, arXiv 2303.09540; Llama 3 report, section 4.2.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.align.quality.steps.topics import centered
from herdlm.base.recipe import Section
from herdlm.base.seeds import stream

ROUNDS = 20
Vectors = NDArray[np.float32]


class SemanticConfig(Section):
    """Examples that mean the same."""

    max_cosine: float = Field(0.97, gt=0, le=1, description="cosine from which two examples mean the same")
    per_cluster: int = Field(500, ge=2, description="examples of a cluster on average")
    text: str = Field("all", pattern="^(all|prompt)$", description="what is embedded: all, or the prompt alone")


class Semantic(Step):
    """Examples whose embedding is close to that of a better one."""

    name = "semantic"
    needs_embeddings = True
    config: SemanticConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        assert shared.embed is not None
        drops: list[Drop | None] = [None] * len(examples)
        if len(examples) < 2:
            return drops
        vectors = shared.embed([e.text if self.config.text == "all" else e.asked for e in examples])
        vectors = centered(vectors, vectors.mean(axis=0))
        labels = k_means(vectors, max(round(len(examples) / self.config.per_cluster), 1), shared.seed)
        for label in range(int(labels.max()) + 1):
            members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda n: examples[n].preference)
            kept: list[int] = []
            for number in members:
                cosines = vectors[kept] @ vectors[number] if kept else np.zeros(0, np.float32)
                if len(cosines) and cosines.max() >= self.config.max_cosine:
                    best = kept[int(cosines.argmax())]
                    drops[number] = Drop("means the same", f"cosine {cosines.max():.3f}", of=examples[best].key)
                else:
                    kept.append(number)
        shared.report[self.name] = {"clusters": int(labels.max()) + 1}
        return drops


def k_means(vectors: Vectors, clusters: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each vector of length 1, by cosine: [N, D] -> [N]. Begins with k-means++ (Arthur 2007)."""
    rng = stream(seed, "k-means")
    centers = vectors[[int(rng.integers(len(vectors)))]]
    while len(centers) < min(clusters, len(vectors)):
        distances = np.maximum(1.0 - (vectors @ centers.T).max(axis=1), 0.0).astype(np.float64)
        if distances.sum() <= 1e-9:
            break  # fewer different vectors than clusters
        chosen = int(rng.choice(len(vectors), p=distances / distances.sum()))
        centers = np.concatenate([centers, vectors[[chosen]]])
    labels = (vectors @ centers.T).argmax(axis=1)
    for _ in range(ROUNDS):
        for cluster in range(len(centers)):
            members = vectors[labels == cluster]
            if len(members):
                mean = members.mean(axis=0)
                centers[cluster] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        moved = (vectors @ centers.T).argmax(axis=1)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
