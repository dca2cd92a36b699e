"""Commands that generate text: a chat, one prompt, a file of prompts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, ModelArgument, SeedOption
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()


@app.command()
def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="A model folder, or a run (its flagship); with --url a model's name.", show_default=False),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Talk to a server, as in http://127.0.0.1:8000/v1.")] = None,
    key: Annotated[str | None, typer.Option(envvar="HERDLM_API_KEY", help="The server's API key.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: SeedOption = 0,
) -> None:
    """Talk to a model in the terminal: /help there shows more."""
    from herdlm.serve.terminal.terminal import chat as talk

    talk(model, url=url, key=key, system=system, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[str | None, typer.Option(help="The text to continue, or the user's message with --chat.")] = None,
    batch: Annotated[Path | None, typer.Option(help="A JSONL file of prompts instead; see docs/generate.md.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --batch: the JSONL file of answers.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --batch: engines at once.")] = None,
    cluster: Annotated[str | None, typer.Option(help="With --batch: a Ray cluster, auto or ray://HOST:PORT.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the chat format.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    n: Annotated[int, typer.Option("--n", min=1, help="Answers to give.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Processes that share each layer.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(min=1, help="Stages of layers, in processes of their own.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Generate text from a prompt, or from each prompt of a file."""
    if (prompt is None) == (batch is None):
        raise InputError("generate takes a prompt or a file of them", "Give either --prompt or --batch")
    if batch is not None:
        from herdlm.serve.batch.prompts import Options
        from herdlm.serve.batch.run import generate_batch

        if out is None:
            raise InputError("--batch needs a place for the answers", "Give --out FILE.jsonl")
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
            say(f"Answers: {out} ({summary.prompts:,} prompts, {summary.failed:,} that could not be answered)")
        return
    if out or workers or cluster:
        raise InputError("--out, --workers and --cluster are for files of prompts", "Give --batch, or leave them out")
    from herdlm.serve.terminal.once import generate_once

    assert prompt is not None
    found = generate_once(
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
        say_json([asdict(completion) for completion in found])
    else:
        for completion in found:
            say(completion.text)
            if not completion.text.strip():
                remark("the model ended its text at once; give more of a prompt" + ("" if chat else ", or --chat"))
