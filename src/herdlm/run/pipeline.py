"""Lists the stages of a recipe in order: the inputs of each, the part of the recipe it depends on, and its function.

A recipe with [data] has curation, tokenizer and tokens. Every recipe has the flagship: pre-trained, or imported from a
folder if there is no [pretrain]. The ladder with its forecast, the small model, post-training, FP8 and the experiments
are optional: a recipe has them if it has their section or key.
"""

from __future__ import annotations

from typing import Any

from herdlm.align.config import AlignConfig, PairsConfig, RejectionConfig, SftConfig
from herdlm.base.errors import InputError
from herdlm.data.source import parse_source
from herdlm.evaluate.task import load_task
from herdlm.pretrain.herd_config import SHAPE
from herdlm.recipe import Recipe
from herdlm.run.stage import Stage

DATA, PRETRAIN, ALIGN, FILES, MODELS, BENCHMARKS, REPORT = (
    f"herdlm.run.stages.{module}" for module in ("data", "pretrain", "align", "files", "models", "benchmarks", "report")
)
SFT, DPO = (f"{ALIGN}:{name}_stage" for name in ("sft", "dpo"))

MEASURED_SEQ_LEN = 1024  # of held-out text where nothing is pre-trained
FILE_KEYS = ("dialogs", "preferences", "prompts")  # of align.data
SELECTION_KEYS = ("keep_per_task", "keep_share_unverified")  # of rejection sampling; used only after sampling


def stages_of(recipe: Recipe) -> list[Stage]:
    """All stages of a recipe, each after those it needs.

    Raises:
        InputError: a part of the recipe needs pages, but there is no [data]; or a model starts from no model folder.
    """
    stages = [
        *_data(recipe),
        *_pretraining(recipe),
        *_post_training(recipe),
        *_experiments(recipe),
        *_teaching(recipe),
        *_results(recipe),
    ]
    stages += [_examination(recipe, name) for name in examined(recipe)]
    stages += _benchmarks(recipe)
    stages.append(_report(recipe, stages))
    assert len({stage.name for stage in stages}) == len(stages)
    return stages


def finished_flagship(recipe: Recipe) -> str:
    """The stage that makes the finished flagship: the last round's DPO, or pre-training without [align]."""
    return f"round-{recipe.align.rounds}-dpo" if recipe.align else f"pretrain-{recipe.herd.flagship}"


def finished_small(recipe: Recipe) -> str:
    """The stage that makes the finished small model."""
    return "small-taught" if recipe.align and recipe.align.teach else f"pretrain-{recipe.herd.small}"


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
    """The stages with a model to examine on the held-out questions, and its label in the report. Needs [align]."""
    align, experiments, small = recipe.align, recipe.experiments, recipe.herd.small
    if align is None or not align.uses_bank:
        return {}
    rounds = range(1, align.rounds + 1)
    given = "pre-trained" if recipe.pretrain else "as given"
    labels = {
        f"pretrain-{recipe.herd.flagship}": f"flagship, {given}",
        "seeds-sft": "flagship, demonstrations",
        **{f"round-{r}-{step}": f"flagship, round {r} {step.upper()}" for r in rounds for step in ("sft", "dpo")},
    }
    if experiments.control_sft:
        labels["control-sft"] = "control: demonstrations and edits, equal steps"
    if experiments.dpo_nll:
        labels["dpo-with-nll"] = "DPO at a high rate, with NLL"
        labels["dpo-without-nll"] = "DPO at a high rate, without NLL"
    if small:
        labels[f"pretrain-{small}"] = f"small, {given}"
    if experiments.small_control:
        labels["small-control"] = "small, demonstrations, equal steps"
    if align.teach:
        labels["small-taught"] = "small, flagship's answers"
    labels["flagship-bf16"] = "flagship BF16"
    if recipe.quantize:
        labels["flagship-fp8"] = "flagship FP8"
    return labels


def _dump(section: Any) -> Any:
    return section.model_dump(mode="json")


def _tuning(name: str, section: SftConfig | PairsConfig, key: str) -> dict[str, Any]:
    """The settings of a fine-tuning stage: its section as ``name``, and hashes of the user's own code."""
    if section.objective is None:
        return {name: _without(section, "objective")}
    from herdlm.train.own_objective import objective_code

    return {name: _dump(section), "code": objective_code(section.objective, f"{key}.objective")}


def _without(section: Any, *keys: str) -> Any:
    """A section without keys that affect how its work is done but not the result."""
    return {key: value for key, value in _dump(section).items() if key not in keys}


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
    tokens = {"tokens": _dump(recipe.tokens)}
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
                settings={"tokenizer": _dump(recipe.tokenizer), **split},
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
                settings={"bank": _dump(recipe.bank), **split},
            )
        )
    inputs = {"documents": "curate", "tokenizer": "tokenizer"} | ({"bank": "bank"} if skills else {})
    stages.append(Stage("tokens", "tokens", f"{DATA}:tokens_stage", inputs=inputs, settings=tokens))
    return stages


def _pretraining(recipe: Recipe) -> list[Stage]:
    if recipe.pretrain is None:
        return _imports(recipe)
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
                    "forecast": _dump(recipe.forecast),
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


def _post_training(recipe: Recipe) -> list[Stage]:
    """Demonstrations, then rounds. Each starts from the pre-trained model, with data that the previous round wrote."""
    align, base = recipe.align, f"pretrain-{recipe.herd.flagship}"
    if align is None:
        return []
    stages = _files(align, base)
    stages.append(
        Stage(
            "seeds-sft",
            "model",
            SFT,
            inputs={"base": base, **_seed_inputs(align)},
            settings=_tuning("sft", align.seed_sft, "align.seed_sft"),
            options={"data": _seeds(align, 1)},
        )
    )
    current = "seeds-sft"
    for number in range(1, align.rounds + 1):
        stages += _round(align, number, base, current)
        current = f"round-{number}-dpo"
    return stages


def _files(align: AlignConfig, base: str) -> list[Stage]:
    """Reads the user's own files."""
    if align.data is None:
        return []
    files = {name: [parse_source(f) for f in getattr(align.data, name)] for name in FILE_KEYS}
    return [
        Stage(
            "files",
            "records",
            f"{FILES}:read_stage",
            inputs={"model": base},
            settings={
                "held_out_percent": align.data.held_out_percent,
                "weights": {name: [source.weight for source in sources] for name, sources in files.items()},
            },
            aids=tuple(str(source.path) for sources in files.values() for source in sources),
        )
    ]


def _seed_inputs(align: AlignConfig) -> dict[str, str]:
    """The stages with the data that fine-tuning begins with, by role."""
    own = {"files": "files"} if align.data and align.data.dialogs else {}
    return ({"seeds": "bank"} if align.uses_bank else {}) | own


def _seeds(align: AlignConfig, repeats: int) -> list[list[Any]]:
    """The files that fine-tuning begins with: role, file and how often it is used."""
    names = {"seeds": "seeds.jsonl", "files": "dialogs.jsonl"}
    return [[role, names[role], repeats] for role in _seed_inputs(align)]


def _sampling(align: AlignConfig, prefix: str, model: str, reward: str, config: RejectionConfig) -> list[Stage]:
    """Rejection sampling on each source of prompts; the stages PREFIX-select and PREFIX-files-select keep answers."""
    sources = [("", ALIGN, "bank")] if align.uses_bank else []
    sources += [("-files", FILES, "files")] if align.samples_files else []
    stages = []
    for suffix, module, role in sources:
        stages += [
            Stage(
                f"{prefix}{suffix}-samples",
                "samples",
                f"{module}:samples_stage",
                inputs={role: role, "model": model},
                settings={"rejection": _without(config, *SELECTION_KEYS)},
            ),
            Stage(
                f"{prefix}{suffix}-select",
                "dialogs",
                f"{module}:select_stage",
                inputs={"samples": f"{prefix}{suffix}-samples", "reward": reward},
                settings={"rejection": _dump(config), "reward_seq_len": align.reward.seq_len},
                options={"source": model},
            ),
        ]
    return stages


def _kept(align: AlignConfig, prefix: str, role: str) -> dict[str, str]:
    """The stages that keep sampled answers, by role."""
    bank = {role: f"{prefix}-select"} if align.uses_bank else {}
    return bank | ({f"{role}-files": f"{prefix}-files-select"} if align.samples_files else {})


def _round(align: AlignConfig, r: int, base: str, current: str) -> list[Stage]:
    """The stages of round ``r``. The model of stage ``current`` writes its data."""
    remembered = range(max(1, r - align.remember_rounds + 1), r + 1)
    preferences, edited = dict[str, str](), dict[str, str]()
    stages = []
    if align.uses_bank:
        preferences = {f"preferences-{k}": f"round-{k}-preferences" for k in remembered}
        edited = {f"preferences-{k}": f"round-{k}-preferences" for k in range(1, r + 1)}
        stages.append(
            Stage(
                f"round-{r}-preferences",
                "preferences",
                f"{ALIGN}:preferences_stage",
                inputs={"bank": "bank", "model": current},
                settings={"preferences": _dump(align.preferences)},
            )
        )
    if align.data and align.data.preferences:
        preferences["preferences-files"] = "files"
    reward = f"round-{r}-reward"
    samples = _sampling(align, f"round-{r}", current, reward, align.rejection)
    edits = [[role, "edits.jsonl", align.seed_repeats] for role in edited]
    kept = {role: stage for k in remembered for role, stage in _kept(align, f"round-{k}", f"kept-{k}").items()}
    return [
        *stages,
        *(stage for stage in samples if stage.name.endswith("-samples")),
        Stage(
            reward,
            "reward-model",
            f"{ALIGN}:reward_stage",
            inputs={"model": current, **preferences},
            settings=_tuning("reward", align.reward, "align.reward"),
        ),
        *(stage for stage in samples if stage.name.endswith("-select")),
        Stage(
            f"round-{r}-sft",
            "model",
            SFT,
            inputs={"base": base, **_seed_inputs(align), **edited, **kept},
            settings=_tuning("sft", align.sft, "align.sft"),
            options={"data": [*_seeds(align, align.seed_repeats), *edits, *([role, "kept.jsonl", 1] for role in kept)]},
        ),
        Stage(
            f"round-{r}-dpo",
            "model",
            DPO,
            inputs={"model": f"round-{r}-sft", **preferences},
            settings=_tuning("dpo", align.dpo, "align.dpo"),
        ),
    ]


def _experiments(recipe: Recipe) -> list[Stage]:
    """The control of the rounds, trained for as many steps, and DPO with and without its likelihood term."""
    align, experiments = recipe.align, recipe.experiments
    stages: list[Stage] = []
    if align is None:
        return stages
    if experiments.control_sft:
        rounds = range(1, align.rounds + 1)
        stages.append(
            Stage(
                "control-sft",
                "model",
                SFT,
                inputs={"base": f"pretrain-{recipe.herd.flagship}", "seeds": "bank"}
                | {f"like-{step}": f"round-{align.rounds}-{step}" for step in ("sft", "dpo")}
                | {f"preferences-{k}": f"round-{k}-preferences" for k in rounds},
                settings=_tuning("sft", align.sft, "align.sft"),
                options={
                    "data": [["seeds", "seeds.jsonl", 1], *([f"preferences-{k}", "edits.jsonl", 1] for k in rounds)]
                },
            )
        )
    if experiments.dpo_nll:
        for name, weight in (("dpo-with-nll", align.dpo.nll_weight_used), ("dpo-without-nll", 0.0)):
            settings = _tuning("dpo", align.dpo, "align.dpo")
            settings["dpo"] |= {"nll_weight": weight}
            settings["dpo"]["train"] |= {"peak_lr": experiments.dpo_nll.peak_lr}
            stages.append(
                Stage(
                    name,
                    "model",
                    DPO,
                    inputs={"model": "round-1-sft", "preferences-1": "round-1-preferences"},
                    settings=settings,
                    seed_names=("dpo-ablation",),
                )
            )
    return stages


def _teaching(recipe: Recipe) -> list[Stage]:
    """Fine-tunes the small model on the flagship's best answers; its control takes as many steps on demonstrations."""
    align, base = recipe.align, f"pretrain-{recipe.herd.small}"
    if align is None or align.teach is None:
        return []
    sft = _tuning("sft", align.sft, "align.sft")
    kept = _kept(align, "lesson", "answers")
    stages = _sampling(align, "lesson", finished_flagship(recipe), f"round-{align.rounds}-reward", align.teach.answers)
    stages.append(
        Stage(
            "small-taught",
            "model",
            SFT,
            inputs={"base": base, **_seed_inputs(align), **kept},
            settings=sft,
            options={"data": [*_seeds(align, align.teach.seed_repeats), *([role, "kept.jsonl", 1] for role in kept)]},
        )
    )
    if recipe.experiments.small_control:
        stages.append(
            Stage(
                "small-control",
                "model",
                SFT,
                inputs={"base": base, "seeds": "bank", "like-sft": "small-taught"},
                settings=sft,
                options={"data": [["seeds", "seeds.jsonl", 1]]},
                seed_names=("small-taught",),
            )
        )
    return stages


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
            settings={"quantize": _dump(recipe.quantize)},
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
    return Stage(
        f"examine-{model}",
        "examination",
        f"{MODELS}:examine_stage",
        inputs={"model": model, "bank": "bank", "tokens": "tokens"},
        settings={"seq_len": _measured_seq_len(recipe)},
    )


def _benchmarks(recipe: Recipe) -> list[Stage]:
    """Standard tasks for all finished models. Paths are not among the settings, so that files may move."""
    if recipe.evaluate is None:
        return []
    tasks = {name: load_task(name) for name in recipe.evaluate.tasks}
    settings = recipe.evaluate.model_dump(mode="json", exclude={"tasks", "data"})
    return [
        Stage(
            "benchmarks",
            "evaluation",
            f"{BENCHMARKS}:benchmarks_stage",
            inputs=result_models(recipe),
            settings={"evaluate": settings, "tasks": {task.name: task.digest for task in tasks.values()}},
            aids=(*recipe.evaluate.data, *(name for name in tasks if name.endswith(".toml"))),
        )
    ]


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
        settings={"recipe": _dump(recipe)},
    )
