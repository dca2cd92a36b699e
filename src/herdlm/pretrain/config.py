"""Recipe keys of pre-training, and the phases of a run that they result in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from herdlm.base.own_parts import Reference
from herdlm.base.recipe import Section
from herdlm.model.config import RopeScaling, check_scaling
from herdlm.train.config import TrainConfig


class MixPart(Section):
    """One source of a data mix."""

    source: str = Field(description="web or a name in tokens.sources; NAME-anneal, which is its best part; or skills")
    share: float = Field(gt=0, description="share of the rows, relative to the mix's other sources")
    loss_weight: float = Field(1.0, gt=0, description="weight in the loss of each of the source's target tokens")


class InitConfig(Section):
    """How weights are initialized."""

    std: float | Literal["dim"] = Field(0.02, description="standard deviation of matrices; 'dim' means dim ** -0.5")
    embedding_std: float | Literal["dim"] | None = Field(
        None, description="standard deviation of the embedding; 'dim' means dim ** -0.5; by default the same as std"
    )
    zero_residual: bool = Field(False, description="start each layer's output projections at zero")


class RampPart(Section):
    """A row length and batch size, used once the model has seen ``from_tokens`` (report, section 3.4.1)."""

    from_tokens: int = Field(gt=0, description="tokens that the model has seen before the first step of this size")
    seq_len: int = Field(gt=0, description="tokens in a row")
    tokens_per_step: int = Field(gt=0, description="tokens in a step; a multiple of seq_len")

    @model_validator(mode="after")
    def _rows_are_whole(self) -> RampPart:
        whole_rows("tokens_per_step", self.tokens_per_step, self.seq_len)
        return self


class MixPhase(Section):
    """A data mix, used once the model has seen ``from_tokens``."""

    from_tokens: int = Field(gt=0, description="tokens that the model has seen before the first step with this mix")
    mix: tuple[MixPart, ...] = Field(min_length=1)


class LongContextStage(Section):
    """Training on longer rows, after the main part and before the anneal (report, section 3.4.2)."""

    seq_len: int = Field(gt=0, description="tokens in a row")
    tokens: int = Field(gt=0, description="tokens to train on; rounded up to whole steps")
    tokens_per_step: int | None = Field(
        None, gt=0, description="tokens in a step; a multiple of seq_len; by default as before"
    )
    mix: tuple[MixPart, ...] | None = Field(None, min_length=1, description="by default as before")
    rope_scaling: RopeScaling | None = Field(None, description="RoPE scaling from this stage on; by default as before")
    _scaling_acts = field_validator("rope_scaling")(check_scaling)


class GateConfig(Section):
    """What a model must achieve at the end of a long-context stage before the next one begins."""

    short_loss_margin: float = Field(
        0.01, ge=0, description="how far the loss on short rows may exceed its value before all stages, nats per token"
    )
    needle_rate: float = Field(0.95, ge=0, le=1, description="share of needles to find at the stage's seq_len")
    needle_depths: int = Field(10, ge=1, description="number of positions in the haystack, evenly spaced")
    needles_per_depth: int = Field(5, ge=1, description="needles at each position")


class PretrainConfig(Section):
    """Pre-training, the same for every model of the herd.

    A run is the main part, then the long-context stages, then the anneal, which reads ``anneal_mix``. The main part
    begins with ``seq_len``, ``rows_per_step`` and ``mix``; ``ramp`` and ``mix_phases`` change them by tokens seen.
    """

    seq_len: int = Field(gt=0, description="tokens in a row")
    rows_per_step: int = Field(gt=0, description="rows in a step")
    rows_per_micro_batch: int | None = Field(
        None, gt=0, description="rows in one forward pass, over all ranks; by default those of a whole step"
    )
    steps: int = Field(gt=0, description="steps in all, including long-context stages and the anneal")
    mix: tuple[MixPart, ...] = Field(min_length=1)
    ramp: tuple[RampPart, ...] = ()
    mix_phases: tuple[MixPhase, ...] = ()
    long_context: tuple[LongContextStage, ...] = ()
    gate: GateConfig = GateConfig()
    anneal_mix: tuple[MixPart, ...] = Field(min_length=1)
    max_epochs: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="by source: the most epochs over the whole run; shares are reduced to keep it"
    )
    objective: Reference | None = Field(
        None, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    init: InitConfig = InitConfig()
    train: TrainConfig

    @model_validator(mode="after")
    def _anneal_fits(self) -> PretrainConfig:
        if self.train.anneal_steps >= self.steps:
            raise ValueError(
                f"pretrain.train.anneal_steps {self.train.anneal_steps} leaves none of {self.steps} steps: lower it"
            )
        if self.train.horizon_steps is not None:
            raise ValueError("pretrain.train.horizon_steps is pretrain.steps in a recipe: drop it")
        return self

    @model_validator(mode="after")
    def _changes_are_in_order(self) -> PretrainConfig:
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
        ends = [phase.end_step for phase in timeline(self) if phase.kind == "long-context"]
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
        return {phase.seq_len for phase in timeline(self)}


@dataclass(frozen=True, slots=True)
class Phase:
    """Consecutive steps with the same mix, row length and number of rows.

    Args:
        first_token: tokens that the model has seen before the first of these steps.
        stage: number of the long-context stage, counted from 1; 0 in other phases.
        rope_scaling: the RoPE scaling that begins with this phase; None to keep the one before.
    """

    kind: Literal["main", "long-context", "anneal"]
    first_step: int
    steps: int
    first_token: int
    seq_len: int
    rows_per_step: int
    mix: tuple[MixPart, ...]
    stage: int = 0
    rope_scaling: RopeScaling | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step, including padding."""
        return self.seq_len * self.rows_per_step

    @property
    def end_step(self) -> int:
        """Steps that are finished when the phase ends."""
        return self.first_step + self.steps

    @property
    def end_token(self) -> int:
        """Tokens that the model has seen when the phase ends."""
        return self.first_token + self.steps * self.tokens_per_step


def check_sources(config: PretrainConfig, known: Iterable[str]) -> None:
    """Check that every mix reads known sources.

    Raises:
        ValueError: a mix names an unknown source.
    """
    known = tuple(known)
    for key, mix in config.mixes.items():
        for number, part in enumerate(mix):
            if part.source not in known:
                raise ValueError(
                    f"key {key}.{number}.source = {part.source!r} is not a source; choose from {', '.join(known)}"
                )


def timeline(config: PretrainConfig) -> list[Phase]:
    """The phases of a run, in order. Together they cover all its steps.

    A change with ``from_tokens`` takes effect at the first step before which the model has seen that many tokens.

    Raises:
        ValueError: the steps are too few for the long-context stages, or a step is not a whole number of rows.
    """
    stages = _long_context(config)
    main_steps = config.steps - config.train.anneal_steps - sum(stage.steps for stage in stages)
    if main_steps <= 0:
        raise ValueError(
            f"pretrain.steps {config.steps:,} is too few for the long-context stages and the anneal: "
            f"raise it above {config.steps - main_steps:,}"
        )
    phases = _main(config, main_steps)
    for stage in stages:
        phases.append(_after(phases[-1], stage))
    last = phases[-1]
    if config.train.anneal_steps:
        anneal = Phase("anneal", 0, config.train.anneal_steps, 0, last.seq_len, last.rows_per_step, config.anneal_mix)
        phases.append(_after(last, anneal))
    return phases


def tokens_in(config: PretrainConfig) -> int:
    """Tokens that a model has seen at the end of its run."""
    return timeline(config)[-1].end_token


def whole_rows(key: str, tokens_per_step: int, seq_len: int) -> int:
    """Rows in a step.

    Raises:
        ValueError: ``tokens_per_step`` is not a multiple of ``seq_len``; names the nearest that are.
    """
    rows, rest = divmod(tokens_per_step, seq_len)
    if rest:
        near = " or ".join(f"{n * seq_len}" for n in (rows, rows + 1) if n)
        raise ValueError(f"{key} {tokens_per_step} is not a multiple of seq_len {seq_len}: take {near}")
    return rows


def _main(config: PretrainConfig, steps: int) -> list[Phase]:
    sizes: list[tuple[int, int, int]] = [(0, config.seq_len, config.rows_per_step)]
    sizes += [(p.from_tokens, p.seq_len, p.tokens_per_step // p.seq_len) for p in config.ramp]
    mixes = [(0, config.mix), *((p.from_tokens, p.mix) for p in config.mix_phases)]
    changes = sorted({p.from_tokens for p in config.ramp} | {p.from_tokens for p in config.mix_phases})
    phases: list[Phase] = []
    step = token = 0
    while step < steps:
        _, seq_len, rows = [size for size in sizes if size[0] <= token][-1]
        mix = [mix for begin, mix in mixes if begin <= token][-1]
        upcoming = next((change for change in changes if change > token), None)
        left = steps - step
        take = left if upcoming is None else min(-(-(upcoming - token) // (seq_len * rows)), left)
        phases.append(Phase("main", step, take, token, seq_len, rows, mix))
        step, token = phases[-1].end_step, phases[-1].end_token
    if changes and changes[-1] > token:
        raise ValueError(
            f"pretrain.ramp or pretrain.mix_phases: from_tokens {changes[-1]:,} is past the end of the main part at "
            f"{token:,} tokens"
        )
    return phases


def _long_context(config: PretrainConfig) -> list[Phase]:
    """The stages' phases; their first step and token are set later."""
    per_step = config.ramp[-1].tokens_per_step if config.ramp else config.seq_len * config.rows_per_step
    mix = config.mix_phases[-1].mix if config.mix_phases else config.mix
    stages = []
    for number, stage in enumerate(config.long_context, 1):
        per_step, mix = stage.tokens_per_step or per_step, stage.mix or mix
        rows = whole_rows(f"pretrain.long_context stage {number}: tokens_per_step", per_step, stage.seq_len)
        steps = -(-stage.tokens // per_step)
        stages.append(Phase("long-context", 0, steps, 0, stage.seq_len, rows, mix, number, stage.rope_scaling))
    return stages


def _after(before: Phase, phase: Phase) -> Phase:
    return replace(phase, first_step=before.end_step, first_token=before.end_token)
