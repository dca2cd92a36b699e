"""Plans how often a run reads each source, and reduces shares so that the caps on epochs hold."""

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
    """How much a run reads of a source.

    Args:
        tokens: tokens in one epoch.
        wanted_epochs: epochs that the recipe's shares ask for.
        epochs: epochs that are read under the caps.
    """

    tokens: int
    wanted_epochs: float
    epochs: float
    max_epochs: float | None


@dataclass(frozen=True, slots=True)
class MixPlan:
    """A run's mixes with the caps applied.

    Args:
        config: the recipe's pre-training with the shares that are read, and without caps.
        changed: the mixes that the caps changed: (key in the recipe, wanted shares, shares that are read).
    """

    config: PretrainConfig
    sources: dict[str, SourceReading]
    changed: list[tuple[str, dict[str, float], dict[str, float]]]

    def as_json(self) -> dict[str, Any]:
        """The plan as a manifest records it."""
        return {
            "sources": {name: asdict(reading) for name, reading in self.sources.items()},
            "changed": [{"mix": where, "wanted": wanted, "read": read} for where, wanted, read in self.changed],
        }

    def lines(self) -> list[str]:
        """The plan as text, one line per source and per changed mix."""
        out = []
        for name, reading in self.sources.items():
            cap = "" if reading.max_epochs is None else f", at most {reading.max_epochs:g}"
            epochs = f"{reading.epochs:.3g} epochs of {reading.tokens:,} tokens{cap}"
            lower = reading.epochs < reading.wanted_epochs * (1 - 1e-9)
            out.append(f"{name:20} {epochs}" + (f"; its shares ask for {reading.wanted_epochs:.3g}" if lower else ""))
        for where, wanted, read in self.changed:
            shares = ", ".join(f"{name} {wanted[name]:.4g} -> {read.get(name, 0.0):.4g}" for name in wanted)
            out.append(f"{where}: {shares}")
        return out


def source_tokens(folder: Path, config: PretrainConfig) -> dict[str, int]:
    """Tokens in one epoch of each source of a run, from the shards in ``folder``.

    Rows of a source with whole documents hold all tokens of a document but its last. Padding makes its epochs longer
    than this count, so a cap still holds.

    Raises:
        InputError, DamagedError: a shard is missing, empty or damaged.
    """
    sizes = {}
    for name in dict.fromkeys(part.source for phase in timeline(config) for part in phase.mix):
        shard = Shard(folder / name)
        if not shard.index.documents:
            raise InputError(f"{folder / name} holds no documents", "Give more data, or drop the source from the mix")
        sizes[name] = shard.index.tokens - (shard.index.documents if shard.targets is not None else 0)
    return sizes


def plan_mix(config: PretrainConfig, sizes: Mapping[str, int]) -> MixPlan:
    """Plan how often each source is read over the whole run, and adjust the shares of sources that exceed their caps.

    The caps hold to within the rounding of shares to rows: one row per phase, and one in 65,536 rows of a long one.

    Args:
        sizes: source -> tokens in one epoch.

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
    if conflict := scarce(tokens, wanted, supply):
        too_large, too_small = conflict
        where = sorted(
            {key for mix, short in zip(mixes, too_large, strict=True) if short for key in _keys(config, mix)}
        )
        capped_sources = [name for name, short in zip(names, too_small, strict=True) if short]
        raise InputError(
            f"{', '.join(where)} read {tokens[too_large].sum():,.0f} tokens, but pretrain.max_epochs of "
            f"{', '.join(capped_sources)} leaves {supply[too_small].sum():,.0f} in all",
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
        changed += [(key, _shares(mix), left) for key in _keys(config, mix)]
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
    """A mix's shares, normalized to sum to 1."""
    whole = sum(part.share for part in mix)
    return {part.source: part.share / whole for part in mix}


def _keys(config: PretrainConfig, mix: Mix) -> list[str]:
    """The recipe's keys that have this mix."""
    return [key for key, other in config.mixes.items() if other == mix]


def _with_mixes(config: PretrainConfig, capped: Mapping[Mix, Mix]) -> PretrainConfig:
    """The configuration with some mixes replaced and without caps, which are applied already."""
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
