"""Commands that run a recipe and look at what it made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herdlm.cli.options import JsonOption, RecipeArgument, SetOption
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME where not given.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage; make only what it needs.")] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Make this stage and what depends on it anew.")
    ] = None,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Raise a herd: run every stage of a recipe that is not already there."""
    from herdlm.recipe import read_recipe
    from herdlm.run.execute import run as run_recipe

    read = read_recipe(recipe, set_ or ())
    root = out or Path("runs") / read.name
    result = run_recipe(read, root, until=until, start_from=start_from, quiet=quiet or json_)
    if json_:
        say_json({**asdict(result), "root": str(root)})
    elif not result.made:
        say(f"Nothing to do: all {len(result.kept)} stages are there. See {root}")
    else:
        say(f"Made {len(result.made)} stages, {len(result.kept)} were there, in {result.seconds:.0f} s. See {root}")
        if until is None:
            say(f"Report: {root / 'report.html'}. Talk to the flagship: herdlm chat {root}")


@app.command()
def stages(run: Annotated[Path, typer.Argument(help="A run's folder.")], json_: JsonOption = False) -> None:
    """Show which stages of a run are finished, under way, out of date or still to come."""
    from herdlm.run.status import status

    rows = status(run)
    if json_:
        say_json([asdict(row) for row in rows])
    else:
        for row in rows:
            seconds = f"{row.seconds:8.1f} s" if row.seconds is not None else " " * 10
            say(f"{row.state:12} {seconds}  {row.name}")


@app.command()
def trace(path: Annotated[Path, typer.Argument(help="An artefact of a run.")], json_: JsonOption = False) -> None:
    """Print what an artefact was made from, back to the crawl's hash."""
    from herdlm.run import lineage

    origin = lineage.trace(path)
    if json_:
        say_json(lineage.as_json(origin))
    else:
        for line in lineage.lines(origin):
            say(line)
