"""Stages that pre-train the herd and forecast its flagship."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.evaluate.perplexity import text_loss
from herdlm.generate.load import pick_device
from herdlm.model.hf import save_folder
from herdlm.model.transformer import Transformer, build, initialise
from herdlm.run.recipe import MixPart, Recipe
from herdlm.run.stage import Context
from herdlm.scaling.forecast import fit_power_law
from herdlm.tokens.mixture import Mixture, PretrainBatches
from herdlm.tokens.rows import Source
from herdlm.tokens.tokenizer import PAD, TOKENIZER_FILES, Tokenizer
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken

AXES = ("parameters", "body_parameters")


def save_model(model: Transformer, out: Path, *, tokenizer: Path, work: Path) -> None:
    """Write a model into ``out`` with its tokenizer's files and the log of its training in ``work``."""
    save_folder(model, out)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, out / name)
    log = work / "events.jsonl"
    if log.exists():
        shutil.copyfile(log, out / "events.jsonl")


def pretrain_stage(context: Context) -> dict[str, Any]:
    """Train one model of the herd from nothing."""
    return _pretrain(
        context.recipe, context.stage.options["model"], tokens=context.inputs["tokens"],
        tokenizer=context.inputs["tokenizer"], out=context.out, work=context.work, device=context.device,
        seed=context.seed(), title=context.stage.name,
    )  # fmt: skip


def pretrain(recipe: Recipe, name: str, *, tokens: Path, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Pre-train the model ``name`` of a recipe on its own: token shards in, a model folder ``out``.

    Gives the same weights as the recipe's whole run. Work that was cut off goes on from its last checkpoint.

    Raises:
        InputError: the recipe has no such model, ``out`` exists, or tokens or tokenizer are not there.
    """
    if name not in recipe.herd.models:
        raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(recipe.herd.models)}")
    if out.exists():
        raise InputError(f"{out} exists", "Give a new folder")
    work = out.with_name(f".{out.name}.working")
    made = work / "out"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    counts = _pretrain(
        recipe, name, tokens=tokens, tokenizer=tokenizer, out=made, work=work,
        device=pick_device(recipe.compute.device).type, seed=derive_seed(recipe.seed, "pretrain"), title=name,
    )  # fmt: skip
    made.rename(out)
    shutil.rmtree(work)
    return counts


def _pretrain(
    recipe: Recipe,
    name: str,
    *,
    tokens: Path,
    tokenizer: Path,
    out: Path,
    work: Path,
    device: str,
    seed: int,
    title: str,
) -> dict[str, Any]:
    """Train a model from nothing, its last part annealed on the better data, and measure it on held-out text."""
    config = recipe.pretrain
    pad = Tokenizer.load(tokenizer).special(PAD)
    shape = recipe.model_config_of(name)
    model = build(shape, device)
    spread = {key: shape.dim**-0.5 if value == "dim" else value for key, value in config.init.model_dump().items()}
    initialise(model, derive_seed(seed, "init"), **spread)

    def mixture(parts: tuple[MixPart, ...], phase: str) -> Mixture:
        # One stream of rows for the whole herd: its models differ in size alone.
        sources = [Source(part.source, tokens / part.source, part.share, part.loss_weight) for part in parts]
        return Mixture(sources, seq_len=config.seq_len, seed=derive_seed(seed, "rows", phase), pad=pad)

    anneal = config.train.anneal_steps
    phases = [(mixture(config.mix, "main"), config.steps - anneal), (mixture(config.anneal_mix, "anneal"), anneal)]
    batches = PretrainBatches([phase for phase in phases if phase[1]], rows_per_step=config.rows_per_step)
    rate = recipe.herd.models[name].peak_lr
    training = config.train if rate is None else config.train.model_copy(update={"peak_lr": rate})
    result = train(model, NextToken(), batches, training, work=work, title=title)
    save_model(model, out, tokenizer=tokenizer, work=work)
    loss = text_loss(model, tokens / "web-validation", seq_len=config.seq_len, pad=pad)
    epochs: dict[str, float] = {}
    for rows, steps in batches.phases:
        for source, read in rows.epochs(steps * config.rows_per_step).items():
            epochs[source] = round(epochs.get(source, 0.0) + read, 3)
    counts = {
        "parameters": shape.parameters, "body_parameters": shape.body_parameters,
        **{f"validation_{key}": round(value, 6) for key, value in asdict(loss).items()},
        "steps": result.steps, "trained_tokens": config.steps * config.rows_per_step * config.seq_len,
        "averaged_checkpoints": result.averaged,
        "epochs": epochs,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
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
