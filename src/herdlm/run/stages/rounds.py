"""Stages of a round that make its data: answers drawn and verified, pairs, the best answers, and their cleaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.align.bank.tasks import Question, questions
from herdlm.align.config import PreferencesConfig, RejectionConfig
from herdlm.align.preferences import annotate
from herdlm.align.samples.select import select
from herdlm.align.samples.select_config import SelectConfig
from herdlm.base.json_lines import read_json_lines, write_json_lines
from herdlm.base.seeds import derive_seed, stream
from herdlm.run.stage import Context
from herdlm.run.stages.answers import drawn, verified
from herdlm.run.stages.data import load_bank

SAMPLES, KEPT, PAIRS, HELD_OUT_PAIRS = "samples.jsonl", "kept.jsonl", "pairs.jsonl", "held_out_pairs.jsonl"
HELD_OUT_PERCENT = 10.0  # of the prompts, whose pairs measure the reward model


def samples_stage(context: Context) -> dict[str, Any]:
    """Draw several answers of the current model to each of the round's prompts."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    rows = _draw(context, config.prompts, config)
    write_json_lines(context.out / SAMPLES, rows)
    return {"prompts": len(rows), "samples": sum(len(row["samples"]) for row in rows)}


def verdicts_stage(context: Context) -> dict[str, Any]:
    """Verify the answers that a program can check, and pair right ones with wrong ones to train a reward model on."""
    rows = verified(read_json_lines(context.inputs["samples"] / SAMPLES))
    write_json_lines(context.out / SAMPLES, rows)
    pairs = select(rows, SelectConfig(keep_per_prompt=0)).pairs
    seed = context.seed("held out")
    held_out = [pair for pair in pairs if is_held_out(pair["lineage"]["prompt"], seed, HELD_OUT_PERCENT)]  # type: ignore[typeddict-item]
    kept = [pair for pair in pairs if not is_held_out(pair["lineage"]["prompt"], seed, HELD_OUT_PERCENT)]  # type: ignore[typeddict-item]
    write_json_lines(context.out / PAIRS, kept)
    write_json_lines(context.out / HELD_OUT_PAIRS, held_out)
    return {**figures(rows), "pairs": len(kept), "held_out_pairs": len(held_out)}


def preferences_stage(context: Context) -> dict[str, Any]:
    """Draw answers to new prompts and have the annotator rank and correct them; here the tasks' verifier annotates."""
    config = PreferencesConfig.model_validate(context.stage.settings["preferences"])
    rows = verified(_draw(context, config.prompts, config))
    annotations = annotate(rows, config, source=context.stage.options["source"], seed=context.seed("annotate"))
    write_json_lines(context.out / PAIRS, annotations.pairs)
    write_json_lines(context.out / HELD_OUT_PAIRS, annotations.held_out)
    write_json_lines(context.out / "edits.jsonl", annotations.edits)
    return annotations.counts


def select_stage(context: Context) -> dict[str, Any]:
    """Keep the best answer to each prompt by verdict and reward, and pair good ones with worse ones."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    rows = read_json_lines(context.inputs["samples"] / SAMPLES)
    if "reward" in context.inputs:
        rows = rewarded(rows, context.inputs["reward"], context)
    if config.choose == "random":
        rows = [_one_at_random(row, context.seed("choose")) for row in rows]
    share = config.keep_share_unverified if config.choose == "best" else 1.0
    found = select(rows, SelectConfig(keep_per_task=config.keep_per_task, share_unverified=share))
    write_json_lines(context.out / KEPT, found.kept)
    write_json_lines(context.out / PAIRS, found.pairs)
    return found.counts


def quality_stage(context: Context) -> dict[str, Any]:
    """Clean the kept answers: each that is dropped has a reason."""
    raise NotImplementedError


def prompts_of(context: Context, count: int) -> list[dict[str, Any]]:
    """The prompts of a stage, at most ``count`` of each source: new questions of the bank, and a choice of the user's."""
    found: list[dict[str, Any]] = []
    if "bank" in context.inputs:
        found += map(as_prompt, questions(load_bank(context.inputs["bank"]), count, seed=context.seed(), name="prompts"))
    if "files" in context.inputs:
        prompts = read_json_lines(context.inputs["files"] / "prompts.jsonl")
        order = stream(context.seed("prompts"), "prompts").permutation(len(prompts))[:count]
        found += [prompts[number] for number in order]
    return found


def held_out_prompts(inputs: dict[str, Path], name: str) -> list[dict[str, Any]]:
    """The prompts of all sources that were held out for ``name``: "gate" or "exam"."""
    folders = [inputs[role] for role in ("bank", "files") if role in inputs]
    return [row for folder in folders for row in read_json_lines(folder / f"{name}.jsonl")]


def is_held_out(name: str, seed: int, percent: float) -> bool:
    """Whether what has this name is among a held-out ``percent``; a hash decides."""
    return derive_seed(seed, name) % 1_000_000 < percent * 10_000


def as_prompt(question: Question) -> dict[str, Any]:
    """A question of the bank as a prompt, which only some tasks have a verifier for."""
    return question.as_prompt()


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many prompts and samples there are, and the share of right ones by task and in all."""
    judged = [[s["verdict"]["passed"] for s in row["samples"]] for row in rows if row.get("verifier")]
    right = sum(map(sum, judged))
    samples = sum(map(len, judged))
    return {
        "prompts": len(rows),
        "samples": sum(len(row["samples"]) for row in rows),
        "verified_samples": samples,
        "right_share": round(right / samples, 4) if samples else None,
        "any_right_share": round(sum(map(any, judged)) / len(judged), 4) if judged else None,
    }
