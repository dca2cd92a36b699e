"""What pre-training one model needs of a recipe, so that nothing below the recipe sees the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig
from herdlm.pretrain.config import PretrainConfig
from herdlm.train.config import TrackConfig
from herdlm.train.distill_config import DistillConfig


@dataclass(frozen=True, slots=True)
class PretrainJob:
    """One model of a herd and how it is pre-trained.

    Args:
        name: of the model in its recipe.
        pretrain: the recipe's section, with the model's own ``peak_lr`` in place of the shared one.
        seed: the recipe's; each use derives its own random stream from it.
        threads: of one process on a CPU.
        distill: how a teacher takes part; None without one.
    """

    name: str
    model: ModelConfig
    pretrain: PretrainConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    distill: DistillConfig | None = None
    track: TrackConfig = field(default_factory=TrackConfig)

    def on(self, pretrain: PretrainConfig, *, seed: int | None = None) -> PretrainJob:
        """The same model on other data or for other steps; its own ``peak_lr`` stays."""
        train = pretrain.train.model_copy(update={"peak_lr": self.pretrain.train.peak_lr})
        changed = pretrain.model_copy(update={"train": train})
        return replace(self, pretrain=changed, seed=self.seed if seed is None else seed)

    def batching(self) -> PretrainConfig:
        """``pretrain`` as this number of processes reads its batches.

        A sharded model cuts micro-batches by ``parallel.rows_per_micro_batch`` itself; one process reads them so.
        """
        import torch.distributed as dist  # only here: planning a recipe needs no torch

        most = self.parallel.rows_per_micro_batch
        if dist.is_initialized() or most is None:
            return self.pretrain
        rows = min(most, self.pretrain.rows_per_micro_batch or most)
        return self.pretrain.model_copy(update={"rows_per_micro_batch": rows})


@dataclass(frozen=True, slots=True)
class HerdJob:
    """The models of a herd, and what each is for.

    Args:
        name: of the recipe.
        models: a job for each model, by name.
        pretrain: what all models share, without any model's own ``peak_lr``.
        ladder: the models that the forecast is fitted to; may be empty.
        axis: the measure of size that the forecast is made on.
        sources: names of the token shards that a mix may read.
        domains: names of the sources whose held-out text losses are measured on.
    """

    name: str
    models: dict[str, PretrainJob]
    pretrain: PretrainConfig
    flagship: str
    small: str | None
    ladder: tuple[str, ...]
    axis: Literal["parameters", "body_parameters"]
    sources: tuple[str, ...]
    domains: tuple[str, ...]
    seed: int

    def job(self, name: str) -> PretrainJob:
        """The job of a model.

        Raises:
            InputError: the herd has no such model.
        """
        if name not in self.models:
            raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(self.models)}")
        return self.models[name]

    def sizes(self, names: Sequence[str]) -> list[float]:
        """The sizes of models on the forecast's axis."""
        return [float(getattr(self.job(name).model, self.axis)) for name in names]
