"""Trains the models of a mix search, each once and resumably, and measures them on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed
from herdlm.evaluate.paired import row_losses
from herdlm.generate.load import pick_device
from herdlm.model.hf import load_folder
from herdlm.pretrain.job import PretrainJob
from herdlm.scaling.mix_candidates import Candidate
from herdlm.scaling.trained import trained_once
from herdlm.tokens.tokenizer import Tokenizer

Losses = dict[str, NDArray[np.float64]]
"""By domain, nats per token of each held-out row: [seeds, candidates, models, rows]."""


@dataclass
class Bench:
    """Trains and measures candidates.

    Args:
        domains: shards of held-out text by name.
        runs: the folder that keeps the trained models.
        inputs: content hashes of tokens and tokenizer, part of each model's key.
        contents: content hashes of the models used, by their folder in ``runs``.
    """

    tokens: Path
    tokenizer: Path
    domains: dict[str, Path]
    runs: Path
    inputs: dict[str, str]
    seeds: int
    contents: dict[str, str] = field(default_factory=dict)

    def measure(self, candidates: Sequence[Candidate], models: Sequence[PretrainJob]) -> Losses:
        """Train the models that are missing, and measure all of them on every domain."""
        losses: dict[str, list[NDArray[np.float64]]] = {domain: [] for domain in self.domains}
        shape = (self.seeds, len(candidates), len(models))
        with Progress("mix search", self.seeds * len(candidates) * len(models), "models") as progress:
            for seed in range(self.seeds):
                for candidate in candidates:
                    for model in models:
                        for domain, rows in self._losses_of(model.on(candidate.pretrain), seed).items():
                            losses[domain].append(rows)
                        progress.advance()
        return {domain: np.stack(rows).reshape(*shape, -1) for domain, rows in losses.items()}

    def _losses_of(self, job: PretrainJob, number: int) -> dict[str, NDArray[np.float64]]:
        folder = self._trained(job, number)
        words = Tokenizer.load(self.tokenizer)
        loaded = load_folder(folder, pick_device(job.device))
        seq_len, pad = job.pretrain.seq_len, words.pad
        return {domain: row_losses(loaded, shard, seq_len=seq_len, pad=pad) for domain, shard in self.domains.items()}

    def _trained(self, job: PretrainJob, number: int) -> Path:
        """Train a model unless its folder, named by a hash of its inputs and settings, exists; returns the folder."""
        seed = job.seed if number == 0 else derive_seed(job.seed, "mix search", number)
        folder, content = trained_once(
            replace(job, seed=seed), tokens=self.tokens, tokenizer=self.tokenizer, runs=self.runs, inputs=self.inputs
        )
        self.contents[folder.name] = content
        return folder
