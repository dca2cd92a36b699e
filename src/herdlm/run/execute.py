"""Runs a recipe's missing or stale stages in parallel as their dependencies finish.

:func:`run` locks the run's folder and hands the stages to a :class:`Scheduler`, which sends each ready stage to a
worker process. There :func:`herdlm.run.worker.handle` calls :func:`herdlm.run.worker.run_stage`, which calls the
stage's function and publishes what it made.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from herdlm.base.artifact import VERIFY, InputEntry, verify, write_text_durably
from herdlm.base.errors import HerdError, InputError, storage_error
from herdlm.base.standalone import input_folder
from herdlm.curate.sources.hashes import source_content
from herdlm.recipe import Recipe
from herdlm.run.display import Display
from herdlm.run.examined import result_models
from herdlm.run.messages import StageReply, StageRequest
from herdlm.run.needed_files import check_needed_files
from herdlm.run.pipeline import stages_of
from herdlm.run.root import refuse_foreign_run, seal_root
from herdlm.run.stage import RunFolder, Stage
from herdlm.run.worker import handle, start

LOCK_WAIT_SECONDS = 15.0
REPORT = "report"


class RunInterruptedError(HerdError):
    """The user pressed Ctrl-C. The exit code is the shell's convention for it."""

    exit_code = 130


@dataclass(slots=True)
class RunResult:
    """The stages that a run made, and those it kept because they were up to date."""

    root: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    seconds: float = 0.0


def select(stages: list[Stage], until: str | None, start_from: str | None) -> tuple[list[Stage], set[str]]:
    """The stages to consider, and the names of those to make again even if they are up to date.

    ``until`` selects a stage and everything it needs; ``start_from`` remakes a stage and everything that depends on it.

    Raises:
        InputError: no stage has that name, or the two options exclude each other.
    """
    by_name = {stage.name: stage for stage in stages}
    for name in (until, start_from):
        if name is not None and name not in by_name:
            raise InputError(f"the recipe has no stage {name}", f"Its stages are {', '.join(by_name)}")
    wanted = set(by_name)
    if until is not None:
        wanted, queue = set(), [until]
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue += by_name[name].needs
    remade: set[str] = set()
    if start_from is not None:
        remade = {start_from}
        for stage in stages:  # in order, so one pass reaches everything downstream
            if set(stage.inputs.values()) & remade:
                remade.add(stage.name)
    if start_from is not None and start_from not in wanted:
        raise InputError(f"--until {until} does not need --from {start_from}", "Drop one of the two options")
    return [stage for stage in stages if stage.name in wanted], remade & wanted


def run(
    recipe: Recipe, root: Path, *, until: str | None = None, start_from: str | None = None, quiet: bool = False
) -> RunResult:
    """Run a recipe's stages in the folder ``root``, making only those that are missing or out of date.

    Raises:
        InputError: a source or file is missing, a stage name is unknown, or another run uses the same folder.
        DamagedError: a finished stage's files do not match its manifest.
        HerdError: a stage failed; the stages finished before it are kept.
    """
    started = time.monotonic()
    if multiprocessing.parent_process() is not None:
        raise InputError(
            "a worker process called run() again, because it imports the script that calls it",
            'Put the call under `if __name__ == "__main__":`',
        )
    folder = RunFolder(root)
    stages, remade = select(stages_of(recipe), until, start_from)
    check_needed_files(recipe, stages)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file, not a folder", "Give a folder with --out")
    refuse_foreign_run(root, stages)
    if not recipe.compute.verify:
        os.environ[VERIFY] = "off"  # for the workers, which inherit it
    try:
        root.mkdir(parents=True, exist_ok=True)
        with exclusive(root):
            recipe.check_starts()
            write_text_durably(folder.recipe, recipe.model_dump_json(indent=2) + "\n")
            seal_root(folder)
            _remove_stale(folder, remade)
            result = RunResult(root)
            Scheduler(recipe, folder, stages, quiet=quiet, result=result).run()
            if any(stage.name == REPORT for stage in stages):
                _link_results(recipe, folder)
            seal_root(folder)
    except OSError as error:
        raise storage_error(error) from error
    result.seconds = time.monotonic() - started
    return result


class Scheduler:
    """Sends stages to worker processes, each as soon as the stages it needs are finished.

    Attributes:
        contents: content hash of each finished stage; what a stage that needs it fingerprints.
        sources: content hash of each source path, hashed once a run.
        aids: each file or folder outside the run that stages read besides, hashed once a run.
        running: the stage that each unfinished future makes.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, stages: list[Stage], *, quiet: bool, result: RunResult
    ) -> None:
        self.recipe, self.folder, self.stages, self.result = recipe, folder, stages, result
        self.quiet = quiet
        self.sources: dict[str, str] = {}
        self.aids: dict[str, InputEntry] = {}
        self.contents: dict[str, str] = {}
        self.running: dict[Future[str], Stage] = {}
        self.names = {stage.name for stage in stages}

    def run(self) -> None:
        """Make every stage that is missing or out of date."""
        waiting = self.skip_finished(self.stages)
        if not waiting:
            return
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        workers = min(self.recipe.compute.stages_at_once, len(waiting))
        threads = self.recipe.compute.threads_per_stage
        lock = str(self.folder.workers_lock)
        pool = ProcessPoolExecutor(workers, context, initializer=start, initargs=(queue, threads, lock, os.getpid()))
        with Display(queue, total=len(self.stages), quiet=self.quiet) as display:
            display.count(len(self.result.kept))
            try:
                while waiting or self.running:
                    waiting = self.skip_finished(waiting)
                    for stage in [s for s in waiting if self._ready(s)][: workers - len(self.running)]:
                        waiting.remove(stage)
                        request = self.request(stage)
                        display.started(stage.name)
                        self.running[pool.submit(handle, request.model_dump_json())] = stage
                    if self.running:
                        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                            stage = self.running.pop(future)
                            self._finish(stage, future)
                            display.finished(stage.name)
            except BaseException as error:
                for process in list((pool._processes or {}).values()):
                    process.kill()
                if isinstance(error, KeyboardInterrupt):
                    raise RunInterruptedError("interrupted", "Finished stages are kept; run again to resume") from None
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def request(self, stage: Stage) -> StageRequest:
        """The request for a stage, once every byte of its inputs is known to be as its manifest says."""
        inputs, fingerprint = self._inputs(stage)
        self._check_inputs(stage)
        return StageRequest(
            stage=stage.name, recipe=self.recipe, root=self.folder.root, inputs=inputs, fingerprint=fingerprint
        )

    def _finish(self, stage: Stage, future: Future[str]) -> None:
        """Record a stage that its worker has made.

        Raises:
            HerdError: the stage failed, or its worker was killed.
        """
        try:
            reply = StageReply.model_validate_json(future.result())
        except BrokenProcessPool as error:
            running = ", ".join([stage.name, *(other.name for other in self.running.values())])
            raise HerdError(
                f"a worker process was killed (perhaps for lack of memory) while these stages were running: {running}",
                "Run again to resume",
            ) from error
        if reply.failure:
            raise reply.failure.as_error(stage.name)
        manifest = self.folder.manifest(stage.name)
        assert manifest is not None
        self.contents[stage.name] = manifest.content
        self.result.made.append(stage.name)

    def _ready(self, stage: Stage) -> bool:
        return all(name in self.contents for name in stage.needs & self.names)

    def _inputs(self, stage: Stage) -> tuple[dict[str, InputEntry], str]:
        """A stage's inputs by role, and the fingerprint of the artifact it would make from them."""
        entries = {
            role: InputEntry(path=f"stages/{name}", content=self.contents[name]) for role, name in stage.inputs.items()
        }
        for number, path in enumerate(stage.files, 1):  # roles are numbered, so that a source may move
            entries[f"source-{number}"] = InputEntry(path=path, content=self._content_of_source(path))
        for number, path in enumerate(stage.aids, 1):
            if path not in self.aids:
                self.aids[path] = input_folder(Path(path))
            entries[f"aid-{number}"] = self.aids[path]
        return entries, stage.fingerprint(self.recipe.seed, {role: entry.content for role, entry in entries.items()})

    def _content_of_source(self, path: str) -> str:
        if path not in self.sources:
            self.sources[path] = source_content(path, self.recipe.curate, self.folder.root)
        return self.sources[path]

    def skip_finished(self, waiting: list[Stage]) -> list[Stage]:
        """The stages still to make. Up-to-date ones are recorded as kept, if all that they need is finished."""
        left = []
        for stage in waiting:
            if not self._ready(stage):
                left.append(stage)
                continue
            manifest = self.folder.manifest(stage.name)
            if manifest is None or manifest.fingerprint != self._inputs(stage)[1]:
                left.append(stage)
                continue
            verify(self.folder.stage(stage.name), manifest, hashes=False)
            self.contents[stage.name] = manifest.content
            self.result.kept.append(stage.name)
            shutil.rmtree(self.folder.working(stage.name), ignore_errors=True)
        return left

    def _check_inputs(self, stage: Stage) -> None:
        """Compare the inputs that a stage is about to read with their manifests' hashes.

        Raises:
            DamagedError: a file differs.
        """
        for name in stage.inputs.values():
            if name in self.result.made:
                continue  # hashed moments ago, when it was published
            manifest = self.folder.manifest(name)
            if manifest is None:
                raise HerdError(
                    f"stage {stage.name} needs {name}, but {self.folder.stage(name)} was deleted during the run",
                    "Run again",
                )
            verify(self.folder.stage(name), manifest, hashes=self.recipe.compute.verify)


def _remove_stale(folder: RunFolder, remade: set[str]) -> None:
    """Remove the stages to make again, and folders that a kill left in the middle of a replacement.

    Removing them first means that a later kill does not lose the request to make them again.
    """
    for replaced in (folder.root / "stages").glob(".replaced-*"):
        shutil.rmtree(replaced)
    for name in remade:
        shutil.rmtree(folder.stage(name), ignore_errors=True)
        shutil.rmtree(folder.working(name), ignore_errors=True)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the run's folder, once no other run uses it and all workers of a killed run have ended."""
    with (root / ".run.lock").open("w") as run, (root / ".workers.lock").open("w") as workers:
        _lock(run.fileno(), 0.0, f"another herdlm run works on {root}")
        _lock(workers.fileno(), LOCK_WAIT_SECONDS, f"a worker of an earlier run still works on {root}")
        fcntl.flock(workers, fcntl.LOCK_UN)
        yield


def _lock(descriptor: int, timeout: float, problem: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise InputError(problem, "Wait until it ends, or give another --out") from None
            time.sleep(0.2)
        else:
            return


def _link_results(recipe: Recipe, folder: RunFolder) -> None:
    """Copy the report to the top of the run's folder and link the resulting models under ``models/``."""
    folder.models.mkdir(exist_ok=True)
    links = result_models(recipe)
    for name, stage in links.items():
        temporary = folder.models / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(folder.stage(stage), folder.models))
        temporary.replace(folder.models / name)
    page = folder.stage("report") / "report.html"
    if not folder.report.exists() or folder.report.read_bytes() != page.read_bytes():
        shutil.copyfile(page, folder.report.with_suffix(".tmp"))
        folder.report.with_suffix(".tmp").replace(folder.report)
