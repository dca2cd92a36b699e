"""A job of fine-tuning: a model, data, and how to train; and its run, which resumes where it was interrupted.

:func:`herdlm.align.work.work_on` runs a job on files and publishes its folder; a stage of a run opens a :class:`Run` in
the folder that the run publishes, and hands over the records that it gathered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.align.defaults import WARMUP_SHARE, Method, MethodConfig
from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.data.source import Source
from herdlm.model.config import ModelConfig
from herdlm.model.hf import checked_weights
from herdlm.model.lora import add_lora
from herdlm.model.start import Start, reward_model_from
from herdlm.model.transformer import Transformer
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.layout import lay_out, lay_out_from
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import from_first, is_first
from herdlm.tokens.batch import Batches
from herdlm.tokens.chat_format import ChatFormat
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.fp8 import use_fp8
from herdlm.train.loop import TrainResult, train
from herdlm.train.objectives import Objective
from herdlm.train.own_objective import open_objective

T = TypeVar("T")
Model = Transformer | ParallelModel


def say_nothing(line: str) -> None:
    """Where a job's lines go by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneJob:
    """A model to train.

    Args:
        model: a model folder, a run (its flagship), or a LoRA adapter whose base is at hand.
        out: a new folder for the result.
        data: the files that are trained on; none if a stage gives records.
        held_out: what is measured on, before and after.
        teacher: a model folder, run or adapter whose distribution is learned, as the section's ``distill`` says.
        template: the text of a chat template, or the name of one of ours, in place of the model's.
        lora: the rank of adapters to train; None: all weights are trained.
        merge: write a whole model rather than the adapter alone.
        steps: how many steps to take, in place of epochs.
        micro_batch_rows: the most rows that a process computes at once; None: as many as hold 4,096 tokens.
        rename: columns' names in the files by the names that herdlm knows.
        threads: CPU threads of each process; None: as many as torch takes.
        say: gets lines about the data, the settings and the figures, on the first process.
    """

    model: Path
    out: Path
    data: tuple[Source, ...] = ()
    held_out: tuple[Source, ...] = ()
    teacher: Path | None = None
    template: str | None = None
    lora: int | None = None
    merge: bool = True
    steps: int | None = None
    micro_batch_rows: int | None = None
    rename: dict[str, str] = field(default_factory=dict)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    quiet: bool = False
    say: Callable[[str], None] = say_nothing


@dataclass(slots=True, kw_only=True)
class Run:
    """A job at work: the folders it writes to, and what its parts share. Every process has one.

    Attributes:
        out: the folder that is published at the end.
        work: survives interruptions.
        seed_of: the seed of a stream of random numbers, by name.
        teacher: what identifies the teacher's weights; None without one.
        rows_at_once: the most rows of a micro-batch, on all data-parallel processes together.
        title: of the training, in progress displays.
        section: the part of a recipe with ``config``, for errors.
        writes_figures: whether figures.json is written, which a promotion compares.
    """

    job: FinetuneJob
    method: Method
    config: MethodConfig
    start: Start
    format: ChatFormat
    out: Path
    work: Path
    device: str
    seed_of: Callable[[str], int]
    teacher: str | None
    rows_at_once: int
    title: str
    section: str
    writes_figures: bool = True

    @property
    def precision(self) -> str:
        """Of matrix products."""
        return self.config.train.precision

    def say(self, line: str) -> None:
        """Pass a line on, from the first process."""
        if is_first():
            self.job.say(line)

    def remember(self, name: str, compute: Callable[[], T]) -> T:
        """What ``compute`` returned, which may be JSON, the first time that this run came here.

        Every process calls this. ``compute`` runs on all of them.
        """
        path = self.work / f"{name}.json"
        known: list[T] = from_first(lambda: [json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else [])
        if known:
            return known[0]
        value = compute()
        if is_first():
            write_text_durably(path, json.dumps(value) + "\n")
        return value

    def load(self, *, scores: bool = False) -> Model:
        """The model that the job starts from, as it is trained; with ``scores``, as a reward model.

        On several processes each reads its own part of the weights, unless they have adapters, FP8 or a tied head.
        """
        start = self.start
        shape = start.shape.model_copy(update={"head": "score", "tied_embeddings": False}) if scores else start.shape
        is_plain = start.adapter is None and self.job.lora is None and self.precision != "fp8"
        if dist.is_initialized() and is_plain and not shape.tied_embeddings:
            return self._load_part(shape)
        whole = start.load(self.device)
        if scores and whole.config.head != "score":
            whole = reward_model_from(whole, self.seed_of("head"))
        return self.lay_out(whole)

    def _load_part(self, shape: ModelConfig) -> ParallelModel:
        with torch.device("meta"):
            stored = checked_weights(self.start.folder, Transformer(self.start.shape))

        def whole(name: str) -> Tensor:
            if name not in stored:  # the head of a new reward model, which scores every answer the same
                return torch.zeros(1, shape.dim)
            return stored[name].read().float()

        layout = self.job.parallel.model_copy(update={"rows_per_micro_batch": None})  # batches come divided
        autocast = self.config.train.autocast
        return lay_out_from(layout, shape, {self.config.seq_len}, whole, autocast=autocast, device=self.device)

    def lay_out(self, model: Transformer) -> Model:
        """The model as it is trained: in its precision, with adapters, on the processes there are."""
        if self.precision == "fp8":
            use_fp8(model)
        if self.job.lora is not None:
            add_lora(model, self.job.lora, seed=self.seed_of("lora"))
        layout = self.job.parallel.model_copy(update={"rows_per_micro_batch": None})  # batches come divided
        return lay_out(layout, model, {self.config.seq_len}, autocast=self.config.train.autocast)

    def training(self, steps: int) -> TrainConfig:
        """The settings of training for so many steps: by default 3% of them warm up."""
        given = self.config.train
        if "warmup_steps" in given.model_fields_set:
            return given
        return given.model_copy(update={"warmup_steps": math.ceil(WARMUP_SHARE * steps)})

    def train(
        self, model: Model, objective: Objective, batches: Batches, validate: Callable[[], dict[str, float]] | None
    ) -> TrainResult:
        """Train the model in place, or continue where the run was interrupted."""
        config = self.training(batches.steps)
        if config.validate_every_steps and validate is None:
            raise InputError(
                f"{self.section}.train.validate_every_steps measures on held-out data, and there is none",
                "Give held-out data, or drop it",
            )
        self.say(
            f"{self.method}: {batches.steps:,} steps of rows of {self.config.seq_len:,} tokens, peak rate "
            f"{config.peak_lr:g} after {config.warmup_steps} steps, {config.precision}"
        )
        return train(
            model,
            open_objective(self.config.objective, f"{self.section}.objective", objective),
            batches,
            config,
            work=self.work,
            title=self.title,
            quiet=self.job.quiet,
            validate=validate,
            track=self.job.track,
        )
