"""The gate of a round: measures candidates on held-out prompts and tasks, and publishes the best model so far."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.align.config import AverageConfig, GateConfig
from herdlm.align.gate import Measured, choose
from herdlm.base.artifact import MANIFEST, write_text_durably
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.publish import evaluate_models
from herdlm.model.average import average_folders
from herdlm.run.stage import Context
from herdlm.run.stages.answers import answered_greedily
from herdlm.run.stages.rounds import held_out_prompts

INCUMBENT = "the model before"


def gate_stage(context: Context) -> dict[str, Any]:
    """Publish the candidate that is best on the gate's prompts if it passes, else the incumbent, with the verdict.

    A killed stage goes on after the last model that was measured.
    """
    assert context.recipe.align and context.recipe.align.gate
    config, given = context.recipe.align.gate, context.stage.settings["average"]
    average = AverageConfig.model_validate(given) if given else None
    folders = {INCUMBENT: context.inputs["incumbent"], **_candidates(context)}
    folders |= _averages(context, folders, average)
    rows = held_out_prompts(context.inputs, "gate", config.prompts)
    found = {name: _measured(context, name, folder, rows, config) for name, folder in folders.items()}
    incumbent = found.pop(INCUMBENT)
    verdict = choose(incumbent, found, config, start=_start(context))
    winner = folders[verdict.chosen or INCUMBENT]
    for path in sorted(winner.iterdir()):
        if path.is_file() and path.name not in NOT_THE_MODEL:
            _link(path, context.out / path.name)
    best = found[verdict.chosen] if verdict.chosen else incumbent
    write_text_durably(context.out / MEASURED, json.dumps(asdict(best)) + "\n")
    text = json.dumps(asdict(verdict) | {"prompts": len(rows)}, indent=2, ensure_ascii=False)
    write_text_durably(context.out / VERDICT, text + "\n")
    return {"promoted": verdict.chosen, "reason": verdict.reason, "scores": verdict.scores, "prompts": len(rows)}


VERDICT, MEASURED = "verdict.json", "measured.json"
NOT_THE_MODEL = (MANIFEST, VERDICT, MEASURED, "training.json", "events.jsonl")


def _start(context: Context) -> dict[str, float] | None:
    """The figures on standard tasks of the model that post-training started from; None at the first gate."""
    if "first" not in context.inputs:
        return None
    verdict = json.loads((context.inputs["first"] / VERDICT).read_text(encoding="utf-8"))
    figures: dict[str, float] = verdict["figures"]["incumbent"]
    return figures


def _candidates(context: Context) -> dict[str, Path]:
    prefix = "candidate-"
    return {role.removeprefix(prefix): f for role, f in context.inputs.items() if role.startswith(prefix)}


def _averages(context: Context, folders: dict[str, Path], config: AverageConfig | None) -> dict[str, Path]:
    """The averages that the recipe asks for, made in the working folder once."""
    if config is None:
        return {}
    chains = [name for name in folders if name not in (INCUMBENT, "sft")]
    wanted: dict[str, list[str]] = {}
    if len(chains) > 1:
        wanted["average of all trainings"] = chains
    if config.sft:
        wanted["average with SFT"] = ["dpo", "sft"]
    if config.incumbent:
        wanted["average with the model before"] = ["dpo", INCUMBENT]
    made = {}
    for number, (name, parts) in enumerate(wanted.items()):
        made[name] = context.work / f"average-{number}"
        if not (made[name] / MANIFEST).is_file():
            shutil.rmtree(made[name], ignore_errors=True)
            average_folders([folders[part] for part in parts], made[name])
    return made


def _measured(
    context: Context, name: str, folder: Path, rows: Sequence[dict[str, Any]], config: GateConfig
) -> Measured:
    """What a model answers to the gate's prompts, and its figures on standard tasks; kept in the work folder."""
    kept = context.work / f"measured-{name.replace(' ', '-')}.json"
    if (folder / MEASURED).is_file():  # by the gate before, on the same prompts and tasks
        kept = folder / MEASURED
    if kept.is_file():
        return Measured(**json.loads(kept.read_text(encoding="utf-8")))
    right: dict[str, list[bool]] = defaultdict(list)
    for row in answered_greedily(context, folder, rows, config.max_answer_tokens, name.replace(" ", "-")):
        right[row.get("task", "")].append(row["samples"][0]["verdict"]["passed"])
    figures: dict[str, float] = {}
    if config.tasks:
        results = evaluate_models(
            [str(folder)],
            config.tasks,
            [Path(path) for path in config.data],
            context.work / f"tasks-{name.replace(' ', '-')}",
            settings=Settings(limit=config.limit),
            options=EngineOptions(context.device),
            dated=False,
            quiet=True,
        )
        for (result,) in zip(*results.values(), strict=True):
            figures |= {f"{result.task} {metric}": estimate.value for metric, estimate in result.figures.items()}
    measured = Measured(dict(right), figures)
    write_text_durably(kept, json.dumps(asdict(measured)) + "\n")
    return measured


def _link(source: Path, target: Path) -> None:
    """The same file under another name where the file system allows it, else a copy."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
