"""Stages that pre-train or import the models, and forecast the flagship's loss."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from herdlm.model.hf import rewrite_into
from herdlm.model.shrink import shrink_into
from herdlm.pretrain.pretrain import pretrain_into
from herdlm.run.stage import Context, on_processes
from herdlm.scaling.forecast import fit_power_law

AXES = ("parameters", "body_parameters")


@on_processes
def pretrain_stage(context: Context) -> dict[str, Any]:
    """Pre-train one model of the herd."""
    return pretrain_into(
        context.recipe.job(context.stage.options["model"], context.inputs.get("start")),
        tokens=context.inputs["tokens"],
        tokenizer=context.inputs["tokenizer"],
        out=context.out,
        work=context.work,
        device=context.device,
        seed=context.seed(),
        title=context.stage.name,
        teacher=context.inputs.get("teacher"),
    )


def import_stage(context: Context) -> dict[str, Any]:
    """Check the folder that a model starts from and copy it: without [pretrain] the model stays as it is."""
    folder = context.recipe.start_folder(context.stage.options["model"])
    assert folder is not None
    return rewrite_into(folder, context.out)


def shrink_stage(context: Context) -> dict[str, Any]:
    """Make a smaller model from some layers of a larger one of the herd."""
    return shrink_into(context.inputs["model"], context.out, context.stage.settings["keep"])


def forecast_stage(context: Context) -> dict[str, Any]:
    """Fit a power law to the ladder and record the flagship's forecast loss, before the flagship trains."""
    recipe = context.recipe
    ladder = {
        name: json.loads((context.inputs[name] / "training.json").read_text(encoding="utf-8"))
        for name in recipe.herd.ladder
    }
    flagship = recipe.model_config_of(recipe.herd.flagship)
    losses = [point["validation_nats_per_token"] for point in ladder.values()]
    forecast: dict[str, Any] = {
        "axis": recipe.forecast.axis,
        "ladder": {
            name: {axis: point[axis] for axis in AXES} | {"loss": point["validation_nats_per_token"]}
            for name, point in ladder.items()
        },
        "flagship": {axis: getattr(flagship, axis) for axis in AXES},
    }
    for axis in AXES:
        law = fit_power_law([point[axis] for point in ladder.values()], losses)
        forecast[axis] = asdict(law) | {"forecast": law(getattr(flagship, axis))}
    forecast["forecast"] = forecast[forecast["axis"]]["forecast"]
    (context.out / "forecast.json").write_text(json.dumps(forecast, indent=2) + "\n", encoding="utf-8")
    return {"axis": forecast["axis"], "forecast": forecast["forecast"]}
