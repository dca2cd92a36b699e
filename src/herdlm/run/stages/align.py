"""Stages of post-training: demonstrations, rounds, their controls, and teaching the small model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.align.config import DpoConfig, RewardConfig, SftConfig
from herdlm.align.defaults import Method, MethodConfig
from herdlm.align.dpo_training import train_dpo
from herdlm.align.files import Data
from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.rewards import Judge
from herdlm.align.grpo.training import train_grpo
from herdlm.align.job import FinetuneJob, Run
from herdlm.align.mix import MixConfig, mix
from herdlm.align.open_run import open_run
from herdlm.align.reward_training import train_reward
from herdlm.align.sft import train_sft
from herdlm.base.errors import InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.base.seeds import stream
from herdlm.data.useless import digest
from herdlm.parallel.processes import is_first
from herdlm.run.stage import Context, on_processes
from herdlm.run.stages.rounds import prompts_of
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import dialog_piece, fits
from herdlm.tokens.thumbs import thumbs_of

SECTIONS = {"seeds-sft": "align.seed_sft", "grpo": "experiments.grpo"}  # of the recipe, by stage


@on_processes
def sft_stage(context: Context) -> dict[str, Any]:
    """Fine-tune the base model on the demonstrations and the stage's other data.

    A control trains for as many steps as the stages in the inputs whose roles begin with "like-", added up.
    """
    config = SftConfig.model_validate(context.stage.settings["sft"])
    like = [folder for role, folder in context.inputs.items() if role.startswith("like-")]
    run = _open_run(context, "sft", config, "base", steps=sum(map(_steps_of, like)) if like else None)
    dialogs, parts, too_long = [], {}, 0
    for role, file, repeats in context.stage.options["data"]:
        rows = read_json_lines(context.inputs[role] / file)
        fitting = [row for row in rows if fits(run.format, row["messages"], config.seq_len, row.get("tools"))]
        too_long += len(rows) - len(fitting)
        parts[f"{role}/{file}"] = len(fitting)
        dialogs += fitting * repeats
    if share := context.stage.settings.get("share"):  # of a variant to average with
        order = stream(context.seed("share"), "share").permutation(len(dialogs))
        dialogs = [dialogs[number] for number in sorted(order[: max(1, round(len(dialogs) * share))].tolist())]
    mixed = {}
    if given := context.stage.settings.get("mix"):
        lengths = [len(dialog_piece(run.format, dialog).tokens) for dialog in dialogs]
        found = mix(dialogs, lengths, MixConfig.model_validate(given), context.seed("mix"))
        dialogs, mixed = [dialogs[number] for number in found.rows], {"mix": found.counts}
    counts = train_sft(run, config, Data(dialogs, [], {"parts": parts, "too_long": too_long, **mixed}))
    return _with_training_file(context, counts, ("steps", "dialogs", "parts", "too_long", *mixed))


@on_processes
def reward_stage(context: Context) -> dict[str, Any]:
    """Train the reward model on the last rounds' pairs."""
    config = RewardConfig.model_validate(context.stage.settings["reward"])
    run = _open_run(context, "reward", config, "model")
    pairs, too_long = _fitting(run.format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    if not pairs:
        raise InputError(
            "there are no pairs to train a reward model on: no prompt got right and wrong answers, and the recipe "
            "names no file of pairs",
            "Add files to align.data.preferences, or prompts with verifiers to align.data.prompts",
        )
    # Another round may have trained on a prompt that this round holds out: it is no longer held out.
    trained = {digest(pair["prompt"]) for pair in pairs}
    measured_with, _ = _fitting(run.format, _gather(context, "preferences", "held_out_pairs.jsonl"), config.seq_len)
    held_out = [pair for pair in measured_with if digest(pair["prompt"]) not in trained]
    data = Data(pairs, held_out, {"held_out_pairs": len(held_out), "too_long": too_long})
    counts = train_reward(run, config, data, rank_training=True)
    figures = {"train_accuracy": counts.pop("train_accuracy", None)}
    figures["held_out_accuracy"] = counts.get("held_out", {}).get("accuracy")
    return counts | {name: [round(v, 4) for v in each.values()] for name, each in figures.items() if each}


@on_processes
def dpo_stage(context: Context) -> dict[str, Any]:
    """Train the round's fine-tuned model with DPO; the model it starts from is the reference."""
    config = DpoConfig.model_validate(context.stage.settings["dpo"])
    run = _open_run(context, "dpo", config, "model")
    pairs, too_long = _fitting(run.format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    items: list[Any] = thumbs_of(pairs) if config.loss == "kto" else pairs
    counts = train_dpo(run, config, Data(items, [], {"pairs": len(pairs), "too_long": too_long}))
    return _with_training_file(context, counts, ("steps", "pairs", "too_long"))


@on_processes
def grpo_stage(context: Context) -> dict[str, Any]:
    """Train a model by policy gradient on prompts with verifiers."""
    config = GrpoConfig.model_validate(context.stage.settings["grpo"])
    run = _open_run(context, "grpo", config, "model")
    rows = [row for row in prompts_of(context, context.stage.settings["prompts"]) if row.get("verifier")]
    if not rows:
        raise InputError(
            "experiments.grpo has no prompt with a verifier", "Add files of prompts with answers to align.data.prompts"
        )
    assert context.recipe.align
    with Judge(context.recipe.align.own_verifiers) as judge:
        counts = train_grpo(run, config, Data(rows, [], {}), judge)
    return _with_training_file(context, counts, ("steps", "prompts"))


def _open_run(context: Context, method: Method, config: MethodConfig, model: str, *, steps: int | None = None) -> Run:
    """The run of a stage that trains the model of the input ``model``, in the layout that the recipe gives."""
    recipe = context.recipe
    assert recipe.align
    job = FinetuneJob(
        model=context.inputs[model],
        out=context.out,
        teacher=context.inputs.get("teacher"),
        steps=steps,
        parallel=recipe.align.parallel or recipe.parallel,
        track=recipe.track,
        seed=context.seed(),
        device=recipe.compute.device,
        quiet=context.quiet,
    )
    return open_run(
        job,
        method,
        config,
        out=context.out,
        work=context.work,
        seed_of=context.seed,
        title=context.stage.name,
        section=SECTIONS.get(context.stage.name, f"align.{method}"),
        writes_figures=False,
    )


def _gather(context: Context, role: str, file: str) -> list[Any]:
    """The rows of a file in every input with the role ``role`` or ``role``-NUMBER."""
    folders = [folder for name, folder in context.inputs.items() if name.split("-")[0] == role]
    return [row for folder in folders for row in read_json_lines(folder / file)]


def _fitting(format: ChatFormat, pairs: list[Any], seq_len: int) -> tuple[list[Any], int]:
    """The pairs whose answers both fit into a row with their prompt, and the number of those left out."""
    kept = [
        pair
        for pair in pairs
        if all(
            fits(format, [*pair["prompt"], *pair[side]], seq_len, pair.get("tools")) for side in ("chosen", "rejected")
        )
    ]
    return kept, len(pairs) - len(kept)


def _with_training_file(context: Context, counts: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The counts, of which training.json keeps those that other stages and the report read."""
    if is_first():
        text = json.dumps({key: counts[key] for key in keys}, indent=2)
        (context.out / "training.json").write_text(text + "\n", encoding="utf-8")
    return counts


def _steps_of(folder: Path) -> int:
    steps: int = json.loads((folder / "training.json").read_text(encoding="utf-8"))["steps"]
    return steps
