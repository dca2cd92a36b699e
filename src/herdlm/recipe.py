"""The schema of a whole recipe: the sections of all packages, and the rules that hold between sections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from herdlm.align.config import AlignConfig, BankConfig, ExperimentsConfig
from herdlm.align.synth.config import localize as localize_synth
from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, apply_overrides, merge, parse, read_toml
from herdlm.curate.config import PATHS, CurateConfig
from herdlm.evaluate.config import EvaluateConfig
from herdlm.generate.fp8.config import Fp8Config
from herdlm.model.config import ModelConfig
from herdlm.model.folders import model_folder
from herdlm.parallel.config import ParallelConfig
from herdlm.pretrain.config import InitConfig, PretrainConfig, timeline
from herdlm.pretrain.config import check_sources as check_mixes
from herdlm.pretrain.herd_config import SHAPE, HerdConfig, HerdModelConfig
from herdlm.pretrain.job import HerdJob, PretrainJob, starting_shape
from herdlm.pretrain.tokens_config import TokensConfig
from herdlm.tokens.sources import SKILLS, WEB, shard_names
from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig
from herdlm.train.config import TrackConfig

NEW_ONLY = (
    "rope_theta",
    "rope_scaling",
    "tied_embeddings",
    "max_seq_len",
)  # keys of [herd] for models with new weights


class ComputeConfig(Section):
    """Where stages run. ``stages_at_once`` does not change results; the other keys change them by rounding only."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    threads_per_stage: int = Field(1, ge=1, description="CPU threads of each stage's process")
    stages_at_once: int = Field(2, ge=1, description="how many independent stages run in parallel")
    verify: bool = Field(True, description="compare all that stages read with the hashes in its manifest")
    processes: int = Field(
        1, ge=1, le=2**20, description="processes of this machine on which a stage trains, in its layout; a GPU each"
    )


class DataConfig(Section):
    """Where raw pages come from."""

    sources: tuple[str, ...] = Field(min_length=1, description="paths relative to the recipe, globs or URLs")


class ForecastConfig(Section):
    """How the flagship's loss is forecast; fixed before anything is trained."""

    axis: Literal["parameters", "body_parameters"] = Field(
        "body_parameters", description="the measure of model size; body_parameters leaves out embedding and head"
    )


class Recipe(Section):
    """Everything that determines a run."""

    name: str = Field(description="of the run; by default the name of the recipe's file")
    seed: int = 0
    compute: ComputeConfig = ComputeConfig()
    parallel: ParallelConfig = ParallelConfig()
    data: DataConfig | None = Field(None, description="raw pages; a run needs them to pre-train and for [align]")
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    herd: HerdConfig = HerdConfig()
    pretrain: PretrainConfig | None = Field(None, description="without it, models stay as the folders they start from")
    forecast: ForecastConfig = ForecastConfig()
    bank: BankConfig = BankConfig()
    align: AlignConfig | None = Field(None, description="post-training in rounds; none by default")
    quantize: Fp8Config | None = Field(None, description="also exports the flagship in FP8; not by default")
    evaluate: EvaluateConfig | None = Field(None, description="standard tasks for the finished models; none by default")
    experiments: ExperimentsConfig = Field(ExperimentsConfig(), description="controls and ablations; none by default")
    track: TrackConfig = TrackConfig()

    @field_validator("name")
    @classmethod
    def _name_is_that_of_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]{0,99}", name):
            raise ValueError(f"{name[:100]!r} is no name for a folder: use letters, digits, '.', '_' and '-'")
        return name

    @field_validator("experiments", "tokenizer", mode="before")
    @classmethod
    def _false_means_none(cls, section: Any) -> Any:
        return {} if section is False else section

    @model_validator(mode="after")
    def _parts_agree(self) -> Recipe:
        align, experiments = self.align, self.experiments
        if align and align.teach and not self.herd.small:
            raise ValueError(
                "align.teach is set, but herd.small names no model to teach: name one, or drop align.teach"
            )
        for key in ("seed_sft", "sft") if align else ():
            if getattr(align, key).distill:
                raise ValueError(
                    f"align.{key}.distill is for herdlm sft --teacher, and a run names no teacher: drop it"
                )
        if experiments.control_sft and not align:
            raise ValueError("experiments.control_sft is a control of the rounds: add [align], or drop it")
        if self.evaluate and self.evaluate.control and not experiments.control_sft:
            raise ValueError("evaluate.control measures the control, and there is none: set experiments.control_sft")
        if experiments.small_control and not (align and align.teach):
            raise ValueError("experiments.small_control is a control of align.teach: add [align.teach], or drop it")
        if experiments.dpo_nll and not align:
            raise ValueError("experiments.dpo_nll trains by align.dpo: add [align], or drop it")
        given = [name for name in ExperimentsConfig.model_fields if getattr(experiments, name)]
        if given and align and not align.examines:
            raise ValueError(
                f"experiments.{given[0]} is measured on prompts, and align.data.prompts names none: add some"
            )
        needed = {"quality": align and align.quality, "averaging": align and align.average and align.gate}
        for part in experiments.ablations:
            if align and not needed.get(part, True):
                raise ValueError(f"experiments.ablations names {part}, but [align] has no {part}: add it, or drop it")
        if experiments.dpo_nll and align and align.dpo.nll_weight_used == 0:
            raise ValueError(
                "experiments.dpo_nll compares DPO with and without align.dpo.nll_weight, which is 0: raise it, or drop "
                "the experiment"
            )
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        new = [model for model in self.herd.models.values() if model.shape]
        longest = max(
            (self.pretrain.seq_lens if self.pretrain else set()) | (self.align.seq_lens if self.align else {0})
        )
        if new and longest > self.herd.max_seq_len:
            raise ValueError(
                f"rows of {longest} tokens exceed herd.max_seq_len {self.herd.max_seq_len}: raise it, or lower seq_len"
            )
        self._sources_exist()
        for name, model in self.herd.models.items():
            self._teacher_fits(name, model)
            try:
                if model.shape:
                    self._new_shape(model, self.tokenizer.vocab_size)
            except ValueError as error:
                raise ValueError(f"herd.models.{name} {model.shape} is impossible: {error}") from error
        return self

    @model_validator(mode="after")
    def _starts_agree(self) -> Recipe:
        herd = self.herd
        started = [name for name, model in herd.models.items() if model.start is not None]
        if started and self.tokenizer != TokenizerConfig():
            raise ValueError(
                f"herd.models.{started[0]} starts from a folder, and the run takes its tokenizer: remove [tokenizer]"
            )
        if ladder := sorted({herd.flagship, *herd.ladder} & set(started) if herd.ladder else ()):
            raise ValueError(
                f"herd.ladder forecasts the loss of new models, but {ladder[0]} starts from a folder: remove the ladder"
            )
        if all(model.start is not None or model.shrink is not None for model in herd.models.values()):
            given = [f"herd.{key}" for key in NEW_ONLY if getattr(herd, key) != HerdConfig.model_fields[key].default]
            given += ["pretrain.init"] if self.pretrain and self.pretrain.init != InitConfig() else []
            if given:
                raise ValueError(f"{given[0]} is for models with new weights, but all start from folders: remove it")
        if self.pretrain is None:
            self._nothing_is_pretrained()
        return self

    def _nothing_is_pretrained(self) -> None:
        for name in filter(None, (self.herd.flagship, self.herd.small)):
            model = self.herd.models[name]
            if model.start is None and model.shrink is None:
                raise ValueError(f"there is no [pretrain], but herd.models.{name} starts from no folder: add either")
            for key in ("peak_lr", "parallel", "distill"):
                if getattr(model, key) is not None:
                    raise ValueError(f"herd.models.{name}.{key} is for pre-training: add [pretrain], or remove it")
        if self.tokens.skill_documents:
            raise ValueError("tokens.skill_documents are for pre-training: add [pretrain], or remove it")

    def _teacher_fits(self, name: str, model: HerdModelConfig) -> None:
        pretrain = self.pretrain
        if model.distill is None or pretrain is None:
            return
        key = f"herd.models.{name}.distill"
        if pretrain.objective:
            raise ValueError(f"{key} and pretrain.objective are both set: drop one, since either is the objective")
        if model.shape and not self.starts and model.distill.top_k > self.tokenizer.vocab_size:
            raise ValueError(
                f"{key}.top_k {model.distill.top_k} exceeds tokenizer.vocab_size {self.tokenizer.vocab_size}"
            )
        if model.distill.steps == "anneal":
            if not pretrain.train.anneal_steps:
                raise ValueError(f"{key}.steps is 'anneal', but pretrain.train.anneal_steps is 0")
            if round(pretrain.steps * (1 - pretrain.train.average_last)) < pretrain.steps - pretrain.train.anneal_steps:
                raise ValueError(
                    f"{key}.steps is 'anneal', but pretrain.train.average_last {pretrain.train.average_last} reaches "
                    "back before the anneal: lower it"
                )

    def _sources_exist(self) -> None:
        for name, source in self.tokens.sources.items():
            if foreign := sorted(set(source.languages) - set(self.curate.language.keep)):
                raise ValueError(
                    f"tokens.sources.{name}.languages names {foreign[0]!r}, but curate.language.keep does not: "
                    "add it there"
                )
        if self.pretrain is not None:
            uses_skills = any(part.source == SKILLS for phase in timeline(self.pretrain) for part in phase.mix)
            if uses_skills and not self.tokens.skill_documents:
                raise ValueError(
                    "pretrain.mix uses skills, but tokens.skill_documents is 0: raise it, or drop the source"
                )
            check_mixes(self.pretrain, (*shard_names(self.tokens.sources), SKILLS))

    @property
    def starts(self) -> dict[str, str]:
        """By name, the folder or run that a model starts from; that of the flagship comes first."""
        found = {name: model.start for name, model in self.herd.models.items() if model.start is not None}
        return dict(sorted(found.items(), key=lambda entry: entry[0] != self.herd.flagship))

    def start_folder(self, name: str) -> Path | None:
        """The model folder that the model ``name`` starts from; None if its weights are new.

        Raises:
            InputError: there is no model at ``herd.models.name.from``.
        """
        start = self.starts.get(name)
        return None if start is None else model_folder(Path(start))

    def tokenizer_folder(self) -> Path | None:
        """The model folder whose tokenizer a run takes; None if it trains one."""
        return next((self.start_folder(name) for name in self.starts), None)

    def check_starts(self) -> None:
        """Check the folders that models start from.

        Raises:
            InputError: a folder holds no model that can be continued, its context is too short for post-training, or
                two folders have different tokenizers.
            DamagedError: a file cannot be read.
        """
        tokenizers: dict[str, str] = {}
        for name in self.starts:
            folder, shape = self.start_folder(name), self.model_config_of(name)
            assert folder is not None
            longest = max(self.align.seq_lens) if self.align else 0
            if longest > shape.max_seq_len:
                raise InputError(
                    f"rows of {longest:,} tokens exceed max_position_embeddings {shape.max_seq_len:,} of {folder}",
                    "Lower seq_len in [align]",
                )
            tokenizers[name] = Tokenizer.load(folder).content()
            first = next(iter(tokenizers))
            if tokenizers[name] != tokenizers[first]:
                raise InputError(
                    f"herd.models.{name}.from and herd.models.{first}.from have different tokenizers",
                    "Start both from folders with one tokenizer",
                )

    def model_config_of(self, name: str) -> ModelConfig:
        """The model configuration of ``herd.models.name``.

        Raises:
            InputError, DamagedError: the model has no shape, or the folder that it starts from cannot be used.
        """
        model, start = self.herd.models[name], self.start_folder(name)
        if start is not None:
            return starting_shape(start, self.pretrain)
        if model.shrink is not None:
            larger = self.model_config_of(model.shrink.start)
            return larger.model_copy(update={"layers": len(model.shrink.of(larger.layers))})
        if not model.shape:
            raise InputError(
                f"herd.models.{name} has no shape",
                f"Set {', '.join(SHAPE)}, or from; herdlm train can take a folder with --from",
            )
        published = self.tokenizer_folder()
        vocab_size = self.tokenizer.vocab_size if published is None else starting_shape(published, None).vocab_size
        return self._new_shape(model, vocab_size)

    def _new_shape(self, model: HerdModelConfig, vocab_size: int) -> ModelConfig:
        shared = {key: getattr(self.herd, key) for key in NEW_ONLY}
        return ModelConfig(vocab_size=vocab_size, **shared, **model.shape)

    def kept_layers(self, name: str) -> tuple[int, ...]:
        """The layers that the shrunk model ``name`` keeps of the larger one.

        Raises:
            InputError, DamagedError: the larger model has no such layers, or no shape.
        """
        shrink = self.herd.models[name].shrink
        assert shrink is not None
        return shrink.of(self.model_config_of(shrink.start).layers)

    @property
    def pretraining(self) -> PretrainConfig:
        """The section [pretrain].

        Raises:
            InputError: the recipe has none.
        """
        if self.pretrain is None:
            raise InputError(f"the recipe {self.name} has no [pretrain], so it pre-trains nothing", "Add the section")
        return self.pretrain

    def job(self, name: str, start: Path | None = None) -> PretrainJob:
        """The settings for pre-training the model ``name``.

        Args:
            start: a model folder or a run that the model starts from; it replaces the model's shape, or its ``from``,
                and the recipe's tokenizer.

        Raises:
            InputError: the herd has no such model, the recipe has no [pretrain], or the model cannot start from its
                folder.
        """
        if name not in self.herd.models:
            raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(self.herd.models)}")
        model, pretrain = self.herd.models[name], self.pretraining
        folder = self.start_folder(name) if start is None else model_folder(start)
        shape = self.model_config_of(name) if folder is None else starting_shape(folder, pretrain)
        if model.distill and model.distill.top_k > shape.vocab_size:
            raise InputError(
                f"herd.models.{name}.distill.top_k {model.distill.top_k} exceeds the vocabulary of {shape.vocab_size}",
                "Lower it",
            )
        if model.peak_lr is not None:
            train = pretrain.train.model_copy(update={"peak_lr": model.peak_lr})
            pretrain = pretrain.model_copy(update={"train": train})
        return PretrainJob(
            name,
            shape,
            pretrain,
            parallel=model.parallel or self.parallel,
            seed=self.seed,
            device=self.compute.device,
            threads=self.compute.threads_per_stage,
            distill=model.distill,
            track=self.track,
            start=folder,
            shrunk_from=model.shrink.start if model.shrink and folder is None else None,
            own_tokenizer=folder is None and not self.starts,
        )

    def herd_job(self) -> HerdJob:
        """The settings of all models of the herd, and the role of each."""
        shards = shard_names(self.tokens.sources)
        return HerdJob(
            name=self.name,
            models={name: self.job(name) for name in self.herd.models},
            pretrain=self.pretraining,
            flagship=self.herd.flagship,
            small=self.herd.small,
            ladder=self.herd.ladder,
            axis=self.forecast.axis,
            sources=(*shards, SKILLS) if self.tokens.skill_documents else shards,
            domains=tuple(self.tokens.sources) or (WEB,),
            seed=self.seed,
        )


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, the recipes it extends, and ``key=value`` overrides.

    Raises:
        InputError: a file or key is not valid; names file, key, value and what is allowed.
    """
    given = apply_overrides({}, overrides)
    _resolve_sources(given, Path.cwd())
    return parse(Recipe, {"name": path.stem} | merge(read_toml(path, localize=_resolve_sources), given), str(path))


def _resolve_sources(tables: dict[str, Any], folder: Path) -> None:
    """Make paths absolute: in a recipe they are relative to its file, on the command line to the working folder."""
    _localize(tables, "data.sources", folder)
    _localize(tables, "herd.models.*.from", folder)
    for name in ("dialogs", "preferences", "prompts", "gate", "exam"):
        _localize(tables, f"align.data.{name}", folder)
    _localize(tables, "align.gate.data", folder)
    align = tables.get("align")
    sections = [tables.get("evaluate")]
    if isinstance(align, dict):
        sections.append(align.get("gate"))
        if isinstance(synth := align.get("synth"), dict):
            localize_synth(synth, folder)
    _localize(tables, "evaluate.data", folder)
    for section in sections:  # whose tasks are names, or task files
        if isinstance(section, dict) and isinstance(tasks := section.get("tasks"), list):
            section["tasks"] = [
                _absolute(task, folder) if isinstance(task, str) and task.endswith(".toml") else task for task in tasks
            ]
    for key in PATHS:
        _localize(tables, f"curate.{key}", folder)


def _localize(tables: Any, key: str, folder: Path) -> None:
    """Make the path or list of paths at a dotted ``key`` absolute, if the key is there; ``*`` matches any name."""
    name, _, rest = key.partition(".")
    if not isinstance(tables, dict):
        return
    if name == "*":
        for each in tables:
            _localize(tables, f"{each}.{rest}", folder)
    elif rest:
        _localize(tables.get(name), rest, folder)
    elif isinstance(given := tables.get(name), list):
        tables[name] = [_absolute(each, folder) for each in given]
    elif name in tables:
        tables[name] = _absolute(given, folder)


def _absolute(path: Any, folder: Path) -> Any:
    return path if not isinstance(path, str) or not path or "://" in path else str((folder / path).resolve())
