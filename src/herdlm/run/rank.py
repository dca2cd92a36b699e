"""Does a stage's work on several processes of this machine.

    python -m herdlm.run.rank FOLDER    # a rank; only on_ranks starts it

The folder holds ``request.json``, a pipe for the progress of the first rank, and at the end ``counts.json``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from herdlm.base import progress
from herdlm.base.parent import end_with
from herdlm.parallel.launcher import launch, record_error
from herdlm.recipe import Recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import RunFolder, Stage, load_work
from herdlm.run.worker import context_of, hold

REQUEST, PROGRESS, COUNTS = "request.json", "progress", "counts.json"


class RankRequest(BaseModel):
    """Asks a rank to take part in a stage of the run in ``root``, which the process ``parent`` publishes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    recipe: Recipe
    root: Path
    parent: int


def on_ranks(stage: Stage, recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """Call a stage's function on ``compute.processes`` ranks, which fill its folder; returns its counts.

    Raises:
        HerdError: a rank failed; the first error of a rank.
    """
    request = RankRequest(stage=stage.name, recipe=recipe, root=folder.root.resolve(), parent=os.getpid())
    with tempfile.TemporaryDirectory(prefix="herdlm-ranks-") as name:
        shared = Path(name)
        (shared / REQUEST).write_text(request.model_dump_json(), encoding="utf-8")
        with _passed_on(shared / PROGRESS):
            launch(recipe.compute.processes, [name], recipe.compute.threads_per_stage, "herdlm.run.rank")
        counts: dict[str, Any] = json.loads((shared / COUNTS).read_text(encoding="utf-8"))
    return counts


@contextmanager
def _passed_on(pipe: Path) -> Iterator[None]:
    """Pass progress that comes through a pipe on to where this process reports its own."""
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR)  # for writing too, so that the pipe has no end before ours

    def read() -> None:
        with os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
            for line in lines:
                if line == "\n":
                    return
                if progress.report_to is not None:
                    progress.report_to(tuple(json.loads(line)))

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.write(descriptor, b"\n")
        reader.join()
        os.close(descriptor)


def main() -> NoReturn:
    """Run as a rank."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run handles Ctrl-C
    code = 0
    try:
        _work(Path(sys.argv[1]))
    except Exception as error:
        record_error(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the interpreter's clean-up, in which gloo's threads can abort the process


def _work(shared: Path) -> None:
    request = RankRequest.model_validate_json((shared / REQUEST).read_text(encoding="utf-8"))
    end_with(request.parent)
    folder, recipe = RunFolder(request.root), request.recipe
    hold(folder.workers_lock)
    _report_through(shared / PROGRESS)
    import torch

    from herdlm.generate.load import pick_device
    from herdlm.parallel.processes import is_first, process_group

    torch.set_num_threads(recipe.compute.threads_per_stage)
    stage = next(stage for stage in stages_of(recipe) if stage.name == request.stage)
    with process_group(pick_device(recipe.compute.device).type):
        counts = load_work(stage.work)(context_of(stage, recipe, folder))
        if is_first():
            (shared / COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def _report_through(pipe: Path) -> None:
    """Report the first rank's progress through a pipe, and that of others nowhere."""
    if int(os.environ["RANK"]):
        progress.report_to = lambda message: None
        return
    descriptor = os.open(pipe, os.O_WRONLY)
    progress.report_to = lambda message: (os.write(descriptor, json.dumps(message).encode() + b"\n"), None)[1]


if __name__ == "__main__":
    main()
