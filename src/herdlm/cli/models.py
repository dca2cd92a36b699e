"""Commands that convert and compare models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.cli.options import JsonOption, ModelArgument, SeedOption
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command("import-hf")
def import_hf(
    folder: Annotated[Path, typer.Argument(help="A Llama-architecture folder of safetensors.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
) -> None:
    """Bring in a Hugging Face model: check every tensor and normalise the folder."""
    from herdlm.model import hf

    hf.import_hf(folder, out)
    say(f"Model: {out}")


@app.command("export-hf")
def export_hf(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
) -> None:
    """Write a model, or a checkpoint kept of its training, as a Hugging Face folder of the given precision."""
    from herdlm.model import hf
    from herdlm.model.folders import model_folder
    from herdlm.train.milestones import export_checkpoint, is_checkpoint

    if is_checkpoint(model):
        export_checkpoint(model, out, dtype)
    else:
        hf.export_hf(model_folder(model), out, dtype)
    say(f"Hugging Face folder: {out}")


@app.command()
def quantize(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the FP8 model.")],
    recipe: Annotated[Path | None, typer.Option(help="Take its section `quantize`; options go before it.")] = None,
    activation_cap: Annotated[
        float | None, typer.Option(help="Upper bound of the magnitude that scales a token: 1200; inf for none.")
    ] = None,
    matrices: Annotated[str | None, typer.Option(help="Of the feed-forward: gate_up,down, either, or none.")] = None,
    attention: Annotated[
        bool | None, typer.Option("--attention/--no-attention", help="Attention's matrices too.", show_default="no")
    ] = None,
    skip_first_layers: Annotated[int | None, typer.Option(help="Left alone at the input: 1.")] = None,
    skip_last_layers: Annotated[int | None, typer.Option(help="Left alone at the output: 1.")] = None,
    granularity: Annotated[str | None, typer.Option(help="A scale per row, or per tensor: row.")] = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write a model in FP8, for transformers, vLLM and our engine. Memory does not grow with the model."""
    from herdlm.base.recipe import parse
    from herdlm.generate.fp8.config import Fp8Config
    from herdlm.generate.fp8.quantize import quantize as quantize_model
    from herdlm.model.folders import model_folder
    from herdlm.recipe import read_recipe
    from herdlm.report.format import percent, size

    given = {
        "activation_cap": activation_cap,
        "attention": attention,
        "skip_first_layers": skip_first_layers,
        "skip_last_layers": skip_last_layers,
        "granularity": granularity,
        "matrices": None if matrices is None else [part for part in matrices.split(",") if part != "none"],
    }
    below = (read_recipe(recipe).quantize or Fp8Config()).model_dump() if recipe else {}
    config = parse(Fp8Config, below | {key: value for key, value in given.items() if value is not None}, "quantize")
    counts = quantize_model(model_folder(model), out, config, quiet=quiet or json_)
    if json_:
        say_json(counts)
    else:
        say(
            f"FP8 model: {out}, {percent(counts['share_fp8'])} of its parameters in FP8, weights of "
            f"{size(counts['bytes_after'])} instead of {size(counts['bytes_before'])}"
        )


@app.command()
def compare(
    original: Annotated[Path, typer.Argument(help="A model folder, or a run (its flagship).", show_default=False)],
    changed: Annotated[Path, typer.Argument(help="A model made from it: in FP8, say.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the report.")],
    text: Annotated[
        Path | None, typer.Option(help="Held-out text: a token shard, documents, JSONL or a text file.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL with prompt, and answer and task where answers are to be checked.")
    ] = None,
    reward: Annotated[Path | None, typer.Option(help="A reward model that scores the answers.")] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="JSONL of multiple choice: task, question, choices, answer (0 is the first).")
    ] = None,
    max_prompts: Annotated[int, typer.Option(min=1, help="Ask at most so many.")] = 256,
    max_rows: Annotated[int, typer.Option(min=1, help="Read at most so many rows of text.")] = 256,
    seq_len: Annotated[int, typer.Option(min=2, help="Tokens of a row of text.")] = 1024,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt; more than one need a temperature.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Report what FP8, or another change, did to a model: divergence, perplexity, answers, rewards, worst prompts.

    Where the original is a run, its validation text, held-out questions and last reward model are used unless given.
    """
    from herdlm.compare import compare as comparing
    from herdlm.compare.measure import Asking
    from herdlm.report.damage_page import PAGE

    told = comparing.compare(
        original,
        changed,
        out,
        comparing.Material(text, prompts, reward, benchmarks),
        prompts=max_prompts,
        rows=max_rows,
        asking=Asking(samples, temperature, max_tokens, seed),
        seq_len=seq_len,
        device=device,
        quiet=quiet or json_,
    )
    if json_:
        say_json(told)
    else:
        for line in comparing.lines(told):
            say(line)
        say(f"Report: {out / PAGE}")
