"""Commands that generate text: a chat in the terminal, one prompt, a file of prompts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineParallelOption,
    SeedOption,
    TemperatureOption,
    TensorParallelOption,
    TopPOption,
    example,
)
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()


@app.command(**example("herdlm chat runs/tiny --temperature 0.7"))
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model folder, or a run, which means its flagship; with --url, a model's name.", show_default=False
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="The server to talk to, such as http://127.0.0.1:8000/v1.")] = None,
    key: Annotated[str | None, typer.Option(envvar="HERDLM_API_KEY", help="The server's API key.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in an answer.")] = 256,
    seed: SeedOption = 0,
) -> None:
    """Chat with a model in the terminal; /help lists its commands."""
    from herdlm.serve.terminal.terminal import chat as talk

    talk(model, url=url, key=key, system=system, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)


@app.command(**example('herdlm generate runs/tiny --chat --prompt "What is 3 + 4?"'))
def generate(
    model: ModelArgument,
    prompt: Annotated[str | None, typer.Option(help="The text to continue; with --chat, the user's message.")] = None,
    batch: Annotated[
        Path | None, typer.Option(help="A JSONL file of prompts; docs/generate.md has its format.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --batch: the JSONL file for the answers.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --batch: number of engines.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="With --batch: run on a Ray cluster: auto or ray://HOST:PORT.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Apply the chat template.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in an answer.")] = 128,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    n: Annotated[int, typer.Option("--n", min=1, help="Answers to each prompt.")] = 1,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    json_: JsonOption = False,
) -> None:
    """Generate text from a prompt, or from each prompt in a file."""
    if (prompt is None) == (batch is None):
        raise InputError("generate takes either one prompt or a file of prompts", "Give either --prompt or --batch")
    if batch is not None:
        from herdlm.serve.batch.prompts import Options
        from herdlm.serve.batch.run import generate_batch

        if out is None:
            raise InputError("--batch writes its answers to a file", "Give --out FILE.jsonl")
        summary = generate_batch(
            model,
            batch,
            out,
            options=Options(max_tokens=max_tokens, temperature=temperature, top_p=top_p, n=n),
            chat=chat,
            seed=seed,
            workers=workers,
            cluster=cluster,
            device=device,
            dtype=dtype,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            quiet=json_,
        )
        if json_:
            say_json(asdict(summary))
        else:
            say(f"Answers: {out} ({summary.prompts:,} prompts, {summary.failed:,} failed)")
        return
    if out or workers or cluster:
        raise InputError("--out, --workers and --cluster apply to --batch only", "Give --batch, or remove them")
    from herdlm.serve.terminal.once import generate_once

    assert prompt is not None
    completions = generate_once(
        model,
        prompt,
        chat=chat,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        n=n,
        seed=seed,
        device=device,
        dtype=dtype,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )
    if json_:
        say_json([asdict(completion) for completion in completions])
    else:
        for completion in completions:
            say(completion.text)
            if not completion.text.strip():
                remark("the model ended its text at once. Give a longer prompt" + ("" if chat else ", or --chat"))
