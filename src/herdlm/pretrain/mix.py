"""The mixes of a run as its data allow: how often each source is read, and the shares where a cap binds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.pretrain.config import MixPart, PretrainConfig, timeline
from herdlm.tokens.epoch_caps import capped_shares, scarce
from herdlm.tokens.shards import Shard

Mix = tuple[MixPart, ...]


@dataclass(frozen=True, slots=True)
class SourceReading:
    """What a run reads of a source.

    Args:
        tokens: that one epoch of it has.
        wanted_epochs: as the recipe's shares ask; ``epochs`` under the caps.
    """

    tokens: int
    wanted_epochs: float
    epochs: float
    max_epochs: float | None


@dataclass(frozen=True, slots=True)
class MixPlan:
    """A run's mixes with the caps applied.

    Args:
        config: the recipe's pre-training with the shares that are read; the caps are gone from it.
        changed: mixes whose shares the caps changed: (where in the recipe, wanted, read).
    """

    config: PretrainConfig
    sources: dict[str, SourceReading]
    changed: list[tuple[str, dict[str, float], dict[str, float]]]

    def as_json(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "sources": {name: asdict(reading) for name, reading in self.sources.items()},
            "changed": [{"mix": where, "wanted": wanted, "read": read} for where, wanted, read in self.changed],
        }

    def lines(self) -> list[str]:
        """For people."""
        out = []
        for name, reading in self.sources.items():
            cap = "" if reading.max_epochs is None else f", at most {reading.max_epochs:g}"
            told = f"{reading.epochs:.3g} epochs of {reading.tokens:,} tokens{cap}"
            lower = reading.epochs < reading.wanted_epochs * (1 - 1e-9)
            out.append(f"{name:20} {told}" + (f"; its shares ask for {reading.wanted_epochs:.3g}" if lower else ""))
        for where, wanted, read in self.changed:
            shares = ", ".join(f"{name} {wanted[name]:.4g} -> {read.get(name, 0.0):.4g}" for name in wanted)
            out.append(f"{where}: {shares}")
        return out


def source_tokens(folder: Path, config: PretrainConfig) -> dict[str, int]:
    """The tokens that one epoch of each source of a run reads, from the shards in ``folder``.

    Of documents that stay whole, rows hold all but the last token of each; what is padded makes an epoch longer than
    this, so that a cap in it is kept.

    Raises:
        InputError, DamagedError: a shard is missing, empty or damaged.
    """
    sizes = {}
    for name in dict.fromkeys(part.source for phase in timeline(config) for part in phase.mix):
        shard = Shard(folder / name)
        if not shard.index.documents:
            raise InputError(f"{folder / name} holds no documents", "Give more data or drop it from the mix")
        sizes[name] = shard.index.tokens - (shard.index.documents if shard.targets is not None else 0)
    return sizes


def plan_mix(config: PretrainConfig, sizes: Mapping[str, int]) -> MixPlan:
    """Plan how often each source is read over the whole run and, where that is more than its cap, with which shares.

    The caps hold to within the rounding of shares to rows: a row of each phase, and one in 65,536 of a long one.

    Args:
        sizes: tokens of one epoch by source.

    Raises:
        InputError: the caps leave some mixes too few tokens; names the keys.
    """
    amounts: dict[Mix, float] = {}
    for phase in timeline(config):
        read = float(phase.end_token - phase.first_token)
        amounts[phase.mix] = amounts.get(phase.mix, 0.0) + read
    mixes, names = list(amounts), sorted({part.source for mix in amounts for part in mix})
    tokens = np.array(list(amounts.values()))
    wanted = np.array([[_shares(mix).get(name, 0.0) for name in names] for mix in mixes])
    size = np.array([sizes[name] for name in names], float)
    supply = np.array([config.max_epochs.get(name, np.inf) for name in names]) * size
    if found := scarce(tokens, wanted, supply):
        where = sorted(
            {place for mix, here in zip(mixes, found[0], strict=True) if here for place in _places(config, mix)}
        )
        which = [name for name, here in zip(names, found[1], strict=True) if here]
        raise InputError(
            f"{', '.join(where)} read {tokens[found[0]].sum():,.0f} tokens, but pretrain.max_epochs of "
            f"{', '.join(which)} leaves {supply[found[1]].sum():,.0f} in all",
            "Raise pretrain.max_epochs, give more data, add a source to the mix, or train for fewer steps",
        )
    shares = capped_shares(tokens, wanted, supply)
    capped: dict[Mix, Mix] = {}
    changed = []
    for number, mix in enumerate(mixes):
        if np.array_equal(shares[number], wanted[number]):
            continue
        left = {name: float(shares[number, names.index(name)]) for name in _shares(mix)}
        capped[mix] = tuple(
            part.model_copy(update={"share": left[part.source]}) for part in mix if left[part.source] > 0
        )
        changed += [(place, _shares(mix), left) for place in _places(config, mix)]
    readings = {
        name: SourceReading(
            sizes[name],
            float(tokens @ wanted[:, at] / size[at]),
            float(tokens @ shares[:, at] / size[at]),
            config.max_epochs.get(name),
        )
        for at, name in enumerate(names)
    }
    return MixPlan(_with_mixes(config, capped), readings, changed)


def _shares(mix: Mix) -> dict[str, float]:
    """A mix's shares, adding up to 1."""
    whole = sum(part.share for part in mix)
    return {part.source: part.share / whole for part in mix}


def _places(config: PretrainConfig, mix: Mix) -> list[str]:
    """Where in the recipe a mix stands."""
    return [place for place, standing in config.mixes.items() if standing == mix]


def _with_mixes(config: PretrainConfig, capped: Mapping[Mix, Mix]) -> PretrainConfig:
    """The configuration with some mixes replaced, and without caps: they are applied."""
    return config.model_copy(
        update={
            "mix": capped.get(config.mix, config.mix),
            "anneal_mix": capped.get(config.anneal_mix, config.anneal_mix),
            "mix_phases": tuple(
                phase.model_copy(update={"mix": capped.get(phase.mix, phase.mix)}) for phase in config.mix_phases
            ),
            "long_context": tuple(
                stage if stage.mix is None else stage.model_copy(update={"mix": capped.get(stage.mix, stage.mix)})
                for stage in config.long_context
            ),
            "max_epochs": {},
        }
    )
