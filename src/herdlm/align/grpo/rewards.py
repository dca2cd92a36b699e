"""What answers are worth: their verifier's verdicts, penalties, and advantages within a group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from herdlm.align.grpo.config import GrpoConfig
from herdlm.base.errors import InputError
from herdlm.base.own_parts import PATTERN
from herdlm.data.formats.form import Record
from herdlm.data.useless import digest
from herdlm.verifiers.load import load_verifier
from herdlm.verifiers.own import Own
from herdlm.verifiers.verdict import Verdict, Verifier

EPS = 1e-6  # added to a group's standard deviation
REFERENCES = ("reference", "answer")


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer to judge, and where its prompt stands, for errors."""

    record: Record
    answer: str


class Judge:
    """Judges answers by their prompts' verifiers, each opened once; use as a context manager.

    Args:
        own: functions of the user's, module:function, that prompts may name.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._open: dict[str, Verifier] = {}
        self._own = frozenset(own)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        for verifier in self._open.values():
            verifier.close()

    def check(self, records: Sequence[Record]) -> None:
        """Refuse prompts that cannot be judged, before anything is sampled. Functions of the user's are not called.

        Raises:
            InputError: a prompt has no verifier, or its verifier cannot use its reference or options.
        """
        for record in records:
            verifier = self._verifier(record)
            if not isinstance(verifier, Own):
                _judge(verifier, record, "")

    def verdicts(self, answers: Sequence[Judged]) -> list[Verdict]:
        """The verdict on each answer, in order; of each verifier as many at once as it allows."""
        verifiers = [self._verifier(each.record) for each in answers]
        found: dict[int, Verdict] = {}
        for verifier in {id(verifier): verifier for verifier in verifiers}.values():
            here = [i for i, each in enumerate(verifiers) if each is verifier]
            found |= zip(here, _judge_all(verifier, [answers[i] for i in here]), strict=True)
        return [found[i] for i in range(len(answers))]

    def _verifier(self, record: Record) -> Verifier:
        name, options = record.get("verifier"), record.get("options") or {}
        if not isinstance(name, str):
            raise InputError(f"{_shown(record)} has no verifier, so its answers cannot be checked", "Add one")
        if PATTERN.fullmatch(name) and name not in self._own:
            raise InputError(
                f"{_shown(record)}: the verifier {name} is a function that would run on this machine",
                "If you trust it, name it in own_verifiers (--own)",
            )
        key = json.dumps([name, options], sort_keys=True)
        if key not in self._open:
            self._open[key] = load_verifier(name, options)
        return self._open[key]


def _judge_all(verifier: Verifier, answers: Sequence[Judged]) -> list[Verdict]:
    if verifier.threads == 1:
        return [_judge(verifier, each.record, each.answer) for each in answers]
    with ThreadPoolExecutor(verifier.threads) as pool:
        return list(pool.map(lambda each: _judge(verifier, each.record, each.answer), answers))


def _judge(verifier: Verifier, record: Record, answer: str) -> Verdict:
    try:
        return verifier(answer, _reference(verifier, record))
    except InputError as error:
        raise InputError(f"{_shown(record)}: {error.what}", error.remedy) from error


def _reference(verifier: Verifier, record: Record) -> Any:
    """What a prompt says of its right answer, in the form that its verifier reads."""
    names = verifier.reference_keys
    if names and all(name in record for name in names):
        return {name: record[name] for name in (*names, *verifier.optional_keys) if name in record}
    return next((record[name] for name in REFERENCES if name in record), None)


def _shown(record: Record) -> str:
    said = str(record["prompt"][-1].get("content", ""))
    return f"the prompt {said[:60]!r}"


def reward_of(verdict: Verdict, tokens: int, *, cut: bool, config: GrpoConfig) -> float:
    """A verdict's reward, less penalties."""
    worth = base_reward(verdict, config) - config.length_penalty * tokens / config.max_answer_tokens
    return worth - config.cut_penalty if cut else worth


def base_reward(verdict: Verdict, config: GrpoConfig) -> float:
    """A verdict's reward without penalties, by which a group is skipped: lengths alone teach nothing about answers."""
    return float(verdict.passed) if config.reward == "passed" else verdict.score


def advantages(rewards: Sequence[float], *, divide_by_std: bool) -> list[float]:
    """By how much each reward is above the mean of its group, if asked in standard deviations (of a sample)."""
    values = np.asarray(rewards, dtype=np.float64)
    above = values - values.mean()
    found: list[float] = (above / (values.std(ddof=1) + EPS) if divide_by_std else above).tolist()
    return found


def prompt_key(record: Mapping[str, Any]) -> str:
    """What identifies a prompt: its id, else a hash of its messages and tools."""
    given = record.get("id")
    if isinstance(given, str) and given:
        return given
    return digest({name: record[name] for name in ("prompt", "tools") if name in record}).hex()[:16]
