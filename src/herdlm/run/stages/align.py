"""Stages of post-training: demonstrations, rounds, their controls, and teaching the small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from herdlm.align.bank.answers import SEQUENCES_AT_ONCE, sample_answers
from herdlm.align.bank.tasks import Question, questions
from herdlm.align.config import DpoConfig, PreferencesConfig, RejectionConfig, RewardConfig, SftConfig
from herdlm.align.dpo import objective_of, prepare
from herdlm.align.preferences import annotate
from herdlm.align.rejection import best_answers
from herdlm.align.reward import rank_accuracy, score_answers
from herdlm.align.reward_training import EDITED, open_batches
from herdlm.base.json_lines import read_json_lines, write_json_lines
from herdlm.data.useless import digest
from herdlm.evaluate.intervals import pass_rate
from herdlm.generate import Engine
from herdlm.model.hf import load_folder, load_for_training
from herdlm.model.start import reward_model_from
from herdlm.model.transformer import Transformer
from herdlm.run.stage import Context
from herdlm.run.stages.data import load_bank
from herdlm.tokens.batch import Batches
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches, fits
from herdlm.tokens.thumbs import thumbs_of
from herdlm.train.loop import TrainResult, train
from herdlm.train.objectives import NextToken, Objective
from herdlm.train.own_objective import open_objective
from herdlm.train.preferences import Reward
from herdlm.train.save import save_model


def sft_stage(context: Context) -> dict[str, Any]:
    """Fine-tune the base model on the demonstrations and the stage's other data.

    A control trains for as many steps as the stages in the inputs whose roles begin with "like-", added up.
    """
    options = context.stage.options
    config = SftConfig.model_validate(context.stage.settings["sft"])
    format = ChatFormat.load(context.inputs["base"])
    dialogs, parts, too_long = [], {}, 0
    for role, file, repeats in options["data"]:
        rows = read_json_lines(context.inputs[role] / file)
        fitting = [row for row in rows if fits(format, row["messages"], config.seq_len, row.get("tools"))]
        too_long += len(rows) - len(fitting)
        parts[f"{role}/{file}"] = len(fitting)
        dialogs += fitting * repeats
    like = [folder for role, folder in context.inputs.items() if role.startswith("like-")]
    steps = sum(map(_steps_of, like)) if like else None
    batches = DialogBatches(
        format,
        dialogs,
        seq_len=config.seq_len,
        rows_per_step=config.rows_per_step,
        epochs=config.epochs,
        seed=context.seed("batches"),
        steps=steps,
    )
    model = load_for_training(context.inputs["base"], context.device)
    result = _train(context, model, config, NextToken(), batches)
    _save(context, model, config, "base")
    counts = {"steps": result.steps, "dialogs": len(dialogs), "parts": parts, "too_long": too_long}
    return _training_counts(context, counts)


def preferences_stage(context: Context) -> dict[str, Any]:
    """Sample the current model on new prompts and have the annotator rank the answers."""
    config = PreferencesConfig.model_validate(context.stage.settings["preferences"])
    asked, answers = _sample(context, config.prompts, config.samples, config.temperature, config.max_answer_tokens)
    annotations = annotate(asked, answers, config, source=context.stage.inputs["model"], seed=context.seed("annotate"))
    write_json_lines(context.out / "pairs.jsonl", annotations.pairs)
    write_json_lines(context.out / "held_out_pairs.jsonl", annotations.held_out)
    write_json_lines(context.out / "edits.jsonl", annotations.edits)
    return annotations.counts


def reward_stage(context: Context) -> dict[str, Any]:
    """Train the reward model on the last rounds' pairs."""
    config = RewardConfig.model_validate(context.stage.settings["reward"])
    format = ChatFormat.load(context.inputs["model"])
    given, too_long = _fitting(format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    pairs = [pair for pair in given if config.use_edited or pair.get("rating") != EDITED]
    model = reward_model_from(load_for_training(context.inputs["model"], context.device), context.seed("head"))
    training = open_batches(format, pairs, config, seed=context.seed("batches"))
    _train(context, model, config, Reward(), training)
    _save(context, model, config, "model")
    # Another round may have trained on a prompt that this round holds out: it is no longer held out.
    trained = {digest(pair["prompt"]) for pair in given}
    measured_with, _ = _fitting(format, _gather(context, "preferences", "held_out_pairs.jsonl"), config.seq_len)
    held_out = [pair for pair in measured_with if digest(pair["prompt"]) not in trained]
    counts: dict[str, Any] = {"pairs": len(pairs), "held_out_pairs": len(held_out), "too_long": too_long}
    for name, measured in (("train", pairs), ("held_out", held_out)):
        if measured:
            ranked = rank_accuracy(model, open_batches(format, measured, config, seed=0))
            estimate = pass_rate(ranked)
            counts[f"{name}_accuracy"] = [round(v, 4) for v in (estimate.value, estimate.low, estimate.high)]
    return counts


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
    model = load_folder(context.inputs["reward"], context.device)
    format = ChatFormat.load(context.inputs["reward"])
    rewards = score_answers(
        model, format, asked, answers, seq_len=context.stage.settings["reward_seq_len"], title=context.stage.name
    )
    kept, counts = best_answers(asked, answers, rewards, config, source=context.stage.options["source"])
    write_json_lines(context.out / "kept.jsonl", kept)
    return counts


def dpo_stage(context: Context) -> dict[str, Any]:
    """Train the round's fine-tuned model with DPO; the model it starts from is the reference."""
    config = DpoConfig.model_validate(context.stage.settings["dpo"])
    format = ChatFormat.load(context.inputs["model"])
    model = load_for_training(context.inputs["model"], context.device)
    pairs, too_long = _fitting(format, _gather(context, "preferences", "pairs.jsonl"), config.seq_len)
    items: list[Any] = thumbs_of(pairs) if config.loss == "kto" else pairs
    batches = prepare(model, format, items, config, seed=context.seed("batches"))
    result = _train(context, model, config, objective_of(config), batches)
    _save(context, model, config, "model")
    return _training_counts(context, {"steps": result.steps, "pairs": len(pairs), "too_long": too_long})


def _train(
    context: Context,
    model: Transformer,
    config: SftConfig | RewardConfig | DpoConfig,
    default: Objective,
    batches: Batches,
) -> TrainResult:
    """Train the stage's model on the objective that ``config`` names, or on ``default``."""
    return train(
        model,
        open_objective(config.objective, f"{_section_of(context)}.objective", default),
        batches,
        config.train,
        work=context.work,
        title=context.stage.name,
        track=context.recipe.track,
    )


def _save(context: Context, model: Transformer, config: SftConfig | RewardConfig | DpoConfig, base: str) -> None:
    """Write the stage's model, with the tokenizer of the input ``base``."""
    save_model(model, context.out, tokenizer=context.inputs[base], work=context.work, dtype=config.train.save_dtype)


def _section_of(context: Context) -> str:
    """The section of the recipe that a fine-tuning stage follows."""
    if context.stage.name == "seeds-sft":
        return "align.seed_sft"
    return next(f"align.{name}" for name in ("sft", "reward", "dpo") if name in context.stage.settings)


def _sample(
    context: Context, prompts: int, samples: int, temperature: float, max_tokens: int
) -> tuple[list[Question], list[list[str]]]:
    asked = questions(load_bank(context.inputs["bank"]), prompts, seed=context.seed(), name="prompts")
    engine = Engine.load(context.inputs["model"], device=context.device, dtype="float32", max_batch=SEQUENCES_AT_ONCE)
    answers = sample_answers(
        engine,
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


def _training_counts(context: Context, counts: dict[str, Any]) -> dict[str, Any]:
    (context.out / "training.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts


def _steps_of(folder: Path) -> int:
    steps: int = json.loads((folder / "training.json").read_text(encoding="utf-8"))["steps"]
    return steps
