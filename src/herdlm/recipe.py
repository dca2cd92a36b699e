"""The whole recipe: the sections of all layers put together, with what only holds between them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from herdlm.align.config import AlignConfig, BankConfig
from herdlm.base.recipe import Section, apply_overrides, merge, parse, read_toml
from herdlm.curate.config import PATHS, CurateConfig
from herdlm.curate.orthography import LANGUAGES
from herdlm.generate.fp8.config import Fp8Config
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.parallel.config import ParallelConfig
from herdlm.run.timeline import timeline, whole_rows
from herdlm.tokens.sources import SKILLS, SourceConfig, check_sources, shard_names
from herdlm.tokens.tokenizer import TokenizerConfig
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.distill_config import DistillConfig


class ComputeConfig(Section):
    """Where stages run. None of it changes a result but ``device`` and ``threads_per_stage``, by rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads_per_stage: int = Field(1, ge=1)
    stages_at_once: int = Field(2, ge=1, description="stages that need nothing of each other run side by side")


class DataConfig(Section):
    """Where raw pages come from: paths (relative to the recipe), globs or URLs."""

    sources: tuple[str, ...] = Field(min_length=1)


class TokensConfig(Section):
    """Which documents become tokens of which set."""

    validation_percent: float = Field(5.0, gt=0, lt=50, description="of documents, held out of all training")
    anneal_percent: float = Field(30.0, gt=0, le=100, description="of training documents, the best by quality")
    max_text_megabytes: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="per language; down-samples what is over-represented"
    )

    @field_validator("max_text_megabytes")
    @classmethod
    def _languages_exist(cls, limits: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(limits) - LANGUAGES):
            raise ValueError(f"language {unknown[0]!r} is not known; choose from {', '.join(sorted(LANGUAGES))}")
        return limits

    sources: dict[str, SourceConfig] = Field(
        default_factory=dict, description="by name; without them all documents make the source web"
    )

    @field_validator("sources")
    @classmethod
    def _sources_are_apart(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        check_sources(sources)
        return sources

    skill_documents: int = Field(0, ge=0, description="generated short documents that show a skill")
    skill_context_share: float = Field(0.5, ge=0, le=1, description="of them that stand behind a piece of web text")


class ShapeConfig(Section):
    """One model of the herd; what all of them share stands in [pretrain] and [tokenizer]."""

    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    peak_lr: float | None = Field(None, gt=0, description="overrides the one in [pretrain.train]")
    parallel: ParallelConfig | None = Field(None, description="takes the place of [parallel] for this model")
    distill: DistillConfig | None = Field(None, description="pre-train it from a teacher as well as from the text")


class HerdConfig(Section):
    """The models, and what each is for."""

    models: dict[str, ShapeConfig]
    flagship: str = "flagship"
    small: str = "small"
    ladder: tuple[str, ...] = Field(min_length=2, description="models the forecast is fitted to")
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = False
    max_seq_len: int = Field(8192, gt=0)

    @model_validator(mode="after")
    def _names_exist(self) -> HerdConfig:
        for name in (self.flagship, self.small, *self.ladder):
            if name not in self.models:
                raise ValueError(f"herd names the model {name}, but there is no [herd.models.{name}]")
        if self.flagship in self.ladder:
            raise ValueError(f"herd.ladder holds the flagship {self.flagship}, which it is to forecast")
        if self.small == self.flagship:
            raise ValueError(f"herd.small and herd.flagship are both {self.small}: the one is to teach the other")
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError(f"herd.ladder names a model twice: {', '.join(self.ladder)}")
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == f"{self.flagship}-fp8":
                raise ValueError(f"herd.models.{name} is no name for a model: use letters, digits, '.', '_' and '-'")
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
                    raise ValueError(f"{key} {teacher} is neither flagship, small nor on the ladder: no run trains it")
                if teacher in chain:
                    raise ValueError(f"{key}: models teach each other in a circle, {' <- '.join([*chain, teacher])}")
                if teacher == self.flagship and name in self.ladder:
                    raise ValueError(f"{key} {teacher} is trained after the ladder, and {name} is on it")
                chain.append(teacher)
        return self


class MixPart(Section):
    """One source of a data mix."""

    source: str = Field(description="web, a name in tokens.sources, either with -anneal for its best part, or skills")
    share: float = Field(gt=0, description="of the rows, relative to the others")
    loss_weight: float = Field(1.0, gt=0, description="of each of its target tokens")


class InitConfig(Section):
    """How weights start."""

    std: float | Literal["dim"] = Field(0.02, description="of matrices; 'dim' means dim ** -0.5")
    embedding_std: float | Literal["dim"] | None = Field(
        None, description="'dim' means dim ** -0.5; std where not given"
    )
    zero_residual: bool = False


class RampPart(Section):
    """Row length and batch size from a number of tokens seen on (report, section 3.4.1)."""

    from_tokens: int = Field(gt=0, description="seen by the model before the first step of this size")
    seq_len: int = Field(gt=0)
    tokens_per_step: int = Field(gt=0, description="a multiple of seq_len")

    @model_validator(mode="after")
    def _rows_are_whole(self) -> RampPart:
        whole_rows("tokens_per_step", self.tokens_per_step, self.seq_len)
        return self


class MixPhase(Section):
    """The data mix from a number of tokens seen on."""

    from_tokens: int = Field(gt=0)
    mix: tuple[MixPart, ...] = Field(min_length=1)


class LongContextStage(Section):
    """Training on longer rows, after the main part and before the anneal (report, section 3.4.2)."""

    seq_len: int = Field(gt=0)
    tokens: int = Field(gt=0, description="to train on; rounded up to whole steps")
    tokens_per_step: int | None = Field(None, gt=0, description="a multiple of seq_len; as before where not given")
    mix: tuple[MixPart, ...] | None = Field(None, min_length=1, description="as before where not given")
    rope_scaling: RopeScaling | None = Field(None, description="from this stage on; as before where not given")


class GateConfig(Section):
    """What a model must show at the end of a long-context stage before the next one begins."""

    short_loss_margin: float = Field(
        0.01, ge=0, description="nats per token that the loss on short rows may lie above its value before all stages"
    )
    needle_rate: float = Field(0.95, ge=0, le=1, description="of needles to be found at the stage's seq_len")
    needle_depths: int = Field(10, ge=1, description="places in the haystack, evenly spread")
    needles_per_depth: int = Field(5, ge=1)


class PretrainConfig(Section):
    """Pre-training, the same for every model of the herd.

    ``steps`` are the main part, then the long-context stages, then the anneal, which reads ``anneal_mix``. The main
    part begins with ``seq_len``, ``rows_per_step`` and ``mix``; ``ramp`` and ``mix_phases`` change them by tokens seen.
    """

    seq_len: int = Field(gt=0)
    rows_per_step: int = Field(gt=0)
    rows_per_micro_batch: int | None = Field(
        None, gt=0, description="rows of one forward pass of all ranks together; a whole step where not given"
    )
    steps: int = Field(gt=0, description="in all, long-context stages and annealing included")
    mix: tuple[MixPart, ...] = Field(min_length=1)
    ramp: tuple[RampPart, ...] = ()
    mix_phases: tuple[MixPhase, ...] = ()
    long_context: tuple[LongContextStage, ...] = ()
    gate: GateConfig = GateConfig()
    anneal_mix: tuple[MixPart, ...] = Field(min_length=1)
    max_epochs: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="by source: how often it may be read over the whole run; shares give way"
    )
    init: InitConfig = InitConfig()
    train: TrainConfig

    @model_validator(mode="after")
    def _anneal_fits(self) -> PretrainConfig:
        if self.train.anneal_steps >= self.steps:
            raise ValueError(f"pretrain.train.anneal_steps {self.train.anneal_steps} leaves none of {self.steps} steps")
        if self.train.horizon_steps is not None:
            raise ValueError("pretrain.train.horizon_steps is pretrain.steps: drop it")
        return self

    @model_validator(mode="after")
    def _changes_follow_each_other(self) -> PretrainConfig:
        for name, begins in (
            ("ramp", [part.from_tokens for part in self.ramp]),
            ("mix_phases", [phase.from_tokens for phase in self.mix_phases]),
        ):
            for before, after in pairwise(begins):
                if after <= before:
                    raise ValueError(f"pretrain.{name}: from_tokens {after} does not come after {before}")
        lengths = [self.ramp[-1].seq_len if self.ramp else self.seq_len, *(s.seq_len for s in self.long_context)]
        for short, long in pairwise(lengths):
            if long <= short:
                raise ValueError(
                    f"pretrain.long_context: rows of {long:,} tokens after rows of {short:,} are not longer"
                )
        ends = [stretch.end_step for stretch in timeline(self) if stretch.kind == "long-context"]
        averaged_from = round(self.steps * (1 - self.train.average_last))
        if ends and averaged_from < ends[-1]:
            raise ValueError(
                f"pretrain.train.average_last {self.train.average_last} reaches back to step {averaged_from:,}, into "
                "the long-context stages: lower it"
            )
        return self

    @model_validator(mode="after")
    def _mixes_and_caps_agree(self) -> PretrainConfig:
        mixes = self.mixes
        for key, mix in mixes.items():
            names = [part.source for part in mix]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{key} names the source {twice[0]} twice")
        read = {part.source for mix in mixes.values() for part in mix}
        if unread := sorted(set(self.max_epochs) - read):
            raise ValueError(
                f"pretrain.max_epochs.{unread[0]}: no mix reads {unread[0]}, only {', '.join(sorted(read))}"
            )
        return self

    @property
    def mixes(self) -> dict[str, tuple[MixPart, ...]]:
        """All mixes by their key in the recipe."""
        return {
            "pretrain.mix": self.mix,
            **{f"pretrain.mix_phases.{number}.mix": phase.mix for number, phase in enumerate(self.mix_phases)},
            **{f"pretrain.long_context.{n}.mix": stage.mix for n, stage in enumerate(self.long_context) if stage.mix},
            "pretrain.anneal_mix": self.anneal_mix,
        }

    @property
    def seq_lens(self) -> set[int]:
        """All row lengths that are trained on."""
        return {stretch.seq_len for stretch in timeline(self)}


class ForecastConfig(Section):
    """The axis of the forecast, fixed before anything is trained."""

    axis: Literal["parameters", "body_parameters"] = "body_parameters"


class Recipe(Section):
    """One file that says how a herd is raised."""

    name: str
    seed: int = 0
    compute: ComputeConfig = ComputeConfig()
    parallel: ParallelConfig = ParallelConfig()
    data: DataConfig
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig
    tokens: TokensConfig = TokensConfig()
    herd: HerdConfig
    pretrain: PretrainConfig
    forecast: ForecastConfig = ForecastConfig()
    bank: BankConfig = BankConfig()
    align: AlignConfig
    quantize: Fp8Config = Fp8Config()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        align = self.align
        tuning = (align.seed_sft, align.sft, align.dpo, align.reward)
        longest = max(*self.pretrain.seq_lens, *(part.seq_len for part in tuning))
        if longest > self.herd.max_seq_len:
            raise ValueError(f"rows of {longest} tokens exceed herd.max_seq_len {self.herd.max_seq_len}")
        uses_skills = any(part.source == "skills" for stretch in timeline(self.pretrain) for part in stretch.mix)
        if uses_skills and not self.tokens.skill_documents:
            raise ValueError("pretrain.mix uses skills, but tokens.skill_documents is 0: raise it or drop the source")
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
                    f"tokens.sources.{name}.languages names {foreign[0]!r}, which curate.language.keep does not"
                )
        known = (*shard_names(self.tokens.sources), SKILLS)
        for key, mix in self.pretrain.mixes.items():
            for number, part in enumerate(mix):
                if part.source not in known:
                    raise ValueError(
                        f"key {key}.{number}.source = {part.source!r} is no source; choose from {', '.join(known)}"
                    )

    def model_config_of(self, name: str) -> ModelConfig:
        """The full shape of a model of the herd."""
        shape = self.herd.models[name].model_dump(exclude={"peak_lr", "parallel", "distill"})
        return ModelConfig(
            vocab_size=self.tokenizer.vocab_size,
            max_seq_len=self.herd.max_seq_len,
            rope_theta=self.herd.rope_theta,
            rope_scaling=self.herd.rope_scaling,
            tied_embeddings=self.herd.tied_embeddings,
            **shape,
        )

    def parallel_of(self, name: str) -> ParallelConfig:
        """The layout that a model of the herd is trained in."""
        return self.herd.models[name].parallel or self.parallel


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe with its bases and ``key=value`` overrides.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    given = apply_overrides({}, overrides)
    _resolve_sources(given, Path.cwd())
    return parse(Recipe, merge(read_toml(path, localise=_resolve_sources), given), str(path))


def _resolve_sources(tables: dict[str, Any], folder: Path) -> None:
    """Paths are written relative to the recipe file that names them, on the command line to the folder it is in."""
    _localise(tables, "data.sources", folder)
    for key in PATHS:
        _localise(tables, f"curate.{key}", folder)


def _localise(tables: Any, key: str, folder: Path) -> None:
    """Make the path or list of paths at a dotted ``key`` absolute, if there is one; ``*`` stands for any name."""
    name, _, rest = key.partition(".")
    if not isinstance(tables, dict):
        return
    if name == "*":
        for each in tables:
            _localise(tables, f"{each}.{rest}", folder)
    elif rest:
        _localise(tables.get(name), rest, folder)
    elif isinstance(given := tables.get(name), list):
        tables[name] = [_absolute(each, folder) for each in given]
    elif name in tables:
        tables[name] = _absolute(given, folder)


def _absolute(path: Any, folder: Path) -> Any:
    return path if not isinstance(path, str) or not path or "://" in path else str((folder / path).resolve())
