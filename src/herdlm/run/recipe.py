"""The whole recipe: the sections of all layers put together, with what only holds between them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from herdlm.align.config import AlignConfig, BankConfig
from herdlm.base.recipe import Section, apply_overrides, parse, read_toml
from herdlm.curate.config import CurateConfig
from herdlm.generate.fp8_config import Fp8Config
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.tokens.tokenizer import TokenizerConfig
from herdlm.train.config import TrainConfig


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
    max_text_megabytes: dict[str, float] = Field(
        default_factory=dict, description="per language; down-samples what is over-represented"
    )
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
        return self


class MixPart(Section):
    """One source of a data mix."""

    source: Literal["web", "web-anneal", "skills"]
    share: float = Field(gt=0, description="of the rows, relative to the others")
    loss_weight: float = Field(1.0, gt=0, description="of each of its target tokens")


class InitConfig(Section):
    """How weights start."""

    std: float | Literal["dim"] = Field(0.02, description="of matrices; 'dim' means dim ** -0.5")
    embedding_std: float | Literal["dim"] | None = Field(
        None, description="'dim' means dim ** -0.5; std where not given"
    )
    zero_residual: bool = False


class PretrainConfig(Section):
    """Pre-training, the same for every model of the herd. The last ``train.anneal_steps`` read ``anneal_mix``."""

    seq_len: int = Field(gt=0)
    rows_per_step: int = Field(gt=0)
    steps: int = Field(gt=0, description="in all, annealing included")
    mix: tuple[MixPart, ...] = Field(min_length=1)
    anneal_mix: tuple[MixPart, ...] = Field(min_length=1)
    init: InitConfig = InitConfig()
    train: TrainConfig

    @model_validator(mode="after")
    def _anneal_fits(self) -> PretrainConfig:
        if self.train.anneal_steps >= self.steps:
            raise ValueError(f"pretrain.train.anneal_steps {self.train.anneal_steps} leaves none of {self.steps} steps")
        return self


class ForecastConfig(Section):
    """The axis of the forecast, fixed before anything is trained."""

    axis: Literal["parameters", "body_parameters"] = "body_parameters"


class Recipe(Section):
    """One file that says how a herd is raised."""

    name: str
    seed: int = 0
    compute: ComputeConfig = ComputeConfig()
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

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        longest = max(self.pretrain.seq_len, self.align.sft.seq_len, self.align.dpo.seq_len, self.align.reward.seq_len)
        if longest > self.herd.max_seq_len:
            raise ValueError(f"rows of {longest} tokens exceed herd.max_seq_len {self.herd.max_seq_len}")
        uses_skills = any(part.source == "skills" for part in (*self.pretrain.mix, *self.pretrain.anneal_mix))
        if uses_skills and not self.tokens.skill_documents:
            raise ValueError("pretrain.mix uses skills, but tokens.skill_documents is 0: raise it or drop the source")
        for name, shape in self.herd.models.items():
            try:
                self.model_config_of(name)
            except ValueError as error:
                raise ValueError(f"herd.models.{name} {shape.model_dump()} is impossible: {error}") from error
        return self

    def model_config_of(self, name: str) -> ModelConfig:
        """The full shape of a model of the herd."""
        shape = self.herd.models[name].model_dump(exclude={"peak_lr"})
        return ModelConfig(
            vocab_size=self.tokenizer.vocab_size, max_seq_len=self.herd.max_seq_len, rope_theta=self.herd.rope_theta,
            rope_scaling=self.herd.rope_scaling, tied_embeddings=self.herd.tied_embeddings, **shape,
        )  # fmt: skip


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe with its bases and ``key=value`` overrides.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    tables = apply_overrides(read_toml(path, localise=_resolve_sources), overrides)
    return parse(Recipe, tables, str(path))


def _resolve_sources(tables: dict[str, Any], folder: Path) -> None:
    """Sources are written relative to the recipe file that names them."""
    data = tables.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(sources, list):
        data["sources"] = [s if not isinstance(s, str) or "://" in s else str((folder / s).resolve()) for s in sources]
