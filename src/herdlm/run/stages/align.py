"""Stages of post-training: demonstrations, rounds, their controls, and teaching the small model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from herdlm.align.bank.answers import sample_answers
from herdlm.align.bank.tasks import Question, questions
from herdlm.align.config import DpoConfig, PreferencesConfig, RejectionConfig, RewardConfig, SftConfig
from herdlm.align.defaults import Method
from herdlm.align.dpo_training import train_dpo
from herdlm.align.files import Data
from herdlm.align.job import FinetuneJob, Run
from herdlm.align.open_run import open_run
from herdlm.align.preferences import annotate
from herdlm.align.rejection import best_answers
from herdlm.align.reward import score_answers
from herdlm.align.reward_training import train_reward
from herdlm.align.reward_workers import open_reward_model
from herdlm.align.sft import train_sft
from herdlm.base.json_lines import read_json_lines, write_json_lines
from herdlm.data.useless import digest
from herdlm.evaluate.engines import open_engines
from herdlm.parallel.processes import is_first
from herdlm.run.stage import Context, on_processes
from herdlm.run.stages.data import load_bank
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import fits
from herdlm.tokens.thumbs import thumbs_of


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
    counts = train_sft(run, config, Data(dialogs, [], {"parts": parts, "too_long": too_long}))
    return _with_training_file(context, counts, ("steps", "dialogs", "parts", "too_long"))


def preferences_stage(context: Context) -> dict[str, Any]:
    """Sample the current model on new prompts and have the annotator rank the answers."""
    config = PreferencesConfig.model_validate(context.stage.settings["preferences"])
    asked, answers = _sample(context, config.prompts, config.samples, config.temperature, config.max_answer_tokens)
    annotations = annotate(asked, answers, config, source=context.stage.inputs["model"], seed=context.seed("annotate"))
    write_json_lines(context.out / "pairs.jsonl", annotations.pairs)
    write_json_lines(context.out / "held_out_pairs.jsonl", annotations.held_out)
    write_json_lines(context.out / "edits.jsonl", annotations.edits)
    return annotations.counts


@on_processes
def reward_stage(context: Context) -> dict[str, Any]:
    """Train the reward model on the last rounds' pairs."""
    config = RewardConfig.model_validate(context.stage.settings["reward"])
    run = _open_run(context, "reward", config, "model")
    pairs, too_long = _fitting(run.format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    # Another round may have trained on a prompt that this round holds out: it is no longer held out.
    trained = {digest(pair["prompt"]) for pair in pairs}
    measured_with, _ = _fitting(run.format, _gather(context, "preferences", "held_out_pairs.jsonl"), config.seq_len)
    held_out = [pair for pair in measured_with if digest(pair["prompt"]) not in trained]
    data = Data(pairs, held_out, {"held_out_pairs": len(held_out), "too_long": too_long})
    counts = train_reward(run, config, data, rank_training=True)
    figures = {"train_accuracy": counts.pop("train_accuracy", None)}
    figures["held_out_accuracy"] = counts.get("held_out", {}).get("accuracy")
    return counts | {name: [round(v, 4) for v in each.values()] for name, each in figures.items() if each}


def samples_stage(context: Context) -> dict[str, Any]:
    """Sample several answers of the current model to new prompts, for rejection sampling."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    asked, answers = _sample(context, config.prompts, config.samples, config.temperature, config.max_answer_tokens)
    rows = [
        {"task": q.task, "prompt": q.prompt, "answer": q.answer, "samples": given}
        for q, given in zip(asked, answers, strict=True)
    ]
    write_json_lines(context.out / "samples.jsonl", rows)
    return {"prompts": len(rows), "samples": sum(len(given) for given in answers)}


def select_stage(context: Context) -> dict[str, Any]:
    """Keep the best samples by verifier and reward model."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    rows = read_json_lines(context.inputs["samples"] / "samples.jsonl")
    asked = [Question(row["task"], row["prompt"], row["answer"]) for row in rows]
    answers = [row["samples"] for row in rows]
    format = ChatFormat.load(context.inputs["reward"])
    with open_reward_model(context.inputs["reward"], context.engines) as model:
        rewards = score_answers(
            model, format, asked, answers, seq_len=context.stage.settings["reward_seq_len"], title=context.stage.name
        )
    kept, counts = best_answers(asked, answers, rewards, config, source=context.stage.options["source"])
    write_json_lines(context.out / "kept.jsonl", kept)
    return counts


@on_processes
def dpo_stage(context: Context) -> dict[str, Any]:
    """Train the round's fine-tuned model with DPO; the model it starts from is the reference."""
    config = DpoConfig.model_validate(context.stage.settings["dpo"])
    run = _open_run(context, "dpo", config, "model")
    pairs, too_long = _fitting(run.format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    items: list[Any] = thumbs_of(pairs) if config.loss == "kto" else pairs
    counts = train_dpo(run, config, Data(items, [], {"pairs": len(pairs), "too_long": too_long}))
    return _with_training_file(context, counts, ("steps", "pairs", "too_long"))


def _open_run(
    context: Context,
    method: Method,
    config: SftConfig | RewardConfig | DpoConfig,
    model: str,
    *,
    steps: int | None = None,
) -> Run:
    """The run of a stage that trains the model of the input ``model``, in the layout that the recipe gives."""
    recipe = context.recipe
    assert recipe.align
    job = FinetuneJob(
        model=context.inputs[model],
        out=context.out,
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
        section="align.seed_sft" if context.stage.name == "seeds-sft" else f"align.{method}",
        writes_figures=False,
    )


def _sample(
    context: Context, prompts: int, samples: int, temperature: float, max_tokens: int
) -> tuple[list[Question], list[list[str]]]:
    asked = questions(load_bank(context.inputs["bank"]), prompts, seed=context.seed(), name="prompts")
    with closing(open_engines(context.inputs["model"], context.engines)) as engines:
        answers = sample_answers(
            engines,
            ChatFormat.load(context.inputs["model"]),
            asked,
            samples=samples,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=context.seed("sampling"),
            title=context.stage.name,
        )
    return asked, answers


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
