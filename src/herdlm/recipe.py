"""The schema of a whole recipe: the sections of all packages, and the rules that hold between sections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from herdlm.align.config import AlignConfig, BankConfig, ExperimentsConfig
from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, apply_overrides, merge, parse, read_toml
from herdlm.curate.config import PATHS, CurateConfig
from herdlm.curate.orthography import LANGUAGES
from herdlm.generate.fp8.config import Fp8Config
from herdlm.model.config import ModelConfig, RopeScaling, check_scaling
from herdlm.parallel.config import ParallelConfig
from herdlm.pretrain.config import PretrainConfig, timeline
from herdlm.pretrain.config import check_sources as check_mixes
from herdlm.pretrain.job import HerdJob, PretrainJob
from herdlm.tokens.sources import SKILLS, WEB, SourceConfig, check_sources, shard_names
from herdlm.tokens.tokenizer import TokenizerConfig
from herdlm.train.config import TrackConfig
from herdlm.train.distill_config import DistillConfig


class ComputeConfig(Section):
    """Where stages run. ``device`` and ``threads_per_stage`` change results by rounding; nothing else here does."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    threads_per_stage: int = Field(1, ge=1, description="CPU threads of each stage's process")
    stages_at_once: int = Field(2, ge=1, description="how many independent stages run in parallel")


class DataConfig(Section):
    """Where raw pages come from."""

    sources: tuple[str, ...] = Field(min_length=1, description="paths relative to the recipe, globs or URLs")


class TokensConfig(Section):
    """How documents are divided into sets of tokens: sources, validation and the annealing set."""

    validation_percent: float = Field(
        5.0, gt=0, lt=50, description="percentage of documents that are held out of all training"
    )
    anneal_percent: float = Field(
        30.0, gt=0, le=100, description="percentage of training documents, the best by quality, that annealing reads"
    )
    max_text_megabytes: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="by language: the most text to keep; the rest is dropped at random"
    )

    @field_validator("max_text_megabytes")
    @classmethod
    def _languages_exist(cls, limits: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(limits) - LANGUAGES):
            raise ValueError(f"language {unknown[0]!r} is not known; choose from {', '.join(sorted(LANGUAGES))}")
        return limits

    sources: dict[str, SourceConfig] = Field(
        default_factory=dict, description="by name; by default all documents form one source, web"
    )

    @field_validator("sources")
    @classmethod
    def _sources_are_disjoint(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        check_sources(sources)
        return sources

    skill_documents: int = Field(0, ge=0, description="how many short documents to generate that show a skill")
    skill_context_share: float = Field(
        0.5, ge=0, le=1, description="share of the skill documents that follow a piece of web text"
    )


class ShapeConfig(Section):
    """The shape of one model. [pretrain] and [tokenizer] have what all models share."""

    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    peak_lr: float | None = Field(None, gt=0, description="replaces pretrain.train.peak_lr for this model")
    parallel: ParallelConfig | None = Field(None, description="replaces [parallel] for this model")
    distill: DistillConfig | None = Field(None, description="pre-trains this model from a teacher and the text")


class HerdConfig(Section):
    """The models, and the role of each."""

    models: dict[str, ShapeConfig] = Field(
        default={"flagship": ShapeConfig(dim=768, layers=12, heads=12, kv_heads=4, ffn_dim=2688)}, min_length=1
    )
    flagship: str = "flagship"
    small: str | None = Field(None, description="a smaller model that the run also delivers; the flagship may teach it")
    ladder: tuple[str, ...] = Field((), description="two or more models to forecast the flagship's loss from")
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    _scaling_acts = field_validator("rope_scaling")(check_scaling)
    tied_embeddings: bool = False
    max_seq_len: int = Field(8192, gt=0)

    @model_validator(mode="after")
    def _names_exist(self) -> HerdConfig:
        for name in (self.flagship, self.small, *self.ladder):
            if name is not None and name not in self.models:
                raise ValueError(f"herd names the model {name}, but there is no [herd.models.{name}]: add it")
        if len(self.ladder) == 1:
            raise ValueError(
                f"herd.ladder has one model, {self.ladder[0]}, but a forecast needs two or more: add one, or set []"
            )
        if self.flagship in self.ladder:
            raise ValueError(
                f"herd.ladder contains the flagship {self.flagship}, whose loss it forecasts: remove it from the ladder"
            )
        if self.small == self.flagship:
            raise ValueError(f"herd.small and herd.flagship are both {self.small}: choose two models")
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError(f"herd.ladder names a model twice: {', '.join(self.ladder)}")
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == f"{self.flagship}-fp8":
                raise ValueError(
                    f"herd.models.{name} is not a valid name: use letters, digits, '.', '_' and '-', "
                    f"and not {self.flagship}-fp8, which names the flagship in FP8"
                )
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> HerdConfig:
        for name in self.models:
            chain = [name]
            while (distill := self.models[chain[-1]].distill) is not None and distill.teacher is not None:
                key, teacher = f"herd.models.{chain[-1]}.distill.teacher", distill.teacher
                if teacher not in self.models:
                    raise ValueError(f"{key} names the model {teacher}, but there is no [herd.models.{teacher}]")
                if teacher not in {self.flagship, self.small, *self.ladder}:
                    raise ValueError(
                        f"{key} = {teacher!r}, but no run trains it: it is neither herd.flagship nor herd.small "
                        "nor in herd.ladder"
                    )
                if teacher in chain:
                    raise ValueError(f"{key}: models teach each other in a circle, {' <- '.join([*chain, teacher])}")
                if teacher == self.flagship and name in self.ladder:
                    raise ValueError(f"{key}: {teacher} is trained after the ladder, but {name} is on the ladder")
                chain.append(teacher)
        return self


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
    data: DataConfig
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    herd: HerdConfig = HerdConfig()
    pretrain: PretrainConfig
    forecast: ForecastConfig = ForecastConfig()
    bank: BankConfig = BankConfig()
    align: AlignConfig | None = Field(None, description="post-training in rounds; none by default")
    quantize: Fp8Config | None = Field(None, description="also exports the flagship in FP8; not by default")
    experiments: ExperimentsConfig = Field(ExperimentsConfig(), description="controls and ablations; none by default")
    track: TrackConfig = TrackConfig()

    @field_validator("experiments", mode="before")
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
        if experiments.control_sft and not align:
            raise ValueError("experiments.control_sft is a control of the rounds: add [align], or drop it")
        if experiments.small_control and not (align and align.teach):
            raise ValueError("experiments.small_control is a control of align.teach: add [align.teach], or drop it")
        if experiments.dpo_nll and not align:
            raise ValueError("experiments.dpo_nll trains by align.dpo: add [align], or drop it")
        if experiments.dpo_nll and align and align.dpo.nll_weight_used == 0:
            raise ValueError(
                "experiments.dpo_nll compares DPO with and without align.dpo.nll_weight, which is 0: raise it, or drop "
                "the experiment"
            )
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        longest = max(self.pretrain.seq_lens | (self.align.seq_lens if self.align else set()))
        if longest > self.herd.max_seq_len:
            raise ValueError(
                f"rows of {longest} tokens exceed herd.max_seq_len {self.herd.max_seq_len}: raise it, or lower seq_len"
            )
        uses_skills = any(part.source == "skills" for phase in timeline(self.pretrain) for part in phase.mix)
        if uses_skills and not self.tokens.skill_documents:
            raise ValueError("pretrain.mix uses skills, but tokens.skill_documents is 0: raise it, or drop the source")
        self._sources_exist()
        for name, shape in self.herd.models.items():
            self._teacher_fits(name, shape)
            try:
                self.model_config_of(name)
            except ValueError as error:
                raise ValueError(f"herd.models.{name} {shape.model_dump()} is impossible: {error}") from error
        return self

    def _teacher_fits(self, name: str, shape: ShapeConfig) -> None:
        if shape.distill is None:
            return
        key, pretrain = f"herd.models.{name}.distill", self.pretrain
        if pretrain.objective:
            raise ValueError(f"{key} and pretrain.objective are both set: drop one, since either is the objective")
        if shape.distill.top_k > self.tokenizer.vocab_size:
            raise ValueError(
                f"{key}.top_k {shape.distill.top_k} exceeds tokenizer.vocab_size {self.tokenizer.vocab_size}"
            )
        if shape.distill.steps == "anneal":
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
        check_mixes(self.pretrain, (*shard_names(self.tokens.sources), SKILLS))

    def model_config_of(self, name: str) -> ModelConfig:
        """The model configuration of ``herd.models.name``."""
        shape = self.herd.models[name].model_dump(exclude={"peak_lr", "parallel", "distill"})
        return ModelConfig(
            vocab_size=self.tokenizer.vocab_size,
            max_seq_len=self.herd.max_seq_len,
            rope_theta=self.herd.rope_theta,
            rope_scaling=self.herd.rope_scaling,
            tied_embeddings=self.herd.tied_embeddings,
            **shape,
        )

    def job(self, name: str) -> PretrainJob:
        """The settings for pre-training the model ``name``.

        Raises:
            InputError: the herd has no such model.
        """
        if name not in self.herd.models:
            raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(self.herd.models)}")
        model, pretrain = self.herd.models[name], self.pretrain
        if model.peak_lr is not None:
            train = pretrain.train.model_copy(update={"peak_lr": model.peak_lr})
            pretrain = pretrain.model_copy(update={"train": train})
        return PretrainJob(
            name,
            self.model_config_of(name),
            pretrain,
            parallel=model.parallel or self.parallel,
            seed=self.seed,
            device=self.compute.device,
            threads=self.compute.threads_per_stage,
            distill=model.distill,
            track=self.track,
        )

    def herd_job(self) -> HerdJob:
        """The settings of all models of the herd, and the role of each."""
        shards = shard_names(self.tokens.sources)
        return HerdJob(
            name=self.name,
            models={name: self.job(name) for name in self.herd.models},
            pretrain=self.pretrain,
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
