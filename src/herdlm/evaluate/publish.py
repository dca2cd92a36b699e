"""Evaluates models on tasks into a folder: records of items, and results.json with all figures and comparisons."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.comparing import compare
from herdlm.evaluate.contamination import SHARE, Shares, contaminated, item_texts, shares_in
from herdlm.evaluate.corpora import Corpus
from herdlm.evaluate.engines import WRITING_PAGE, EngineOptions
from herdlm.evaluate.figures import lower_is_better
from herdlm.evaluate.judging import judged_by_model
from herdlm.evaluate.local import LocalModel
from herdlm.evaluate.remote import RemoteModel, RemoteOptions, is_address
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.evaluate.robustness import Variant, variants_of
from herdlm.evaluate.run import LoadedTask, TaskResult, dump, evaluate, load, summary_of, versions
from herdlm.evaluate.task import load_task
from herdlm.model.folders import model_folder
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
    remote: RemoteOptions | None = None,
    judge: str | None = None,
    robustness: bool = False,
    training_data: Sequence[Path] = (),
    dated: bool = True,
    quiet: bool = False,
) -> dict[str, list[TaskResult]]:
    """The results of each model on each task, by the model's name.

    Args:
        models: folders, runs, or addresses of servers.
        options, remote: how models of folders are loaded, and how servers are asked.
        judge: the model, given as models are, that rates answers where a task asks for one.
        robustness: whether to ask the variants of tasks, too.
        training_data: where items are sought, to tell what the models may have seen.
        dated: whether the results say when they were published; without it equal results are equal files.

    Raises:
        InputError: a model, a task or its items cannot be read; nothing is asked before all tasks are read.
    """
    if not tasks:
        raise InputError("no task is named", "Give --tasks; herdlm evaluate --list names those that are built in")
    if len(set(tasks)) < len(tasks):
        raise InputError(f"tasks name one twice: {', '.join(tasks)}", "Name each task once")
    loaded = [load(load_task(name), data, settings) for name in tasks]
    _check_judge(judge, loaded)
    variants = {each.task.name: variants_of(each.task) if robustness else [] for each in loaded}
    if robustness and not any(variants.values()):
        raise InputError(
            f"none of {', '.join(variants)} has variants", "Leave out --robustness, or add [variants] to the task file"
        )
    folders = [model_folder(Path(path)) for path in models if not is_address(path)]
    corpora = [Corpus(path, folders) for path in training_data]
    if all(each.task.config.kind == "answer" for each in loaded):
        options = replace(options, page=WRITING_PAGE)
    found: dict[str, list[TaskResult]] = {}
    with ExitStack() as stack:
        stack.enter_context(_alone(out))
        shares = _shares(loaded, corpora, out, quiet=quiet) if corpora else {}
        rater = stack.enter_context(closing(open_model(judge, options, remote))) if judge is not None else None
        for path in models:
            with closing(open_model(path, options, remote)) as model:
                name = model.name if model.name not in found else path
                model.name = name
                found[name] = [evaluate(model, each, out, judge=rater, quiet=quiet) for each in loaded]
                for number, result in enumerate(found[name]):
                    asked = _ask_variants(model, variants[result.task], data, settings, out, judge=rater, quiet=quiet)
                    found[name][number] = replace(result, variants=asked)
        if corpora:
            found = _with_contamination(found, shares)
        _publish(found, out, settings, corpora, dated=dated)
    return found


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Make the folder of an evaluation, and keep other processes from writing into it.

    Raises:
        InputError: it is a file, or another process is writing it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out {out} is not a folder, or lies in a file", "Choose another folder") from error
    lock = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {out}", "Wait for it, or choose another folder") from None
        yield
    finally:
        os.close(lock)


def open_model(path: str, options: EngineOptions, remote: RemoteOptions | None = None) -> EvaluatedModel:
    """The model in a folder or a run, or behind the address of a server.

    Raises:
        HerdError: it is unusable.
    """
    if is_address(path):
        return RemoteModel(path, remote)
    return LocalModel(Path(path), options)


def _check_judge(judge: str | None, loaded: Sequence[LoadedTask]) -> None:
    """Refuse tasks that a model judges without one, and one that has nothing to judge."""
    judged = [each.task.name for each in loaded if judged_by_model(each.task)]
    if judged and judge is None:
        raise InputError(
            f"a model judges the answers to {', '.join(judged)}", "Name one with --judge MODEL or --judge URL"
        )
    if judge is not None and not judged:
        raise InputError("none of the tasks asks a model to judge", "Remove --judge")


def _ask_variants(
    model: EvaluatedModel,
    variants: Sequence[Variant],
    data: Sequence[Path],
    settings: Settings,
    out: Path,
    *,
    judge: EvaluatedModel | None,
    quiet: bool,
) -> dict[str, dict[str, TaskResult]]:
    """The results of a task's variants: axis -> name. Each is read only now, since each holds all items."""
    found: dict[str, dict[str, TaskResult]] = {}
    for variant in variants:
        loaded = load(variant.task, data, settings)
        found.setdefault(variant.axis, {})[variant.name] = evaluate(model, loaded, out, judge=judge, quiet=quiet)
    return found


def _shares(loaded: Sequence[LoadedTask], corpora: Sequence[Corpus], out: Path, *, quiet: bool) -> dict[str, Shares]:
    """How much of each item the training data holds, by the task's name."""
    made = {each.task.name for each in loaded if each.task.config.items.make}  # for a model, not of a benchmark
    texts = {each.task.name: item_texts(each.task, each.asking) for each in loaded if each.task.name not in made}
    return dict(zip(texts, shares_in(texts, corpora, out, quiet=quiet), strict=True))


def _with_contamination(
    found: Mapping[str, Sequence[TaskResult]], shares: Mapping[str, Shares]
) -> dict[str, list[TaskResult]]:
    """The results with each record's share, and with figures on clean and dirty items."""
    made: dict[str, list[TaskResult]] = {name: [] for name in found}
    for results in zip(*found.values(), strict=True):
        if (own := shares.get(results[0].task)) is None:
            for name, result in zip(found, results, strict=True):
                made[name].append(result)
            continue
        records = [[{**record, SHARE: own[record["id"]]} for record in result.records] for result in results]
        for name, result, rows, part in zip(found, results, records, contaminated(records), strict=True):
            made[name].append(replace(result, records=rows, contamination=part))
    return made


def _publish(
    found: dict[str, list[TaskResult]], out: Path, settings: Settings, corpora: Sequence[Corpus], *, dated: bool
) -> None:
    first, *others = found
    comparisons = [
        asdict(comparison) | {"sentence": comparison.sentence}
        for name in others
        for comparison in compare(found[first], found[name], (first, name))
    ]
    files = {
        name: {
            each.task: {"file": str(each.file.relative_to(out)), **each.head}
            for result in results
            for each in (result, *(one for variants in result.variants.values() for one in variants.values()))
        }
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
        **({"training_data": {str(each.path): each.content() for each in corpora}} if corpora else {}),
    }
    write_text_durably(out / RESULTS, dump(value) + "\n")
    records: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, results in found.items():
        for result in results:
            records.setdefault(result.task, {})[name] = result.records
    titles = {result.task: result.title for results in found.values() for result in results}
    write_evaluation_page(out, value, records, titles)
