"""Judges a file of answers by a verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.json_lines import json_lines
from herdlm.evaluate.intervals import Estimate, pass_rate
from herdlm.verifiers.verdict import Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Summary:
    """What the verdicts on a file come to.

    Attributes:
        n: number of answers.
        rate: the share that passed, with its 95% interval.
        score: the mean score.
        reasons: each verdict's reason, "passed" or "failed" first, and its count, the most frequent first.
    """

    n: int
    rate: Estimate
    score: float
    reasons: dict[str, int]


def judge_file(
    path: Path, verifier: Verifier, *, answer_key: str = "answer", reference_key: str | None = None
) -> Iterator[tuple[dict[str, Any], Verdict]]:
    """Each row of a JSON Lines file with the verdict on its answer.

    Args:
        reference_key: the key of the reference. None: "reference", or the keys of the verifier's data sets.

    Raises:
        InputError: a row lacks the answer or reference, or the verifier cannot use it; with file, line and key.
    """

    def judge(numbered: tuple[int, dict[str, Any]]) -> tuple[dict[str, Any], Verdict]:
        line, row = numbered
        where = f"{path}, line {line}"
        answer = row.get(answer_key)
        if not isinstance(answer, str):
            found = "is not a text" if answer_key in row else "is missing"
            raise InputError(f"{where}: {answer_key} {found}", f"Add it, or name another key: {_keys(row)}")
        reference = _reference(row, verifier, reference_key, where)
        try:
            return row, verifier(answer, reference)
        except InputError as error:
            raise InputError(f"{where}: {error.what}", error.remedy) from error

    with ThreadPoolExecutor(verifier.threads) as pool:
        try:
            yield from pool.map(judge, json_lines(path))
        finally:
            pool.shutdown(cancel_futures=True)


def _reference(row: dict[str, Any], verifier: Verifier, key: str | None, where: str) -> Any:
    if key is None and "reference" not in row and verifier.reference_keys:
        wanted = verifier.reference_keys
        if missing := [name for name in wanted if name not in row]:
            raise InputError(f"{where}: {missing[0]} is missing", f"Add it, or name the reference's key: {_keys(row)}")
        return {name: row[name] for name in (*wanted, *verifier.optional_keys) if name in row}
    name = key or "reference"
    if name not in row and (key is not None or verifier.needs_reference):
        raise InputError(f"{where}: {name} is missing", f"Add it, or name another key: {_keys(row)}")
    return row.get(name)


def _keys(row: dict[str, Any]) -> str:
    return f"the row has {', '.join(row) or 'none'}"


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON, as it is written beside its answer."""
    return asdict(verdict)


def summarize(verdicts: list[Verdict]) -> Summary:
    """Count verdicts.

    Raises:
        InputError: there are none.
    """
    if not verdicts:
        raise InputError("there is no answer to judge", "Give a file with rows")
    reasons = Counter(f"{'passed' if verdict.passed else 'failed'}: {verdict.reason}" for verdict in verdicts)
    score = sum(verdict.score for verdict in verdicts) / len(verdicts)
    return Summary(
        len(verdicts), pass_rate([verdict.passed for verdict in verdicts]), score, dict(reasons.most_common())
    )
