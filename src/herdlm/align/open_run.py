"""Opens the run of a job: checks that its method can train its model, and divides steps into micro-batches."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from herdlm.align.defaults import MICRO_BATCH_TOKENS, Method, MethodConfig
from herdlm.align.job import FinetuneJob, Run
from herdlm.align.teacher import check_teacher, content_of, teacher_inputs
from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.generate.load import pick_device
from herdlm.model.start import Start, open_start
from herdlm.parallel.config import sizes_for
from herdlm.parallel.processes import from_first
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.chat_template import TEMPLATES


def opened(job: FinetuneJob, method: Method, config: MethodConfig) -> tuple[Start, ChatFormat]:
    """The model that a job starts from and its chat format.

    Raises:
        InputError: the method cannot train the model, or not with these settings.
    """
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
    return start, format


def open_run(
    job: FinetuneJob,
    method: Method,
    config: MethodConfig,
    *,
    out: Path,
    work: Path,
    seed_of: Callable[[str], int] | None = None,
    title: str | None = None,
    section: str | None = None,
    writes_figures: bool = True,
) -> Run:
    """A run of a job in folders that the caller has made and publishes. Every process calls this.

    Args:
        seed_of, title, section: see :class:`Run`; by default derived from the job's seed, and named as the method.

    Raises:
        InputError: the method cannot train the model, or not with these settings.
    """
    start, format = opened(job, method, config)
    format.freeze(_first_date(work))
    return Run(
        job=job,
        method=method,
        config=config,
        start=start,
        format=format,
        out=out,
        work=work,
        device=pick_device(job.device).type,
        teacher=content_of(teacher_inputs(job.teacher)) if job.teacher is not None else None,
        seed_of=seed_of or (lambda name: derive_seed(job.seed, name)),
        rows_at_once=_rows_at_once(job, config, start),
        title=title or method,
        section=section or method,
        writes_figures=writes_figures,
    )


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


def _rows_at_once(job: FinetuneJob, config: MethodConfig, start: Start) -> int:
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
