"""Evaluates models on tasks: asks about the items that no earlier evaluation has finished, and sums up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from herdlm import __version__
from herdlm.base.artifact import file_name
from herdlm.base.errors import InputError
from herdlm.base.own_parts import code_hash, load_part
from herdlm.base.progress import Progress
from herdlm.evaluate.asking import Asking, Settings
from herdlm.evaluate.contamination import Contaminated
from herdlm.evaluate.figures import figure, metric_names
from herdlm.evaluate.intervals import Estimate
from herdlm.evaluate.items import load_rows
from herdlm.evaluate.judging import Judges, judged_by_model
from herdlm.evaluate.kinds import Choice, Continuation, Generation, Kind, Text
from herdlm.evaluate.records import Records
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.evaluate.robustness import robustness
from herdlm.evaluate.task import Items, Task, TaskFile


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A model's result on a task.

    Attributes:
        figures: each metric with its interval.
        groups: the same for each value of the task's group field.
        records: what was asked and answered.
        variants: by what they vary and by name, the results of the same items asked in other ways.
        contamination: the figures on items that training data holds and on the others.
    """

    task: str
    title: str
    n: int
    figures: dict[str, Estimate]
    groups: dict[str, dict[str, Estimate]]
    records: list[dict[str, Any]]
    file: Path
    head: dict[str, Any]
    variants: Mapping[str, Mapping[str, TaskResult]] = field(default_factory=dict)
    contamination: Contaminated | None = None

    def to_json(self) -> dict[str, Any]:
        """The figures as ``--json`` prints them; a bound that is not known is null."""
        found: dict[str, Any] = {"n": self.n} | _json(self.figures)
        if self.groups:
            found["groups"] = {name: _json(figures) for name, figures in self.groups.items()}
        if self.variants:
            found["robustness"] = {
                axis: {metric: spread.to_json() for metric, spread in by_metric.items()}
                for axis, by_metric in robustness(self, self.variants).items()
            }
        if self.contamination:
            found["contamination"] = self.contamination.to_json()
        return found


@dataclass(slots=True)
class LoadedTask:
    """A task with its items, which are the same for all models."""

    task: Task
    asking: Asking
    numbers: list[int]
    digest: str
    settings: Settings


def load(task: Task, data: Sequence[Path], settings: Settings) -> LoadedTask:
    """Read a task's items and examples.

    Raises:
        InputError: there are none, an item is wrong, examples are fewer than asked for, or all samples would be equal.
    """
    config = task.config
    sampling = settings.applied_to(config.sampling)
    if config.kind == "answer" and sampling.samples > 1 and not sampling.temperature:
        raise InputError(
            f"task {task.name}: {sampling.samples} answers at temperature 0 are all the same",
            "Give --temperature, such as 0.7",
        )
    items = load_rows(config.items, task.name, data)
    shots = config.shots.count if settings.shots is None else settings.shots
    pool, digest = None, items.digest
    if shots and config.shots.rows:
        pool = [dict(row) | {"place": f"task {task.name}, shots.rows"} for row in config.shots.rows]
    elif shots and config.shots.files:
        examples = load_rows(
            Items(
                files=config.shots.files,
                source=f"the examples of {task.name}: {config.items.source}",
                where=config.shots.where,
                prepare=config.items.prepare,
                fields=config.items.fields,
                choices=config.items.choices,
                answer=config.items.answer,
                order=config.items.order,
            ),
            task.name,
            data,
        )
        pool, digest = examples.rows, f"{digest} {examples.digest}"
    asking = Asking(task, items.rows, pool, shots, settings.seed)
    count = len(items.rows) if settings.limit is None else min(settings.limit, len(items.rows))
    if not config.items.make:
        asking.check(range(count))
    return LoadedTask(task, asking, list(range(count)), digest, settings)


def evaluate(
    model: EvaluatedModel, loaded: LoadedTask, out: Path, *, judge: EvaluatedModel | None = None, quiet: bool = False
) -> TaskResult:
    """A model's result on a task; what earlier evaluations into ``out`` have finished is not asked again.

    Args:
        judge: rates the answers to tasks that ask a model to.

    Raises:
        InputError: the task does not fit the model.
    """
    task, settings, config = loaded.task, loaded.settings, loaded.task.config
    chat = config.chat and model.chats if settings.chat is None else settings.chat
    if chat and not model.chats:
        raise InputError(f"{model.name} has no chat template", "Leave --chat out, or give a chat model")
    if config.prompt.turns and not chat:
        remedy = f"Leave out --plain or {task.name}" if model.chats else f"Leave out {task.name}, or give a chat model"
        asked = "is asked in plain text" if model.chats else "has no chat template"
        raise InputError(f"task {task.name} has several turns, and {model.name} {asked}", remedy)
    head = {"model": model.fingerprint, "task": task.digest, "data": loaded.digest, "chat": chat}
    head |= _deciding(config, settings)
    if code := _own_code(task):
        head["code"] = code
    if judge is not None and judged_by_model(task):
        head["judge"] = judge.fingerprint
    records = Records(out / "models" / file_name(model.name), task.name, head)
    if config.items.make:
        loaded = made_for(model, loaded)
    judges = Judges(task, judge) if config.kind == "answer" else None
    try:
        kind = _kind(loaded, chat, judges)
        left = [number for number in loaded.numbers if number not in records.found]
        title = f"{model.name}, {task.name}"
        with Progress(title, len(loaded.numbers), "items", quiet=quiet or not left) as progress:
            progress.restore(len(loaded.numbers) - len(left))
            window = kind.window * model.width
            for begin in range(0, len(left), window):
                for record in kind.ask(model, left[begin : begin + window]):
                    row = loaded.asking.rows[record["id"]]
                    for key, name in (("group", config.group), ("cluster", config.cluster)):
                        if name is not None:
                            record[key] = row.get(name)
                    records.add(record)
                    progress.advance()
    finally:
        if judges:
            judges.close()
    return _result(task, [records.found[number] for number in loaded.numbers], records)


def made_for(model: EvaluatedModel, loaded: LoadedTask) -> LoadedTask:
    """A task whose items are made for a model, such as texts that fill its context."""
    task, settings = loaded.task, loaded.settings
    items = task.config.items
    assert items.make is not None
    make = load_part(items.make, f"task {task.name}, items.make")
    rows = make(loaded.asking.rows, model, items.options, settings.seed)
    asking = Asking(task, rows, None, 0, settings.seed)
    count = len(rows) if settings.limit is None else min(settings.limit, len(rows))
    return replace(loaded, asking=asking, numbers=list(range(count)))


def summary_of(model: str, results: Sequence[TaskResult]) -> dict[str, Any]:
    """A model's results as ``--json`` prints them."""
    return {"model": model, "tasks": {result.task: result.to_json() for result in results}}


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {"herdlm": __version__, "torch": torch.__version__}


def _deciding(config: TaskFile, settings: Settings) -> dict[str, Any]:
    """The settings that decide a task's results; those that do not would only have them computed again."""
    shots = config.shots.count if settings.shots is None else settings.shots
    sampling = settings.applied_to(config.sampling) if config.kind == "answer" else None
    drawn = config.items.make or (shots and config.shots.pick == "random") or (sampling and sampling.temperature)
    return {
        "shots": shots,
        "seed": settings.seed if drawn else None,
        "samples": sampling.samples if sampling else None,
        "max_tokens": sampling.max_tokens if sampling else None,
        "temperature": sampling.temperature if sampling else None,
    }


def _own_code(task: Task) -> dict[str, str | None]:
    """Hashes of the user's own functions that a task names: after a change, its results are others."""
    items, judges = task.config.items, task.config.judge
    named = [("items.prepare", items.prepare), ("items.make", items.make)]
    named += [(f"judge.{name}.verifier", judge.verifier) for name, judge in judges.items() if ":" in judge.verifier]
    return {
        part: code_hash(load_part(part, f"task {task.name}, {key}"))
        for key, part in named
        if part and not part.startswith("herdlm.")
    }


def _kind(loaded: LoadedTask, chat: bool, judges: Judges | None) -> Kind:
    task, asking = loaded.task, loaded.asking
    if judges is not None:
        return Generation(task, asking, chat, loaded.settings, judges)
    kinds: Mapping[str, type[Choice] | type[Continuation] | type[Text]] = {
        "choice": Choice,
        "continuation": Continuation,
        "text": Text,
    }
    return kinds[task.config.kind](task, asking, chat)


def _result(task: Task, records: list[dict[str, Any]], stored: Records) -> TaskResult:
    groups: dict[str, list[dict[str, Any]]] = {}
    if task.config.group:
        for record in records:
            groups.setdefault(str(record["group"]), []).append(record)
    return TaskResult(
        task.name,
        task.config.title,
        len(records),
        _figures(records),
        {name: _figures(each) for name, each in sorted(groups.items())},
        records,
        stored.path,
        stored.head,
    )


def _figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    return {name: found for name in metric_names(records) if (found := figure(records, name)) is not None}


def _json(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: found.to_json() for name, found in figures.items()}


def dump(value: Any) -> str:
    """JSON text of results."""
    return json.dumps(value, indent=2, ensure_ascii=False)
