"""The process that does a stage's work, so that stages run side by side and their memory ends with them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
import traceback
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import herdlm
from herdlm.base import progress
from herdlm.base.artefact import VOLATILE, InputEntry, publish, write_text_durably
from herdlm.base.errors import HerdError, storage_error
from herdlm.base.parent import end_with
from herdlm.recipe import Recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import Context, RunFolder, Stage, load_work


def run_stage(
    stage: Stage, recipe: Recipe, folder: RunFolder, contents: dict[str, InputEntry], fingerprint: str
) -> dict[str, Any]:
    """Do a stage's work and publish its artefact; returns its counts.

    What an earlier, cut-off try left in the working folder is used where it was making the same thing, else removed.
    """
    started = time.monotonic()
    work = folder.working(stage.name)
    mark = work / "fingerprint"
    # Device, threads and code may change a result's last bits: half of the work is never done with others.
    compute = recipe.compute
    making = f"{fingerprint} {compute.device} {compute.threads_per_stage} {herdlm.__version__}"
    if work.exists() and not (mark.is_file() and mark.read_text(encoding="utf-8") == making):
        shutil.rmtree(work)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text_durably(mark, making)
    inputs = {role: folder.stage(name) for role, name in stage.inputs.items()}
    after = {name: manifest.content for name in stage.after if (manifest := folder.manifest(name))}
    counts = load_work(stage.work)(Context(stage, recipe, inputs, out, work, quiet=False))
    publish(
        out,
        folder.stage(stage.name),
        kind=stage.kind,
        stage=stage.name,
        fingerprint=fingerprint,
        inputs=contents,
        after=after,
        recipe=stage.settings | stage.options,
        seeds={"recipe": recipe.seed, "stage": _stage_seed(stage, recipe)},
        counts=counts,
        seconds=time.monotonic() - started,
        code={"herdlm": herdlm.__version__},
        volatile=VOLATILE,
    )
    shutil.rmtree(work, ignore_errors=True)
    return counts


def _stage_seed(stage: Stage, recipe: Recipe) -> int:
    return Context(stage, recipe, {}, Path(), Path()).seed()


def start(queue: Queue[Any] | None, threads: int, lock: str, parent: int) -> None:
    """Prepare a worker process: threads, progress to the parent, and an end when the process ``parent`` ends."""
    end_with(parent)
    held = Path(lock).open("w")  # noqa: SIM115 - held as long as the process lives
    fcntl.flock(held, fcntl.LOCK_SH)
    _kept.append(held)
    if os.getppid() != parent:
        os._exit(1)
    # The parent decides what an interrupt means; libraries would end their work early and call it done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), "DO_NOT_TRACK": "true"}
    import torch  # only now: it reads the thread count when it loads

    torch.set_num_threads(threads)
    if queue is not None:
        progress.report_to = queue.put


_kept: list[Any] = []


def run_stage_in_worker(name: str, recipe_json: str, root: str, contents_json: str, fingerprint: str) -> str:
    """:func:`run_stage` with plain text in and out; errors come back as JSON, so that no traceback is lost."""
    try:
        recipe = Recipe.model_validate_json(recipe_json)
        stage = next(s for s in stages_of(recipe) if s.name == name)
        contents = {role: InputEntry(**entry) for role, entry in json.loads(contents_json).items()}
        return json.dumps({"counts": run_stage(stage, recipe, RunFolder(Path(root)), contents, fingerprint)})
    except HerdError as error:
        return json.dumps({"error": describe(error), "trace": traceback.format_exc()})
    except OSError as error:
        return json.dumps({"error": describe(storage_error(error)), "trace": traceback.format_exc()})


def describe(error: HerdError) -> dict[str, Any]:
    """An error as JSON can carry it."""
    return {"what": error.what, "remedy": error.remedy, "exit_code": error.exit_code}
