"""Runs a recipe's stages: each that is not already there, as soon as what it needs is, side by side where it may be."""

from __future__ import annotations

import fcntl
import json
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

from herdlm.base.artefact import InputEntry, verify, write_text_durably
from herdlm.base.errors import HerdError, InputError, storage_error
from herdlm.base.standalone import input_folder
from herdlm.curate.sources.hashes import source_content
from herdlm.recipe import Recipe
from herdlm.run.display import Display
from herdlm.run.pipeline import result_models, stages_of
from herdlm.run.stage import RunFolder, Stage
from herdlm.run.worker import run_stage_in_worker, start

LOCK_WAIT_SECONDS = 15.0
REPORT = "report"


class RunInterruptedError(HerdError):
    """Ctrl-C, by the shell's convention for its exit code."""

    exit_code = 130


@dataclass(slots=True)
class RunResult:
    """What a run did: the stages it made, and those that were there already."""

    root: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    seconds: float = 0.0


def select(stages: list[Stage], until: str | None, start_from: str | None) -> tuple[list[Stage], set[str]]:
    """The stages to look at, and the names of those to make anew although they are there.

    ``until`` keeps a stage and all it needs; ``start_from`` makes a stage and everything that depends on it again.

    Raises:
        InputError: no stage has that name.
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
    anew: set[str] = set()
    if start_from is not None:
        anew = {start_from}
        for stage in stages:  # in order, so one pass reaches everything downstream
            if set(stage.inputs.values()) & anew:
                anew.add(stage.name)
    if start_from is not None and start_from not in wanted:
        raise InputError(f"{until} does not need {start_from}: --from and --until have nothing in common", "Drop one")
    return [stage for stage in stages if stage.name in wanted], anew & wanted


def run(
    recipe: Recipe, root: Path, *, until: str | None = None, start_from: str | None = None, quiet: bool = False
) -> RunResult:
    """Bring a run's folder to where the recipe says, making only what is missing or no longer fits.

    Raises:
        InputError: a source is missing, a stage name unknown, or another process works on the same folder.
        DamagedError: a finished stage's files are not what its manifest says.
        HerdError: a stage failed; what was finished before is kept.
    """
    started = time.monotonic()
    if multiprocessing.parent_process() is not None:
        raise InputError(
            "run() was called again by a worker process",
            'A script that calls it needs an `if __name__ == "__main__":` around the call',
        )
    folder = RunFolder(root)
    stages, anew = select(stages_of(recipe), until, start_from)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file", "Give a folder with --out")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _only_one(root):
            write_text_durably(folder.recipe, recipe.model_dump_json(indent=2) + "\n")
            _sweep(folder, anew)
            result = RunResult(root)
            _Execution(recipe, folder, stages, quiet=quiet, result=result).run()
            if any(stage.name == REPORT for stage in stages):
                _link_results(recipe, folder)
    except OSError as error:
        raise storage_error(error) from error
    result.seconds = time.monotonic() - started
    return result


class _Execution:
    """One pass over the stages; holds which are finished and which are under way."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, stages: list[Stage], *, quiet: bool, result: RunResult
    ) -> None:
        self.recipe, self.folder, self.stages, self.result = recipe, folder, stages, result
        self.quiet = quiet
        self.sources: dict[str, str] = {}
        self.contents: dict[str, str] = {}
        self.running: dict[Future[str], Stage] = {}
        self.names = {stage.name for stage in stages}

    def run(self) -> None:
        waiting = list(self.stages)
        waiting = self._pass_over_finished(waiting)
        if not waiting:
            return
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        workers = min(self.recipe.compute.stages_at_once, len(waiting))
        threads = self.recipe.compute.threads_per_stage
        lock = str(self.folder.root / ".workers.lock")
        pool = ProcessPoolExecutor(workers, context, initializer=start, initargs=(queue, threads, lock, os.getpid()))
        running = self.running = {}
        with Display(queue, total=len(self.stages), quiet=self.quiet) as display:
            display.count(len(self.result.kept))
            try:
                while waiting or running:
                    waiting = self._pass_over_finished(waiting)
                    for stage in [s for s in waiting if self._ready(s)][: workers - len(running)]:
                        waiting.remove(stage)
                        inputs, fingerprint = self._inputs(stage)
                        self._check_inputs(stage)
                        display.started(stage.name)
                        running[
                            pool.submit(
                                run_stage_in_worker,
                                stage.name,
                                self.recipe.model_dump_json(),
                                str(self.folder.root),
                                json.dumps({role: entry.model_dump() for role, entry in inputs.items()}),
                                fingerprint,
                            )
                        ] = stage
                    if running:
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            stage = running.pop(future)
                            self._finish(stage, future)
                            display.finished(stage.name)
            except BaseException as error:
                for process in list((pool._processes or {}).values()):
                    process.kill()
                if isinstance(error, KeyboardInterrupt):
                    raise RunInterruptedError("interrupted", "Finished stages are kept; run again to go on") from None
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _finish(self, stage: Stage, future: Future[str]) -> None:
        try:
            answer = json.loads(future.result())
        except BrokenProcessPool as error:
            raise HerdError(
                f"a worker process was killed (out of memory, perhaps) while it made one of {self._under_way(stage)}",
                "Run again to go on from where it was",
            ) from error
        if "error" in answer:
            told = answer["error"]
            kind = InputError if told["exit_code"] == InputError.exit_code else HerdError
            failure = kind(f"stage {stage.name}: {told['what']}", told["remedy"])
            failure.add_note(answer["trace"])
            raise failure
        manifest = self.folder.manifest(stage.name)
        assert manifest is not None
        self.contents[stage.name] = manifest.content
        self.result.made.append(stage.name)

    def _under_way(self, stage: Stage) -> str:
        return ", ".join([stage.name, *(other.name for other in self.running.values())])

    def _ready(self, stage: Stage) -> bool:
        return all(name in self.contents for name in stage.needs & self.names)

    def _inputs(self, stage: Stage) -> tuple[dict[str, InputEntry], str]:
        """A stage's inputs by role, and the fingerprint of what it would make of them."""
        entries = {
            role: InputEntry(path=f"stages/{name}", content=self.contents[name]) for role, name in stage.inputs.items()
        }
        for number, path in enumerate(stage.files, 1):  # by number: a source may move without being another
            entries[f"source-{number}"] = InputEntry(path=path, content=self._content_of_source(path))
        for number, path in enumerate(stage.aids, 1):
            entries[f"aid-{number}"] = input_folder(Path(path))
        return entries, stage.fingerprint(self.recipe.seed, {role: entry.content for role, entry in entries.items()})

    def _content_of_source(self, path: str) -> str:
        if path not in self.sources:
            self.sources[path] = source_content(path, self.recipe.curate, self.folder.root)
        return self.sources[path]

    def _pass_over_finished(self, waiting: list[Stage]) -> list[Stage]:
        """Take out the stages whose artefact is already what they would make, as far as that can be told yet."""
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
        """Before a stage reads its inputs, make sure that every byte is what its maker wrote."""
        for name in stage.inputs.values():
            if name in self.result.made:
                continue  # made a moment ago, hashed then
            manifest = self.folder.manifest(name)
            if manifest is None:
                raise HerdError(f"stage {stage.name} needs {name}, which vanished", "Run again")
            verify(self.folder.stage(name), manifest)


def _sweep(folder: RunFolder, anew: set[str]) -> None:
    """Remove what a kill left half replaced, and what is to be made anew: from here on a kill loses neither request."""
    for replaced in (folder.root / "stages").glob(".replaced-*"):
        shutil.rmtree(replaced)
    for name in anew:
        shutil.rmtree(folder.stage(name), ignore_errors=True)
        shutil.rmtree(folder.working(name), ignore_errors=True)


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Hold the run's folder: no second run on it, and none of a killed run's workers still at it."""
    with (root / ".run.lock").open("w") as run, (root / ".workers.lock").open("w") as workers:
        _lock(run.fileno(), 0.0, f"another herdlm run works on {root}")
        _lock(workers.fileno(), LOCK_WAIT_SECONDS, f"a worker of an earlier run still works on {root}")
        fcntl.flock(workers, fcntl.LOCK_UN)
        yield


def _lock(descriptor: int, patience: float, what: str) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise InputError(what, "Wait for it, or give another --out") from None
            time.sleep(0.2)
        else:
            return


def _link_results(recipe: Recipe, folder: RunFolder) -> None:
    """Put the report and links to the resulting models where a user looks for them."""
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
