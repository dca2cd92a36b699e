"""Lists the stages of a recipe in order: the inputs of each, the part of the recipe it depends on, and its function.

A recipe with [data] has curation, tokenizer and tokens. Every recipe has the flagship: pre-trained, or imported from a
folder if there is no [pretrain]. The ladder with its forecast, the small model, post-training, FP8 and the experiments
are optional: a recipe has them if it has their section or key.
"""

from __future__ import annotations

from herdlm.base.errors import InputError
from herdlm.evaluate.task import load_task
from herdlm.pretrain.herd_config import SHAPE
from herdlm.recipe import Recipe
from herdlm.run.examined import examined, result_models
from herdlm.run.post_training import (
    base_of,
    experiments,
    finished_flagship,
    finished_small,
    post_training,
    prompt_sources,
    teaching,
)
from herdlm.run.settings import dump
from herdlm.run.stage import Stage

DATA, PRETRAIN, MODELS, BENCHMARKS, REPORT = (
    f"herdlm.run.stages.{module}" for module in ("data", "pretrain", "models", "benchmarks", "report")
)

MEASURED_SEQ_LEN = 1024  # of held-out text where nothing is pre-trained


def stages_of(recipe: Recipe) -> list[Stage]:
    """All stages of a recipe, each after those it needs.

    Raises:
        InputError: a part of the recipe needs pages, but there is no [data]; or a model starts from no model folder.
    """
    stages = [
        *_data(recipe),
        *_pretraining(recipe),
        *post_training(recipe),
        *experiments(recipe),
        *teaching(recipe),
        *_results(recipe),
    ]
    stages += [_examination(recipe, name) for name in examined(recipe)]
    stages += _benchmarks(recipe)
    stages.append(_report(recipe, stages))
    assert len({stage.name for stage in stages}) == len(stages)
    return stages


def _data(recipe: Recipe) -> list[Stage]:
    if recipe.data is None:
        needs = {"pretrain": recipe.pretrain is not None, "align": bool(recipe.align and recipe.align.uses_bank)}
        remedies = {
            "pretrain": "Add the section; herdlm train reads token shards, and needs none",
            "align": "Add the section, or name files of your own in [align.data]",
        }
        for section in (name for name, needed in needs.items() if needed):
            raise InputError(
                f"the recipe {recipe.name} has no [data], but a run needs pages for [{section}]", remedies[section]
            )
        return []
    tokens = {"tokens": dump(recipe.tokens)}
    split = {"tokens": {key: value for key, value in tokens["tokens"].items() if not key.startswith("skill")}}
    skills = recipe.tokens.skill_documents > 0
    stages = [
        Stage(
            "curate",
            "documents",
            f"{DATA}:curate_stage",
            version=2,
            settings={"curate": recipe.curate.fingerprint()},
            files=recipe.data.sources,
            aids=recipe.curate.aids,
        )
    ]
    published = recipe.tokenizer_folder()
    if published is None:
        stages.append(
            Stage(
                "tokenizer",
                "tokenizer",
                f"{DATA}:tokenizer_stage",
                inputs={"documents": "curate"},
                settings={"tokenizer": dump(recipe.tokenizer), **split},
            )
        )
    else:
        stages.append(Stage("tokenizer", "tokenizer", f"{DATA}:import_tokenizer_stage", aids=(str(published),)))
    if skills or (recipe.align and recipe.align.uses_bank):
        stages.append(
            Stage(
                "bank",
                "tasks",
                f"{DATA}:bank_stage",
                inputs={"documents": "curate", "tokenizer": "tokenizer"},
                settings={"bank": dump(recipe.bank), **split},
            )
        )
    inputs = {"documents": "curate", "tokenizer": "tokenizer"} | ({"bank": "bank"} if skills else {})
    stages.append(Stage("tokens", "tokens", f"{DATA}:tokens_stage", inputs=inputs, settings=tokens))
    return stages


def _pretraining(recipe: Recipe) -> list[Stage]:
    if recipe.pretrain is None:
        return _imports(recipe)
    herd = recipe.herd
    shared = dump(herd)
    models = shared.pop("models")
    for model in models.values():
        if model["distill"] is None:  # so that a run without teachers is what it was before there were any
            model.pop("distill")
    for role in ("flagship", "small", "ladder"):
        shared.pop(role)

    pretraining = dump(recipe.pretrain)
    pretraining["train"].pop("checkpoint_every_steps")
    if recipe.pretrain.objective is None:
        pretraining.pop("objective")
    else:
        pretraining["code"] = recipe.job(herd.flagship).code()

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
        if herd.models[name].shrink is not None:
            inputs["start"] = f"shrink-{name}"
        start = recipe.start_folder(name)
        if start is None and "start" not in inputs:
            shape = shared | {"model": models[name]}
        else:  # the folder has the shape; its content is in the fingerprint, wherever it lies
            without = ("from", "shrink", *SHAPE)
            shape = {"model": {key: value for key, value in models[name].items() if key not in without}}
        return Stage(
            f"pretrain-{name}",
            "model",
            f"{PRETRAIN}:pretrain_stage",
            inputs=inputs,
            settings={"herd": shape, "pretrain": pretraining},
            aids=() if start is None else (str(start),),
            options={"model": name},
            seed_names=("pretrain",),
            after=after,
        )

    stages = [pretrain(name) for name in herd.ladder]
    if herd.ladder:
        stages.append(
            Stage(
                "forecast",
                "forecast",
                f"{PRETRAIN}:forecast_stage",
                inputs={name: f"pretrain-{name}" for name in herd.ladder},
                settings={
                    "forecast": dump(recipe.forecast),
                    "flagship": models[herd.flagship],
                    "tied": herd.tied_embeddings,
                },
            )
        )
    # The forecast is recorded before the flagship trains, but the flagship does not read it.
    stages.append(pretrain(herd.flagship, after=("forecast",) if herd.ladder else ()))
    if herd.small and herd.small not in herd.ladder:
        stages.append(pretrain(herd.small))
    made = (herd.flagship, herd.small)
    stages += [_shrinking(recipe, name, "shrink") for name in made if name and herd.models[name].shrink]
    return _in_order(stages)


def _shrinking(recipe: Recipe, name: str, prefix: str) -> Stage:
    """Makes the model ``name`` from layers of another, as the stage PREFIX-NAME."""
    shrink = recipe.herd.models[name].shrink
    assert shrink is not None
    return Stage(
        f"{prefix}-{name}",
        "model",
        f"{PRETRAIN}:shrink_stage",
        inputs={"model": f"pretrain-{shrink.start}"},
        settings={"keep": list(recipe.kept_layers(name))},
    )


def _imports(recipe: Recipe) -> list[Stage]:
    """The models as the folders that they start from have them, or shrunk from one of these."""
    names = [name for name in (recipe.herd.flagship, recipe.herd.small) if name]
    return _in_order(
        [
            _shrinking(recipe, name, "pretrain")
            if recipe.herd.models[name].shrink
            else Stage(
                f"pretrain-{name}",
                "model",
                f"{PRETRAIN}:import_stage",
                aids=(str(recipe.start_folder(name)),),
                options={"model": name},
            )
            for name in names
        ]
    )


def _in_order(stages: list[Stage]) -> list[Stage]:
    """The same stages with each teacher before its students."""
    by_name, placed = {stage.name: stage for stage in stages}, dict[str, Stage]()

    def place(stage: Stage) -> None:
        for name in sorted(stage.needs & by_name.keys() - placed.keys()):
            place(by_name[name])
        placed[stage.name] = stage

    for stage in stages:
        if stage.name not in placed:
            place(stage)
    return list(placed.values())


def _results(recipe: Recipe) -> list[Stage]:
    """Exports the resulting models in BF16, and the flagship in FP8 with a comparison of the two."""
    stages = []
    if recipe.herd.small:
        stages.append(Stage("small-bf16", "model", f"{MODELS}:export_stage", inputs={"model": finished_small(recipe)}))
    stages.append(
        Stage("flagship-bf16", "model", f"{MODELS}:export_stage", inputs={"model": finished_flagship(recipe)})
    )
    if recipe.quantize is None:
        return stages
    stages.append(
        Stage(
            "flagship-fp8",
            "model",
            f"{MODELS}:quantize_stage",
            inputs={"model": "flagship-bf16"},
            settings={"quantize": dump(recipe.quantize)},
        )
    )
    compared = {"original": "flagship-bf16", "changed": "flagship-fp8", "tokens": "tokens"}
    if recipe.align and recipe.align.uses_bank:
        compared |= {"bank": "bank", "reward": f"round-{recipe.align.rounds}-reward"}
    if recipe.data:  # whose held-out text shows what FP8 changes
        settings = {"seq_len": _measured_seq_len(recipe)}
        stages.append(Stage("compare-fp8", "divergence", f"{MODELS}:compare_stage", inputs=compared, settings=settings))
    return stages


def _examination(recipe: Recipe, model: str) -> Stage:
    """Has a model answer prompts that nothing was trained on or decided with; measures its loss if there is text."""
    assert recipe.align
    text = {"tokens": "tokens"} if recipe.data else {}
    return Stage(
        f"examine-{model}",
        "examination",
        f"{MODELS}:examine_stage",
        inputs={"model": model, **prompt_sources(recipe.align), **text},
        settings={"seq_len": _measured_seq_len(recipe), "max_answer_tokens": recipe.align.exam_tokens},
    )


def _benchmarks(recipe: Recipe) -> list[Stage]:
    """Standard tasks for all finished models. Paths are not among the settings, so that files may move."""
    if recipe.evaluate is None:
        return []
    tasks = {name: load_task(name) for name in recipe.evaluate.tasks}
    settings = recipe.evaluate.model_dump(mode="json", exclude={"tasks", "data", "start", "control"})
    return [
        Stage(
            "benchmarks",
            "evaluation",
            f"{BENCHMARKS}:benchmarks_stage",
            inputs=_measured_models(recipe),
            settings={"evaluate": settings, "tasks": {task.name: task.digest for task in tasks.values()}},
            aids=(*recipe.evaluate.data, *(name for name in tasks if name.endswith(".toml"))),
        )
    ]


def _measured_models(recipe: Recipe) -> dict[str, str]:
    """The models that standard tasks measure, by name: what post-training starts from and its control, if asked for."""
    assert recipe.evaluate
    first = {"start": base_of(recipe)} if recipe.evaluate.start else {}
    control = {"control": "control-sft"} if recipe.evaluate.control else {}
    return {**first, **control, **result_models(recipe)}


def _measured_seq_len(recipe: Recipe) -> int:
    """Tokens in the rows of held-out text on which finished models are measured."""
    if recipe.pretrain:
        return recipe.pretrain.seq_len
    delivered = (recipe.herd.flagship, recipe.herd.small)
    return min(MEASURED_SEQ_LEN, *(recipe.model_config_of(name).max_seq_len for name in delivered if name))


def _report(recipe: Recipe, stages: list[Stage]) -> Stage:
    """The report, which reads the artifacts of all other stages."""
    return Stage(
        "report",
        "report",
        f"{REPORT}:report_stage",
        inputs={stage.name: stage.name for stage in stages},
        settings={"recipe": dump(recipe)},
    )
