"""Measures a guard on labeled turns, asked as the server asks it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from herdlm.align.safety.guard_figures import FEW_ROWS, Point, best, curve, curve_json, figures
from herdlm.align.safety.labels import Labeled
from herdlm.evaluate.intervals import Estimate
from herdlm.serve.guard.guard import Guard, GuardError, Verdict

NO_VERDICT = 1.0  # the score of a turn on which the guard gives no verdict: the server lets nothing of it pass


@dataclass(frozen=True, slots=True)
class Judged:
    """A labeled turn with the guard's score and codes; ``verdict`` is False if it gave none."""

    row: Labeled
    score: float
    codes: tuple[str, ...]
    verdict: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """A guard's figures on a file.

    Attributes:
        by: the figures of parts of the rows, by what divides them and the part's name.
        codes: share of flagged unsafe turns with known categories whose codes are named exactly.
    """

    threshold: float
    n: int
    unsafe: int
    without_verdict: int
    figures: dict[str, Estimate]
    by: dict[str, dict[str, dict[str, Estimate]]]
    codes: float | None
    points: list[Point]

    def best(self, most_false_positives: float | None = None) -> Point | None:
        """The best threshold; see :func:`herdlm.align.safety.guard_figures.best`."""
        return best(self.points, most_false_positives)

    def to_json(self) -> dict[str, Any]:
        """The figures, and the curve."""
        chosen = self.best()
        return {
            "threshold": self.threshold,
            "n": self.n,
            "unsafe": self.unsafe,
            "without_verdict": self.without_verdict,
            "figures": _json(self.figures),
            "by": {axis: {name: _json(each) for name, each in parts.items()} for axis, parts in self.by.items()},
            "codes_exact": self.codes,
            "best_f1": asdict(chosen) if chosen else None,
            "curve": curve_json(self.points),
        }


def judge_rows(guard: Guard, rows: Sequence[Labeled], advance: Callable[[], None] = lambda: None) -> list[Judged]:
    """The guard's verdict on each row."""
    judged = []
    for row in rows:
        verdict: Verdict | None = None
        with suppress(GuardError):
            verdict = guard.judge(row.messages, row.subject)
        score, codes = (verdict.score, verdict.categories) if verdict else (NO_VERDICT, ())
        judged.append(Judged(row, score, codes, verdict is not None))
        advance()
    return judged


def measured(judged: Sequence[Judged], threshold: float) -> Measured:
    """The figures of verdicts at a threshold."""
    scores, unsafe = [each.score for each in judged], [each.row.unsafe for each in judged]
    named = [each for each in judged if each.row.codes and each.score >= threshold]
    return Measured(
        threshold,
        len(judged),
        sum(unsafe),
        sum(not each.verdict for each in judged),
        figures(scores, unsafe, threshold),
        {
            "subject": _by(judged, threshold, lambda row: row.subject),
            "source": _by(judged, threshold, lambda row: row.source),
            "group": _by(judged, threshold, lambda row: row.group),
        },
        sum(each.codes == each.row.codes for each in named) / len(named) if named else None,
        curve(scores, unsafe),
    )


def _by(judged: Sequence[Judged], threshold: float, name: Callable[[Labeled], str]) -> dict[str, dict[str, Estimate]]:
    parts: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        parts[name(each.row)].append(each)
    return {
        key: figures([each.score for each in part], [each.row.unsafe for each in part], threshold)
        for key, part in sorted(parts.items())
        if key and len(part) >= FEW_ROWS
    }


def _json(found: dict[str, Estimate]) -> dict[str, Any]:
    return {name: each.to_json() for name, each in found.items()}
