"""Opens the batches of a pre-training run: one mixture of sources per phase."""

from __future__ import annotations

from pathlib import Path

from herdlm.base.seeds import derive_seed
from herdlm.pretrain.config import Phase, PretrainConfig, timeline
from herdlm.pretrain.mix import plan_mix, source_tokens
from herdlm.tokens.mixture import Mixture, PretrainBatches
from herdlm.tokens.rows import Source


def open_batches(config: PretrainConfig, tokens: Path, *, seed: int, pad: int) -> PretrainBatches:
    """Batches of the whole run from the shards in the folder ``tokens``.

    In the main part and the long-context stages, each phase reads a source on from where the phase before it stopped.
    A new row length, and the anneal, cut and shuffle the sources again. The order of rows depends on the seed, not on
    the model. If a source would be read more often than ``max_epochs`` allows, the shares are adjusted.

    Raises:
        InputError, DamagedError: a shard of the mix is missing, empty or damaged, or the caps leave too little to read.
    """
    if config.max_epochs:
        config = plan_mix(config, source_tokens(tokens, config)).config
    read: dict[tuple[str, int], dict[str, int]] = {}
    parts = []
    phases = timeline(config)
    for phase in phases:
        stream = ("anneal" if phase.kind == "anneal" else "main", phase.seq_len)
        mixture = Mixture(
            [Source(part.source, tokens / part.source, part.share, part.loss_weight) for part in phase.mix],
            seq_len=phase.seq_len,
            seed=_seed(config, phase, seed),
            pad=pad,
            read=read.get(stream),
        )
        if phase is not phases[-1]:
            read[stream] = mixture.read_after(phase.steps * phase.rows_per_step)
        parts.append((mixture, phase.steps))
    return PretrainBatches(
        parts, rows_per_step=[phase.rows_per_step for phase in phases], rows_per_micro_batch=config.rows_per_micro_batch
    )


def _seed(config: PretrainConfig, phase: Phase, seed: int) -> int:
    part = "anneal" if phase.kind == "anneal" else "main"
    length = () if phase.seq_len == config.seq_len else (phase.seq_len,)
    return derive_seed(seed, "rows", part, *length)
