"""Commands that train: one model, an annealing probe, a search for the data mix."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    HeldOutOption,
    JsonOption,
    ProcessesOption,
    RecipeArgument,
    SetOption,
    TokenizerOption,
    TokensOption,
    example,
    without_option,
)
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(
    **example(
        "herdlm train recipes/tiny.toml --model small --out models/small",
        "--tokens runs/tiny/stages/tokens --tokenizer runs/tiny/stages/tokenizer",
    )
)
def train(
    recipe: RecipeArgument,
    tokens: TokensOption,
    out: Annotated[Path, typer.Option(help="A new folder for the model. Run again to resume.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="The tokenizer's folder; by default the model that training starts from.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the recipe; by default the flagship.")] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Start from this model folder or run: its weights, shape and tokenizer."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher's folder, if the recipe distills the model.")
    ] = None,
    processes: ProcessesOption = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Pre-train one model of a recipe from token shards, from new weights or from a model folder.

    Under torchrun, or with --processes, training uses the recipe's parallel layout.
    """
    from herdlm.parallel.launcher import launch
    from herdlm.pretrain.pretrain import pretrain
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    job = read.job(model or read.herd.flagship, from_)
    words = tokenizer or job.start
    if words is None:
        raise InputError("a model with new weights has no tokenizer", "Give --tokenizer, or --from for a model folder")
    if processes > 1:
        launch(processes, without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
        return
    counts = pretrain(job, tokens=tokens, tokenizer=words, out=out, teacher=teacher)
    if not counts:
        return  # the first process prints the result
    if json_:
        say_json(counts)
    else:
        say(f"Model: {out}, {counts['validation_bits_per_byte']:.3f} bits per byte on held-out text")


@app.command(
    "anneal-probe",
    **example(
        "herdlm anneal-probe recipes/tiny.toml --new shards/math --out probe",
        "--tokens runs/tiny/stages/tokens --tokenizer runs/tiny/stages/tokenizer",
    ),
)
def anneal_probe(
    recipe: RecipeArgument,
    new: Annotated[Path, typer.Option(help="A token shard of the new data set.")],
    tokens: TokensOption,
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="A new folder for the result and both models. Run again to resume.")],
    model: Annotated[str | None, typer.Option(help="A model of the recipe; by default its small model.")] = None,
    held_out: HeldOutOption = None,
    half_trained: Annotated[
        Path | None, typer.Option(help="A half-trained model; by default, one is trained first.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Annealing steps; by default the recipe's.")] = None,
    new_share: Annotated[float, typer.Option(help="Share of the rows that come from the new data set.")] = 0.3,
    processes: ProcessesOption = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure what a small data set is worth: anneal a half-trained model with it and without it.

    Under torchrun, or with --processes, training uses the recipe's parallel layout.
    """
    from herdlm.parallel.launcher import launch
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    sets = _named_folders(held_out)
    if processes > 1:
        launch(processes, without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
        return
    from herdlm.scaling import anneal_probe as probe

    result = probe.anneal_probe(
        read.job(model or read.herd.small or read.herd.flagship),
        tokens=tokens,
        tokenizer=tokenizer,
        new=new,
        out=out,
        steps=steps,
        held_out=sets,
        half_trained=half_trained,
        new_share=new_share,
    )
    if not result:
        return  # the first process prints the result
    if json_:
        say_json(result)
    else:
        for line in probe.lines(result):
            say(line)


mix = typer.Typer(no_args_is_help=True, help="Choose the data mix.")
app.add_typer(mix, name="mix")


@mix.command(
    "search",
    **example(
        "herdlm mix search recipes/tiny.toml --candidates mixes.toml --out search",
        "--tokens runs/tiny/stages/tokens --tokenizer runs/tiny/stages/tokenizer",
    ),
)
def mix_search(
    recipe: RecipeArgument,
    tokens: TokensOption,
    tokenizer: TokenizerOption,
    candidates: Annotated[Path, typer.Option(help="A TOML file with the sections candidates.NAME, draw and weights.")],
    out: Annotated[Path, typer.Option(help="A new folder for the result. Run again to resume.")],
    models: Annotated[
        str | None, typer.Option(help="Models to forecast from: A,B,C; by default the recipe's ladder.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each training; by default the recipe's.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of each model on each mix, whose losses are averaged.")
    ] = 1,
    confirm: Annotated[
        str | None, typer.Option(help="A larger model, to train on the best mix and on the default.")
    ] = None,
    held_out: HeldOutOption = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="A folder that keeps the trained models for further searches; by default OUT-models."),
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train small models on candidate mixes and forecast the flagship's loss on each of them, by domain."""
    from herdlm.recipe import read_recipe
    from herdlm.scaling import mix_report
    from herdlm.scaling import mix_search as searching

    result = searching.mix_search(
        read_recipe(recipe, set_ or ()).herd_job(),
        tokens=tokens,
        tokenizer=tokenizer,
        candidates=candidates,
        out=out,
        models=tuple(models.split(",")) if models else (),
        steps=steps,
        seeds=seeds,
        confirm=confirm,
        held_out=_named_folders(held_out),
        runs=runs,
    )
    if json_:
        say_json(result)
    else:
        for line in mix_report.lines(result):
            say(line)


def _named_folders(held_out: list[str] | None) -> dict[str, Path]:
    if bad := [item for item in held_out or () if not all(item.partition("=")[::2])]:
        raise InputError(f"--held-out {bad[0]} is not of the form NAME=FOLDER", "Write --held-out math=tokens/math")
    return {name: Path(folder) for name, _, folder in (item.partition("=") for item in held_out or ())}
