"""The command that draws answers to prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    MapOption,
    PipelineParallelOption,
    QuietOption,
    TensorParallelOption,
    TopPOption,
    example,
)
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()


@app.command(**example("herdlm sample model --prompts prompts.jsonl -k 16", "--out samples.jsonl"))
def sample(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Model folders, runs, which mean their flagship, or addresses of servers, URL or URL#MODEL.",
            show_default=False,
        ),
    ],
    prompts: Annotated[list[Path], typer.Option(help="A file of prompts. May be repeated.")],
    out: Annotated[Path, typer.Option(help="The new JSON Lines file of samples.")],
    samples: Annotated[
        int, typer.Option("--samples", "-k", min=1, help="Answers to each prompt, of all models together.")
    ] = 16,
    temperature: Annotated[
        list[float] | None, typer.Option(min=0, help="Sampling temperature, 0.7 by default. May be repeated.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(help="A system prompt or its file, of which each prompt gets one; '' for none. May be repeated."),
    ] = None,
    top_p: TopPOption = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 512,
    limit: Annotated[int | None, typer.Option(min=1, help="This many prompts, which the seed chooses.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Answers drawn together; by default 64 on a CPU, 2,048 on a GPU.")
    ] = None,
    map_: MapOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Engines, each in a process of its own, that share the prompts.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run the engines on a Ray cluster: auto or ray://HOST:PORT.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Pending requests to a server at a time.")] = 16,
    key: Annotated[
        Path | None, typer.Option(help="A file with the servers' API key; by default HERDLM_API_KEY or OPENAI_API_KEY.")
    ] = None,
    key_over_http: Annotated[
        bool, typer.Option("--key-over-http", help="Send the API key unencrypted to other machines, too.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Draw answers of models to prompts, for selection, judging and rejection sampling."""
    from herdlm.align.samples.options import SampleOptions, text_or_file
    from herdlm.align.samples.sample import sample as sample_files
    from herdlm.cli.options import api_key
    from herdlm.data.read import parse_rename
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.evaluate.remote import RemoteOptions, is_address

    remote = {is_address(each) for each in models}
    if (workers or cluster) and False not in remote:
        raise InputError("--workers and --cluster run model folders, and there is none", "Remove them")
    if (key or key_over_http) and True not in remote:
        raise InputError("API keys are for servers, and no model is one", "Remove --key and --key-over-http")
    counts = sample_files(
        models,
        prompts,
        out,
        SampleOptions(
            samples,
            tuple(temperature or (0.7,)),
            tuple(text_or_file(each) for each in system or ()),
            top_p,
            max_tokens,
            seed,
            batch,
        ),
        limit=limit,
        rename=parse_rename(map_ or []),
        engine=EngineOptions(device, dtype, tensor_parallel, pipeline_parallel, workers, cluster),
        remote=RemoteOptions(concurrency, api_key(key), key_over_http),
        quiet=quiet or json_,
    )
    if json_:
        say_json(counts)
        return
    say(f"prompts  {counts['answered']:,} of {counts['prompts']:,}")
    say(f"samples  {counts['samples']:,}, {counts['tokens']:,} tokens, {counts['finish'].get('length', 0):,} cut off")
    for name, reasons in counts["left_out"].items():
        for reason, count in reasons.items():
            say(f"  {count:,} prompts not asked of {name}: {reason}")
    if counts["own_system"]:
        say(f"  {counts['own_system']:,} prompts kept the system prompt that they have")
    remark(f"Samples: {out}")
