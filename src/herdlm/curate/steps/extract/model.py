"""The model: forests that tell a page's kind, and two that judge its blocks, given its kind.

The second of the two sees the first's predictions around a block.

A tree has at most eight comparisons. The first comparisons of all trees are made at once, then the second, and so on.
The eight bits of a tree are the index into its table of 256 answers, which is computed when the weights are read (after
QuickScorer, Lucchese et al., SIGIR 2015, section 3, with a table in place of the leaf masks).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
SPLITS = 8  # at most per tree, since a byte has eight bits
ROWS_AT_ONCE = 256  # at a time, so that their comparisons stay in the cache


@dataclass(frozen=True, slots=True)
class Forest:
    """A forest: ``feature`` and ``threshold`` ``[8 * trees]``, and the answers by bit pattern, ``[trees * 256]``."""

    feature: npt.NDArray[np.int64]
    threshold: Floats
    table: Floats
    bias: float
    trees: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Forest:
        """Compute the tables of trees given as nested ``[feature, threshold, low, high]``, whose leaves are numbers."""
        feature, threshold, tables = [], [], []
        for tree in stored["trees"]:
            splits: list[tuple[int, float]] = []
            table = np.zeros(256, np.float32)
            patterns = np.arange(256)

            def place(
                node: Any,
                reached: npt.NDArray[np.bool_],
                splits: list[tuple[int, float]] = splits,
                table: Floats = table,
                patterns: npt.NDArray[np.int64] = patterns,
            ) -> None:
                if not isinstance(node, list):
                    table[reached] = node
                    return
                bit = (patterns >> len(splits)) & 1 == 1
                splits.append((node[0], node[1]))
                place(node[2], reached & bit)
                place(node[3], reached & ~bit)

            place(tree, np.ones(256, bool))
            splits += [(0, -np.inf)] * (SPLITS - len(splits))
            feature += [split[0] for split in splits]
            threshold += [split[1] for split in splits]
            tables.append(table)
        by_split = np.arange(len(feature)).reshape(-1, SPLITS).T.ravel()
        return cls(
            np.array(feature)[by_split],
            np.array(threshold, np.float32)[by_split],
            np.concatenate(tables),
            float(stored["bias"]),
            stored["trees"],
        )

    def stored(self) -> dict[str, Any]:
        """Return what :meth:`read` reads."""
        return {"bias": self.bias, "trees": self.trees}

    def predict(self, rows: Floats) -> Floats:
        """Return each block's probability of being content: ``[blocks, features]`` -> ``[blocks]``."""
        chance: Floats = (1 / (1 + np.exp(-self.margins(rows)))).astype(np.float32)
        return chance

    def margins(self, rows: Floats) -> Floats:
        """Return the sum of the trees' answers: ``[rows, features]`` -> ``[rows]``."""
        parts = [self._margins(rows[at : at + ROWS_AT_ONCE]) for at in range(0, len(rows), ROWS_AT_ONCE)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _margins(self, rows: Floats) -> Floats:
        if len(rows) == 1:  # a single row would be summed in another order
            return self._margins(np.repeat(rows, 2, axis=0))[:1]
        columns = np.take(np.ascontiguousarray(rows.T), self.feature, axis=0)  # copies of whole columns
        low = (columns <= self.threshold[:, None]).view(np.uint8).reshape(SPLITS, -1, len(rows))
        bits = low[0]
        for split in range(1, SPLITS):
            bits |= low[split] << np.uint8(split)
        codes = bits + (np.arange(len(bits), dtype=np.int32) << SPLITS)[:, None]
        margin: Floats = np.take(self.table, codes).sum(axis=0) + np.float32(self.bias)
        return margin


@dataclass(frozen=True, slots=True)
class Model:
    """A forest for each kind of page, in the order of ``KINDS``, and two that judge blocks."""

    kinds: tuple[Forest, ...]
    first: Forest
    second: Forest

    def kind_chances(self, rows: Floats) -> Floats:
        """Return the probability of each kind of page: ``[pages, features]`` -> ``[pages, kinds]``."""
        return softmax(np.stack([forest.margins(rows) for forest in self.kinds], axis=1))


def softmax(margins: Floats) -> Floats:
    """Return probabilities of margins: ``[rows, classes]`` -> ``[rows, classes]``."""
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    chances: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return chances


@cache
def model() -> Model:
    """Return the shipped model."""
    stored = json.loads((files("herdlm.curate.steps.extract") / "weights.json").read_text())
    kinds = tuple(map(Forest.read, stored["kinds"]))
    return Model(kinds, Forest.read(stored["first"]), Forest.read(stored["second"]))
