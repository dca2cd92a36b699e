"""The candidate mixes of a search, listed or drawn around the recipe's own mix, each with a scaled-down run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, parse, read_toml
from herdlm.base.seeds import stream
from herdlm.pretrain.config import MixPart, PretrainConfig, check_sources, timeline
from herdlm.pretrain.job import HerdJob
from herdlm.pretrain.mix import MixPlan, plan_mix, source_tokens

DEFAULT = "default"
SMALLEST_SHARE = 1e-4  # in a drawn mix; smaller shares become 0


class CandidateConfig(Section):
    """Shares that replace ``pretrain.mix`` and, if given, ``pretrain.anneal_mix``."""

    mix: dict[str, PositiveFloat] = Field(min_length=1, description="share of each source")
    anneal_mix: dict[str, PositiveFloat] | None = Field(None, min_length=1)


class DrawConfig(Section):
    """Candidates drawn from a Dirichlet distribution whose mean is ``pretrain.mix``."""

    count: int = Field(ge=1)
    concentration: float = Field(20.0, gt=0, description="lower values draw farther from the recipe's own mix")
    fixed: tuple[str, ...] = Field((), description="sources whose share does not change")


class CandidatesConfig(Section):
    """A file of candidates."""

    candidates: dict[str, CandidateConfig] = Field(default_factory=dict)
    draw: DrawConfig | None = None
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="weights of the held-out sets in the ranking; equal if none are given"
    )

    @model_validator(mode="after")
    def _check_candidates(self) -> CandidatesConfig:
        if not self.candidates and self.draw is None:
            raise ValueError("no candidates: give [candidates.NAME] tables or [draw]")
        if DEFAULT in self.candidates:
            raise ValueError(
                f"candidates.{DEFAULT} is the recipe's own mix, which is always tried: choose another name"
            )
        if self.weights and not sum(self.weights.values()):
            raise ValueError("weights are all 0")
        return self


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mix to try.

    Args:
        asked: the shares asked for in the main part.
        plan: of the whole run, after the caps on epochs.
        pretrain: the scaled-down run of the planned mix.
    """

    name: str
    asked: dict[str, float]
    plan: MixPlan
    pretrain: PretrainConfig


def read_candidates(path: Path) -> CandidatesConfig:
    """Read a file of candidates.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    return parse(CandidatesConfig, read_toml(path), str(path))


def make_candidates(
    herd: HerdJob, config: CandidatesConfig, tokens: Path, *, steps: int | None, source: str
) -> list[Candidate]:
    """The recipe's own mix, the mixes of the file, and those drawn, in this order.

    Args:
        tokens: the folder of token shards.
        steps: of the scaled-down run; by default the recipe's without its long-context stages.
        source: the file's name, for errors.

    Raises:
        InputError: a candidate names an unknown source, or exceeds the caps on epochs.
    """
    shares = {part.source: part.share for part in herd.pretrain.mix}
    asked: dict[str, CandidateConfig] = {DEFAULT: CandidateConfig(mix=shares), **config.candidates}
    if config.draw:
        asked |= _draw(herd, config.draw, source)
    made = []
    for name, candidate in asked.items():
        where = f"{source}: candidate {name}"
        full = _with_candidate(herd, candidate, where)
        plan = plan_mix(full, source_tokens(tokens, full))
        small = in_small(plan, steps, where)
        made.append(Candidate(name, _relative(candidate.mix), plan, small))
    return made


def _draw(herd: HerdJob, config: DrawConfig, source: str) -> dict[str, CandidateConfig]:
    shares = _relative({part.source: part.share for part in herd.pretrain.mix})
    if unknown := sorted(set(config.fixed) - set(shares)):
        raise InputError(
            f"{source}: draw.fixed names {unknown[0]}, which pretrain.mix does not read",
            f"Choose from {', '.join(shares)}",
        )
    free = [name for name in shares if name not in config.fixed]
    if len(free) < 2:
        raise InputError(f"{source}: draw has {len(free)} free sources", "Leave two or more sources out of draw.fixed")
    room = sum(shares[name] for name in free)
    rng = stream(herd.seed, "mix search", "draw")
    drawn = {}
    for number in range(1, config.count + 1):
        parts = rng.dirichlet([config.concentration * shares[name] / room for name in free])
        mix = {name: shares[name] for name in config.fixed}
        mix |= {
            name: round(room * float(part), 6) for name, part in zip(free, parts, strict=True) if part > SMALLEST_SHARE
        }
        drawn[f"draw-{number}"] = CandidateConfig(mix=mix)
    return drawn


def _with_candidate(herd: HerdJob, candidate: CandidateConfig, where: str) -> PretrainConfig:
    """The herd's pre-training with a candidate's shares.

    Loss weights stay with their sources, and so do caps that still apply.
    """
    pretrain = herd.pretrain.model_dump()
    weights = {part.source: part.loss_weight for mix in herd.pretrain.mixes.values() for part in mix}
    for key, shares in (("mix", candidate.mix), ("anneal_mix", candidate.anneal_mix)):
        if shares is not None:
            pretrain[key] = [
                MixPart(source=name, share=share, loss_weight=weights.get(name, 1.0)).model_dump()
                for name, share in shares.items()
            ]
    mixes = [pretrain["mix"], pretrain["anneal_mix"], *(phase["mix"] for phase in pretrain["mix_phases"])]
    mixes += [stage["mix"] or [] for stage in pretrain["long_context"]]
    read = {part["source"] for mix in mixes for part in mix}
    pretrain["max_epochs"] = {name: cap for name, cap in herd.pretrain.max_epochs.items() if name in read}
    config = parse(PretrainConfig, pretrain, where)
    try:
        check_sources(config, herd.sources)
    except ValueError as error:
        raise InputError(f"{where}: {error}", "Give shares of these sources alone") from error
    return config


def in_small(plan: MixPlan, steps: int | None, where: str) -> PretrainConfig:
    """The planned mixes in a run of ``steps`` whose parts keep their proportions.

    Long-context stages are omitted: they change the length of rows, not the mix.

    Raises:
        InputError: ``steps`` is too small for the run's parts.
    """
    config = plan.config
    whole = config.steps - sum(s.steps for s in timeline(config) if s.kind == "long-context")
    factor = 1.0 if steps is None else steps / whole

    def shorter(count: int | None) -> int | None:
        return max(round(count * factor), 1) if count else count

    pretrain: dict[str, Any] = config.model_dump()
    pretrain |= {"steps": steps or whole, "long_context": []}
    for key in ("warmup_steps", "anneal_steps", "decay_steps"):
        pretrain["train"][key] = shorter(pretrain["train"][key])
    for part in (*pretrain["ramp"], *pretrain["mix_phases"]):
        part["from_tokens"] = shorter(part["from_tokens"])
    return parse(PretrainConfig, pretrain, f"{where} in {steps} steps")


def _relative(shares: Mapping[str, float]) -> dict[str, float]:
    whole = sum(shares.values())
    return {name: share / whole for name, share in shares.items()}
