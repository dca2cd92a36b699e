"""Stages of a round that make its data: answers drawn and verified, pairs, the best answers, and their cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.align.bank.tasks import as_prompt, questions
from herdlm.align.config import PreferencesConfig, RejectionConfig
from herdlm.align.preferences import annotate
from herdlm.align.quality.card import UNKNOWN
from herdlm.align.quality.clean import publish
from herdlm.align.quality.config import QualityConfig
from herdlm.align.quality.control import control
from herdlm.align.quality.embed import Embedder
from herdlm.align.samples.options import SampleOptions
from herdlm.align.samples.rows import SampledRow
from herdlm.align.samples.select import select
from herdlm.align.samples.select_config import SelectConfig
from herdlm.base.artifact import hash_file
from herdlm.base.json_lines import read_json_lines, write_json_lines
from herdlm.base.seeds import derive_seed, stream
from herdlm.run.stage import Context
from herdlm.run.stages.answers import drawn, rewarded, verified
from herdlm.run.stages.data import load_bank
from herdlm.tokens.chat import text_of

SAMPLES, KEPT, PAIRS, HELD_OUT_PAIRS = "samples.jsonl", "kept.jsonl", "pairs.jsonl", "held_out_pairs.jsonl"
HELD_OUT_PERCENT = 10  # of the prompts, the same in all rounds, whose pairs measure the reward model


def samples_stage(context: Context) -> dict[str, Any]:
    """Draw several answers of the current model to each of the round's prompts."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    rows = _draw(context, prompts_of(context, config.prompts), config)
    write_json_lines(context.out / SAMPLES, rows)
    return {"prompts": len(rows), "samples": sum(len(row["samples"]) for row in rows)}


def verdicts_stage(context: Context) -> dict[str, Any]:
    """Verify the answers that a program can check, and pair right ones with wrong ones to train a reward model on."""
    rows = read_json_lines(context.inputs["samples"] / SAMPLES)
    verified(context, rows)
    write_json_lines(context.out / SAMPLES, rows)
    pairs = select(rows, SelectConfig(keep_per_prompt=0, pairs_per_task=context.stage.settings["pairs_per_task"])).pairs
    sides: dict[bool, list[Any]] = {True: [], False: []}
    pair: Any
    for pair in pairs:
        prompt = pair["lineage"]["prompt"]
        sides[derive_seed(context.recipe.seed, "pairs", prompt) % 100 < HELD_OUT_PERCENT].append(pair)
    held_out, kept = sides[True], sides[False]
    write_json_lines(context.out / PAIRS, kept)
    write_json_lines(context.out / HELD_OUT_PAIRS, held_out)
    return {**figures(rows), "pairs": len(kept), "held_out_pairs": len(held_out)}


def preferences_stage(context: Context) -> dict[str, Any]:
    """Draw answers to new prompts and have the annotator rank and correct them; here the tasks' verifier annotates."""
    config = PreferencesConfig.model_validate(context.stage.settings["preferences"])
    rows = _draw(context, prompts_of(context, config.prompts, annotated=True), config)
    verified(context, rows)
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
        rewarded(context, rows, context.inputs["reward"], context.stage.settings["reward_seq_len"])
    found = select(rows, selection(config))
    if config.choose == "random":
        some = [_one_at_random(row, context.seed("choose")) for row in rows]
        found.kept = select(some, selection(config.model_copy(update={"keep_share_unverified": 1.0}))).kept
    write_json_lines(context.out / KEPT, found.kept)
    write_json_lines(context.out / PAIRS, found.pairs)
    return found.counts


def quality_stage(context: Context) -> dict[str, Any]:
    """Clean the kept answers: rules, language, topics, quality, duplicates, contamination; each drop has a reason."""
    config = QualityConfig.model_validate(context.stage.settings["quality"])
    rows = read_json_lines(context.inputs["kept"] / KEPT)
    held_out = {
        name: [text_of(row["prompt"][-1]) for row in held_out_prompts(context.inputs, name)]
        for name in ("gate", "exam")
    }
    embed = Embedder(
        context.inputs["model"], store=context.work / "embeddings", device=context.device, quiet=context.quiet
    )
    found = control(
        rows,
        config,
        embed=embed,
        against={name: texts for name, texts in held_out.items() if texts},
        seed=context.seed("quality"),
        quiet=context.quiet,
    )
    kept = context.inputs["kept"] / KEPT
    inputs = {context.stage.inputs["kept"]: {"rows": len(rows), "license": UNKNOWN, "content": hash_file(kept)}}
    settings = context.stage.settings["quality"]
    publish(context.out, found, "dialogs", name=context.stage.name, inputs=inputs, settings=settings)
    (context.out / "dialogs.jsonl").rename(context.out / KEPT)
    return found.funnel


def _draw(
    context: Context, rows: list[dict[str, Any]], config: RejectionConfig | PreferencesConfig
) -> list[SampledRow]:
    options = SampleOptions(
        samples=config.samples,
        temperatures=(config.temperature,),
        max_tokens=config.max_answer_tokens,
        seed=context.seed("sampling"),
    )
    found = drawn(context, context.inputs["model"], rows, options)
    for row in found:
        for sample in row["samples"]:
            sample["model"] = context.stage.options["source"]
    return found


def selection(config: RejectionConfig) -> SelectConfig:
    """How a round selects."""
    return SelectConfig(
        keep_per_prompt=config.keep_per_prompt,
        keep_per_task=config.keep_per_task,
        share_unverified=config.keep_share_unverified,
        diverse=config.keep_per_prompt > 1,
        pairs_per_task=config.pairs_per_task,
    )


def _one_at_random(row: SampledRow, seed: int) -> SampledRow:
    """The row with one of its answers that are not empty, without verdict and reward."""
    given = [s for s in row["samples"] if s["answer"].strip() and s["finish"] == "stop"]
    if not given:
        return {**row, "samples": []}
    chosen = given[derive_seed(seed, row["id"]) % len(given)]
    bare: Any = {key: value for key, value in chosen.items() if key not in ("verdict", "reward")}
    return {**row, "samples": [bare]}


def prompts_of(context: Context, count: int, *, annotated: bool = False) -> list[dict[str, Any]]:
    """The prompts of a stage, at most ``count`` of each source: new questions of the bank, and a choice of the user's.

    Args:
        annotated: all questions of the bank have a verifier, which stands for an annotator.
    """
    found: list[dict[str, Any]] = []
    if "bank" in context.inputs:
        asked = questions(load_bank(context.inputs["bank"]), count, seed=context.seed(), name="prompts")
        found += [as_prompt(question, annotated=annotated) for question in asked]
    if "files" in context.inputs:
        prompts = read_json_lines(context.inputs["files"] / "prompts.jsonl")
        order = stream(context.seed("prompts"), "prompts").permutation(len(prompts))[:count]
        found += [prompts[number] for number in order]
    return found


def held_out_prompts(inputs: dict[str, Path], name: str, most: int | None = None) -> list[dict[str, Any]]:
    """The prompts that were held out for ``name``, "gate" or "exam", at most so many of each source."""
    folders = [inputs[role] for role in ("bank", "files") if role in inputs]
    return [row for folder in folders for row in read_json_lines(folder / f"{name}.jsonl")[:most]]


def figures(rows: Sequence[SampledRow]) -> dict[str, Any]:
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
