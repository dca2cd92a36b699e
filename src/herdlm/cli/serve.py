"""Commands that serve models and keep API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.cli.options import JsonOption
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="Model folders or runs, or NAME=FOLDER.", metavar="MODEL...")],
    host: Annotated[str, typer.Option(help="Loopback unless you say otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Processes that share each layer of a model.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(min=1, help="Stages of layers, in processes of their own.")] = 1,
    cache_tokens: Annotated[int | None, typer.Option(min=16, help="Tokens that each model's cache holds.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0, help="Unload models beyond this much memory.")] = None,
    keys: Annotated[Path | None, typer.Option(help="The file of API keys; see herdlm keys.")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let everyone in who can reach the host.")] = False,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Of one request.")] = 8,
    max_answers: Annotated[int, typer.Option(min=1, help="Under way or waiting; then 429.")] = 2048,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="A request may take.")] = 600,
    drain_seconds: Annotated[float, typer.Option(min=0, help="For answers under way after SIGTERM.")] = 30,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Put prompts into the access log.")] = False,
    guard: Annotated[Path | None, typer.Option(help="A guard model that judges prompts and answers.")] = None,
    guard_threshold: Annotated[float, typer.Option(help="Scores from here on are refused.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of requests without a seed of their own.")] = 0,
) -> None:
    """Serve models over OpenAI's protocol."""
    from herdlm.serve.server import serve as serve_models

    from herdlm.serve.access.limits import ServerLimits  # isort: skip - run tells first what is not installed

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
    )


keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys_app, name="keys")
KeyFileOption = Annotated[Path, typer.Option("--file", help="The file of API keys.", show_default=False)]


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose it is; in the access log.")],
    file: KeyFileOption,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of prompts and answers.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
) -> None:
    """Make an API key. It is printed this once; the file keeps its hash alone."""
    from herdlm.serve.access.keys import KeyFile

    say(
        KeyFile(file).add(
            name, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent
        )
    )


@keys_app.command("list")
def keys_list(file: KeyFileOption, json_: JsonOption = False) -> None:
    """Show the names and limits of all keys."""
    from herdlm.serve.access.keys import KeyFile

    found = [key.model_dump(exclude={"sha256"}) for key in KeyFile(file).entries()]
    if json_:
        say_json(found)
        return
    for key in found:
        limits = ", ".join(
            f"{name} {value}" for name, value in key.items() if value and name not in ("name", "created")
        )
        say(f"{key['name']}: {limits or 'no limits'}")


@keys_app.command("revoke")
def keys_revoke(name: Annotated[str, typer.Argument()], file: KeyFileOption) -> None:
    """Take a key away; a running server refuses it from its next request on."""
    from herdlm.serve.access.keys import KeyFile

    KeyFile(file).revoke(name)
