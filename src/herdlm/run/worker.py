"""Does a stage's work in a process of its own, so that stages run in parallel and their memory is freed at the end.

A worker runs :func:`start` once and then :func:`handle` for each stage; ``handle`` reads the request and calls
:func:`run_stage`, which calls the stage's function, here or on several ranks, and publishes what it made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import herdlm
from herdlm.base import progress
from herdlm.base.artifact import VOLATILE, InputEntry, publish, write_text_durably
from herdlm.base.errors import HerdError, memory_error, storage_error
from herdlm.base.parent import end_with
from herdlm.recipe import Recipe
from herdlm.run.messages import StageFailure, StageReply, StageRequest
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import Context, RunFolder, Stage, load_work, takes_processes


def run_stage(stage: Stage, recipe: Recipe, folder: RunFolder, inputs: dict[str, InputEntry], fingerprint: str) -> None:
    """Do a stage's work and publish its artifact under ``stages/``."""
    counts: dict[str, Any] = {}
    with making(stage, recipe, folder, inputs, fingerprint, counts=counts):
        work = load_work(stage.work)
        if recipe.compute.processes > 1 and takes_processes(work):
            from herdlm.run.rank import on_ranks

            counts.update(on_ranks(stage, recipe, folder))
        else:
            counts.update(work(context_of(stage, recipe, folder)))


def context_of(stage: Stage, recipe: Recipe, folder: RunFolder, *, quiet: bool = False) -> Context:
    """The arguments of a stage's function, while :func:`making` the stage."""
    inputs = {role: folder.stage(name) for role, name in stage.inputs.items()}
    work = folder.working(stage.name)
    return Context(stage, recipe, inputs, work / "out", work, quiet=quiet)


@contextmanager
def making(
    stage: Stage,
    recipe: Recipe,
    folder: RunFolder,
    inputs: dict[str, InputEntry],
    fingerprint: str,
    *,
    counts: dict[str, Any],
) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Yields a stage's empty folder, its working folder and ``counts``; publishes the artifact with them at the end.

    If an interrupted attempt at the same artifact left checkpoints in the working folder, the work resumes from them;
    anything else there is removed.
    """
    started = time.monotonic()
    work = folder.working(stage.name)
    mark = work / "fingerprint"
    # Device, threads and code may change a result's last bits, so interrupted work resumes only if all three match.
    compute = recipe.compute
    making = f"{fingerprint} {compute.device} {compute.threads_per_stage} {herdlm.__version__}"
    if work.exists() and not (mark.is_file() and mark.read_text(encoding="utf-8") == making):
        shutil.rmtree(work)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text_durably(mark, making)
    yield out, work, counts
    after = {name: manifest.content for name in stage.after if (manifest := folder.manifest(name))}
    publish(
        out,
        folder.stage(stage.name),
        kind=stage.kind,
        stage=stage.name,
        fingerprint=fingerprint,
        inputs=inputs,
        after=after,
        recipe=stage.settings | stage.options,
        seeds={"recipe": recipe.seed, "stage": _stage_seed(stage, recipe)},
        counts=counts,
        seconds=time.monotonic() - started,
        code={"herdlm": herdlm.__version__},
        volatile=VOLATILE,
    )
    shutil.rmtree(work, ignore_errors=True)


def _stage_seed(stage: Stage, recipe: Recipe) -> int:
    return Context(stage, recipe, {}, Path(), Path()).seed()


def start(queue: Queue[Any] | None, threads: int, lock: str, parent: int) -> None:
    """Prepare a worker process: set its threads, send progress to the parent, and end when the parent ends.

    Args:
        queue: takes progress reports; None to report nothing.
        lock: path of a file to hold a shared lock on for as long as the process lives.
        parent: process id of the run.
    """
    end_with(parent)
    hold(Path(lock))
    if os.getppid() != parent:
        os._exit(1)
    # The parent handles Ctrl-C. In a worker, a library might catch it, stop early and return an incomplete result.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), "DO_NOT_TRACK": "true"}
    import torch  # imported here because it reads OMP_NUM_THREADS when it loads

    torch.set_num_threads(threads)
    if queue is not None:
        progress.report_to = queue.put


def hold(lock: Path) -> None:
    """Hold a shared lock on a file for as long as this process lives."""
    held = lock.open("w")
    fcntl.flock(held, fcntl.LOCK_SH)
    _kept.append(held)


_kept: list[Any] = []


def handle(request_json: str) -> str:
    """Make the stage that a :class:`StageRequest` names; returns a :class:`StageReply`. Both are JSON text."""
    request = StageRequest.model_validate_json(request_json)
    stage = next(stage for stage in stages_of(request.recipe) if stage.name == request.stage)
    failure = None
    try:
        run_stage(stage, request.recipe, RunFolder(request.root), request.inputs, request.fingerprint)
    except HerdError as error:
        failure = StageFailure.of(error)
    except OSError as error:
        failure = StageFailure.of(storage_error(error))
    except (MemoryError, RuntimeError) as error:
        if (known := memory_error(error)) is None:
            raise
        failure = StageFailure.of(known)
    return StageReply(failure=failure).model_dump_json()
