"""The batches of a pre-training run, as its recipe's timeline says."""

from __future__ import annotations

from pathlib import Path

from herdlm.base.seeds import derive_seed
from herdlm.pretrain.mix import plan_mix, source_tokens
from herdlm.recipe import PretrainConfig
from herdlm.run.timeline import Stretch, timeline
from herdlm.tokens.mixture import Mixture, PretrainBatches
from herdlm.tokens.rows import Source


def open_batches(config: PretrainConfig, tokens: Path, *, seed: int, pad: int) -> PretrainBatches:
    """Batches of the whole run from the shards in the folder ``tokens``.

    Main part and long-context stages read each source on from where the stretch before left it. A new row length cuts
    and shuffles the sources anew, and so does the anneal, which reads its own mix. One seed gives one stream of rows,
    whatever the model. Where a source would be read more often than ``max_epochs`` allows, shares give way.

    Raises:
        InputError, DamagedError: a shard of the mix is missing, empty or damaged, or the caps leave too little to read.
    """
    if config.max_epochs:
        config = plan_mix(config, source_tokens(tokens, config)).config
    read: dict[tuple[str, int], dict[str, int]] = {}
    phases = []
    stretches = timeline(config)
    for stretch in stretches:
        stream = ("anneal" if stretch.kind == "anneal" else "main", stretch.seq_len)
        mixture = Mixture(
            [Source(part.source, tokens / part.source, part.share, part.loss_weight) for part in stretch.mix],
            seq_len=stretch.seq_len,
            seed=_seed(config, stretch, seed),
            pad=pad,
            read=read.get(stream),
        )
        if stretch is not stretches[-1]:
            read[stream] = mixture.read_after(stretch.steps * stretch.rows_per_step)
        phases.append((mixture, stretch.steps))
    return PretrainBatches(
        phases,
        rows_per_step=[stretch.rows_per_step for stretch in stretches],
        rows_per_micro_batch=config.rows_per_micro_batch,
    )


def _seed(config: PretrainConfig, stretch: Stretch, seed: int) -> int:
    phase = "anneal" if stretch.kind == "anneal" else "main"
    length = () if stretch.seq_len == config.seq_len else (stretch.seq_len,)
    return derive_seed(seed, "rows", phase, *length)
