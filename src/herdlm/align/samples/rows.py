"""The files of prompts and of samples: what a row holds, how it is read, checked and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from herdlm.base.errors import InputError
from herdlm.base.json_lines import json_lines
from herdlm.data.counts import Counts
from herdlm.data.read import converted, sieved
from herdlm.data.row import Rename, Row, RowError, kind_of
from herdlm.data.tools import tools_of
from herdlm.data.useless import Sieve
from herdlm.data.write import write_records
from herdlm.tokens.chat import Message

ID_DIGITS = 16
SAME_PROMPT = "the same prompt with another reference"
# What stands beside a prompt in any form: what herdlm itself writes, and the parts of verifiers' references.
BESIDE = ("id", "task", "source", "tools", "verifier", "options", "reference", "lineage")


class PromptRow(TypedDict, total=False):
    """A prompt to sample answers to.

    Attributes:
        prompt: messages; it may begin with a system prompt.
        id: by default 16 hexadecimal digits of a hash of prompt and tools.
        task: a topic or a capability, such as "word-problems".
        source: where the prompt comes from.
        verifier: what judges answers, with its ``options`` and the keys that its reference has.
    """

    prompt: list[Message]
    id: str
    tools: list[dict[str, Any]]
    task: str
    source: str
    verifier: str
    options: dict[str, Any]
    answer: str
    tests: list[str]
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any]]
    reference: Any
    lineage: dict[str, Any]


class VerdictRow(TypedDict):
    """A verifier's verdict; see :class:`herdlm.verifiers.verdict.Verdict`."""

    passed: bool
    score: float
    reason: str
    details: dict[str, Any]


class JudgeRow(TypedDict, total=False):
    """What a model says of an answer.

    Attributes:
        score: the points that it gives; of comparisons the share that the answer won, a tie counting half.
        best: the most points that there are.
        agrees: whether it says the same when asked in the other order.
        by: the judge's name.
        points: of each criterion.
        won, tied, lost: comparisons with other answers.
        said: its replies, cut.
    """

    score: float
    best: float
    agrees: bool
    by: str
    points: dict[str, float]
    won: int
    tied: int
    lost: int
    said: list[str]


class Sample(TypedDict):
    """One answer.

    Attributes:
        model: the name of the model that wrote it.
        system: the system prompt that was put before the prompt.
        finish: "stop" or "length".
        tokens: its length.
        logprob: of all its tokens at temperature 1, the end token included; None where a server does not say.
    """

    answer: str
    model: str
    system: NotRequired[str]
    temperature: float
    finish: str
    tokens: int
    logprob: float | None
    verdict: NotRequired[VerdictRow]
    reward: NotRequired[float | None]
    judge: NotRequired[JudgeRow]


class SampledRow(PromptRow, total=False):
    """A prompt with the answers to it."""

    samples: list[Sample]


def prompt_id(row: Mapping[str, Any]) -> str:
    """The row's own id, or a hash of its prompt and tools.

    Raises:
        InputError: its id is neither text nor a whole number.
    """
    own = row.get("id")
    if own is None:
        asked = json.dumps([row["prompt"], row.get("tools") or []], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:ID_DIGITS]
    if isinstance(own, bool) or not isinstance(own, str | int) or own == "":
        raise InputError(f"id: {json.dumps(own)[:40]} is no name", "Write a text, or leave the key out")
    return str(own)


def read_prompts(files: Sequence[Path], *, rename: Rename | None = None) -> tuple[list[PromptRow], Counts]:
    """The prompts of files in any form that docs/data.md lists, each with its id and with what stands beside it.

    Equal prompts are dropped and counted, also where their references differ.

    Raises:
        InputError: a row cannot be read, two prompts have one id, or no prompt is left; with file, line and key.
    """
    sieve, counts, rows = Sieve(), Counts(), list[PromptRow]()
    places: dict[str, str] = {}
    for path in files:
        for found in converted(path, "prompts", rename):
            if isinstance(found, RowError):
                raise found
            records = [record for record, reason, _ in sieved(found, sieve, counts) if reason is None]
            for record in records:
                row, where = _identified(record, found.row), found.row.where()
                if (other := places.setdefault(row["id"], where)) == where:
                    rows.append(row)
                elif found.row.value.get("id") is not None:
                    raise found.row.error("id", f"{row['id']!r} is also at {other}", "Give each prompt its own")
                else:
                    counts.kept, counts.read = counts.kept - 1, counts.read - 1
                    counts.drop(SAME_PROMPT, where)
    if not rows:
        reasons = "; ".join(counts.lines()) or "they hold no rows"
        raise InputError(f"{', '.join(map(str, files))} hold no prompt: {reasons}", "Look with herdlm data check")
    counts.used = len(rows)
    return rows, counts


def _identified(record: Mapping[str, Any], row: Row) -> PromptRow:
    """A prompt with what stands beside it in its file, and its id."""
    beside = {key: row.value[key] for key in BESIDE if row.value.get(key) is not None}
    if "prompt" in row:  # herdlm's own form: what a team writes beside a prompt stays there
        beside |= {key: value for key, value in row.value.items() if key not in row.used and value is not None}
    if "tools" in row:
        beside["tools"] = tools_of(row)
    if not isinstance(beside.get("options", {}), dict):
        raise row.error("options", "they are no object", 'Write {"tolerance": 0.01} or the like')
    beside.pop("samples", None)
    made = {**beside, **record}
    if "verifier" in beside:
        made["verifier"] = beside["verifier"]
    try:
        made["id"] = prompt_id(made)
    except InputError as error:
        raise row.error("id", error.what.removeprefix("id: "), error.remedy) from error
    return cast(PromptRow, made)


def is_samples(path: Path) -> bool:
    """Whether a file's first row has ``samples``.

    Raises:
        InputError: it is missing, or that row is not a JSON object.
    """
    return any("samples" in row for _, row in islice(json_lines(path), 1))


def read_samples(path: Path) -> list[SampledRow]:
    """The rows of a file of samples.

    Raises:
        InputError: a key is missing or has another type, or two rows have one id; with file, line and key.
    """
    rows: list[SampledRow] = []
    lines: dict[str, int] = {}
    for line, row in json_lines(path):
        where = f"{path}, line {line}"
        _check(row, _ROW, where)
        for number, sample in enumerate(row["samples"]):
            _check(sample, _SAMPLE, where, f"samples[{number}].")
        if (other := lines.setdefault(row["id"], line)) != line:
            raise InputError(f"{where}, key id: {row['id']!r} is also on line {other}", "Give each prompt its own")
        rows.append(cast(SampledRow, row))
    if not rows:
        raise InputError(f"{path} holds no rows", "Draw samples with herdlm sample")
    return rows


def write_samples(path: Path, rows: Iterable[SampledRow]) -> None:
    """Write a file of samples, which appears whole or not at all.

    Raises:
        InputError: the file exists, or its folder does not.
    """
    write_records(path, cast(Iterable[dict[str, Any]], rows))


_Checks = dict[str, tuple[type | tuple[type, ...], bool]]  # a key's types, and whether it must be there
_ROW: _Checks = {"id": (str, True), "prompt": (list, True), "samples": (list, True), "tools": (list, False)}
_SAMPLE: _Checks = {
    "answer": (str, True),
    "model": (str, True),
    "system": (str, False),
    "temperature": ((int, float), True),
    "finish": (str, True),
    "tokens": (int, True),
    "logprob": ((int, float, type(None)), True),
    "verdict": (dict, False),
    "reward": ((int, float, type(None)), False),
    "judge": (dict, False),
}


def _check(value: Any, checks: _Checks, where: str, inside: str = "") -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where}, key {inside.rstrip('.')}: it is {kind_of(value)}, not an object", _REMEDY)
    for key, (types, needed) in checks.items():
        if key not in value:
            if needed:
                raise InputError(f"{where}, key {inside}{key}: it is missing", _REMEDY)
        elif not isinstance(value[key], types) or isinstance(value[key], bool):
            raise InputError(f"{where}, key {inside}{key}: it is {kind_of(value[key])}", _REMEDY)


_REMEDY = "docs/rounds.md lists the keys of a file of samples"
