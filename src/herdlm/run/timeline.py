"""When row length, batch size and data mix change in a pre-training run, as stretches in which nothing does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from herdlm.model.config import RopeScaling
    from herdlm.recipe import MixPart, PretrainConfig


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that all read the same mix in rows of the same length and number.

    Args:
        first_token: tokens the model has seen before the first of these steps.
        stage: number of the long-context stage from 1, 0 outside of them.
        rope_scaling: that the stretch brings; None where it is as before.
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
        """Tokens of one step, padding included."""
        return self.seq_len * self.rows_per_step

    @property
    def end_step(self) -> int:
        """Steps that are finished when the stretch is."""
        return self.first_step + self.steps

    @property
    def end_token(self) -> int:
        """Tokens the model has seen when the stretch is over."""
        return self.first_token + self.steps * self.tokens_per_step


def timeline(config: PretrainConfig) -> list[Stretch]:
    """The stretches of a run, in order; they cover its steps without gap.

    A change "from n tokens on" takes place at the first step before which at least n tokens were seen.

    Raises:
        ValueError: the steps do not hold the long-context stages, or a step is no whole number of rows.
    """
    stages = _long_context(config)
    main_steps = config.steps - config.train.anneal_steps - sum(stage.steps for stage in stages)
    if main_steps <= 0:
        raise ValueError(
            f"pretrain.steps {config.steps:,} do not hold the long-context stages and the anneal: "
            f"raise them above {config.steps - main_steps:,}"
        )
    stretches = _main(config, main_steps)
    for stage in stages:
        stretches.append(_after(stretches[-1], stage))
    last = stretches[-1]
    if config.train.anneal_steps:
        anneal = Stretch("anneal", 0, config.train.anneal_steps, 0, last.seq_len, last.rows_per_step, config.anneal_mix)
        stretches.append(_after(last, anneal))
    return stretches


def tokens_in(config: PretrainConfig) -> int:
    """Tokens a model has seen at the end of its run."""
    return timeline(config)[-1].end_token


def whole_rows(key: str, tokens_per_step: int, seq_len: int) -> int:
    """Rows in a step.

    Raises:
        ValueError: they are no whole number; names the nearest that are.
    """
    rows, rest = divmod(tokens_per_step, seq_len)
    if rest:
        near = " or ".join(f"{n * seq_len}" for n in (rows, rows + 1) if n)
        raise ValueError(f"{key} {tokens_per_step} is no multiple of seq_len {seq_len}: take {near}")
    return rows


def _main(config: PretrainConfig, steps: int) -> list[Stretch]:
    sizes: list[tuple[int, int, int]] = [(0, config.seq_len, config.rows_per_step)]
    sizes += [(p.from_tokens, p.seq_len, p.tokens_per_step // p.seq_len) for p in config.ramp]
    mixes = [(0, config.mix), *((p.from_tokens, p.mix) for p in config.mix_phases)]
    changes = sorted({p.from_tokens for p in config.ramp} | {p.from_tokens for p in config.mix_phases})
    stretches: list[Stretch] = []
    step = token = 0
    while step < steps:
        _, seq_len, rows = [size for size in sizes if size[0] <= token][-1]
        mix = [mix for begin, mix in mixes if begin <= token][-1]
        upcoming = next((change for change in changes if change > token), None)
        left = steps - step
        take = left if upcoming is None else min(-(-(upcoming - token) // (seq_len * rows)), left)
        stretches.append(Stretch("main", step, take, token, seq_len, rows, mix))
        step, token = stretches[-1].end_step, stretches[-1].end_token
    if changes and changes[-1] > token:
        raise ValueError(
            f"a change of ramp or mix from {changes[-1]:,} tokens on is past the {token:,} of the main part"
        )
    return stretches


def _long_context(config: PretrainConfig) -> list[Stretch]:
    """The stages with their place in the run still open."""
    per_step = config.ramp[-1].tokens_per_step if config.ramp else config.seq_len * config.rows_per_step
    mix = config.mix_phases[-1].mix if config.mix_phases else config.mix
    stages = []
    for number, stage in enumerate(config.long_context, 1):
        per_step, mix = stage.tokens_per_step or per_step, stage.mix or mix
        rows = whole_rows(f"pretrain.long_context stage {number}: tokens_per_step", per_step, stage.seq_len)
        steps = -(-stage.tokens // per_step)
        stages.append(Stretch("long-context", 0, steps, 0, stage.seq_len, rows, mix, number, stage.rope_scaling))
    return stages


def _after(before: Stretch, stretch: Stretch) -> Stretch:
    return replace(stretch, first_step=before.end_step, first_token=before.end_token)
