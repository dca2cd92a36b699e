"""Lists the stages of post-training: seeds, rounds, teaching, and the experiments that measure what a part is worth.

A round draws answers of the best model so far, has them judged, trains a reward model, keeps the best answers and
cleans them, fine-tunes the base model on them, and optimizes it on preferences. A gate on held-out prompts then decides
whether the result takes the place of the model before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from herdlm.align.config import AlignConfig, PairsConfig, RejectionConfig, SftConfig, VariantConfig
from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.synth.config import paths_of
from herdlm.base.own_parts import code_hash, load_part
from herdlm.data.source import parse_source
from herdlm.evaluate.remote import is_address
from herdlm.evaluate.task import load_task
from herdlm.recipe import Recipe
from herdlm.run.settings import dump, without
from herdlm.run.stage import Stage

ALIGN, FILES, SYNTH, ROUNDS, GATE = (
    f"herdlm.run.stages.{module}" for module in ("align", "files", "synth", "rounds", "gate")
)
SFT, DPO, GRPO = (f"{ALIGN}:{name}_stage" for name in ("sft", "dpo", "grpo"))
FILE_KEYS = ("dialogs", "preferences", "prompts", "gate", "exam")  # of align.data
# Keys of rejection sampling that are used only after sampling.
SELECTION_KEYS = ("keep_per_prompt", "keep_per_task", "keep_share_unverified", "pairs_per_task")

Roles = dict[str, str]  # role -> stage that makes the input


def post_training(recipe: Recipe) -> list[Stage]:
    """Demonstrations, then rounds. Each starts from the pre-trained model, with data that the best model wrote."""
    align, base = recipe.align, base_of(recipe)
    if align is None:
        return []
    stages = _material(recipe, align, base)
    stages.append(_sft("seeds-sft", align, {"base": base, **_seeds(align)}, _seed_files(align, 1), section="seed_sft"))
    if align.gate:
        stages.append(_gate(align, "seeds-gate", base, {"seeds": "seeds-sft"}))
    for number in range(1, align.rounds + 1):
        stages += _round(align, number, base)
    return stages


def base_of(recipe: Recipe) -> str:
    """The stage of the model that post-training starts from."""
    return f"pretrain-{recipe.herd.flagship}"


def model_after(align: AlignConfig, number: int) -> str:
    """The stage of the best model after so many rounds: with a gate the promoted one, else the round's last."""
    if align.gate:
        return f"round-{number}-gate" if number else "seeds-gate"
    return f"round-{number}-dpo" if number else "seeds-sft"


def finished_flagship(recipe: Recipe) -> str:
    """The stage that makes the finished flagship: of the last round, or pre-training without [align]."""
    return model_after(recipe.align, recipe.align.rounds) if recipe.align else base_of(recipe)


def finished_small(recipe: Recipe) -> str:
    """The stage that makes the finished small model."""
    return "small-taught" if recipe.align and recipe.align.teach else f"pretrain-{recipe.herd.small}"


def tuning(name: str, section: SftConfig | PairsConfig | GrpoConfig, key: str) -> dict[str, Any]:
    """The settings of a fine-tuning stage: its section as ``name``, and hashes of the user's own code."""
    if section.objective is None:
        return {name: without(section, "objective")}
    from herdlm.train.own_objective import objective_code

    return {name: dump(section), "code": objective_code(section.objective, f"{key}.objective")}


def _material(recipe: Recipe, align: AlignConfig, base: str) -> list[Stage]:
    """Synthetic data, and the stage that reads the user's files and divides all of it into training and held out."""
    synthetic = _synthetic(align, base)
    if align.data is None and not synthetic:
        return []
    files = {name: [parse_source(f) for f in getattr(align.data, name)] if align.data else [] for name in FILE_KEYS}
    settings: dict[str, Any] = {
        "held_out_percent": align.data.held_out_percent if align.data else 10.0,
        "weights": {name: [source.weight for source in sources] for name, sources in files.items()},
    }
    if align.data and align.data.exam_prompts is not None:
        settings["exam_prompts"] = align.data.exam_prompts
    if align.gate:
        settings["gate_prompts"] = align.gate.prompts
    return [
        *synthetic,
        Stage(
            "files",
            "records",
            f"{FILES}:read_stage",
            inputs={"model": base, **{stage.name: stage.name for stage in synthetic}},
            settings=settings,
            aids=tuple(str(source.path) for sources in files.values() for source in sources),
        ),
    ]


def _synthetic(align: AlignConfig, base: str) -> list[Stage]:
    """The stage that makes synthetic data, if the recipe has generators."""
    if align.synth is None:
        return []
    return [
        Stage(
            "synth",
            "synthetic data",
            f"{SYNTH}:synth_stage",
            inputs={"model": base},
            settings={
                "synth": _named(align.synth.model_dump(exclude={"seed", "name", "teacher"})),
                "teacher": align.synth.teacher if is_address(align.synth.teacher or "") else None,
                "code": {name: code_hash(load_part(o.make, f"own.{name}.make")) for name, o in align.synth.own.items()},
            },
            aids=tuple(map(str, paths_of(align.synth))),
        )
    ]


def _named(value: Any) -> Any:
    """JSON values with names in place of paths, whose content is in the fingerprint wherever they lie."""
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    return value.name if isinstance(value, Path) else value


def _seeds(align: AlignConfig) -> Roles:
    """The stages with the dialogs that fine-tuning begins with."""
    own = {"files": "files"} if align.synth or (align.data and align.data.dialogs) else {}
    return ({"seeds": "bank"} if align.uses_bank else {}) | own


def _seed_files(align: AlignConfig, repeats: int) -> list[list[Any]]:
    """The files that fine-tuning begins with: role, file and how often it is used."""
    names = {"seeds": "seeds.jsonl", "files": "dialogs.jsonl"}
    return [[role, names[role], repeats] for role in _seeds(align)]


def prompt_sources(align: AlignConfig) -> Roles:
    """The stages with prompts to sample, to decide at the gate with, and to examine models with."""
    own = {"files": "files"} if align.samples_files else {}
    return ({"bank": "bank"} if align.uses_bank else {}) | own


def _sampling(align: AlignConfig, prefix: str, model: str, config: RejectionConfig) -> list[Stage]:
    """Draws answers to prompts, and verifies those that a program can check."""
    return [
        Stage(
            f"{prefix}-samples",
            "samples",
            f"{ROUNDS}:samples_stage",
            inputs={**prompt_sources(align), "model": model},
            settings={"rejection": without(config, *SELECTION_KEYS)},
            options={"source": model},
        ),
        Stage(
            f"{prefix}-verdicts",
            "samples",
            f"{ROUNDS}:verdicts_stage",
            inputs={"samples": f"{prefix}-samples"},
            settings={"pairs_per_task": config.pairs_per_task, **_own_verifiers(align)},
        ),
    ]


def _own_verifiers(align: AlignConfig) -> dict[str, Any]:
    """The hashes of the code that judges, so that changed code judges again."""
    code = {name: code_hash(load_part(name, "align.own_verifiers")) for name in align.own_verifiers}
    return {"own_verifiers": code} if code else {}


def _selection(
    align: AlignConfig, prefix: str, samples: str, reward: str | None, config: RejectionConfig, *, clean: bool = True
) -> list[Stage]:
    """Keeps the best answers, and cleans them. The last of these stages has ``kept.jsonl``; see :func:`_kept`."""
    inputs = {"samples": f"{samples}-verdicts"} | ({"reward": reward} if reward else {})
    stages = [
        Stage(
            f"{prefix}-select",
            "dialogs",
            f"{ROUNDS}:select_stage",
            inputs=inputs,
            settings={"rejection": dump(config), "reward_seq_len": align.reward.seq_len},
        )
    ]
    if align.quality and clean:
        stages.append(
            Stage(
                f"{prefix}-quality",
                "dialogs",
                f"{ROUNDS}:quality_stage",
                inputs={"kept": f"{prefix}-select", "model": "seeds-sft", **prompt_sources(align)},
                settings={"quality": dump(align.quality)},
            )
        )
    return stages


def _kept(align: AlignConfig, prefix: str) -> str:
    """The stage that keeps sampled answers."""
    return f"{prefix}-quality" if align.quality else f"{prefix}-select"


def _annotated(align: AlignConfig, numbers: range) -> Roles:
    """The stages with pairs to train a reward model on: of annotators, or of right and wrong samples."""
    kind = "preferences" if align.preferences else "verdicts"
    found = {f"preferences-{k}": f"round-{k}-{kind}" for k in numbers}
    return found | ({"preferences-files": "files"} if align.data and align.data.preferences else {})


def _contrasted(align: AlignConfig, numbers: range) -> Roles:
    """The stages with pairs for DPO."""
    if align.preferences:
        return _annotated(align, numbers)
    found = {f"preferences-{k}": f"round-{k}-select" for k in numbers}
    return found | ({"preferences-files": "files"} if align.data and align.data.preferences else {})


def _edited(align: AlignConfig, numbers: range) -> Roles:
    """The stages with answers that annotators corrected."""
    return {f"preferences-{k}": f"round-{k}-preferences" for k in numbers} if align.preferences else {}


def _remembered(align: AlignConfig, number: int) -> range:
    return range(max(1, number - align.remember_rounds + 1), number + 1)


def _round(align: AlignConfig, r: int, base: str) -> list[Stage]:
    """The stages of round ``r``."""
    prefix, current, remembered = f"round-{r}", model_after(align, r - 1), _remembered(align, r)
    stages = []
    if align.preferences:
        stages.append(
            Stage(
                f"{prefix}-preferences",
                "preferences",
                f"{ROUNDS}:preferences_stage",
                inputs={**prompt_sources(align), "model": current},
                settings={"preferences": dump(align.preferences), **_own_verifiers(align)},
                options={"source": current},
            )
        )
    reward = Stage(
        f"{prefix}-reward",
        "reward-model",
        f"{ALIGN}:reward_stage",
        inputs={"model": current, **_annotated(align, remembered)},
        settings=tuning("reward", align.reward, "align.reward"),
    )
    stages += _sampling(align, prefix, current, align.rejection)
    stages.append(reward)
    stages += _selection(align, prefix, prefix, reward.name, align.rejection)
    kept = {f"kept-{k}": _kept(align, f"round-{k}") for k in remembered}
    variants = align.average.variants if align.average else {}
    stages += _tuned(align, prefix, base, r, kept)
    for name, variant in variants.items():
        stages += _tuned(align, f"{prefix}-{name}", base, r, kept, variant=variant)
    if align.gate:
        candidates = {"dpo": f"{prefix}-dpo", **{name: f"{prefix}-{name}-dpo" for name in variants}}
        stages.append(_gate(align, f"{prefix}-gate", current, {"sft": f"{prefix}-sft", **candidates}))
    return stages


def _tuned(
    align: AlignConfig, name: str, base: str, r: int, kept: Roles, *, variant: VariantConfig | None = None
) -> list[Stage]:
    """Fine-tuning of the base model on kept answers, and DPO: the stages NAME-sft and NAME-dpo of round ``r``.

    Args:
        variant: what is different in a further training, to average with.
    """
    edits = _edited(align, range(1, r + 1))
    data = [
        *_seed_files(align, align.seed_repeats),
        *([role, "edits.jsonl", align.seed_repeats] for role in edits),
        *([role, "kept.jsonl", 1] for role in kept),
    ]
    sft = _sft(f"{name}-sft", align, {"base": base, **_seeds(align), **edits, **kept}, data)
    dpo = Stage(
        f"{name}-dpo",
        "model",
        DPO,
        inputs={"model": sft.name, **_contrasted(align, _remembered(align, r))},
        settings=tuning("dpo", align.dpo, "align.dpo"),
    )
    if variant:
        for stage, method, rate in ((sft, "sft", variant.sft_lr), (dpo, "dpo", variant.dpo_lr)):
            if rate is not None:
                stage.settings[method]["train"]["peak_lr"] = rate
        if variant.share < 1:
            sft.settings["share"] = variant.share
    return [sft, dpo]


def _sft(
    name: str,
    align: AlignConfig,
    inputs: Roles,
    data: list[list[Any]],
    *,
    section: str = "sft",
    seed_names: tuple[str, ...] = (),
) -> Stage:
    """Fine-tuning on ``data``: files as role, name and how often each is used."""
    config = align.seed_sft if section == "seed_sft" else align.sft
    settings = tuning("sft", config, f"align.{section}")
    if align.mix and section == "sft":
        settings["mix"] = dump(align.mix)
    return Stage(name, "model", SFT, inputs=inputs, settings=settings, options={"data": data}, seed_names=seed_names)


def _gate(align: AlignConfig, name: str, incumbent: str, candidates: Roles) -> Stage:
    """Measures candidates and averages of them, and publishes the best, or the incumbent if none is better."""
    assert align.gate
    first = name == "seeds-gate"
    average = dump(align.average) if align.average and not first else None
    return Stage(
        name,
        "model",
        f"{GATE}:gate_stage",
        inputs={
            **prompt_sources(align),
            "incumbent": incumbent,
            **({} if first else {"first": "seeds-gate"}),
            **{f"candidate-{key}": stage for key, stage in candidates.items()},
        },
        settings={
            "gate": without(align.gate, "data", "tasks"),
            "tasks": {task.name: task.digest for task in map(load_task, align.gate.tasks)},
            "average": average,
            **_own_verifiers(align),
        },
        aids=(*align.gate.data, *(name for name in align.gate.tasks if name.endswith(".toml"))),
    )


def experiments(recipe: Recipe) -> list[Stage]:
    """The control of the rounds, ablations of round 1, repetitions of the last round, GRPO, and DPO without NLL."""
    align, wanted, stages = recipe.align, recipe.experiments, list[Stage]()
    if align is None:
        return stages
    base = base_of(recipe)
    if wanted.control_sft:
        edits = _edited(align, range(1, align.rounds + 1))
        like = {f"like-{step}": f"round-{align.rounds}-{step}" for step in ("sft", "dpo")}
        data = [*_seed_files(align, 1), *([role, "edits.jsonl", 1] for role in edits)]
        stages.append(_sft("control-sft", align, {"base": base, **_seeds(align), **like, **edits}, data))
    for part in wanted.ablations:
        stages += _ablation(align, base, part)
    last = {f"kept-{k}": _kept(align, f"round-{k}") for k in _remembered(align, align.rounds)}
    for number in range(1, wanted.repeats + 1):
        stages += _tuned(align, f"repeat-{number}", base, align.rounds, last)
    if wanted.grpo:
        before = model_after(align, align.rounds - 1)
        settings = {**tuning("grpo", wanted.grpo, "experiments.grpo"), "prompts": align.rejection.prompts}
        stages.append(
            Stage("grpo", "model", GRPO, inputs={**prompt_sources(align), "model": before}, settings=settings)
        )
    if wanted.dpo_nll:
        for name, weight in (("dpo-with-nll", align.dpo.nll_weight_used), ("dpo-without-nll", 0.0)):
            settings = tuning("dpo", align.dpo, "align.dpo")
            settings["dpo"] |= {"nll_weight": weight}
            settings["dpo"]["train"] |= {"peak_lr": wanted.dpo_nll.peak_lr}
            inputs = {"model": "round-1-sft", **_contrasted(align, range(1, 2))}
            stages.append(Stage(name, "model", DPO, inputs=inputs, settings=settings, seed_names=("dpo-ablation",)))
    return stages


def _ablation(align: AlignConfig, base: str, part: str) -> list[Stage]:
    """Round 1 once more without a part of it. What is without DPO or averaging is a stage of the round itself."""
    if part not in ("rejection", "quality", "reward"):
        return []
    name, config = f"without-{part}", align.rejection
    stages: list[Stage] = []
    if part == "rejection":
        config = config.model_copy(update={"choose": "random"})
    if part == "quality":
        kept = "round-1-select"
    else:
        reward = None if part == "reward" else "round-1-reward"
        stages += _selection(align, name, "round-1", reward, config)
        kept = _kept(align, name)
    sft, dpo = _tuned(align, name, base, 1, {"kept-1": kept})
    return [*stages, sft, dpo]


def teaching(recipe: Recipe) -> list[Stage]:
    """Fine-tunes the small model on the flagship's best answers; its control takes as many steps on demonstrations."""
    align, base = recipe.align, f"pretrain-{recipe.herd.small}"
    if align is None or align.teach is None:
        return []
    stages = _sampling(align, "lesson", finished_flagship(recipe), align.teach.answers)
    stages += _selection(align, "lesson", "lesson", f"round-{align.rounds}-reward", align.teach.answers)
    data = [*_seed_files(align, align.teach.seed_repeats), ["answers", "kept.jsonl", 1]]
    taught = _sft("small-taught", align, {"base": base, **_seeds(align), "answers": _kept(align, "lesson")}, data)
    if align.teach.distill:
        taught.settings["sft"]["distill"] = dump(align.teach.distill)
        taught.inputs["teacher"] = finished_flagship(recipe)
    stages.append(taught)
    if recipe.experiments.small_control:
        inputs = {"base": base, **_seeds(align), "like-sft": "small-taught"}
        stages.append(_sft("small-control", align, inputs, _seed_files(align, 1), seed_names=("small-taught",)))
    return stages
