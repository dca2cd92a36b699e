"""Commands on scaling laws: sweeps of small models, fits, forecasts, and what a cluster's days can train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, RecipeArgument, SeedOption, SetOption, TokenizerOption, TokensOption, example
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()
scaling = typer.Typer(no_args_is_help=True, help="Scaling laws: train a ladder, fit it, forecast, budget.")
app.add_typer(scaling, name="scaling")

PointsArgument = Annotated[
    Path, typer.Argument(help="A CSV file with columns params, tokens or flops, loss.", show_default=False)
]
WhereOption = Annotated[
    list[str] | None, typer.Option(help="Read only rows with this cell: COLUMN=VALUE. May be repeated.")
]
DrawsOption = Annotated[int, typer.Option(min=20, help="Draws of the bootstrap.")]
LevelOption = Annotated[float, typer.Option(min=0.5, max=0.999, help="Share of draws that intervals hold.")]
PageOption = Annotated[Path | None, typer.Option(help="Also write a page with plots: a new .html file.")]


@scaling.command(**example("herdlm scaling fit ladder/points.csv --page fit.html"))
def fit(
    points: PointsArgument,
    where: WhereOption = None,
    draws: DrawsOption = 200,
    level: LevelOption = 0.95,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Leave no model out, however far it lies from the fits.")
    ] = False,
    page: PageOption = None,
    seed: SeedOption = 0,
    json_: JsonOption = False,
) -> None:
    """Fit scaling laws in two ways: isoFLOP parabolas with a power law, and E + A / N^alpha + B / D^beta.

    Prints both with intervals, what they disagree on, which points decide, and warnings.
    """
    from herdlm.scaling.fit import fit_file
    from herdlm.scaling.page import render_fit
    from herdlm.scaling.text import fit_lines

    _check_new(page)
    laws, result = fit_file(points, where=where or (), draws=draws, level=level, seed=seed, keep_all=keep_all)
    if page is not None:
        _write(page, render_fit(laws, result))
    if json_:
        say_json(result)
    else:
        for line in fit_lines(result):
            say(line)


@scaling.command(**example("herdlm scaling forecast ladder/points.csv --flops 3.8e25"))
def forecast(
    points: PointsArgument,
    flops: Annotated[float, typer.Option(help="Compute of the run, such as 3.8e25.")],
    benchmarks: Annotated[
        Path | None,
        typer.Option(help="A CSV file with columns task, nll, accuracy, and flops; by default POINTS, if it has them."),
    ] = None,
    where: WhereOption = None,
    draws: DrawsOption = 200,
    level: LevelOption = 0.95,
    seed: SeedOption = 0,
    json_: JsonOption = False,
) -> None:
    """Forecast a run: optimal size and tokens, its loss, and benchmarks by likelihood and sigmoid, with intervals.

    The largest models are held out first, to show the error of forecasting them.
    """
    from herdlm.scaling.forecast_file import forecast_file
    from herdlm.scaling.text import forecast_lines

    _, result = forecast_file(
        points, flops, benchmarks=benchmarks, where=where or (), draws=draws, level=level, seed=seed
    )
    if json_:
        say_json(result)
    else:
        for line in forecast_lines(result):
            say(line)


def _check_new(page: Path | None) -> None:
    if page is not None and page.exists():
        raise InputError(f"{page} exists", "Choose a new file")


def _write(path: Path, text: str) -> None:
    from herdlm.base.artifact import write_text_durably

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_durably(path, text)
    remark(f"wrote {path}")


@scaling.command(
    **example(
        "herdlm scaling ladder recipes/tiny.toml --tokens run/tokens",
        "--tokenizer run/tokenizer --budgets 1e12,1e13 --shapes 5 --out ladder",
    )
)
def ladder(
    recipe: RecipeArgument,
    tokens: TokensOption,
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="The ladder's folder, which may be shared. Run again to resume.")],
    budgets: Annotated[str | None, typer.Option(help="FLOPs that every size gets: A,B,C.")] = None,
    ratios: Annotated[str | None, typer.Option(help="Tokens per parameter that every size gets: A,B,C.")] = None,
    models: Annotated[str | None, typer.Option(help="Models of the recipe: A,B,C; by default its ladder.")] = None,
    shapes: Annotated[
        int, typer.Option(min=0, help="Sizes made from the flagship's shape, each about half of the next.")
    ] = 0,
    only: Annotated[str, typer.Option(help="Train a part of the runs: I/N.")] = "1/1",
    list_: Annotated[bool, typer.Option("--list", help="Print the runs, and train none.")] = False,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train models of several sizes on several amounts of compute, and write the CSV file that fit reads.

    Each is trained as herdlm run would. Several machines may work on one folder: each claims runs that no other has.
    """
    from herdlm.recipe import read_recipe
    from herdlm.scaling.ladder import plan_ladder, run_ladder

    rungs = plan_ladder(
        read_recipe(recipe, set_ or ()).herd_job(),
        tokens,
        budgets=_numbers("--budgets", budgets),
        ratios=_numbers("--ratios", ratios),
        models=tuple(models.split(",")) if models else (),
        shapes=shapes,
    )
    if list_:
        result: dict[str, Any] = {"runs": [rung.as_json() for rung in rungs]}
        lines = [f"{r.name:28} {r.params:>14,.0f} parameters {r.tokens:>16,} tokens {r.flops:.3e} FLOPs" for r in rungs]
    else:
        part = _part(only)
        result = run_ladder(rungs, tokens=tokens, tokenizer=tokenizer, out=out, only=part, say=remark)
        lines = [f"{result['done']} of {result['runs']} runs are done: {result['points']}"]
    if json_:
        say_json(result)
    else:
        for line in lines:
            say(line)


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"{option} {text} is not a list of numbers", f"Write {option} 1e18,3e18") from error


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit()):
        raise InputError(f"--only {text} is no part", "Write I/N, such as 1/4")
    return int(part), int(parts)


@scaling.command(
    **example("herdlm scaling budget --gpus 1024 --gpu h100 --days 30", "--points ladder/points.csv --page budget.html")
)
def budget(
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")],
    days: Annotated[float, typer.Option(help="Days that they are there, with all interruptions.")],
    gpu: Annotated[str, typer.Option(help="Kind of GPU, a name of the hardware files.")] = "h100",
    system: Annotated[str | None, typer.Option(help="Node and network; by default the GPU's usual.")] = None,
    hardware: Annotated[list[Path] | None, typer.Option(help="A hardware file of your own. May be repeated.")] = None,
    points: Annotated[
        Path | None, typer.Option(help="A ladder's CSV file; by default tokens follow the Llama 3 report.")
    ] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="A CSV file with columns task, nll, accuracy, and flops.")
    ] = None,
    where: WhereOption = None,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens of a row.")] = 8192,
    tokens_per_step: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a step; by default 1, 4 or 16 million by model size.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0.001, help="Dollars of a GPU-hour.")] = None,
    draws: DrawsOption = 200,
    page: PageOption = None,
    seed: SeedOption = 0,
    json_: JsonOption = False,
) -> None:
    """Say what a cluster trains in some days: model, tokens, layout, expected loss and scores, price, risk."""
    from herdlm.plan.hardware import read_hardware
    from herdlm.plan.money import rates_of
    from herdlm.scaling.benchmarks import read_tasks
    from herdlm.scaling.budget import LEVEL, Cluster, plan_budget
    from herdlm.scaling.budget_text import budget_lines, render_budget
    from herdlm.scaling.fit import fit_laws
    from herdlm.scaling.points import read_points

    _check_new(page)
    machine = read_hardware(*(hardware or ())).machine(gpu, system)
    laws = None if points is None else fit_laws(read_points(points, where or ()), draws=draws, level=LEVEL, seed=seed)
    result = plan_budget(
        Cluster(machine, gpu, gpus, days, seq_len, tokens_per_step),
        laws=laws,
        tasks=read_tasks(benchmarks) if benchmarks else (),
        rates=rates_of(machine, dollars=None if price is None else (price, price)),
        draws=draws,
        seed=seed,
    )
    if page is not None:
        _write(page, render_budget(result, laws))
    if json_:
        say_json(result)
    else:
        for line in budget_lines(result):
            say(line)
