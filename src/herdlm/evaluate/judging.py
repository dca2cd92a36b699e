"""What the judges of a task say about the answers to one item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.evaluate.requests import Question
from herdlm.evaluate.task import Judge, Task
from herdlm.evaluate.templates import Expression
from herdlm.verifiers.load import load_verifier
from herdlm.verifiers.verdict import Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Judgment:
    """All judges' findings on the answers to an item."""

    values: dict[str, float | list[float]]
    passed: bool
    reason: str
    expected: Any
    details: dict[str, Any]


class Judges:
    """The judges of one task."""

    def __init__(self, task: Task) -> None:
        self._judges: list[tuple[str, Judge, Verifier, Expression | None]] = []
        for name, judge in task.config.judge.items():
            where = f"task {task.name}, judge.{name}.reference"
            reference = Expression(judge.reference, where) if judge.reference else None
            self._judges.append((name, judge, load_verifier(judge.verifier, judge.options), reference))

    def __call__(self, row: Mapping[str, Any], question: Question, samples: Sequence[Sequence[str]]) -> Judgment:
        """Judge the samples of an item, each the answers of its turns; the first judge's verdict is the item's."""
        values: dict[str, float | list[float]] = {}
        details: dict[str, Any] = {}
        first: tuple[bool, str, Any] | None = None
        for name, judge, verifier, expression in self._judges:
            expected = expression(row) if expression else None
            verdicts = [verifier(turns[-1], expected) for turns in samples]
            metrics = _metrics(name, judge, verdicts)
            values |= metrics
            details[name] = [dict(verdict.details) for verdict in verdicts]
            if first is None:
                passed = _majority(verdicts) if judge.combine == "majority" else any(v.passed for v in verdicts)
                first = (passed, next((v.reason for v in verdicts if v.passed == passed), ""), expected)
        assert first is not None, "a task of answers has a judge"
        return Judgment(values, *first, details)

    def close(self) -> None:
        """Free what the verifiers hold."""
        for _, _, verifier, _ in self._judges:
            verifier.close()


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased chance that one of ``k`` of the samples is right (Chen et al., arXiv 2107.03374, equation 1)."""
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - right + 1, samples + 1))


def _metrics(name: str, judge: Judge, verdicts: Sequence[Verdict]) -> dict[str, float | list[float]]:
    details = [verdict.details for verdict in verdicts]
    if all("metrics" in each for each in details):  # a verifier that has metrics of its own, such as IFEval
        return {metric: details[0]["metrics"][metric] for metric in details[0]["metrics"]}
    if judge.combine == "majority" and len(verdicts) > 1:
        return {name: float(_majority(verdicts)), f"{name}_mean": _mean(verdicts)}
    if judge.combine == "pass@k":
        right = sum(verdict.passed for verdict in verdicts)
        return {f"pass@{k}": pass_at_k(len(verdicts), right, k) for k in judge.k if k <= len(verdicts)}
    return {name: _mean(verdicts)}


def _mean(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.score for verdict in verdicts) / len(verdicts)


def _majority(verdicts: Sequence[Verdict]) -> bool:
    """Whether the answer that most samples give is right; the first given wins a tie."""
    votes = Counter(str(verdict.details["found"]) for verdict in verdicts if verdict.details.get("found") is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return next(verdict.passed for verdict in verdicts if str(verdict.details.get("found")) == winner)
