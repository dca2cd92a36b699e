"""Commands that predict a training step on a cluster, and that measure a machine for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, SetOption, example
from herdlm.cli.output import say, say_json

app = typer.Typer()

HardwareOption = Annotated[
    list[Path] | None,
    typer.Option(help="A TOML file of GPUs, links and networks on top of the known ones. May be repeated."),
]
Size = Annotated[int | None, typer.Option(min=1)]


@app.command(
    **example(
        "herdlm plan --model llama3.1-405b --gpus 16384 --gpu h100 --seq-len 8192",
        "--tokens-per-step 16777216 --tp 8 --cp 1 --pp 16",
    )
)
def plan(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe, whose flagship and layout are planned.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model: llama3.1-8b, -70b or -405b.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of another shape.")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Model dimension of another shape.")] = None,
    ffn: Annotated[int | None, typer.Option(min=1, help="Feed-forward dimension of another shape.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads of another shape.")] = None,
    kv_heads: Annotated[int | None, typer.Option(min=1, help="Key and value heads; by default --heads.")] = None,
    vocab: Annotated[int | None, typer.Option(min=1, help="Vocabulary of another shape.")] = None,
    mlp: Annotated[Literal["gated", "plain"], typer.Option(help="Feed-forward of another shape.")] = "gated",
    gpus: Annotated[int | None, typer.Option(min=1, help="Number of GPUs.")] = None,
    gpu: Annotated[str, typer.Option(help="Kind of GPU, a name of the hardware files.")] = "h100",
    system: Annotated[str | None, typer.Option(help="Node and network; by default the GPU's usual.")] = None,
    hardware: HardwareOption = None,
    seq_len: Annotated[int | None, typer.Option(min=1, help="Tokens of a row.")] = None,
    tokens_per_step: Annotated[int | None, typer.Option(min=1, help="Tokens of a step, over all GPUs.")] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="Tensor parallel.")] = None,
    cp: Annotated[int | None, typer.Option(min=1, help="Context parallel.")] = None,
    pp: Annotated[int | None, typer.Option(min=1, help="Pipeline parallel.")] = None,
    vpp: Annotated[int | None, typer.Option(min=1, help="Pipeline stages of a rank; by default the fastest.")] = None,
    dp_shard: Annotated[
        int | None, typer.Option(min=1, help="FSDP shards; by default all data-parallel ranks.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Rows of a micro-batch; by default the fastest that fits.")
    ] = None,
    schedule: Annotated[
        Literal["1f1b", "interleaved", "zero-bubble"] | None, typer.Option(help="Pipeline schedule.")
    ] = None,
    recompute: Annotated[
        Literal["none", "selective", "full"] | None, typer.Option(help="Activation checkpointing; by default none.")
    ] = None,
    precision: Annotated[Literal["bf16", "fp8"] | None, typer.Option(help="Precision; by default bf16.")] = None,
    reshard: Annotated[
        bool | None, typer.Option("--reshard/--no-reshard", help="Free gathered weights after the forward pass.")
    ] = None,
    offload: Annotated[
        Literal["none", "activations", "optimizer"], typer.Option(help="What is kept in the host's memory.")
    ] = "none",
    async_tp: Annotated[bool, typer.Option(help="Run tensor-parallel traffic beside its products.")] = False,
    stack: Annotated[
        str | None, typer.Option(help="Training software, such as torchtitan, megatron or nemo; by default herdlm.")
    ] = None,
    search: Annotated[bool, typer.Option(help="List the fastest layouts; sizes that are given stay.")] = False,
    explain: Annotated[bool, typer.Option(help="Search, and say what binds the best layout.")] = False,
    best: Annotated[int, typer.Option(min=1, help="Layouts that a search lists.")] = 10,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a run, for days and dollars of a search.")
    ] = 1_000_000_000_000,
    trace: Annotated[Path | None, typer.Option(help="Write the step's timeline for Chrome's tracing page.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Predict each row of this file of published measurements instead.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Predict throughput, time and memory of a training step, with 80% intervals. Nothing is allocated.

    The job is a recipe's, or a model and the options. What is left open is chosen: the fastest that fits the GPU.
    """
    from herdlm.plan import request_text
    from herdlm.plan.constants import read_constants
    from herdlm.plan.hardware import read_hardware
    from herdlm.plan.predict import fastest
    from herdlm.plan.stacks import stack_named

    catalog, constants = read_hardware(*(hardware or ())), read_constants()
    if file is not None:
        from herdlm.plan.published import read_rows
        from herdlm.plan.rows import predict_rows

        for row in predict_rows(read_rows(file), catalog, constants):
            say(json.dumps(row, ensure_ascii=False))
        return
    shape = {"layers": layers, "hidden": hidden, "ffn": ffn, "heads": heads, "kv_heads": kv_heads, "vocab": vocab}
    request = _request(recipe, model, shape, mlp, gpus, gpu, seq_len, tokens_per_step, set_)
    given: dict[str, Any] = {
        "tp": tp,
        "cp": cp,
        "pp": pp,
        "vpp": vpp,
        "dp_shard": dp_shard,
        "micro_batch": micro_batch,
        "schedule": schedule,
        "recompute": recompute,
        "precision": precision,
        "reshard_after_forward": reshard,
        "offload": None if offload == "none" else offload,
        "async_tp": async_tp or None,
        "software": stack,
    }
    given = {name: value for name, value in given.items() if value is not None}
    machine, software = catalog.machine(gpu, system), stack_named(stack)
    if search or explain:
        from herdlm.plan.search_report import LayoutSearch, lines

        looked = LayoutSearch.of(request, given, machine, constants, software)
        result = looked.run(best)
        report = looked.report(result, tokens)
        if json_:
            say_json(report)
        else:
            for line in lines(report, explained=explain):
                say(line)
        _write_trace(trace, result.best[0].job, result.best[0].parts, software)
        return
    request = request.changed(given)
    chosen = fastest(request.jobs(), machine, constants, software)
    _write_trace(trace, chosen.job, chosen.step.parts, software)
    found = {**chosen.as_json(), "searched": request.open_ends()}
    if json_:
        say_json(found)
    else:
        for line in request_text.lines(found):
            say(line)


def _write_trace(path: Path | None, job: Any, parts: dict[str, float], software: Any) -> None:
    from herdlm.plan.step_time import stage_layers
    from herdlm.plan.trace import write_trace

    if path is not None:
        write_trace(path, job, parts, stage_layers(job, software))


def _request(
    recipe: Path | None,
    model: str | None,
    shape: dict[str, int | None],
    mlp: Literal["gated", "plain"],
    gpus: int | None,
    gpu: str,
    seq_len: int | None,
    tokens_per_step: int | None,
    set_: list[str] | None,
) -> Any:
    from herdlm.plan.job import Shape
    from herdlm.plan.models import shape_named
    from herdlm.plan.request import Request, request_of

    sources = [recipe is not None, model is not None, any(shape.values())]
    if sum(sources) != 1:
        raise InputError("a plan is of one model", "Give a recipe, --model, or a shape by --layers and its sizes")
    if gpus is None:
        raise InputError("a plan needs the number of GPUs", "Give --gpus")
    if recipe is not None:
        from herdlm.recipe import read_recipe

        read = read_recipe(recipe, set_ or ())
        request = request_of(read.job(read.herd.flagship), gpus, gpu)
        changes = {"seq_len": seq_len, "tokens_per_step": tokens_per_step}
        return request.changed({name: value for name, value in changes.items() if value is not None})
    if set_:
        raise InputError("--set overrides a recipe's keys, but no recipe is given", "Give one, or remove --set")
    if model is not None:
        made = shape_named(model)
    else:
        shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
        sizes = {name: value for name, value in shape.items() if value is not None}
        if missing := [f"--{name.replace('_', '-')}" for name in shape if name not in sizes]:
            raise InputError(f"the shape has no {', '.join(missing)}", "Give all its sizes, or --model")
        made = Shape(**sizes, mlp=mlp)
    if seq_len is None or tokens_per_step is None:
        raise InputError("the job has no row length or step", "Give --seq-len and --tokens-per-step, or a recipe")
    return Request(made, gpus, gpu, seq_len, tokens_per_step)
