"""Commands that plan a training or a deployment without doing it."""

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
def describe(
    recipe: RecipeArgument,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That train the flagship, where its layout leaves dp_shard open.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="A folder of token shards: tells how often the run reads each source.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Print what a recipe's models cost: parameters, FLOPs, tokens, bytes of state. Allocates nothing."""
    from herdlm.plan import cost as description
    from herdlm.recipe import read_recipe

    told = description.describe(read_recipe(recipe, set_ or ()).herd_job(), processes, tokens)
    if json_:
        say_json(told)
    else:
        for line in description.lines(told):
            say(line)


@app.command()
def launch(
    recipe: RecipeArgument,
    tokens: Annotated[str, typer.Option(help="The folder of token shards, as the nodes find it.")],
    tokenizer: Annotated[str, typer.Option(help="The tokenizer's folder, as the nodes find it.")],
    out: Annotated[str, typer.Option(help="A new folder for the model, as the nodes find it.")],
    slurm: Annotated[bool, typer.Option("--slurm", help="Write an sbatch file.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Write a Kubernetes manifest.")] = False,
    model: Annotated[str | None, typer.Option(help="Which of the recipe's models; the flagship if not said.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1)] = 8,
    nodes: Annotated[int | None, typer.Option(min=1, help="Where the layout leaves dp_shard open.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher's folder, as the nodes find it.")] = None,
    recipe_on_nodes: Annotated[str | None, typer.Option(help="The recipe, as the nodes find it.")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="A further sbatch option, such as --partition=gpu.")] = None,
    image: Annotated[str | None, typer.Option(help="Kubernetes: the container image with herdlm.")] = None,
    claim: Annotated[str | None, typer.Option(help="Kubernetes: the volume claim with recipe and data.")] = None,
    mount: Annotated[str, typer.Option(help="Kubernetes: where pods see the volume.")] = "/data",
    set_: SetOption = None,
) -> None:
    """Print the file that trains a model of a recipe on a cluster, in the recipe's layout."""
    from herdlm.plan import launch as launching
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if slurm == kubernetes:
        raise InputError("say for which cluster the file is to be", "Give either --slurm or --kubernetes")
    job = launching.plan_job(
        read.name,
        read.job(model or read.herd.flagship),
        path=recipe_on_nodes or str(recipe),
        tokens=tokens,
        tokenizer=tokenizer,
        out=out,
        overrides=set_ or (),
        gpus_per_node=gpus_per_node,
        nodes=nodes,
        teacher=teacher,
    )
    if slurm:
        if image or claim:
            raise InputError("--image and --claim are for Kubernetes", "Leave them out with --slurm")
        text = launching.slurm(job, options=sbatch or ())
    else:
        if sbatch:
            raise InputError("--sbatch is for Slurm", "Leave it out with --kubernetes")
        if not (image and claim):
            raise InputError("a Kubernetes manifest needs an image and a volume", "Give --image and --claim")
        text = launching.kubernetes(job, image=image, claim=claim, mount=mount)
    sys.stdout.write(text)


@app.command()
def fit(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model folders, runs, recipes; Llama 3.1's sizes if none is given.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of the node.")] = 8,
    gigabytes: Annotated[float, typer.Option(help="Memory of a GPU in GB.")] = 80.0,
    reserve: Annotated[float, typer.Option(help="Share of it kept free for activations and runtime.")] = 0.1,
    context: Annotated[int, typer.Option(help="Tokens of a sequence, prompt and answer together.")] = 8192,
    concurrency: Annotated[int, typer.Option(help="Sequences at once.")] = 16,
    json_: JsonOption = False,
) -> None:
    """Tell whether models fit one node in BF16 and FP8: weights, cache, and the most sequences at once."""
    from herdlm.generate.fp8.config import Fp8Config
    from herdlm.plan import memory as fitting

    table = fitting.fit_table(
        fitting.named_models(models or []),
        fitting.Node(gpus, gigabytes, reserve),
        context=context,
        concurrency=concurrency,
        config=Fp8Config(),
    )
    if json_:
        say_json(table)
    else:
        for line in fitting.lines(table):
            say(line)
