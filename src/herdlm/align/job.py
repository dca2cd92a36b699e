"""A job of fine-tuning: a model, files, and how to train; and its run, which resumes where it was interrupted."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from herdlm.align.config import PairsConfig, SftConfig
from herdlm.align.defaults import MICRO_BATCH_TOKENS, WARMUP_SHARE, Method
from herdlm.align.teacher import check_teacher, content_of, teacher_inputs
from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.base.standalone import input_folder, standalone
from herdlm.data.source import Source
from herdlm.generate.load import pick_device
from herdlm.model.lora import add_lora
from herdlm.model.start import Start, open_start
from herdlm.model.transformer import Transformer
from herdlm.parallel.config import ParallelConfig, sizes_for
from herdlm.parallel.layout import lay_out
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import from_first, is_first, led_by_first, process_group
from herdlm.tokens.batch import Batches
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.chat_template import TEMPLATES
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.fp8 import use_fp8
from herdlm.train.loop import TrainResult, train
from herdlm.train.objectives import Objective
from herdlm.train.own_objective import objective_code, open_objective

T = TypeVar("T")
Model = Transformer | ParallelModel


def say_nothing(line: str) -> None:
    """Where a job's lines go by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneJob:
    """A model to train on files.

    Args:
        model: a model folder, a run (its flagship), or a LoRA adapter whose base is at hand.
        out: a new folder for the result.
        data: what is trained on.
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
    data: tuple[Source, ...]
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
        teacher: what identifies the teacher's weights; None without one.
        rows_at_once: the most rows of a micro-batch, on all data-parallel processes together.
    """

    job: FinetuneJob
    method: Method
    config: SftConfig | PairsConfig
    start: Start
    format: ChatFormat
    out: Path
    work: Path
    device: str
    seed: int
    teacher: str | None
    rows_at_once: int

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

    def lay_out(self, model: Transformer) -> Model:
        """The model as it is trained: in its precision, with adapters, on the processes there are."""
        if self.precision == "fp8":
            use_fp8(model)
        if self.job.lora is not None:
            add_lora(model, self.job.lora, seed=derive_seed(self.seed, "lora"))
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
                "train.validate_every_steps measures on held-out data, and there is none", "Give --held-out, or drop it"
            )
        self.say(
            f"{self.method}: {batches.steps:,} steps of rows of {self.config.seq_len:,} tokens, peak rate "
            f"{config.peak_lr:g} after {config.warmup_steps} steps, {config.precision}"
        )
        return train(
            model,
            open_objective(self.config.objective, f"{self.method}.objective", objective),
            batches,
            config,
            work=self.work,
            title=self.method,
            quiet=self.job.quiet,
            validate=validate,
            track=self.job.track,
        )


def work_on(job: FinetuneJob, method: Method, config: SftConfig | PairsConfig, act: Callable[[Run], T]) -> T | None:
    """Run ``act``, which fills a folder and returns its counts, and publish the folder as ``job.out``.

    An interrupted call resumes if model, files and settings are the same; else it begins anew.

    Returns:
        The counts on the first process, None on others.

    Raises:
        InputError: the model, the files or the settings cannot be used, or ``job.out`` exists.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    start = open_start(job.model)
    check_head(start, method)
    _check_adapter(job, start)
    check_teacher(job.teacher, config)
    if config.seq_len > start.shape.max_seq_len:
        raise InputError(
            f"rows of {config.seq_len:,} tokens exceed the {start.shape.max_seq_len:,} that {job.model} reads",
            "Lower seq_len",
        )
    format = ChatFormat.load(start.tokenizer, job.template)
    _check_template(format, job.template)
    device = pick_device(job.device).type
    settings: dict[str, Any] = {
        method: config.model_dump(mode="json"),
        "steps": job.steps,
        "lora": job.lora,
        "merge": job.merge,
        "template": job.template,
        "weights": [source.weight for source in job.data],
        "rename": job.rename,
        "micro_batch_rows": job.micro_batch_rows,
    }
    if code := objective_code(config.objective, f"{method}.objective"):
        settings["code"] = code
    inputs = {"model": input_folder(start.adapter or start.folder)}
    if start.adapter is not None:
        inputs["base"] = input_folder(start.folder)
    if job.teacher is not None:
        inputs |= teacher_inputs(job.teacher)
    for role, sources in (("data", job.data), ("held-out", job.held_out)):
        inputs |= {f"{role}-{number}": input_folder(source.path) for number, source in enumerate(sources, 1)}
    kind = "reward-model" if method == "reward" else "model"
    counts: dict[str, Any] = {}
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with process_group(device):
        published = standalone(
            job.out,
            kind=kind if job.merge or job.lora is None else "adapter",
            name=method,
            settings=settings,
            inputs=inputs,
            seed=job.seed,
            counts=counts,
            free={"micro_batch_rows"},
        )
        with led_by_first(published) as (out, work):
            format.freeze(_first_date(work))
            run = Run(
                job=job,
                method=method,
                config=config,
                start=start,
                format=format,
                out=out,
                work=work,
                device=device,
                seed=job.seed,
                teacher=content_of(inputs),
                rows_at_once=_rows_at_once(job, config, start),
            )
            made: Any = act(run)
            if is_first():
                counts.update(made)
                write_text_durably(out / "training.json", json.dumps(made, indent=2) + "\n")
        return made if is_first() else None


def check_head(start: Start, method: Method) -> None:
    """Refuse a model that the method cannot train.

    Raises:
        InputError: it is a reward model, and the method trains a model that writes.
    """
    if start.head == "score" and method != "reward":
        raise InputError(
            f"{start.path} is a reward model, which gives scores and writes no text",
            "Give the model that it was trained from",
        )


def _check_adapter(job: FinetuneJob, start: Start) -> None:
    if job.lora is None and not job.merge:
        raise InputError("there is no adapter to leave unmerged", "Give --lora RANK, or drop --no-merge")
    if not job.merge and start.adapter is not None:
        raise InputError(
            f"the base of the new adapter would be {start.path} merged, which is no folder",
            "Export it first with herdlm export-hf, or drop --no-merge",
        )


def _check_template(format: ChatFormat, template: str | None) -> None:
    if template is None and format.template_text is None:
        raise InputError(
            f"{format.where} has no chat template", f"Give --chat-template: a file, {' or '.join(TEMPLATES)}"
        )
    needed = TEMPLATES.get(template or "")
    if needed is not None and needed not in format.tokenizer.special_tokens:
        raise InputError(
            f"the chat template {template} needs the special token {needed}, which the tokenizer of {format.where} "
            "lacks",
            "Give the file of a template whose tokens it has",
        )


def _rows_at_once(job: FinetuneJob, config: SftConfig | PairsConfig, start: Start) -> int:
    world = dist.get_world_size() if dist.is_initialized() else 1
    sizes = sizes_for(job.parallel, world, start.shape, config.seq_len)
    rows = job.micro_batch_rows or job.parallel.rows_per_micro_batch or max(1, MICRO_BATCH_TOKENS // config.seq_len)
    return rows * sizes.dp


def _first_date(work: Path) -> datetime.datetime:
    """The time at which the run began, which templates that write the date see however often it resumes."""
    path = work / "date"

    def read() -> str:
        if not path.is_file():
            write_text_durably(path, datetime.datetime.now().isoformat() + "\n")
        return path.read_text(encoding="utf-8").strip()

    return datetime.datetime.fromisoformat(from_first(read))
