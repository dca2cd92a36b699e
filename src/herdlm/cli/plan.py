"""Commands that plan: what training costs, how to launch it, which models fit a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, RecipeArgument, SetOption, example
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(**example("herdlm describe recipes/llama3.1-405b.toml --gpu H200"))
def describe(
    recipe: RecipeArgument,
    processes: Annotated[
        int | None, typer.Option(min=1, help="World size that trains the flagship; resolves `dp_shard = -1`.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="Token shards, to report the epochs over each source.")] = None,
    gpu: Annotated[str, typer.Option(help="Kind of GPU for post-training: A100, H100, H800, H200 or B200.")] = "H200",
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of each node.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Mean tokens of a prompt in post-training.")] = 536,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Mean tokens of an answer in post-training.")] = 310,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Print what a recipe's models and its post-training need and cost: files, FLOPs, tokens, memory, time.

    Nothing is allocated. The command fails if a part of post-training does not fit the GPUs.
    """
    from herdlm.plan import cost as description
    from herdlm.plan import post_training_text
    from herdlm.plan.stage_costs import Assumptions, cluster_of
    from herdlm.recipe import read_recipe
    from herdlm.run.post_training_cost import post_training_cost

    read = read_recipe(recipe, set_ or ())
    assumed = Assumptions(prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)
    post = post_training_cost(read, cluster_of(gpu, gpus_per_node), assumed, processes)
    models = description.describe(read.herd_job(), processes, tokens) if read.pretrain or post is None else None
    if json_:
        say_json({**(models or {"name": read.name}), "post_training": post})
    else:
        parts = [description.lines(models)] if models else [[read.name]]
        parts += [["", *post_training_text.lines(post)]] if post else []
        for line in (line for part in parts for line in part):
            say(line)
    if post and post["problems"]:
        raise InputError("; ".join(post["problems"]), "herdlm fit prints what fits a node")


@app.command(
    **example(
        "herdlm launch recipes/1b.toml --slurm --nodes 4 --out /data/1b",
        "--tokens /data/tokens --tokenizer /data/tokenizer > train.sbatch",
    )
)
def launch(
    recipe: RecipeArgument,
    out: Annotated[str, typer.Option(help="A new folder for the model, or the run's, as a path on the nodes.")],
    tokens: Annotated[str | None, typer.Option(help="The folder of token shards, as a path on the nodes.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="The tokenizer's folder, as a path on the nodes.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="Make this stage of a run, in place of training a model from token shards.")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write an sbatch file.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Write a Kubernetes manifest.")] = False,
    model: Annotated[str | None, typer.Option(help="A model of the recipe; by default the flagship.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of each node.")] = 8,
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes; resolves `dp_shard = -1`.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher's folder, as a path on the nodes.")] = None,
    recipe_on_nodes: Annotated[
        str | None, typer.Option(help="The recipe, as a path on the nodes; by default RECIPE.")
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="A further sbatch option, such as --partition=gpu. May be repeated.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Kubernetes: the container image with herdlm.")] = None,
    claim: Annotated[str | None, typer.Option(help="Kubernetes: the volume claim that holds recipe and data.")] = None,
    mount: Annotated[str, typer.Option(help="Kubernetes: the path at which pods mount the volume.")] = "/data",
    set_: SetOption = None,
) -> None:
    """Print the sbatch file or Kubernetes manifest that trains a model of a recipe on a cluster.

    With --stage it makes one stage of the run in the folder --out, by herdlm run --stage.
    """
    from herdlm.plan import launch as launching
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if slurm == kubernetes:
        raise InputError("launch writes one file, for Slurm or for Kubernetes", "Give either --slurm or --kubernetes")
    path = recipe_on_nodes or str(recipe)
    if stage is not None:
        inputs = {"tokens": tokens, "tokenizer": tokenizer, "model": model, "teacher": teacher}
        if given := next((name for name, value in inputs.items() if value), None):
            raise InputError(f"a stage of a run knows its inputs, but --{given} is given", f"Remove --{given}")
        from herdlm.run.group import layout_of_stage

        parallel, shape, seq_len = layout_of_stage(read, stage)
        job = launching.plan_stage(
            read.name,
            stage,
            parallel,
            shape,
            path=path,
            out=out,
            seq_len=seq_len,
            overrides=set_ or (),
            gpus_per_node=gpus_per_node,
            nodes=nodes,
        )
    elif tokens is None or tokenizer is None:
        raise InputError("training needs token shards and a tokenizer", "Give --tokens and --tokenizer, or --stage")
    else:
        job = launching.plan_job(
            read.name,
            read.job(model or read.herd.flagship),
            path=path,
            tokens=tokens,
            tokenizer=tokenizer,
            out=out,
            overrides=set_ or (),
            teacher=teacher,
            gpus_per_node=gpus_per_node,
            nodes=nodes,
        )
    if slurm:
        if image or claim:
            raise InputError("--image and --claim are for Kubernetes", "Remove them, or give --kubernetes")
        text = launching.slurm(job, options=sbatch or ())
    else:
        if sbatch:
            raise InputError("--sbatch is for Slurm", "Remove it, or give --slurm")
        if not (image and claim):
            raise InputError("a Kubernetes manifest needs an image and a volume", "Give --image and --claim")
        text = launching.kubernetes(job, image=image, claim=claim, mount=mount)
    sys.stdout.write(text)


@app.command(**example("herdlm fit recipes/1b.toml --gpus 1 --context 4096 --concurrency 64"))
def fit(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model folders, runs or recipes; by default the sizes of Llama 3.1.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of a node.")] = 8,
    gigabytes: Annotated[float, typer.Option(help="Memory of each GPU in GB.")] = 80.0,
    reserve: Annotated[float, typer.Option(help="Share of the memory kept free for activations and runtime.")] = 0.1,
    context: Annotated[int, typer.Option(help="Tokens of each sequence, prompt and answer together.")] = 8192,
    concurrency: Annotated[int, typer.Option(help="Sequences generated at the same time.")] = 16,
    json_: JsonOption = False,
) -> None:
    """Print whether models fit one node in BF16 and in FP8: weights, cache and the most concurrent sequences."""
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
