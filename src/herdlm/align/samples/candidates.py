"""Sampled answers as candidates: rows of one prompt are joined, and equal answers counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from herdlm.align.samples.rows import prompt_id
from herdlm.tokens.chat import Message

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A different answer to a prompt.

    Attributes:
        system: the system prompt under which it was drawn, or "".
        count: how often it was given.
        given: how many answers were given under the same system prompt.
        passed: the verdict; None: there is none.
        reward: of the reward model, else of the model that judged; None: there is none, or it is not finite.
        cut: whether it reached the length limit each time.
        number: its place among the samples of its row; of equal answers, the first.
        file: the file it was read from, or "".
        reason: the verdict's.
        marks: the points that a judge gave, and the most there are.
    """

    answer: str
    model: str
    system: str
    count: int
    given: int
    passed: bool | None
    reward: float | None
    cut: bool
    number: int
    round: int | None
    file: str
    reason: str
    marks: tuple[float, float] | None = None

    @property
    def rank(self) -> float:
        """The reward plus the logarithm of how often the answer was given, as a share."""
        return (self.reward or 0.0) + math.log(self.count / self.given)

    @property
    def order(self) -> tuple[float, int, str, str]:
        """What candidates are sorted by: the best first, of equals the shortest."""
        return (-self.rank, len(self.answer), self.answer, self.system)

    def lineage(self) -> dict[str, Any]:
        """Where the answer comes from and why it is here."""
        found: dict[str, Any] = {"sample": self.number, "model": self.model}
        optional = {"file": self.file, "system": self.system, "verdict": self.reason}
        found |= {key: value for key, value in optional.items() if value}
        found |= {} if self.round is None else {"round": self.round}
        found |= {} if self.marks is None else {"judge": {"score": self.marks[0], "best": self.marks[1]}}
        return found if self.reward is None else found | {"reward": self.reward}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its different answers, the best first.

    Attributes:
        samples: how many answers were given in all.
        empty: how many of them were empty.
    """

    id: str
    prompt: list[Message]
    tools: list[dict[str, Any]] | None
    task: str
    source: str
    candidates: tuple[Candidate, ...]
    samples: int
    empty: int

    @property
    def judged(self) -> bool:
        """Whether any answer has a verdict."""
        return any(candidate.passed is not None for candidate in self.candidates)

    @property
    def any_right(self) -> bool:
        """Whether any answer is right."""
        return any(candidate.passed for candidate in self.candidates)


def joined(rows: Iterable[Row], *, systems: bool = True) -> list[Asked]:
    """The prompts of rows of samples, by id. Rows of one id, from several models or rounds, are one prompt.

    Args:
        systems: whether answers under different system prompts are different candidates.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(prompt_id(row), []).append(row)
    return [_asked(name, groups[name], systems) for name in sorted(groups)]


def _asked(name: str, rows: Sequence[Row], systems: bool) -> Asked:
    samples = [
        _candidate(row, number, sample, systems)
        for row in rows
        for number, sample in enumerate(row["samples"])
        if sample["answer"].strip()
    ]
    given: dict[str, int] = {}
    same: dict[tuple[str, str], list[Candidate]] = {}
    for each in samples:
        given[each.system] = given.get(each.system, 0) + 1
        same.setdefault((each.system, each.answer), []).append(each)
    candidates = [_merged(found, given[system]) for (system, _), found in same.items()]
    total = sum(len(row["samples"]) for row in rows)
    return Asked(
        id=name,
        prompt=rows[0]["prompt"],
        tools=rows[0].get("tools"),
        task=min((row["task"] for row in rows if row.get("task")), default=""),
        source=min((row["source"] for row in rows if row.get("source")), default=""),
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.order)),
        samples=total,
        empty=total - len(samples),
    )


def _candidate(row: Row, number: int, sample: Mapping[str, Any], systems: bool) -> Candidate:
    verdict = sample.get("verdict") or {}
    judge = sample.get("judge") or {}
    found = sample.get("reward")
    if found is None:
        found = judge.get("score")
    round_ = sample.get("round", row.get("round"))
    return Candidate(
        answer=sample["answer"].strip(),
        model=sample.get("model") or "",
        system=(sample.get("system") or "") if systems else "",
        count=1,
        given=1,
        passed=verdict.get("passed"),
        reward=float(found) if found is not None and math.isfinite(found) else None,
        cut=sample.get("finish") == "length",
        number=number,
        round=round_,
        file=row.get("file") or "",
        reason=verdict.get("reason") or "",
        marks=(judge["score"], judge["best"]) if {"score", "best"} <= judge.keys() else None,
    )


def _merged(same: Sequence[Candidate], given: int) -> Candidate:
    """Equal answers as one: wrong if any verdict says so, with the mean reward, and the lineage of the first."""
    first = min(
        same, key=lambda c: (c.cut, c.file, c.model, -1 if c.round is None else c.round, c.number, c.reward or 0.0)
    )
    rewards = sorted(each.reward for each in same if each.reward is not None)
    verdicts = [each.passed for each in same if each.passed is not None]
    decided = min(
        (each for each in same if each.passed is not None), key=lambda c: (bool(c.passed), c.reason), default=first
    )
    return replace(
        first,
        marks=min((each.marks for each in same if each.marks is not None), default=None),
        count=len(same),
        given=given,
        passed=all(verdicts) if verdicts else None,
        reward=math.fsum(rewards) / len(rewards) if rewards else None,
        reason=decided.reason,
    )
