"""The part of a recipe that pre-training needs, so that nothing below ``recipe.py`` depends on the whole recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig
from herdlm.pretrain.config import PretrainConfig, timeline
from herdlm.train.config import TrackConfig
from herdlm.train.distill_config import DistillConfig

if TYPE_CHECKING:  # planning a recipe needs no torch
    import torch

    from herdlm.model.transformer import Transformer
    from herdlm.parallel.model import ParallelModel
    from herdlm.train.objectives import Objective

OBJECTIVE_KEY = "pretrain.objective"


@dataclass(frozen=True, slots=True)
class PretrainJob:
    """One model of a herd, and how to pre-train it.

    Args:
        name: the model's name in its recipe.
        pretrain: the recipe's section; a ``peak_lr`` of the model's own has replaced the shared one.
        seed: the recipe's seed, from which each use derives its own.
        threads: CPU threads of each process.
        distill: settings of a teacher; None without one.
        start: the model folder whose weights training starts from; None for new weights.
        shrunk_from: the model of the herd whose layers it starts from, if a run makes that folder and it is not there.
        own_tokenizer: whether the recipe trains the tokenizer. Then the model has exactly its entries; a published
            model may have more rows than its tokenizer has entries.
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
    start: Path | None = None
    shrunk_from: str | None = None
    own_tokenizer: bool = True

    def on(self, pretrain: PretrainConfig, *, seed: int | None = None) -> PretrainJob:
        """This job with other pre-training settings. Its ``peak_lr`` stays."""
        train = pretrain.train.model_copy(update={"peak_lr": self.pretrain.train.peak_lr})
        changed = pretrain.model_copy(update={"train": train})
        return replace(self, pretrain=changed, seed=self.seed if seed is None else seed)

    def new_model(self, seed: int, device: str | torch.device) -> Transformer:
        """The model with its first weights, in FP32: those of ``start``, or new ones drawn from ``seed``.

        Raises:
            InputError, DamagedError: the folder ``start`` cannot be loaded, or the model is to be shrunk from another.
        """
        from herdlm.model.hf import load_for_training
        from herdlm.model.transformer import build, initialize

        if self.start is not None:
            model = load_for_training(self.start, device)
            model.config = self.model  # whose max_seq_len, on which no weight depends, may be larger
            return model
        if self.shrunk_from is not None:
            raise InputError(
                f"herd.models.{self.name} is shrunk from {self.shrunk_from}, which is in no folder yet",
                "Make it with herdlm shrink and give --from, or run the whole recipe",
            )
        model = build(self.model, device)
        deviations = self.pretrain.init.model_dump()
        initialize(
            model,
            derive_seed(seed, "init"),
            **{key: self.model.dim**-0.5 if value == "dim" else value for key, value in deviations.items()},
        )
        return model

    def lay_out(self, model: Transformer, seq_lens: Iterable[int]) -> Transformer | ParallelModel:
        """``model`` in the job's precision and layout, on the processes there are, for rows of ``seq_lens``.

        Raises:
            InputError: the layout does not fit the processes, the model or a row; or the job trains in FP8 and the
                device or the model cannot.
        """
        from herdlm.parallel.layout import lay_out
        from herdlm.train.fp8 import use_fp8

        train = self.pretrain.train
        if train.precision == "fp8":
            use_fp8(model)
        return lay_out(self.parallel, model, seq_lens, autocast=train.autocast)

    def objective(self) -> Objective:
        """What the model is trained on: the next token, or an objective of the user's own.

        Raises:
            InputError: ``pretrain.objective`` cannot be loaded.
        """
        from herdlm.train.objectives import NextToken
        from herdlm.train.own_objective import open_objective

        return open_objective(self.pretrain.objective, OBJECTIVE_KEY, NextToken())

    def code(self) -> dict[str, str | None]:
        """Hashes of the user's own code that the job runs, for fingerprints."""
        from herdlm.train.own_objective import objective_code

        return objective_code(self.pretrain.objective, OBJECTIVE_KEY)

    def batching(self) -> PretrainConfig:
        """``pretrain`` with the micro-batches that this process reads.

        On one process, ``parallel.rows_per_micro_batch`` limits the rows of a micro-batch here. A sharded model applies
        that limit itself.
        """
        import torch.distributed as dist

        limit = self.parallel.rows_per_micro_batch
        if dist.is_initialized() or limit is None:
            return self.pretrain
        rows = min(limit, self.pretrain.rows_per_micro_batch or limit)
        return self.pretrain.model_copy(update={"rows_per_micro_batch": rows})


def starting_shape(folder: Path, pretrain: PretrainConfig | None) -> ModelConfig:
    """The shape of a model that starts from ``folder``: the folder's, with room for the rows of long-context stages.

    Raises:
        InputError: the folder holds no language model that can be represented, or its context is too short for the rows
            before the long-context stages.
        DamagedError: its config.json cannot be read.
    """
    from herdlm.model.hf import read_config

    shape = read_config(folder)
    if shape.head != "lm":
        raise InputError(f"{folder} is a reward model, without an output over tokens", "Start from a language model")
    if pretrain is None:
        return shape
    longest = max(phase.seq_len for phase in timeline(pretrain) if phase.kind == "main")
    if longest > shape.max_seq_len:
        raise InputError(
            f"rows of {longest:,} tokens exceed max_position_embeddings {shape.max_seq_len:,} of {folder}",
            "Lower pretrain.seq_len, or lengthen the context in a stage of pretrain.long_context",
        )
    return shape.model_copy(update={"max_seq_len": max(shape.max_seq_len, *pretrain.seq_lens)})


@dataclass(frozen=True, slots=True)
class HerdJob:
    """All models of a herd, and the role of each.

    Args:
        name: the recipe's name.
        models: name -> job of the model.
        pretrain: the settings that all models share, without any model's own ``peak_lr``.
        ladder: models that the forecast is fitted to; may be empty.
        axis: the measure of model size that the forecast uses.
        sources: names of the token shards that a mix may read.
        domains: names of the sources with held-out text to measure losses on.
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
        """The job of the model ``name``.

        Raises:
            InputError: the herd has no such model.
        """
        if name not in self.models:
            raise InputError(f"the recipe has no model {name}", f"Its models are {', '.join(self.models)}")
        return self.models[name]

    def sizes(self, names: Sequence[str]) -> list[float]:
        """The sizes of the models ``names``, measured along the forecast's axis."""
        return [float(getattr(self.job(name).model, self.axis)) for name in names]
