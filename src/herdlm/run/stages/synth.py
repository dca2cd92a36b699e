"""The stage that makes synthetic data."""

from __future__ import annotations

from typing import Any

from herdlm.align.synth.config import SynthConfig, paths_of
from herdlm.align.synth.registry import generators_of
from herdlm.align.synth.run import run_generators
from herdlm.base.standalone import input_folder
from herdlm.evaluate.publish import open_model
from herdlm.evaluate.requests import EvaluatedModel
from herdlm.run.stage import Context


def synth_stage(context: Context) -> dict[str, Any]:
    """Run the recipe's generators; the teacher is the one it names, or the model that post-training starts from."""
    assert context.recipe.align and context.recipe.align.synth
    config: SynthConfig = context.recipe.align.synth
    teacher = config.teacher or str(context.inputs["model"])

    def open_teacher() -> EvaluatedModel:
        return open_model(teacher, context.engines)

    counts: dict[str, Any] = {}
    run_generators(
        generators_of(config),
        config.model_copy(update={"seed": context.seed()}),
        context.out,
        context.work,
        counts=counts,
        content={str(number): input_folder(path).content for number, path in enumerate(paths_of(config))},
        open_teacher=open_teacher,
        quiet=context.quiet,
    )
    return counts
