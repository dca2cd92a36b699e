"""Works on a job of fine-tuning on files and publishes its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from herdlm.align.defaults import Method, MethodConfig
from herdlm.align.job import FinetuneJob, Run
from herdlm.align.open_run import open_run, opened
from herdlm.align.teacher import teacher_inputs
from herdlm.base.artifact import write_text_durably
from herdlm.base.standalone import input_folder, standalone
from herdlm.generate.load import pick_device
from herdlm.parallel.processes import is_first, led_by_first, process_group
from herdlm.train.own_objective import objective_code

T = TypeVar("T")


def work_on(job: FinetuneJob, method: Method, config: MethodConfig, act: Callable[[Run], T]) -> T | None:
    """Run ``act``, which fills a folder and returns its counts, and publish the folder as ``job.out``.

    An interrupted call resumes if model, files and settings are the same; else it begins anew.

    Returns:
        The counts on the first process, None on others.

    Raises:
        InputError: the model, the files or the settings cannot be used, or ``job.out`` exists.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    start, _ = opened(job, method, config)
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
            made: Any = act(open_run(job, method, config, out=out, work=work))
            if is_first():
                counts.update(made)
                write_text_durably(out / "training.json", json.dumps(made, indent=2) + "\n")
        return made if is_first() else None
