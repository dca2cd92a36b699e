"""Makes one stage of a run on the processes that torchrun started, on any number of nodes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from herdlm.base import progress
from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError, storage_error
from herdlm.generate.load import pick_device
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.processes import from_first, is_first, led_by_first, process_group
from herdlm.recipe import Recipe
from herdlm.run.execute import RunResult, Scheduler, exclusive, select
from herdlm.run.messages import StageRequest
from herdlm.run.pipeline import stages_of
from herdlm.run.root import refuse_foreign_run, seal_root
from herdlm.run.stage import RunFolder, Stage, load_work, takes_processes
from herdlm.run.worker import context_of, making


def make_stage(recipe: Recipe, root: Path, name: str, *, quiet: bool = False) -> RunResult | None:
    """Make one stage of the run in ``root``, unless it is up to date. Every process calls this.

    Without torchrun the stage is made in this process. The folder is read and written by all, so nodes share it.

    Returns:
        What was done, on the first process; None on others.

    Raises:
        InputError: there is no such stage, what it needs is not finished, or it does not take several processes.
    """
    stages, _ = select(stages_of(recipe), name, None)
    stage, folder = next(stage for stage in stages if stage.name == name), RunFolder(root)
    work, counts = load_work(stage.work), dict[str, Any]()
    torch.set_num_threads(recipe.compute.threads_per_stage)
    with process_group(pick_device(recipe.compute.device).type), ExitStack() as held:
        if dist.is_initialized() and not takes_processes(work):
            raise InputError(
                f"stage {name} computes in one process, and torchrun started {dist.get_world_size()}",
                f"Make it with herdlm run --until {name}",
            )
        if quiet or not is_first():
            progress.report_to = lambda message: None
        result, requests = RunResult(root), list[StageRequest]()
        if from_first(lambda: _prepare(recipe, folder, stages, stage, held=held, requests=requests)):
            request = requests[0] if requests else None
            inputs, fingerprint = (request.inputs, request.fingerprint) if request else ({}, "")
            with led_by_first(making(stage, recipe, folder, inputs, fingerprint, counts=counts)):
                counts.update(work(context_of(stage, recipe, folder, quiet=quiet)))
            result.made.append(name)
        else:
            result.kept.append(name)
        return result if is_first() else None


def layout_of_stage(recipe: Recipe, name: str) -> tuple[ParallelConfig, ModelConfig, int | None]:
    """The layout in which a stage trains, the shape of its model, and the length of its rows.

    Raises:
        InputError: there is no such stage, or it does not take several processes.
    """
    stages, _ = select(stages_of(recipe), name, None)
    stage = next(stage for stage in stages if stage.name == name)
    if not takes_processes(load_work(stage.work)):
        raise InputError(f"stage {name} computes in one process", f"Make it with herdlm run --until {name}")
    if "model" in stage.options:
        job = recipe.job(stage.options["model"])
        return job.parallel, job.model, max(job.pretrain.seq_lens)
    assert recipe.align
    small = recipe.herd.small
    trained = small if small and stage.inputs.get("base") == f"pretrain-{small}" else recipe.herd.flagship
    section = next(stage.settings[method] for method in ("sft", "reward", "dpo") if method in stage.settings)
    return recipe.align.parallel or recipe.parallel, recipe.model_config_of(trained), section["seq_len"]


def _prepare(
    recipe: Recipe,
    folder: RunFolder,
    stages: list[Stage],
    stage: Stage,
    *,
    held: ExitStack,
    requests: list[StageRequest],
) -> bool:
    """Take the run's folder until ``held`` is left, and add the request for a stage; False if it is up to date."""
    refuse_foreign_run(folder.root, stages)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        held.enter_context(exclusive(folder.root))
        recipe.check_starts()
        write_text_durably(folder.recipe, recipe.model_dump_json(indent=2) + "\n")
        seal_root(folder)
        scheduler = Scheduler(recipe, folder, stages, quiet=True, result=RunResult(folder.root))
        waiting = [other.name for other in scheduler.skip_finished(stages)]
        if missing := sorted(stage.needs & set(waiting)):
            raise InputError(
                f"stage {stage.name} needs {missing[0]}, which is not finished or out of date",
                f"Make it first, with herdlm run --until {missing[0]}",
            )
        if stage.name in waiting:
            requests.append(scheduler.request(stage))
    except OSError as error:
        raise storage_error(error) from error
    return bool(requests)
