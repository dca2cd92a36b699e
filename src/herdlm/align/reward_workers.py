"""A reward model in several processes of this machine or on a cluster, which score answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from herdlm.align.reward import LocalScorer, Scorer, sequence_scores
from herdlm.base.progress import Progress
from herdlm.evaluate.engines import EngineOptions, worker_config
from herdlm.generate.load import compute_type, load_model, pick_device, pick_dtype
from herdlm.generate.parallel import DriverTransformer
from herdlm.generate.processes import start_processes
from herdlm.generate.workers.pool import Pool, open_workers
from herdlm.generate.workers.worker import Finished, WorkerConfig
from herdlm.model.hf import load_folder
from herdlm.model.transformer import Transformer

AT_ONCE = 256  # answers of a request; neighbors in order, which share their prompts


@contextmanager
def open_reward_model(folder: Path, options: EngineOptions) -> Iterator[Scorer]:
    """The reward model of a folder as options ask for: in this process, or in workers.

    ``options.dtype`` is the type of matrix products; "auto" is that of the weights.

    Raises:
        HerdError: the model cannot be loaded, or the cluster cannot be reached.
    """
    if options.workers is None and options.cluster is None:
        model = load_folder(folder, pick_device(options.device))
        yield LocalScorer(model, _products(model, options.dtype))
        return
    config = worker_config(folder, options)
    with open_workers(config, RewardWorker, workers=options.workers, cluster=options.cluster) as workers:
        yield _Workers(Pool(workers))


def _products(model: Transformer, dtype: str) -> torch.dtype | None:
    wanted = pick_dtype(dtype)
    return None if wanted == model.score.weight.dtype else wanted


class _Workers:
    """See :class:`herdlm.align.reward.Scorer`."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._numbers = pool, itertools.count()

    def score(self, sequences: Sequence[Sequence[int]], progress: Progress) -> list[float]:
        """Score each sequence at its last token."""
        order = sorted(range(len(sequences)), key=lambda number: list(sequences[number]))
        parts = {next(self._numbers): order[at : at + AT_ONCE] for at in range(0, len(order), AT_ONCE)}

        def request(number: int) -> tuple[dict[str, Any], int]:
            return {"number": number, "sequences": [list(sequences[i]) for i in parts[number]]}, AT_ONCE

        scores = [0.0] * len(sequences)
        for number, answer in self._pool.run(parts, request):
            for i, value in zip(parts[number], answer["scores"], strict=True):
                scores[i] = value
            progress.advance(len(parts[number]))
        return scores


class RewardWorker:
    """A reward model that scores token sequences, in a process or as an actor of a cluster.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, config: WorkerConfig) -> None:
        config.limit_threads()
        folder, self._alone = Path(config.model), config.processes == 1
        self._model: Transformer
        if self._alone:
            self._model = load_folder(folder, pick_device(config.device))
            self._scorer = LocalScorer(self._model, _products(self._model, config.dtype))
            return
        mesh = start_processes(folder, config.tensor_parallel, config.pipeline_parallel, config.device, "auto")
        whole = load_model(folder, str(mesh.device))
        self._model = DriverTransformer(whole, compute_type(whole, "auto"), mesh, free_original=True)

    def work(self, requests: Sequence[dict[str, Any]]) -> list[Finished]:
        """Score the sequences of each request."""
        return [(request["number"], {"scores": self._scores(request["sequences"])}) for request in requests]

    def _scores(self, sequences: list[list[int]]) -> list[float]:
        if not isinstance(self._model, DriverTransformer):
            return sequence_scores(self._scorer, sequences, title="scores", quiet=True)
        with torch.inference_mode():
            read = [self._model.encode(tokens)[-1] for tokens in sequences]
            scores: list[float] = self._model.scores(torch.stack(read).to(self._model.score.weight.dtype)).tolist()
        return scores
