"""Evaluates models on tasks into a folder: records of items, and results.json with all figures and comparisons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.comparing import compare
from herdlm.evaluate.figures import lower_is_better
from herdlm.evaluate.local import EngineOptions, LocalModel
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.evaluate.run import TaskResult, dump, evaluate, load, summary_of, versions
from herdlm.evaluate.task import load_task
from herdlm.report.evaluation_page import write_evaluation_page

RESULTS = "results.json"


def evaluate_models(
    models: Sequence[str],
    tasks: Sequence[str],
    data: Sequence[Path],
    out: Path,
    *,
    settings: Settings,
    options: EngineOptions,
    dated: bool = True,
    quiet: bool = False,
) -> dict[str, list[TaskResult]]:
    """The results of each model on each task, by the model's name.

    Args:
        dated: whether the results say when they were published; without it equal results are equal files.

    Raises:
        InputError: a model, a task or its items cannot be read; nothing is asked before all tasks are read.
    """
    if len(set(tasks)) < len(tasks):
        raise InputError(f"tasks name one twice: {', '.join(tasks)}", "Name each task once")
    loaded = [load(load_task(name), data, settings) for name in tasks]
    found: dict[str, list[TaskResult]] = {}
    for path in models:
        model = open_model(path, options)
        try:
            name = model.name if model.name not in found else path
            model.name = name
            found[name] = [evaluate(model, each, out, quiet=quiet) for each in loaded]
        finally:
            model.close()
    _publish(found, out, settings, dated=dated)
    return found


def open_model(path: str, options: EngineOptions) -> EvaluatedModel:
    """The model in a folder or a run.

    Raises:
        InputError, DamagedError: it is unusable.
    """
    return LocalModel(Path(path), options)


def _publish(found: dict[str, list[TaskResult]], out: Path, settings: Settings, *, dated: bool) -> None:
    first, *others = found
    comparisons = [
        asdict(comparison) | {"sentence": comparison.sentence}
        for name in others
        for comparison in compare(found[first], found[name], (first, name))
    ]
    files = {
        name: {result.task: {"file": str(result.file.relative_to(out)), **result.head} for result in results}
        for name, results in found.items()
    }
    value = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()) if dated else None,
        "versions": versions(),
        "settings": asdict(settings),
        "models": [summary_of(name, results) for name, results in found.items()],
        "comparisons": comparisons,
        "lower_is_better": sorted(
            {m for results in found.values() for r in results for m in r.figures if lower_is_better(m)}
        ),
        "ratios": sorted(
            {m for results in found.values() for r in results for each in r.records for m in each.get("ratios", ())}
        ),
        "evaluations": files,
    }
    write_text_durably(out / RESULTS, dump(value) + "\n")
    records: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, results in found.items():
        for result in results:
            records.setdefault(result.task, {})[name] = result.records
    titles = {result.task: result.title for results in found.values() for result in results}
    write_evaluation_page(out, value, records, titles)
