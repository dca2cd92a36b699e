"""Commands that run a recipe and show what it made."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, QuietOption, RecipeArgument, SetOption, example
from herdlm.cli.output import say, say_json

if TYPE_CHECKING:
    from herdlm.recipe import Recipe

app = typer.Typer()


@app.command(**example("herdlm run recipes/tiny.toml --out runs/tiny --set pretrain.steps=400"))
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/NAME.")] = None,
    until: Annotated[str | None, typer.Option(help="Run only this stage and the stages that it needs.")] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Run this stage and all that depend on it again.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Make this stage alone, in this process or on those that torchrun started.")
    ] = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Run a recipe: every stage that is missing or out of date.

    With compute.processes above 1, each stage that trains runs on so many processes of this machine, in its layout.
    """
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if stage is None:
        _run(read, out, until, start_from, quiet=quiet, json_=json_)
    elif until or start_from:
        raise InputError("--stage makes one stage alone", "Drop --until and --from")
    else:
        _run_stage(read, out, stage, quiet=quiet, json_=json_)


@app.command(**example("herdlm align recipes/smollm2-rounds.toml --out runs/rounds --rounds 2"))
def align(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/NAME.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of rounds, in place of the recipe's.")] = None,
    until: Annotated[str | None, typer.Option(help="Run only this stage and the stages that it needs.")] = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Post-train a model in rounds: sample, judge, select, clean, fine-tune, optimize, and promote what is better.

    It is herdlm run for a recipe with [align]; a run that exists goes on, also with more rounds.
    """
    from herdlm.recipe import read_recipe

    keys = [*(set_ or ()), *([] if rounds is None else [f"align.rounds={rounds}"])]
    read = read_recipe(recipe, keys)
    if read.align is None:
        raise InputError(f"{recipe} has no section [align]", "Add it; recipes/smollm2-rounds.toml is an example")
    _run(read, out, until, None, quiet=quiet, json_=json_)


def _run_stage(read: Recipe, out: Path | None, stage: str, *, quiet: bool, json_: bool) -> None:
    from herdlm.run.group import make_stage

    root = out or Path("runs") / read.name
    made = make_stage(read, root, stage, quiet=quiet or json_)
    if made is None:
        return  # the first process prints the result
    if json_:
        say_json({**asdict(made), "root": str(root)})
    else:
        say(f"Made {stage}. See {root}" if made.made else f"Nothing to do: {stage} is up to date. See {root}")


def _run(
    read: Recipe, out: Path | None, until: str | None, start_from: str | None, *, quiet: bool, json_: bool
) -> None:
    from herdlm.run.execute import run as run_recipe

    root = out or Path("runs") / read.name
    if "RANK" in os.environ:
        raise InputError("torchrun started this command, which starts processes itself", "Give --stage, or no torchrun")
    result = run_recipe(read, root, until=until, start_from=start_from, quiet=quiet or json_)
    if json_:
        say_json({**asdict(result), "root": str(root)})
    elif not result.made:
        say(f"Nothing to do: all {len(result.kept)} stages are up to date. See {root}")
    else:
        say(f"Ran {len(result.made)} stages in {result.seconds:.0f} s; {len(result.kept)} were up to date. See {root}")
        if until is None:
            say(f"Report: {root / 'report.html'}. Talk to the flagship: herdlm chat {root}")


@app.command(**example("herdlm stages runs/tiny"))
def stages(run: Annotated[Path, typer.Argument(help="A run's folder.")], json_: JsonOption = False) -> None:
    """Show the state of each stage of a run: finished, started, out of date or to come."""
    from herdlm.run.status import status

    rows = status(run)
    if json_:
        say_json([asdict(row) for row in rows])
    else:
        for row in rows:
            seconds = f"{row.seconds:8.1f} s" if row.seconds is not None else " " * 10
            say(f"{row.state:12} {seconds}  {row.name}")


@app.command(**example("herdlm trace runs/tiny/models/flagship"))
def trace(
    path: Annotated[Path, typer.Argument(help="An artifact of a run, such as RUN/models/flagship.")],
    json_: JsonOption = False,
) -> None:
    """Print what an artifact was made from, back to the hash of the crawl."""
    from herdlm.run import lineage

    origin = lineage.trace(path)
    if json_:
        say_json(lineage.as_json(origin))
    else:
        for line in lineage.lines(origin):
            say(line)
