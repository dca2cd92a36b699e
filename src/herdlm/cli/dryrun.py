"""The command that runs a step of any layout without its GPUs."""

from __future__ import annotations

from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, RecipeArgument, SetOption, example
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()
OBJECTIVES = ("pretrain", "sft", "reward", "dpo", "generate")


@app.command(**example("herdlm dryrun recipes/llama3.1-405b.toml --gpus 16384 --rank 0"))
def dryrun(
    recipe: RecipeArgument,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Number of GPUs; resolves `dp_shard = -1`. Default: the layout's own.")
    ] = None,
    objective: Annotated[str, typer.Option(help=f"What to run: {', '.join(OBJECTIVES)}.")] = "pretrain",
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
    from herdlm.base.accelerators import ACCELERATORS
    from herdlm.plan.dryrun import jobs
    from herdlm.plan.dryrun.step import dry_run
    from herdlm.plan.dryrun.text import lines
    from herdlm.recipe import read_recipe

    if objective not in OBJECTIVES:
        raise InputError(f"there is no objective {objective!r}", f"Use {', '.join(OBJECTIVES)}")
    if gpu not in ACCELERATORS:
        raise InputError(f"the GPU {gpu!r} is unknown", f"Use {', '.join(ACCELERATORS)}, or give --gpu-gib")
    limit = gpu_gib * 2**30 if gpu_gib is not None else ACCELERATORS[gpu].gigabytes * 1e9
    read = read_recipe(recipe, set_ or ())
    name = model or read.herd.flagship
    if objective == "pretrain":
        if read.pretrain is None:
            raise InputError(f"{recipe} has no section pretrain", "Give --objective sft, reward or dpo")
        plan = jobs.pretraining_plan(read.job(name), gpus, seq_len=seq_len, micro_batches=micro_batches)
    else:
        if seq_len is not None:
            raise InputError("--seq-len names a phase of pre-training", f"Set align.{objective}.seq_len instead")
        section = getattr(read.align, objective, None) if read.align else None
        if read.align is None or section is None:
            raise InputError(f"{recipe} has no section align.{objective}", "Choose another --objective")
        layout = read.align.parallel or read.parallel
        plan = jobs.finetuning_plan(
            objective, section, read.model_config_of(name), layout, gpus, micro_batches=micro_batches
        )
    chosen = rank or plan.stage_ranks()
    if max(chosen) >= plan.ranks or min(chosen) < 0:
        raise InputError(f"--rank {max(chosen)} is none of {plan.ranks:,} ranks", f"Give 0 to {plan.ranks - 1}")
    reports = []
    for number in chosen:
        reports.append(dry_run(plan.job, ranks=plan.ranks, rank=number))
        if len(chosen) > 1:
            remark(f"rank {number}: {reports[-1].seconds:.1f} s, peak {reports[-1].peak / 2**30:.2f} GiB")
    over = max(reports, key=lambda report: report.peak)
    if json_:
        say_json({"gpu_bytes": int(limit), "fits": over.peak <= limit, "ranks": [each.as_json() for each in reports]})
    else:
        for line in lines(reports, limit):
            say(line)
    if over.peak > limit:
        largest = max(over.at_peak, key=lambda category: over.at_peak[category])
        raise InputError(
            f"rank {over.rank} needs {over.peak / 2**30:.2f} GiB and its GPU has {limit / 2**30:.2f}, most of it for "
            f"{largest} ({over.at_peak[largest] / 2**30:.2f} GiB)",
            "Shard further, lower parallel.rows_per_micro_batch, or set parallel.activation_checkpointing",
        )
