"""What each stage of a recipe's post-training needs and costs, from the stages that a run would have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from herdlm.align.config import (
    AlignConfig,
    AverageConfig,
    DpoConfig,
    GateConfig,
    PreferencesConfig,
    RejectionConfig,
    RewardConfig,
    SftConfig,
)
from herdlm.align.given_files import GivenFile, given_files
from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig
from herdlm.plan.stage_costs import Assumptions, Cluster, Estimator, StageCost, Workers, total
from herdlm.recipe import Recipe
from herdlm.run.post_training import post_training, teaching
from herdlm.run.stage import Stage

S = TypeVar("S", bound=Section)

DOES = {
    "synth_stage": "make synthetic data",
    "read_stage": "read the files, hold out prompts for gate and examination",
    "sft_stage": "fine-tune",
    "preferences_stage": "draw answers, and have them ranked",
    "samples_stage": "draw answers",
    "verdicts_stage": "check the answers that a program can check",
    "reward_stage": "train the reward model",
    "select_stage": "score the answers, keep the best, make pairs",
    "quality_stage": "clean the kept answers",
    "dpo_stage": "optimize on pairs",
    "gate_stage": "measure candidates, promote the best or none",
}


def post_training_cost(
    recipe: Recipe, cluster: Cluster, assumed: Assumptions, processes: int | None = None
) -> dict[str, Any] | None:
    """What post-training needs and costs, as JSON; None if the recipe has none.

    Stages of a round cost the most that they may: every prompt gives a dialog and a pair. Files of JSON Lines count
    with their rows, others and missing ones as empty.

    Args:
        processes: that train, if the layout leaves ``dp_shard`` open.

    Raises:
        InputError: the layout does not fit the model, its row lengths or the processes.
    """
    if recipe.align is None:
        return None
    models = {name: recipe.model_config_of(name) for name in (recipe.herd.flagship, recipe.herd.small) if name}
    assumed = _within(assumed, recipe.align, min(model.max_seq_len for model in models.values()))
    costs = _Costs(recipe, models, cluster, assumed, processes)
    stages = [costs.of(stage) for stage in post_training(recipe)]
    lessons = [costs.of(stage) for stage in teaching(recipe)]
    rounds = [[cost for cost in stages if cost.stage.startswith(f"round-{r}-")] for r in costs.rounds]
    before = [cost for cost in stages if not cost.stage.startswith("round-")]
    return {
        "files": [
            {"key": file.key, "path": str(file.path), "weight": file.weight, "exists": file.exists, "rows": rows}
            for file, rows in costs.files
        ],
        "assumed": asdict(assumed),
        "gpu": {"kind": cluster.kind, **asdict(cluster.node)},
        "before": _part(before),
        "rounds": [{"round": number, **_part(part)} for number, part in zip(costs.rounds, rounds, strict=True)],
        "teaching": _part(lessons) if lessons else None,
        "total": total([*stages, *lessons]),
        "problems": [cost.problem for cost in [*before, *rounds[-1], *lessons] if cost.problem],
    }


def _within(assumed: Assumptions, align: AlignConfig, context: int) -> Assumptions:
    """The assumed lengths, no longer than the recipe's limits of answers, rows and contexts leave."""
    asked = [align.rejection, align.preferences, align.gate, align.teach and align.teach.answers]
    limit = max(part.max_answer_tokens for part in asked if part)
    answer = min(assumed.answer_tokens, align.rejection.max_answer_tokens)
    prompt = min(assumed.prompt_tokens, context - limit, min(align.seq_lens) - answer)
    if prompt < 1:
        raise InputError(
            f"answers of up to {limit:,} tokens leave no room for prompts in contexts of {context:,} and rows of "
            f"{min(align.seq_lens):,}",
            "Lower max_answer_tokens in [align], or raise seq_len",
        )
    return replace(assumed, prompt_tokens=prompt, answer_tokens=answer)


def _part(costs: list[StageCost]) -> dict[str, Any]:
    return {"stages": [asdict(cost) for cost in costs], "total": total(costs)}


@dataclass(slots=True)
class _Counted:
    """How many rows a stage makes, at most."""

    dialogs: int = 0
    pairs: int = 0
    edits: int = 0


class _Costs:
    """Estimates stages one after the other, and remembers how much each makes."""

    def __init__(
        self,
        recipe: Recipe,
        models: dict[str, ModelConfig],
        cluster: Cluster,
        assumed: Assumptions,
        processes: int | None,
    ) -> None:
        assert recipe.align
        align = recipe.align
        self.rounds = range(1, align.rounds + 1)
        self.files: list[tuple[GivenFile, int | None]] = [(file, file.rows()) for file in given_files(align)]
        self.made = {"bank": _Counted(dialogs=recipe.bank.seed_demonstrations)} if align.uses_bank else {}
        self.sources = align.uses_bank + align.samples_files
        parallel = align.parallel or recipe.parallel
        devices = _devices(parallel, processes, recipe.compute.processes)
        workers = Workers(
            align.tensor_parallel,
            align.pipeline_parallel,
            align.workers,
            align.cluster is not None,
            align.batch,
            4 if align.dtype == "float32" else 2,
            4 if align.reward.train.save_dtype == "float32" else 2,
        )
        self.estimators = {
            name: Estimator(name, model, parallel, devices, workers, cluster, assumed) for name, model in models.items()
        }
        self.flagship = self.estimators[recipe.herd.flagship]

    def of(self, stage: Stage) -> StageCost:
        """The cost of a stage, whose inputs are known."""
        kind = stage.work.rpartition(":")[2]
        cost = StageCost(stage.name, DOES.get(kind, kind.removesuffix("_stage")), list(stage.inputs.values()))
        made = self.made.setdefault(stage.name, _Counted())
        estimate: Callable[[Stage, StageCost, _Counted], None] | None = getattr(self, f"_{kind}", None)
        if estimate is None:
            cost.notes.append("cost not estimated")
        else:
            estimate(stage, cost, made)
        return cost

    def _read_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        made.dialogs, made.pairs = self._rows("dialogs"), self._rows("preferences")
        made.dialogs += sum(self.made[name].dialogs for role, name in stage.inputs.items() if role != "model")
        cost.dialogs, cost.pairs = made.dialogs, made.pairs

    def _synth_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        tables = {name: options for name, options in stage.settings["synth"].items() if isinstance(options, dict)}
        made.dialogs = cost.dialogs = sum(options.get("count", 0) for options in tables.values())
        cost.notes.append(f"generators: {', '.join(filter(tables.get, tables))}; their teacher is not counted")

    def _samples_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        config = _read(RejectionConfig, stage, "rejection")
        made.dialogs = made.pairs = config.prompts * self.sources
        self.flagship.draw(cost, made.dialogs, config.samples, config.max_answer_tokens)

    def _preferences_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        config = _read(PreferencesConfig, stage, "preferences")
        made.pairs = config.prompts * self.sources
        made.edits = round(made.pairs * config.edited_percent / 100)
        self.flagship.draw(cost, made.pairs, config.samples, config.max_answer_tokens)

    def _verdicts_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        self._pass_on(stage, made)
        cost.notes.append("verifiers run on processors; not estimated")

    def _select_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        self._pass_on(stage, made)
        config = _read(RejectionConfig, stage, "rejection")
        if "reward" in stage.inputs:
            self.flagship.score(cost, made.dialogs, config.samples, config.max_answer_tokens)
        cost.notes.append(f"at most {config.keep_per_task:,} dialogs of each task are kept")

    def _quality_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        self._pass_on(stage, made)
        cost.dialogs = made.dialogs
        cost.notes.append("not estimated: embeddings and judgments of what is kept, as align.quality asks")

    def _reward_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        config = _read(RewardConfig, stage, "reward")
        self.flagship.pairs(cost, config, self._pairs(stage), reward=True)

    def _dpo_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        self.flagship.pairs(cost, _read(DpoConfig, stage, "dpo"), self._pairs(stage), reward=False)

    def _sft_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        dialogs = 0
        for role, file, repeats in stage.options["data"]:
            found = self.made[stage.inputs[role]]
            dialogs += repeats * (found.edits if file == "edits.jsonl" else found.dialogs)
        name = stage.inputs["base"].removeprefix("pretrain-")
        self.estimators[name].sft(cost, _read(SftConfig, stage, "sft"), dialogs)

    def _gate_stage(self, stage: Stage, cost: StageCost, made: _Counted) -> None:
        config = GateConfig.model_validate(stage.settings["gate"] | {"data": stage.aids})
        average = stage.settings["average"] and AverageConfig.model_validate(stage.settings["average"])
        models = 1 + sum(role.startswith("candidate-") for role in stage.inputs)
        if average:
            models += average.sft + average.incumbent + bool(average.variants)
        self.flagship.draw(cost, config.prompts, models, config.max_answer_tokens)
        self.flagship.read_again(cost, config.prompts, models - 1)  # each of them is another model
        cost.notes.append(f"{models} models answer once each")
        if config.tasks:
            cost.notes.append(f"not estimated: {', '.join(config.tasks)}")

    def _pass_on(self, stage: Stage, made: _Counted) -> None:
        """What a stage makes of its samples or kept answers, at most as many."""
        source = self.made[stage.inputs["samples" if "samples" in stage.inputs else "kept"]]
        made.dialogs, made.pairs = source.dialogs, source.pairs

    def _pairs(self, stage: Stage) -> int:
        return sum(self.made[name].pairs for role, name in stage.inputs.items() if role.startswith("preferences"))

    def _rows(self, kind: str) -> int:
        return round(sum((rows or 0) * file.weight for file, rows in self.files if file.key == f"align.data.{kind}"))


def _read(schema: type[S], stage: Stage, name: str) -> S:
    return schema.model_validate(stage.settings[name])


def _devices(parallel: ParallelConfig, processes: int | None, own: int) -> int:
    """Processes that train: the recipe's, if it starts them itself, else the layout's."""
    rest = parallel.tp * parallel.cp * parallel.pp * parallel.dp_replicate
    if own > 1:
        return own
    return rest * parallel.dp_shard if parallel.dp_shard > 0 else max(processes or rest, rest)
