"""Commands that train models: one of a recipe, an annealing probe, a search for the mix."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, RecipeArgument, SetOption
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command()
def train(
    recipe: RecipeArgument,
    tokens: Annotated[Path, typer.Option(help="A folder of token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    model: Annotated[str, typer.Option(help="Which of the recipe's models.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model; a run cut off goes on beside it.")],
    teacher: Annotated[
        Path | None, typer.Option(help="The folder of the model that teaches, where the recipe has its distill key.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Start this many processes here and train on all.")] = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Pre-train one model of a recipe: tokens in, model out, without the rest of the pipeline.

    Under torchrun, or with --processes, it is trained in the recipe's parallel layout.
    """
    from herdlm.parallel.launcher import launch
    from herdlm.pretrain.pretrain import pretrain
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if processes > 1:
        launch(processes, _without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
        return
    counts = pretrain(read, model, tokens=tokens, tokenizer=tokenizer, out=out, teacher=teacher)
    if not counts:
        return  # another process tells
    if json_:
        say_json(counts)
    else:
        say(f"Model: {out}, {counts['validation_bits_per_byte']:.3f} bits per byte on held-out text")


@app.command("anneal-probe")
def anneal_probe(
    recipe: RecipeArgument,
    new: Annotated[Path, typer.Option(help="The token shard of the new data set.")],
    tokens: Annotated[Path, typer.Option(help="The recipe's token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    out: Annotated[Path, typer.Option(help="A new folder for the result and both models.")],
    model: Annotated[str | None, typer.Option(help="Which of the recipe's models; the small one if not said.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: a further shard to compare on; may be repeated.")
    ] = None,
    half_trained: Annotated[
        Path | None, typer.Option(help="A half-trained model's folder; where not given, it is trained first.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Of the annealing; the recipe's if not said.")] = None,
    new_share: Annotated[float, typer.Option(help="Of the rows, for the new set.")] = 0.3,
    processes: Annotated[int, typer.Option(min=1, help="Start this many processes here and train on all.")] = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure what a small data set is worth: anneal a half-trained model with it and without.

    Under torchrun, or with --processes, models are trained and measured in the recipe's parallel layout.
    """
    from herdlm.parallel.launcher import launch
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    sets = _named_folders(held_out)
    if processes > 1:
        launch(processes, _without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
        return
    from herdlm.scaling import anneal_probe as probe

    told = probe.anneal_probe(
        read,
        model or read.herd.small,
        tokens=tokens,
        tokenizer=tokenizer,
        new=new,
        out=out,
        steps=steps,
        held_out=sets,
        half_trained=half_trained,
        new_share=new_share,
    )
    if not told:
        return  # another process tells
    if json_:
        say_json(told)
    else:
        for line in probe.lines(told):
            say(line)


mix = typer.Typer(no_args_is_help=True, help="Choose the data mix.")
app.add_typer(mix, name="mix")


@mix.command("search")
def mix_search(
    recipe: RecipeArgument,
    tokens: Annotated[Path, typer.Option(help="The recipe's token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    candidates: Annotated[Path, typer.Option(help="A TOML file with [candidates.NAME], [draw] and [weights].")],
    out: Annotated[Path, typer.Option(help="A new folder for the result; a search cut off goes on.")],
    models: Annotated[str | None, typer.Option(help="Models a,b,c to forecast from; the ladder if not said.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training; the recipe's if not said.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model on each mix.")] = 1,
    confirm: Annotated[
        str | None, typer.Option(help="A larger model to train the winner and the default mix on.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: a further shard to measure on; may be repeated.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Where trained models are kept, for other searches too; OUT-models if not said.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train small models on candidate mixes and forecast the flagship's loss on each, by domain."""
    from herdlm.recipe import read_recipe
    from herdlm.scaling import mix_report
    from herdlm.scaling import mix_search as searching

    told = searching.mix_search(
        read_recipe(recipe, set_ or ()),
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
        say_json(told)
    else:
        for line in mix_report.lines(told):
            say(line)


def _named_folders(held_out: list[str] | None) -> dict[str, Path]:
    if bad := [item for item in held_out or () if not all(item.partition("=")[::2])]:
        raise InputError(f"--held-out {bad[0]} is not of the form NAME=FOLDER", "Say, for one, math=tokens/math")
    return {name: Path(folder) for name, _, folder in (item.partition("=") for item in held_out or ())}


def _without_option(arguments: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept
