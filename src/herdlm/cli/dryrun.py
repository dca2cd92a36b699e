"""The command that runs a step of any layout without its GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, RecipeArgument, SetOption, example
from herdlm.cli.output import remark, say, say_json

if TYPE_CHECKING:
    from herdlm.plan.dryrun.jobs import Method, Plan
    from herdlm.plan.dryrun.report import RankReport
    from herdlm.recipe import Recipe

app = typer.Typer()
METHODS: dict[str, Method] = {"sft": "sft", "reward": "reward", "dpo": "dpo"}
OBJECTIVES = ("pretrain", *METHODS)


@app.command(**example("herdlm dryrun recipes/llama3.1-405b.toml --gpus 16384 --rank 0"))
def dryrun(
    recipe: RecipeArgument,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Number of GPUs; resolves `dp_shard = -1`. Default: the layout's own.")
    ] = None,
    objective: Annotated[str, typer.Option(help=f"What to train: {', '.join(OBJECTIVES)}.")] = "pretrain",
    model: Annotated[str | None, typer.Option(help="A model of the recipe; by default the flagship.")] = None,
    rank: Annotated[
        list[int] | None, typer.Option(help="A rank to run; by default one of each pipeline stage. May be repeated.")
    ] = None,
    seq_len: Annotated[
        int | None, typer.Option(min=1, help="Pre-training: the phase with rows of this length; default: the main one.")
    ] = None,
    micro_batches: Annotated[
        int | None, typer.Option(min=1, help="Run only this many micro-batches of the step.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="Kind of GPU: A100, H100, H800, H200 or B200.")] = "H100",
    gpu_gib: Annotated[float | None, typer.Option(help="Memory of a GPU in GiB, in place of the kind's own.")] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Run one training step of the real code as single ranks of a cluster, on tensors without values.

    Prints memory, collectives and FLOPs of each rank. The command fails if a rank needs more than its GPU has.
    """
    from herdlm.plan.dryrun.step import dry_run
    from herdlm.plan.dryrun.text import lines
    from herdlm.recipe import read_recipe

    limit = _gpu_bytes(gpu, gpu_gib)
    plan = _plan(read_recipe(recipe, set_ or ()), recipe, objective, model, gpus, seq_len, micro_batches)
    chosen = rank or plan.stage_ranks()
    if wrong := [number for number in chosen if not 0 <= number < plan.ranks]:
        raise InputError(f"--rank {wrong[0]} is none of {plan.ranks:,} ranks", f"Give 0 to {plan.ranks - 1}")
    reports: list[RankReport] = []
    for number in chosen:
        reports.append(dry_run(plan.job, ranks=plan.ranks, rank=number))
        if len(chosen) > 1:
            remark(f"rank {number}: {reports[-1].seconds:.1f} s, peak {reports[-1].peak / 2**30:.2f} GiB")
    heaviest = max(reports, key=lambda report: report.peak)
    if json_:
        fits = heaviest.peak <= limit
        say_json({"gpu_bytes": int(limit), "fits": fits, "ranks": [each.as_json() for each in reports]})
    else:
        for line in lines(reports, limit):
            say(line)
    if heaviest.peak > limit:
        most = max(heaviest.at_peak, key=lambda category: heaviest.at_peak[category])
        raise InputError(
            f"rank {heaviest.rank} needs {heaviest.peak / 2**30:.2f} GiB and its GPU has {limit / 2**30:.2f}; most of "
            f"it is for {most} ({heaviest.at_peak[most] / 2**30:.2f} GiB)",
            "Shard further, lower parallel.rows_per_micro_batch, or set parallel.activation_checkpointing",
        )


def _gpu_bytes(gpu: str, gib: float | None) -> float:
    from herdlm.base.accelerators import ACCELERATORS

    if gib is not None:
        return gib * 2**30
    if gpu not in ACCELERATORS:
        raise InputError(f"the GPU {gpu!r} is unknown", f"Use {', '.join(ACCELERATORS)}, or give --gpu-gib")
    return ACCELERATORS[gpu].gigabytes * 1e9


def _plan(
    read: Recipe,
    path: Path,
    objective: str,
    model: str | None,
    gpus: int | None,
    seq_len: int | None,
    micro_batches: int | None,
) -> Plan:
    from herdlm.plan.dryrun import jobs

    name = model or read.herd.flagship
    if objective == "pretrain":
        if read.pretrain is None:
            raise InputError(f"{path} has no section pretrain", "Give --objective sft, reward or dpo")
        return jobs.pretraining_plan(read.job(name), gpus, seq_len=seq_len, micro_batches=micro_batches)
    if objective not in METHODS:
        raise InputError(f"there is no objective {objective!r}", f"Use {', '.join(OBJECTIVES)}")
    if seq_len is not None:
        raise InputError("--seq-len names a phase of pre-training", f"Give --set align.{objective}.seq_len={seq_len}")
    section = getattr(read.align, objective) if read.align else None
    if read.align is None or section is None:
        raise InputError(f"{path} has no section align.{objective}", "Choose another --objective")
    layout = read.align.parallel or read.parallel
    shape = read.model_config_of(name)
    return jobs.finetuning_plan(METHODS[objective], section, shape, layout, gpus, micro_batches=micro_batches)
