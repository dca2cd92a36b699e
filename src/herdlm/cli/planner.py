"""Commands that predict a training step on a cluster, and that measure a machine for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, SetOption, example
from herdlm.cli.output import say, say_json
from herdlm.cli.plan_parts import (
    BlockingOption,
    CheckpointOption,
    Co2Option,
    EachTokenOption,
    FailuresOption,
    FirstTokenOption,
    InputOption,
    OutputOption,
    PriceOption,
    PromptsOption,
    PueOption,
    RequestsOption,
    RunOptions,
    SamplesOption,
    SequencesOption,
    ServeOption,
    ServingOptions,
    SparesOption,
    StorageOption,
    TokensOption,
    parts_of,
    refuse_unused,
    serving_part,
)
from herdlm.cli.plan_search import BestOption, ExplainOption, SearchOption, TraceOption, best_layout, write_trace

app = typer.Typer()

HardwareOption = Annotated[
    list[Path] | None,
    typer.Option(help="A TOML file of GPUs, links and networks on top of the known ones. May be repeated."),
]


@app.command(
    **example(
        "herdlm plan --model llama3.1-405b --gpus 16384 --gpu h100 --seq-len 8192",
        "--tokens-per-step 16777216 --tp 8 --cp 1 --pp 16",
    )
)
def plan(
    ctx: typer.Context,
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
    file: Annotated[
        Path | None, typer.Option(help="Predict each row of this file of published measurements instead.")
    ] = None,
    search: SearchOption = False,
    explain: ExplainOption = False,
    best_of: BestOption = 10,
    trace: TraceOption = None,
    tokens: TokensOption = None,
    failures: FailuresOption = None,
    storage: StorageOption = None,
    checkpoint_every: CheckpointOption = None,
    blocking: BlockingOption = False,
    spares: SparesOption = None,
    price: PriceOption = None,
    pue: PueOption = None,
    co2: Co2Option = None,
    serve: ServeOption = False,
    requests_per_s: RequestsOption = None,
    input_: InputOption = None,
    output: OutputOption = None,
    first_token: FirstTokenOption = None,
    each_token: EachTokenOption = None,
    sequences: SequencesOption = None,
    prompts_per_step: PromptsOption = None,
    samples: SamplesOption = 8,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Predict throughput, time and memory of a training step, with 80% intervals. Nothing is allocated.

    The job is a recipe's, or a model and the options. What is left open is chosen: the fastest that fits the GPU.
    Without a recipe, --tp, --cp and --pp, or with --search, so is the layout.
    With --tokens it adds the whole run, its failures and price. With --serve it plans engines that serve the model.
    """
    from herdlm.plan import request_text, run_text, search_report
    from herdlm.plan.constants import read_constants
    from herdlm.plan.hardware import read_hardware
    from herdlm.plan.predict import fastest
    from herdlm.plan.stacks import stack_named

    catalog, constants = read_hardware(*(hardware or ())), read_constants()
    refuse_unused(ctx)
    if file is not None:
        from herdlm.plan.published import read_rows
        from herdlm.plan.rows import predict_rows

        for row in predict_rows(read_rows(file), catalog, constants):
            say(json.dumps(row, ensure_ascii=False))
        return
    shape = {"layers": layers, "hidden": hidden, "ffn": ffn, "heads": heads, "kv_heads": kv_heads, "vocab": vocab}
    run = RunOptions(tokens, failures, storage, checkpoint_every, blocking, spares, price, pue, co2)
    serving = ServingOptions(requests_per_s, input_, output, first_token, each_token, sequences)
    if serve:
        made = _shape(recipe, model, shape, mlp, set_)
        plans = serving_part(serving, made, catalog.machine(gpu, system), precision)
        _print(plans, run_text.serving_lines(plans), json_)
        return
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
    fixed = {name: value for name, value in given.items() if value is not None}
    request = request.changed(fixed)
    machine, runs = catalog.machine(gpu, system), stack_named(stack)
    searching = search or explain or (recipe is None and not {"tp", "cp", "pp"} & fixed.keys())
    if searching:
        best, report = best_layout(request, fixed, machine, constants, runs, best=best_of, tokens=tokens)
        found = {**best.as_json(), "searched": ["layout"], "search": report}
        lines = [*request_text.lines(found), "", *search_report.lines(report, explained=explain)]
    else:
        best = fastest(request.jobs(), machine, constants, runs)
        found = {**best.as_json(), "searched": request.open_ends()}
        lines = list(request_text.lines(found))
    if trace is not None:
        write_trace(trace, best)
    values, more = parts_of(run, (prompts_per_step, samples), serving, request, best)
    _print({**found, **values}, [*lines, *more], json_)


def _print(found: Any, lines: Iterable[str], json_: bool) -> None:
    if json_:
        say_json(found)
        return
    for line in lines:
        say(line)


def _shape(
    recipe: Path | None,
    model: str | None,
    shape: dict[str, int | None],
    mlp: Literal["gated", "plain"],
    set_: list[str] | None,
) -> Any:
    """The shape of a recipe's flagship, of a named model, or of the given sizes."""
    from herdlm.plan.job import Shape
    from herdlm.plan.models import shape_named

    if sum([recipe is not None, model is not None, any(shape.values())]) != 1:
        raise InputError("a plan is of one model", "Give a recipe, --model, or a shape by --layers and its sizes")
    if recipe is not None:
        from herdlm.recipe import read_recipe

        read = read_recipe(recipe, set_ or ())
        return Shape.of(read.model_config_of(read.herd.flagship))
    if set_:
        raise InputError("--set overrides a recipe's keys, but no recipe is given", "Give one, or remove --set")
    if model is not None:
        return shape_named(model)
    sizes = {**shape, "kv_heads": shape["kv_heads"] or shape["heads"]}
    if missing := [f"--{name.replace('_', '-')}" for name, value in sizes.items() if value is None]:
        raise InputError(f"the shape has no {', '.join(missing)}", "Give all its sizes, or --model")
    given: dict[str, Any] = sizes
    return Shape(**given, mlp=mlp)


@app.command(**example("herdlm calibrate --out my-machine.toml"))
def calibrate(
    out: Annotated[Path, typer.Option(help="The hardware file to write, which must not exist.")],
    name: Annotated[str, typer.Option(help="Name of the machine's GPU in the file, for --gpu.")] = "this-machine",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    json_: JsonOption = False,
) -> None:
    """Measure this machine's products, attention, memory and, under torchrun, collectives into a hardware file.

    herdlm plan --hardware FILE --gpu NAME then uses them in place of fitted shares of a specification.
    """
    import os
    from dataclasses import asdict

    import torch

    from herdlm.plan.hardware import read_hardware
    from herdlm.plan.measure import hardware_text, measure, write_hardware

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if place == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", "Give --device cpu")
    measured, by_size = measure(place)
    if os.environ.get("RANK", "0") != "0":
        return
    write_hardware(out, name, hardware_text(name, place, measured, by_size, read_hardware()))
    if json_:
        say_json({"file": str(out), "measured": asdict(measured), "gemm_tflops_by_size": by_size})
        return
    for key, value in asdict(measured).items():
        say(f"{key:18} {value:,.4g}")


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
    from herdlm.plan.request import Request, request_of

    if gpus is None:
        raise InputError("a plan needs the number of GPUs", "Give --gpus")
    if recipe is not None and model is None and not any(shape.values()):
        from herdlm.recipe import read_recipe

        read = read_recipe(recipe, set_ or ())
        request = request_of(read.job(read.herd.flagship), gpus, gpu)
        changes = {"seq_len": seq_len, "tokens_per_step": tokens_per_step}
        return request.changed({name: value for name, value in changes.items() if value is not None})
    made = _shape(recipe, model, shape, mlp, set_)
    if seq_len is None or tokens_per_step is None:
        raise InputError("the job has no row length or step", "Give --seq-len and --tokens-per-step, or a recipe")
    return Request(made, gpus, gpu, seq_len, tokens_per_step)
