"""Commands that convert and compare models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    SeedOption,
    TemperatureOption,
    example,
)
from herdlm.cli.output import say, say_json

app = typer.Typer()

INFLUENCE_TOKENS = 8192


@app.command("import-hf", **example("herdlm import-hf downloads/Llama-3.2-1B --out models/llama-1b"))
def import_hf(
    folder: Annotated[Path, typer.Argument(help="A folder of safetensors of Llama, Mistral or Qwen2.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
) -> None:
    """Import a Hugging Face model: check every tensor and write it in herdlm's layout."""
    from herdlm.model import hf

    hf.import_hf(folder, out)
    say(f"Model: {out}")


@app.command("export-hf", **example("herdlm export-hf runs/tiny --out export --dtype float32"))
def export_hf(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the exported model.")],
    dtype: Annotated[str, typer.Option(help="Precision of the weights: bfloat16 or float32.")] = "bfloat16",
) -> None:
    """Export a model, a checkpoint of its training, or a LoRA adapter with its base, as a Hugging Face folder."""
    from herdlm.train.export import export_model

    export_model(model, out, dtype)
    say(f"Hugging Face folder: {out}")


@app.command("import-gguf", **example("herdlm import-gguf downloads/model.Q4_K_M.gguf --out models/chat"))
def import_gguf(
    file: Annotated[Path, typer.Argument(help="A GGUF file of a Llama, Mistral or Qwen2 model.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
    dtype: Annotated[str, typer.Option(help="Precision of the weights: float32 or bfloat16.")] = "float32",
) -> None:
    """Import a GGUF file: dequantize the weights, and write tokenizer, chat template and stop tokens beside them."""
    from herdlm.convert import gguf

    gguf.import_gguf(file, out, dtype)
    say(f"Model: {out}")


@app.command("export-gguf", **example("herdlm export-gguf runs/tiny --out tiny.gguf --type q8_0"))
def export_gguf(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new GGUF file.")],
    type_: Annotated[str, typer.Option("--type", help="Type of the matrices: f32, f16, bf16 or q8_0.")] = "f16",
) -> None:
    """Export a model as a GGUF file for llama.cpp, with its tokenizer, chat template and stop tokens."""
    from herdlm.convert import gguf
    from herdlm.model.folders import model_folder

    counts = gguf.export_gguf(model_folder(model), out, type_)
    for note in counts["notes"]:
        say(f"Note: {note}")
    say(f"GGUF file: {out}")


@app.command(**example("herdlm shrink models/chat --layers 15 --out models/chat-half", "--data chats.jsonl"))
def shrink(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the smaller model.")],
    layers: Annotated[
        int | None, typer.Option(min=1, help="How many layers to keep; spread evenly, unless there is --data.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="The layers to keep, from 0: 0,2,5.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Text; with it, those layers are kept that change what passes through them most."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=2, help="How many tokens of the text to read; by default 8192.")
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None, typer.Option(help="Precision of the weights; by default the model's.")
    ] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Make a smaller model from some layers of a larger one, to be trained on, best with the larger one as teacher."""
    from herdlm.model.folders import model_folder
    from herdlm.model.hf import read_config
    from herdlm.model.kept_layers import check_kept, most_influential, spread_layers
    from herdlm.model.shrink import shrink as write_shrunk
    from herdlm.report.format import count

    folder, influence = model_folder(model), None
    if (layers is None) == (keep is None):
        raise InputError("the layers to keep are not named", "Give --layers or --keep, one of them")
    if data is not None and layers is None:
        raise InputError("--data chooses layers, but --keep names them", "Give --layers, or drop --data")
    if tokens is not None and data is None:
        raise InputError("--tokens is there, but no text", "Give --data, or drop --tokens")
    if out.exists():
        raise InputError(f"{out} exists", "Choose a new folder")
    if keep is not None:
        kept = check_kept(read_config(folder).layers, _numbers(keep))
    elif data is not None and layers is not None:
        from herdlm.evaluate.influence import measure_influence

        spread_layers(read_config(folder).layers, layers)  # refuses the number before it measures
        influence = measure_influence(folder, data, tokens=tokens or INFLUENCE_TOKENS, device=device)
        kept = most_influential(influence, layers)
    else:
        assert layers is not None
        kept = spread_layers(read_config(folder).layers, layers)
    counts = write_shrunk(folder, out, kept, dtype=dtype, influence=influence)
    if json_:
        say_json(counts)
        return
    say(f"Layers {', '.join(map(str, kept))} of {counts['layers_before']}")
    say(f"Model: {out}, {count(counts['parameters'])} of {count(counts['parameters_before'])} parameters")
    say(f"Next: herdlm sft {out} --data FILE --teacher {model} --out TAUGHT")


def _numbers(given: str) -> list[int]:
    """The numbers in a list with commas.

    Raises:
        InputError: one is no number.
    """
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise InputError(f"--keep {given} is no list of numbers", "Write 0,2,5") from None


@app.command(**example("herdlm quantize runs/tiny --out models/tiny-fp8 --skip-first-layers 0"))
def quantize(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the FP8 model.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Use the section `quantize` of this recipe; options override it.")
    ] = None,
    activation_cap: Annotated[
        float | None, typer.Option(help="Clip activations to this magnitude; 1200 by default, inf for no cap.")
    ] = None,
    matrices: Annotated[
        str | None, typer.Option(help="Feed-forward matrices to quantize: gate_up,down by default; either, or none.")
    ] = None,
    attention: Annotated[
        bool | None, typer.Option("--attention/--no-attention", help="Quantize attention too; off by default.")
    ] = None,
    skip_first_layers: Annotated[
        int | None, typer.Option(help="Keep this many layers at the input in BF16; 1 by default.")
    ] = None,
    skip_last_layers: Annotated[
        int | None, typer.Option(help="Keep this many layers at the output in BF16; 1 by default.")
    ] = None,
    granularity: Annotated[str | None, typer.Option(help="Granularity of scales: row by default, or tensor.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Quantize a model to FP8 for herdlm, transformers and vLLM, one matrix at a time."""
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


@app.command(**example("herdlm compare runs/tiny models/tiny-fp8 --out comparison"))
def compare(
    original: ModelArgument,
    changed: Annotated[Path, typer.Argument(help="A model made from it, such as its FP8 version.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the report.")],
    text: Annotated[
        Path | None, typer.Option(help="Held-out text: a token shard, documents, JSONL or a text file.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL with prompt, and with answer and task to check answers.")
    ] = None,
    reward: Annotated[Path | None, typer.Option(help="A reward model, to score the answers.")] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="Multiple-choice JSONL: task, question, choices, and answer as an index from 0.")
    ] = None,
    max_prompts: Annotated[int, typer.Option(min=1, help="Use at most this many prompts.")] = 256,
    max_rows: Annotated[int, typer.Option(min=1, help="Use at most this many rows of text.")] = 256,
    seq_len: Annotated[int, typer.Option(min=2, help="Tokens in each row of text.")] = 1024,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in an answer.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt; more than one need a temperature.")] = 1,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Compare a model with a changed version of it: divergence, perplexity, answers, rewards, worst prompts.

    If the original is a run, its validation text, held-out questions and last reward model are the defaults.
    """
    from herdlm.compare import compare as comparing
    from herdlm.compare.data import ComparisonData
    from herdlm.compare.measure import AnswerSampling
    from herdlm.report.comparison_page import PAGE

    result = comparing.compare(
        original,
        changed,
        out,
        ComparisonData(text, prompts, reward, benchmarks),
        prompts=max_prompts,
        rows=max_rows,
        sampling=AnswerSampling(samples, temperature, max_tokens, seed),
        seq_len=seq_len,
        device=device,
        quiet=quiet or json_,
    )
    if json_:
        say_json(result)
    else:
        for line in comparing.lines(result):
            say(line)
        say(f"Report: {out / PAGE}")
