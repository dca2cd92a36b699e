"""Judges samples by verifiers: each row's own, or one for all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from herdlm.align.samples.rows import SampledRow, VerdictRow
from herdlm.base.errors import InputError
from herdlm.base.own_parts import PATTERN
from herdlm.base.progress import Progress
from herdlm.verifiers.load import IN_FILES, load_verifier
from herdlm.verifiers.verdict import Verdict, Verifier

USERS = ("isolation", "key", "workers")  # options that say where code runs, which no file of prompts decides


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Which verifiers judge.

    Attributes:
        name: of one for all rows; None: each row's own.
        options: over those of a row.
        own: functions of the user's, module:function, that rows may name.
        isolation, key: of the sandbox, as in docs/sandbox.md.
        workers: programs that run at the same time; None: as many as there are cores.
    """

    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    isolation: str = "auto"
    key: str | None = None
    workers: int | None = None


def verify(rows: Sequence[SampledRow], options: VerifyOptions, *, where: str, quiet: bool = False) -> int:
    """Put a ``verdict`` into each sample of rows that have a verifier; returns how many rows have none.

    Args:
        where: names the file in errors.

    Raises:
        InputError: a verifier is unknown or not allowed, or a row lacks its reference or has a wrong one.
    """
    left = 0
    with ExitStack() as stack, Progress("verify", len(rows), "prompts", quiet=quiet) as progress:
        held = _Held(options, stack)
        pool = stack.enter_context(ThreadPoolExecutor(held.threads))
        found: list[tuple[SampledRow, list[Any]]] = []
        for number, row in enumerate(rows):
            name = options.name or row.get("verifier")
            if name is None:
                left += 1
                for sample in row["samples"]:
                    sample.pop("verdict", None)
                progress.advance()
                continue
            verifier = held.verifier(name, row, f"{where}, row {number + 1} (id {row['id']})")
            judge = _Judge(verifier, row, f"{where}, row {number + 1} (id {row['id']})")
            answers = dict.fromkeys(sample["answer"] for sample in row["samples"])
            # Threads help where a program runs elsewhere; other verifiers are quicker one by one.
            many = verifier.threads > 1
            futures = [pool.submit(judge, each) if many else judge(each) for each in answers]
            found.append((row, futures))
        for row, futures in found:
            answers = dict.fromkeys(sample["answer"] for sample in row["samples"])
            verdicts = [each if isinstance(each, Verdict) else each.result() for each in futures]
            of_answer = dict(zip(answers, verdicts, strict=True))
            for sample in row["samples"]:
                sample["verdict"] = cast(VerdictRow, asdict(of_answer[sample["answer"]]))
            progress.advance()
    return left


def reference_of(row: Mapping[str, Any], verifier: Verifier) -> Any:
    """What a row's answers are compared with: ``reference``, the keys of the verifier's data sets, or ``answer``.

    Raises:
        InputError: it is missing; names the key.
    """
    if "reference" in row:
        return row["reference"]
    if wanted := verifier.reference_keys:
        if missing := [key for key in wanted if key not in row]:
            raise InputError(f"{missing[0]} is missing", f"Add it, or add reference: the row has {', '.join(row)}")
        return {key: row[key] for key in (*wanted, *verifier.optional_keys) if key in row}
    if "answer" in row:
        return row["answer"]
    if verifier.needs_reference:
        raise InputError("answer is missing", f"Add it, or add reference: the row has {', '.join(row)}")
    return None


class _Judge:
    def __init__(self, verifier: Verifier, row: Mapping[str, Any], where: str) -> None:
        self.verifier, self.where = verifier, where
        try:
            self.reference = reference_of(row, verifier)
        except InputError as error:
            raise InputError(f"{where}: {error.what}", error.remedy) from error

    def __call__(self, answer: str) -> Verdict:
        try:
            return self.verifier(answer, self.reference)
        except InputError as error:
            raise InputError(f"{self.where}: {error.what}", error.remedy) from error


class _Held:
    """Verifiers by name and options."""

    def __init__(self, options: VerifyOptions, stack: ExitStack) -> None:
        self.options, self._stack = options, stack
        self._held: dict[str, Verifier] = {}
        self.threads = options.workers or len(os.sched_getaffinity(0))

    def verifier(self, name: str, row: Mapping[str, Any], where: str) -> Verifier:
        given = dict(row.get("options") or {}) if self.options.name is None else {}
        if taken := [key for key in USERS if key in given]:
            raise InputError(
                f"{where}, key options.{taken[0]}: a file of prompts does not say where code runs",
                "Remove it, and give herdlm judge the option",
            )
        if self.options.name is None and PATTERN.fullmatch(name) and name not in self.options.own:
            raise InputError(
                f"{where}, key verifier: {name} is a function that would run on this machine",
                f"If you trust it, add --own {name}",
            )
        if IN_FILES.get(name, name) == "code":
            given |= {"isolation": self.options.isolation, "key": self.options.key, "workers": self.threads}
        given |= self.options.options
        key = json.dumps([name, given], sort_keys=True)
        if key not in self._held:
            try:
                self._held[key] = self._stack.enter_context(load_verifier(name, given))
            except InputError as error:
                raise InputError(f"{where}: {error.what}", error.remedy) from error
        return self._held[key]
