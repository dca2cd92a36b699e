"""Stages that pre-train the herd and forecast its flagship."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.evaluate.perplexity import text_loss
from herdlm.model.hf import save_folder
from herdlm.model.transformer import Transformer, build, initialise
from herdlm.run.recipe import MixPart
from herdlm.run.stage import Context
from herdlm.scaling.forecast import fit_power_law
from herdlm.tokens.mixture import Mixture, PretrainBatches, Source
from herdlm.tokens.tokenizer import PAD, TOKENIZER_FILES, Tokenizer
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken

AXES = ("parameters", "body_parameters")


def save_model(context: Context, model: Transformer, tokenizer_folder: Path) -> None:
    """Write a stage's model with its tokenizer and the log of its training."""
    save_folder(model, context.out)
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, context.out / name)
    log = context.work / "events.jsonl"
    if log.exists():
        shutil.copyfile(log, context.out / "events.jsonl")


def pretrain_stage(context: Context) -> dict[str, Any]:
    """Train one model of the herd from nothing, its last part annealed on the better data."""
    recipe, name = context.recipe, context.stage.options["model"]
    config = recipe.pretrain
    tokenizer = Tokenizer.load(context.inputs["tokenizer"])
    shape = recipe.model_config_of(name)
    model = build(shape, context.device)
    init = config.init.model_dump()
    if init["embedding_std"] == "dim":
        init["embedding_std"] = shape.dim**-0.5
    initialise(model, context.seed("init"), **init)

    def mixture(parts: tuple[MixPart, ...], phase: str) -> Mixture:
        # One stream of rows for the whole herd: its models differ in size alone.
        sources = [Source(p.source, context.inputs["tokens"] / p.source, p.share, p.loss_weight) for p in parts]
        seed = context.seed("rows", phase)
        return Mixture(sources, seq_len=config.seq_len, seed=seed, pad=tokenizer.special(PAD))

    anneal = config.train.anneal_steps
    phases = [(mixture(config.mix, "main"), config.steps - anneal), (mixture(config.anneal_mix, "anneal"), anneal)]
    batches = PretrainBatches([phase for phase in phases if phase[1]], rows_per_step=config.rows_per_step)
    rate = recipe.herd.models[name].peak_lr
    training = config.train if rate is None else config.train.model_copy(update={"peak_lr": rate})
    result = train(model, NextToken(), batches, training, work=context.work, title=context.stage.name)
    save_model(context, model, context.inputs["tokenizer"])
    loss = text_loss(
        model, context.inputs["tokens"] / "web-validation", seq_len=config.seq_len, pad=tokenizer.special(PAD)
    )
    counts = {
        "parameters": shape.parameters, "body_parameters": shape.body_parameters,
        **_rounded(asdict(loss), "validation_"),
        "steps": result.steps, "trained_tokens": config.steps * config.rows_per_step * config.seq_len,
        "averaged_checkpoints": result.averaged,
        "epochs": {n: e for mix, steps in batches.phases for n, e in mix.epochs(steps * config.rows_per_step).items()},
    }  # fmt: skip
    (context.out / "training.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts


def forecast_stage(context: Context) -> dict[str, Any]:
    """Fit the ladder and write down the flagship's loss before it trains."""
    recipe = context.recipe
    ladder = {
        name: json.loads((context.inputs[name] / "training.json").read_text(encoding="utf-8"))
        for name in recipe.herd.ladder
    }
    flagship = recipe.model_config_of(recipe.herd.flagship)
    losses = [point["validation_nats_per_token"] for point in ladder.values()]
    told: dict[str, Any] = {
        "axis": recipe.forecast.axis,
        "ladder": {
            name: {axis: point[axis] for axis in AXES} | {"loss": point["validation_nats_per_token"]}
            for name, point in ladder.items()
        },
        "flagship": {axis: getattr(flagship, axis) for axis in AXES},
    }
    for axis in AXES:
        law = fit_power_law([point[axis] for point in ladder.values()], losses)
        told[axis] = asdict(law) | {"forecast": law(getattr(flagship, axis))}
    told["forecast"] = told[told["axis"]]["forecast"]
    (context.out / "forecast.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return {"axis": told["axis"], "forecast": told["forecast"]}


def _rounded(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {prefix + name: round(value, 6) for name, value in values.items()}
