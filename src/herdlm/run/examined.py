"""The models of a run that are examined on held-out prompts or handed to the user, and what the report calls them."""

from __future__ import annotations

from herdlm.recipe import Recipe
from herdlm.run.post_training import base_of


def result_models(recipe: Recipe) -> dict[str, str]:
    """The resulting models of a run: the name of each under ``models/``, and the stage that makes it."""
    flagship, small = recipe.herd.flagship, recipe.herd.small
    models = {flagship: "flagship-bf16"}
    if recipe.quantize:
        models[f"{flagship}-fp8"] = "flagship-fp8"
    if small:
        models[small] = "small-bf16"
    return models


def examined(recipe: Recipe) -> dict[str, str]:
    """The stages with a model to examine on held-out prompts, and its label in the report. Needs [align]."""
    align, wanted, small = recipe.align, recipe.experiments, recipe.herd.small
    if align is None or not align.examines:
        return {}
    rounds = range(1, align.rounds + 1)
    given = "pre-trained" if recipe.pretrain else "as given"
    labels = {base_of(recipe): f"flagship, {given}", "seeds-sft": "flagship, demonstrations"}
    for r in rounds:
        labels |= {f"round-{r}-{step}": f"flagship, round {r} {step.upper()}" for step in ("sft", "dpo")}
        if align.gate:
            labels[f"round-{r}-gate"] = f"flagship after round {r}'s gate"
    if wanted.control_sft:
        edits = " and edits" if align.preferences else ""
        labels["control-sft"] = f"control: demonstrations{edits}, equal steps"
    trained = [part for part in wanted.ablations if part in ("rejection", "quality", "reward")]
    labels |= {f"without-{part}-dpo": f"round 1 without {ABLATIONS[part]}" for part in trained}
    labels |= {f"repeat-{n}-dpo": f"the last round with other seeds, {n}" for n in range(1, wanted.repeats + 1)}
    if wanted.grpo:
        labels["grpo"] = "GRPO in place of the last round"
    if wanted.dpo_nll:
        labels["dpo-with-nll"] = "DPO at a high rate, with NLL"
        labels["dpo-without-nll"] = "DPO at a high rate, without NLL"
    if small:
        labels[f"pretrain-{small}"] = f"small, {given}"
    if wanted.small_control:
        labels["small-control"] = "small, demonstrations, equal steps"
    if align.teach:
        labels["small-taught"] = "small, flagship's answers"
    labels["flagship-bf16"] = "flagship BF16"
    if recipe.quantize:
        labels["flagship-fp8"] = "flagship FP8"
    return labels


ABLATIONS = {
    "rejection": "rejection sampling (a random answer)",
    "quality": "quality control",
    "reward": "the reward model",
    "dpo": "DPO",
    "averaging": "averaging",
}
"""What each ablation of round 1 leaves out."""
