"""What the judges of a task say about the answers to one item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.base.errors import InputError
from herdlm.evaluate.model_judge import MODEL, Judged, ModelJudge
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.evaluate.task import Judge, Task
from herdlm.evaluate.templates import Expression, Template
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
    """The judges of one task.

    Args:
        model: rates answers where the task has a judge that is a model.

    Attributes:
        model: that one; None if the task has no such judge, so that each item can be judged at once.

    Raises:
        InputError: the task needs a model, or an option is wrong.
    """

    def __init__(self, task: Task, model: EvaluatedModel | None = None) -> None:
        if judged_by_model(task) and model is None:
            raise InputError(f"a model judges the answers to {task.name}", "Name one with --judge MODEL or --judge URL")
        self.model = model if judged_by_model(task) else None
        self._judges = [
            _OneJudge(name, judge, f"task {task.name}, judge.{name}", model)
            for name, judge in task.config.judge.items()
        ]

    def __call__(self, items: Sequence[Judged]) -> list[Judgment]:
        """Judge items together; the first judge's verdict is the item's."""
        verdicts = [judge.verdicts(items) for judge in self._judges]
        return [self._judgment(item, each) for item, each in zip(items, zip(*verdicts, strict=True), strict=True)]

    def _judgment(self, item: Judged, of_judges: Sequence[Sequence[Verdict]]) -> Judgment:
        values: dict[str, float | list[float]] = {}
        details: dict[str, Any] = {}
        first: tuple[bool, str, Any] | None = None
        for judge, verdicts in zip(self._judges, of_judges, strict=True):
            expected = judge.expected(item.row)
            values |= judge.metrics(verdicts)
            details[judge.name] = [dict(verdict.details) for verdict in verdicts]
            if first is None:
                voted = judge.config.combine == "majority"
                passed = _majority(verdicts) if voted else any(v.passed for v in verdicts)
                first = (passed, next((v.reason for v in verdicts if v.passed == passed), ""), expected)
        assert first is not None, "a task of answers has a judge"
        return Judgment(values, *first, details)

    def close(self) -> None:
        """Free what the verifiers hold."""
        for judge in self._judges:
            judge.close()


class _OneJudge:
    """A judge with its expressions compiled."""

    def __init__(self, name: str, config: Judge, where: str, model: EvaluatedModel | None) -> None:
        self.name, self.config = name, config
        self._verifier: ModelJudge | Verifier
        if config.verifier == MODEL:
            assert model is not None, "refused before"
            self._verifier = ModelJudge(config.options, where, model)
        else:
            self._verifier = load_verifier(config.verifier, config.options)
        self._prefix = Template(config.prefix, f"{where}.prefix")
        self._reference = Expression(config.reference, f"{where}.reference") if config.reference else None
        self._metrics = {key: Expression(text, f"{where}.metrics.{key}") for key, text in config.metrics.items()}

    def expected(self, row: Mapping[str, Any]) -> Any:
        """What answers to an item are compared with."""
        return self._reference(row) if self._reference else None

    def verdicts(self, items: Sequence[Judged]) -> list[list[Verdict]]:
        """The verdict on each sample of each item."""
        if isinstance(self._verifier, ModelJudge):
            return self._verifier.verdicts(items)
        found = []
        for item in items:
            expected, prefix = self.expected(item.row), self._prefix(item.row)
            found.append([self._verifier(prefix + turns[-1], expected) for turns in item.samples])
        return found

    def close(self) -> None:
        """Free what the verifier holds."""
        if not isinstance(self._verifier, ModelJudge):
            self._verifier.close()

    def metrics(self, verdicts: Sequence[Verdict]) -> dict[str, float | list[float]]:
        """An item's values of the judge's metrics."""
        name, combine = self.name, self.config.combine
        if isinstance(self._verifier, ModelJudge):
            return self._verifier.metrics(name, verdicts)
        if self._metrics:
            computed = {metric: self._computed(expression, verdicts) for metric, expression in self._metrics.items()}
            return {metric: value for metric, value in computed.items() if value is not None}
        if combine == "majority" and len(verdicts) > 1:
            return {name: float(_majority(verdicts)), f"{name}_mean": _mean(verdicts)}
        if combine == "pass@k":
            right = sum(verdict.passed for verdict in verdicts)
            return {f"pass@{k}": pass_at_k(len(verdicts), right, k) for k in self.config.k if k <= len(verdicts)}
        return {name: _mean(verdicts)}

    def _computed(self, expression: Expression, verdicts: Sequence[Verdict]) -> float | list[float] | None:
        """A metric's mean over samples; a list if the expression gives one, such as a value for each instruction.

        None if it gives none: the metric is not about this item.
        """
        values = [expression({"passed": v.passed, "score": v.score, **v.details}) for v in verdicts]
        if any(value is None for value in values):
            return None
        if isinstance(values[0], list | tuple):
            return [sum(map(float, each)) / len(each) for each in zip(*values, strict=True)]
        return sum(map(float, values)) / len(values)


def judged_by_model(task: Task) -> bool:
    """Whether a model judges answers to a task."""
    return any(judge.verifier == MODEL for judge in task.config.judge.values())


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased chance that one of ``k`` of the samples is right (Chen et al., arXiv 2107.03374, equation 1)."""
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - right + 1, samples + 1))


def _mean(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.score for verdict in verdicts) / len(verdicts)


def _majority(verdicts: Sequence[Verdict]) -> bool:
    """Whether the answer that most samples give is right; the first given wins a tie."""
    votes = Counter(str(verdict.details["found"]) for verdict in verdicts if verdict.details.get("found") is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return next(verdict.passed for verdict in verdicts if str(verdict.details.get("found")) == winner)
