"""Stages that pre-train the herd and forecast its flagship."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.evaluate.needle import Retrieval, make_needles, predict_with, retrieval
from herdlm.evaluate.perplexity import TextLoss, text_loss
from herdlm.generate.load import pick_device
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.transformer import Transformer, build, initialise
from herdlm.parallel.blocks import apply_checkpointing, apply_compile
from herdlm.parallel.config import sizes_for
from herdlm.parallel.layout import Layout
from herdlm.parallel.run import ParallelModel
from herdlm.parallel.whole import save_whole
from herdlm.run.long_context import Run, set_rope, train_in_stages
from herdlm.run.mix_plan import plan_mix, source_tokens
from herdlm.run.pretrain_batches import open_batches
from herdlm.run.processes import led_by_first, process_group
from herdlm.run.recipe import Recipe
from herdlm.run.stage import Context
from herdlm.run.standalone import input_folder, standalone
from herdlm.run.timeline import timeline, tokens_in
from herdlm.scaling.forecast import fit_power_law
from herdlm.tokens.mixture import FirstSteps
from herdlm.tokens.shards import Shard
from herdlm.tokens.tokenizer import PAD, TOKENIZER_FILES, Tokenizer
from herdlm.train.loop import TrainResult, train
from herdlm.train.objectives import NextToken

AXES = ("parameters", "body_parameters")


def save_model(model: Transformer | ParallelModel, out: Path, *, tokenizer: Path, work: Path) -> None:
    """Write a model into ``out`` with its tokenizer's files and the log of its training in ``work``.

    A model on many processes is written by the first of them; a call for all.
    """
    if isinstance(model, ParallelModel):
        save_whole(model, out)
        if dist.get_rank():
            return
    else:
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

    On one process it gives the same weights as the recipe's whole run. Under torchrun it trains in the recipe's layout,
    and the counts are what the first process returns. Work that was cut off goes on from its last checkpoint, on any
    number of processes.

    Raises:
        InputError: the recipe has no such model, ``out`` exists, or tokens or tokenizer are not there.
    """
    if name not in recipe.herd.models:
        raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(recipe.herd.models)}")
    torch.set_num_threads(recipe.compute.threads_per_stage)
    settings = {
        "model": recipe.model_config_of(name).model_dump(mode="json"),
        "pretrain": recipe.pretrain.model_dump(mode="json"),
        "peak_lr": recipe.herd.models[name].peak_lr,
    }  # fmt: skip
    inputs = {"tokens": input_folder(tokens), "tokenizer": input_folder(tokenizer)}
    seed = derive_seed(recipe.seed, "pretrain")
    device = pick_device(recipe.compute.device).type
    counts: dict[str, Any] = {}
    with process_group(device):
        published = standalone(
            out, kind="model", name=f"pretrain-{name}", settings=settings, inputs=inputs, seed=seed, counts=counts
        )
        with led_by_first(published) as (made, work):
            done = _pretrain(
                recipe, name, tokens=tokens, tokenizer=tokenizer, out=made, work=work, device=device, seed=seed,
                title=name,
            )  # fmt: skip
            counts.update(done)
    return counts


def _check_shards(recipe: Recipe, tokens: Path, words: Tokenizer) -> None:
    """Open all that the run will read before it starts, and make sure that it was made with this tokenizer."""
    read = {part.source for stretch in timeline(recipe.pretrain) for part in stretch.mix}
    for name in sorted({*read, "web-validation"}):
        if Shard(tokens / name).index.tokenizer != words.content():
            raise InputError(f"{tokens / name} was made with another tokenizer", "Give the tokenizer its tokens are of")
    if words.vocab_size != recipe.tokenizer.vocab_size:
        raise InputError(
            f"the tokenizer has {words.vocab_size} entries, tokenizer.vocab_size says {recipe.tokenizer.vocab_size}",
            "Give the recipe's tokenizer",
        )


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
    words = Tokenizer.load(tokenizer)
    pad = words.special(PAD)
    _check_shards(recipe, tokens, words)
    shape = recipe.model_config_of(name)
    model = build(shape, device)
    spread = {key: shape.dim**-0.5 if value == "dim" else value for key, value in config.init.model_dump().items()}
    initialise(model, derive_seed(seed, "init"), **spread)
    trained = _lay_out(recipe, name, model)

    batches = open_batches(config, tokens, seed=seed, pad=pad)
    rate = recipe.herd.models[name].peak_lr
    training = config.train if rate is None else config.train.model_copy(update={"peak_lr": rate})
    results: list[TrainResult] = []

    def train_until(step: int) -> None:
        last = step == config.steps
        part = training.model_copy(update={"horizon_steps": config.steps, "average_last": 0.0})
        rows = batches if last else FirstSteps(batches, step)
        results.append(train(trained, NextToken(), rows, training if last else part, work=work, title=title))

    def find_needles(length: int) -> Retrieval:
        needles = make_needles(
            Shard(tokens / "web-validation"), words, length=length, depths=config.gate.needle_depths,
            per_depth=config.gate.needles_per_depth, seed=derive_seed(seed, "needles"),
        )  # fmt: skip
        return retrieval(predict_with(model), needles)

    def held_out_loss(seq_len: int) -> TextLoss:
        return text_loss(model, tokens / "web-validation", seq_len=seq_len, pad=pad)

    passed = train_in_stages(
        config,
        Run(
            train_until=train_until, stretch_rope=partial(set_rope, model), find_needles=find_needles,
            short_loss=lambda seq_len: held_out_loss(seq_len).nats_per_token,
            save=lambda folder: save_model(trained, folder, tokenizer=tokenizer, work=work),
        ),
        work,
    )  # fmt: skip
    save_model(trained, out, tokenizer=tokenizer, work=work)
    if isinstance(trained, ParallelModel):
        if dist.get_rank():
            return {}
        model = load_folder(out, device)
    loss = held_out_loss(config.seq_len)
    epochs: dict[str, float] = {}
    for (rows, steps), rows_per_step in zip(batches.phases, batches.rows_per_step, strict=True):
        for source, read in rows.epochs(steps * rows_per_step).items():
            epochs[source] = round(epochs.get(source, 0.0) + read, 3)
    counts = {
        "parameters": shape.parameters, "body_parameters": shape.body_parameters,
        **{f"validation_{key}": round(value, 6) for key, value in asdict(loss).items()},
        "steps": results[-1].steps, "trained_tokens": tokens_in(config),
        "averaged_checkpoints": results[-1].averaged,
        "epochs": epochs, "gates": [asdict(evidence) for evidence in passed],
    }  # fmt: skip
    if config.max_epochs:
        counts["mix_plan"] = plan_mix(config, source_tokens(tokens, config)).as_json()
    (out / "training.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts


def _lay_out(recipe: Recipe, name: str, model: Transformer) -> Transformer | ParallelModel:
    """The model as it is trained: in the recipe's layout over the processes there are."""
    config, shape = recipe.parallel_of(name), model.config
    longest = max(recipe.pretrain.seq_lens)
    if not dist.is_initialized():
        sizes_for(config, 1, shape, longest)  # refuses what one process cannot do
        for layer in model.model.layers.children():
            if config.compile:
                apply_compile(layer)
            apply_checkpointing(layer, config.activation_checkpointing)
        return model
    if recipe.pretrain.long_context:
        raise InputError(
            "pretrain.long_context needs its gates, which are measured on one process",
            "Train each length as a recipe of its own, or on one process",
        )
    device = next(model.parameters()).device
    layout = Layout.make(config, shape, seq_len=longest, device=device)
    return layout.apply(model, torch.bfloat16 if recipe.pretrain.train.precision == "bfloat16" else None)


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
