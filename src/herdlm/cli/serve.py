"""Commands that serve models and manage API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    PipelineParallelOption,
    TensorParallelOption,
    example,
)
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(**example("herdlm serve runs/tiny --port 8000 --keys keys.json"))
def serve(
    models: Annotated[
        list[str], typer.Argument(help="Model folders or runs; NAME=FOLDER sets a name.", metavar="MODEL...")
    ],
    host: Annotated[
        str, typer.Option(help="Address to bind; by default, only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind; 0 picks a free one.")] = 8000,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    cache_tokens: Annotated[int | None, typer.Option(min=16, help="Tokens in each model's key-value cache.")] = None,
    memory_gib: Annotated[
        float | None, typer.Option(min=0, help="Unload models when they exceed this much memory.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="The file of API keys that `herdlm keys` manages.")] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Serve without API keys to everyone who can connect.")
    ] = False,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Largest request body in MiB.")] = 8,
    max_answers: Annotated[
        int, typer.Option(min=1, help="Maximum number of answers running or waiting; further requests get 429.")
    ] = 2048,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="Longest time for a request, in seconds.")] = 600,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="Time for running answers to finish after SIGTERM, in seconds.")
    ] = 30,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write prompts to the access log.")] = False,
    guard: Annotated[Path | None, typer.Option(help="A guard model that classifies prompts and answers.")] = None,
    guard_threshold: Annotated[float, typer.Option(help="Refuse text with this score or a higher one.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of requests that give none.")] = 0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let web pages of this origin, such as https://example.org, send requests; * for all."),
    ] = None,
) -> None:
    """Serve models over the OpenAI protocol."""
    from herdlm.serve.server import serve as serve_models

    from herdlm.serve.access.limits import ServerLimits  # isort: skip - server names the extra that is not installed

    limits = ServerLimits(
        body_bytes=int(max_body_mib * 2**20),
        samples=max_answers,
        request_seconds=request_seconds,
        drain_seconds=drain_seconds,
    )
    serve_models(
        models,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        cache_tokens=cache_tokens,
        memory_gib=memory_gib,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        keys=keys,
        no_keys=no_keys,
        limits=limits,
        log_texts=log_texts,
        seed=seed,
        guard=guard,
        guard_threshold=guard_threshold,
        cors_origins=cors_origin or (),
    )


keys_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys_app, name="keys")
KeyFileOption = Annotated[Path, typer.Option("--file", help="The file of API keys.", show_default=False)]


@keys_app.command("add", **example("herdlm keys add alice --file keys.json --requests-per-minute 60"))
def keys_add(
    name: Annotated[str, typer.Argument(help="The key's name, which the access log shows.")],
    file: KeyFileOption,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Limit of requests per minute.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Limit of prompt and answer tokens per minute.")
    ] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Limit of concurrent requests.")] = None,
) -> None:
    """Create an API key and print it once; the file keeps only its hash."""
    from herdlm.serve.access.keys import KeyFile

    say(
        KeyFile(file).add(
            name, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent
        )
    )


@keys_app.command("list", **example("herdlm keys list --file keys.json"))
def keys_list(file: KeyFileOption, json_: JsonOption = False) -> None:
    """List the names and limits of all keys."""
    from herdlm.serve.access.keys import KeyFile

    entries = [key.model_dump(exclude={"sha256"}) for key in KeyFile(file).entries()]
    if json_:
        say_json(entries)
        return
    for key in entries:
        limits = ", ".join(
            f"{name} {value}" for name, value in key.items() if value and name not in ("name", "created")
        )
        say(f"{key['name']}: {limits or 'no limits'}")


@keys_app.command("revoke", **example("herdlm keys revoke alice --file keys.json"))
def keys_revoke(name: Annotated[str, typer.Argument(help="The key's name.")], file: KeyFileOption) -> None:
    """Revoke an API key; a running server refuses it from the next request on."""
    from herdlm.serve.access.keys import KeyFile

    KeyFile(file).revoke(name)
