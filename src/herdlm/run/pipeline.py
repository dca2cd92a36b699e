"""The stages of a recipe, in the order of the story: what each needs, reads of the recipe, and makes."""

from __future__ import annotations

from typing import Any

from herdlm.base.errors import InputError
from herdlm.recipe import Recipe
from herdlm.run.stage import Stage

PREFERENCES, SFT, DPO = (
    "herdlm.run.stages.align:preferences_stage",
    "herdlm.run.stages.align:sft_stage",
    "herdlm.run.stages.align:dpo_stage",
)


KEEPING = ("keep_per_task", "keep_share_unverified")  # of rejection sampling: read after the samples are drawn


def plan(recipe: Recipe) -> list[Stage]:
    """All stages of a recipe; a stage comes after those it needs."""
    stages = [*_data(recipe), *_pretraining(recipe), *_rounds(recipe), *_controls(recipe), *_lesson(recipe)]
    stages += _quantization(recipe)
    stages += [_examination(recipe, name) for name in examined(recipe)]
    stages.append(_report(recipe, stages))
    assert len({stage.name for stage in stages}) == len(stages)
    return stages


def last_round(recipe: Recipe) -> str:
    """The stage that makes the finished flagship."""
    return f"round-{recipe.align.rounds}-dpo"


def result_models(recipe: Recipe) -> dict[str, str]:
    """The models a run is for, by the name a user calls them, and the stages that make them."""
    flagship, small = recipe.herd.flagship, recipe.herd.small
    return {flagship: "flagship-bf16", f"{flagship}-fp8": "flagship-fp8", small: "small-bf16"}


def examined(recipe: Recipe) -> dict[str, str]:
    """Stages whose model is examined, each with what it is called in the report."""
    rounds = range(1, recipe.align.rounds + 1)
    return {
        f"pretrain-{recipe.herd.flagship}": "flagship, pre-trained",
        "seeds-sft": "flagship, demonstrations",
        **{f"round-{r}-{step}": f"flagship, round {r} {step.upper()}" for r in rounds for step in ("sft", "dpo")},
        "control-sft": "control: demonstrations and edits, equal steps",
        "dpo-with-nll": "DPO at a high rate, with NLL",
        "dpo-without-nll": "DPO at a high rate, without NLL",
        f"pretrain-{recipe.herd.small}": "small, pre-trained",
        "small-control": "small, demonstrations, equal steps",
        "small-taught": "small, flagship's answers",
        "flagship-bf16": "flagship BF16",
        "flagship-fp8": "flagship FP8",
    }


def _dump(section: Any) -> Any:
    return section.model_dump(mode="json")


def _without(section: Any, *keys: str) -> Any:
    """A section without the keys that change how its work is done, but not what comes of it."""
    return {key: value for key, value in _dump(section).items() if key not in keys}


def _data(recipe: Recipe) -> list[Stage]:
    split = {"tokens": _dump(recipe.tokens)}
    only_split = {"tokens": {key: value for key, value in split["tokens"].items() if not key.startswith("skill")}}
    return [
        Stage(
            "curate",
            "documents",
            "herdlm.run.stages.data:curate_stage",
            version=2,
            settings={"curate": recipe.curate.fingerprint()},
            files=recipe.data.sources,
            aids=recipe.curate.aids,
        ),
        Stage(
            "tokenizer",
            "tokenizer",
            "herdlm.run.stages.data:tokenizer_stage",
            inputs={"documents": "curate"},
            settings={"tokenizer": _dump(recipe.tokenizer), **only_split},
        ),
        Stage(
            "bank",
            "tasks",
            "herdlm.run.stages.data:bank_stage",
            inputs={"documents": "curate", "tokenizer": "tokenizer"},
            settings={"bank": _dump(recipe.bank), **only_split},
        ),
        Stage(
            "tokens",
            "tokens",
            "herdlm.run.stages.data:tokens_stage",
            inputs={"documents": "curate", "tokenizer": "tokenizer", "bank": "bank"},
            settings=split,
        ),
    ]


def _pretraining(recipe: Recipe) -> list[Stage]:
    herd = recipe.herd
    shared = _dump(herd)
    models = shared.pop("models")
    for model in models.values():
        if model["distill"] is None:  # so that a run without teachers is what it was before there were any
            model.pop("distill")
    for role in ("flagship", "small", "ladder"):
        shared.pop(role)

    pretraining = _dump(recipe.pretrain)
    pretraining["train"].pop("checkpoint_every_steps")

    def pretrain(name: str, after: tuple[str, ...] = ()) -> Stage:
        inputs = {"tokens": "tokens", "tokenizer": "tokenizer"}
        distill = herd.models[name].distill
        if distill is not None:
            if distill.teacher is None:
                raise InputError(
                    f"herd.models.{name}.distill names no teacher, and a whole run has no folder for it",
                    f"Set herd.models.{name}.distill.teacher to a model of the herd, or use herdlm train --teacher",
                )
            inputs["teacher"] = f"pretrain-{distill.teacher}"
        return Stage(
            f"pretrain-{name}",
            "model",
            "herdlm.pretrain.pretrain:pretrain_stage",
            inputs=inputs,
            settings={"herd": shared | {"model": models[name]}, "pretrain": pretraining},
            options={"model": name},
            seed_names=("pretrain",),
            after=after,
        )

    forecast = Stage(
        "forecast",
        "forecast",
        "herdlm.pretrain.pretrain:forecast_stage",
        inputs={name: f"pretrain-{name}" for name in herd.ladder},
        settings={"forecast": _dump(recipe.forecast), "flagship": models[herd.flagship], "tied": herd.tied_embeddings},
    )
    ladder = [pretrain(name) for name in herd.ladder]
    small = [pretrain(herd.small)] if herd.small not in herd.ladder else []
    # The forecast is written down before the flagship trains; that is an order, not an input.
    return _in_order([*ladder, forecast, pretrain(herd.flagship, after=("forecast",)), *small])


def _in_order(stages: list[Stage]) -> list[Stage]:
    """The same stages, a teacher before its pupils."""
    by_name, placed = {stage.name: stage for stage in stages}, dict[str, Stage]()

    def place(stage: Stage) -> None:
        for name in sorted(stage.needs & by_name.keys() - placed.keys()):
            place(by_name[name])
        placed[stage.name] = stage

    for stage in stages:
        if stage.name not in placed:
            place(stage)
    return list(placed.values())


def _rounds(recipe: Recipe) -> list[Stage]:
    align = recipe.align
    base = f"pretrain-{recipe.herd.flagship}"
    stages = [
        Stage(
            "seeds-sft",
            "model",
            SFT,
            inputs={"base": base, "seeds": "bank"},
            settings={"sft": _dump(align.seed_sft)},
            options={"data": [["seeds", "seeds.jsonl", 1]]},
        )
    ]
    current = "seeds-sft"
    for r in range(1, align.rounds + 1):
        remembered = range(max(1, r - align.remember_rounds + 1), r + 1)
        preferences = {f"preferences-{k}": f"round-{k}-preferences" for k in remembered}
        edits = [[f"preferences-{k}", "edits.jsonl", align.seed_repeats] for k in range(1, r + 1)]
        all_preferences = {f"preferences-{k}": f"round-{k}-preferences" for k in range(1, r + 1)}
        stages += [
            Stage(
                f"round-{r}-preferences",
                "preferences",
                PREFERENCES,
                inputs={"bank": "bank", "model": current},
                settings={"preferences": _dump(align.preferences)},
            ),
            Stage(
                f"round-{r}-samples",
                "samples",
                "herdlm.run.stages.align:samples_stage",
                inputs={"bank": "bank", "model": current},
                settings={"rejection": _without(align.rejection, *KEEPING)},
            ),
            Stage(
                f"round-{r}-reward",
                "reward-model",
                "herdlm.run.stages.align:reward_stage",
                inputs={"model": current, **preferences},
                settings={"reward": _dump(align.reward)},
            ),
            Stage(
                f"round-{r}-select",
                "dialogs",
                "herdlm.run.stages.align:select_stage",
                inputs={"samples": f"round-{r}-samples", "reward": f"round-{r}-reward"},
                settings={"rejection": _dump(align.rejection), "reward_seq_len": align.reward.seq_len},
                options={"source": current},
            ),
            Stage(
                f"round-{r}-sft",
                "model",
                SFT,
                inputs={"base": base, "seeds": "bank", **all_preferences}
                | {f"kept-{k}": f"round-{k}-select" for k in remembered},
                settings={"sft": _dump(align.sft)},
                options={
                    "data": [
                        ["seeds", "seeds.jsonl", align.seed_repeats],
                        *edits,
                        *([f"kept-{k}", "kept.jsonl", 1] for k in remembered),
                    ]
                },
            ),
            Stage(
                f"round-{r}-dpo",
                "model",
                DPO,
                inputs={"model": f"round-{r}-sft", **preferences},
                settings={"dpo": _dump(align.dpo)},
            ),
        ]
        current = f"round-{r}-dpo"
    return stages


def _controls(recipe: Recipe) -> list[Stage]:
    """What tells the rounds' worth: as many steps without them, and DPO without its likelihood term."""
    align = recipe.align
    rounds = range(1, align.rounds + 1)
    control = Stage(
        "control-sft",
        "model",
        SFT,
        inputs={"base": f"pretrain-{recipe.herd.flagship}", "seeds": "bank"}
        | {f"like-{step}": f"round-{align.rounds}-{step}" for step in ("sft", "dpo")}
        | {f"preferences-{k}": f"round-{k}-preferences" for k in rounds},
        settings={"sft": _dump(align.sft)},
        options={"data": [["seeds", "seeds.jsonl", 1], *([f"preferences-{k}", "edits.jsonl", 1] for k in rounds)]},
    )
    arms = []
    for name, weight in (("dpo-with-nll", align.dpo.nll_weight), ("dpo-without-nll", 0.0)):
        dpo = _dump(align.dpo) | {"nll_weight": weight}
        dpo["train"] |= {"peak_lr": align.dpo_ablation.peak_lr}
        arms.append(
            Stage(
                name,
                "model",
                DPO,
                inputs={"model": "round-1-sft", "preferences-1": "round-1-preferences"},
                settings={"dpo": dpo},
                seed_names=("dpo-ablation",),
            )
        )
    return [control, *arms]


def _lesson(recipe: Recipe) -> list[Stage]:
    """The flagship's filtered answers teach the small model; its control has as many steps on demonstrations."""
    align, base = recipe.align, f"pretrain-{recipe.herd.small}"
    rejection = _dump(align.teach.answers)
    asking = _without(align.teach.answers, *KEEPING)
    sft = {"sft": _dump(align.sft)}
    taught = Stage(
        "small-taught",
        "model",
        SFT,
        inputs={"base": base, "seeds": "bank", "answers": "lesson-select"},
        settings=sft,
        options={"data": [["seeds", "seeds.jsonl", align.teach.seed_repeats], ["answers", "kept.jsonl", 1]]},
    )
    return [
        Stage(
            "lesson-samples",
            "samples",
            "herdlm.run.stages.align:samples_stage",
            inputs={"bank": "bank", "model": last_round(recipe)},
            settings={"rejection": asking},
        ),
        Stage(
            "lesson-select",
            "dialogs",
            "herdlm.run.stages.align:select_stage",
            inputs={"samples": "lesson-samples", "reward": f"round-{align.rounds}-reward"},
            settings={"rejection": rejection, "reward_seq_len": align.reward.seq_len},
            options={"source": last_round(recipe)},
        ),
        taught,
        Stage(
            "small-control",
            "model",
            SFT,
            inputs={"base": base, "seeds": "bank", "like-sft": "small-taught"},
            settings=sft,
            options={"data": [["seeds", "seeds.jsonl", 1]]},
            seed_names=("small-taught",),
        ),
        Stage("small-bf16", "model", "herdlm.run.stages.models:export_stage", inputs={"model": "small-taught"}),
    ]


def _quantization(recipe: Recipe) -> list[Stage]:
    return [
        Stage("flagship-bf16", "model", "herdlm.run.stages.models:export_stage", inputs={"model": last_round(recipe)}),
        Stage(
            "flagship-fp8",
            "model",
            "herdlm.run.stages.models:quantize_stage",
            inputs={"model": "flagship-bf16"},
            settings={"quantize": _dump(recipe.quantize)},
        ),
        Stage(
            "compare-fp8",
            "divergence",
            "herdlm.run.stages.models:compare_stage",
            inputs={
                "original": "flagship-bf16",
                "changed": "flagship-fp8",
                "tokens": "tokens",
                "bank": "bank",
                "reward": f"round-{recipe.align.rounds}-reward",
            },
            settings={"seq_len": recipe.pretrain.seq_len},
        ),
    ]


def _examination(recipe: Recipe, model: str) -> Stage:
    return Stage(
        f"examine-{model}",
        "examination",
        "herdlm.run.stages.models:examine_stage",
        inputs={"model": model, "bank": "bank", "tokens": "tokens"},
        settings={"seq_len": recipe.pretrain.seq_len},
    )


def _report(recipe: Recipe, stages: list[Stage]) -> Stage:
    """The page at the end reads the manifests of everything before it."""
    return Stage(
        "report",
        "report",
        "herdlm.run.stages.report:report_stage",
        inputs={stage.name: stage.name for stage in stages},
        settings={"recipe": _dump(recipe)},
    )
