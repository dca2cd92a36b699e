"""The stage that measures a run's finished models on standard tasks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from herdlm.evaluate.asking import Settings
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.publish import evaluate_models
from herdlm.run.stage import Context


def benchmarks_stage(context: Context) -> dict[str, Any]:
    """Evaluate the finished models on the recipe's tasks, with a page of all items; a killed stage goes on."""
    config = context.recipe.evaluate
    assert config is not None
    found = evaluate_models(
        [str(folder) for folder in context.inputs.values()],
        config.tasks,
        [Path(path) for path in config.data],
        context.work / "evaluation",
        settings=Settings(shots=config.shots, chat=config.chat, limit=config.limit),
        options=EngineOptions(context.device, "float32"),
        dated=False,
        quiet=context.quiet,
    )
    shutil.copytree(context.work / "evaluation", context.out, dirs_exist_ok=True)
    return {model: {result.task: result.to_json() for result in results} for model, results in found.items()}
