"""Options of ``herdlm plan`` that search for layouts and write a step's timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError

TRILLION = 10**12
BEST = 10

SearchOption = Annotated[bool, typer.Option(help="List the fastest layouts that fit; sizes that are given stay.")]
ExplainOption = Annotated[bool, typer.Option(help="Search, and say what binds the best layout.")]
BestOption = Annotated[int | None, typer.Option(min=1, help="Layouts that a search lists; by default 10.")]
TraceOption = Annotated[Path | None, typer.Option(help="Write the step's timeline, for Chrome's tracing page.")]


def search_part(
    request: Any, given: dict[str, Any], found: tuple[Any, Any, Any], *, best: int | None, tokens: float | None
) -> tuple[Any, dict[str, Any]]:
    """The best candidate of a search, and its report.

    Args:
        given: fields of a layout that the user gives.
        found: machine, constants and stack.
        tokens: of a run, for days and dollars; by default a trillion.

    Raises:
        InputError: no layout divides the job, or none fits.
    """
    from herdlm.plan.search_report import LayoutSearch

    looked = LayoutSearch.of(request, given, *found)
    result = looked.run(best or BEST)
    return result.best[0], looked.report(result, round(tokens or TRILLION))


def check_search(*, searches: bool, best: int | None, run: str | None) -> None:
    """Refuse options that would be ignored.

    Raises:
        InputError: one would be.
    """
    if searches and run:
        raise InputError(f"{run} is about the run of one layout", "Remove it, or --search and --explain")
    if best is not None and not searches:
        raise InputError("--best is about a search", "Give --search, or remove it")


def write_step(path: Path | None, job: Any, parts: dict[str, float], stack: Any) -> None:
    """Write a step's timeline, if asked to."""
    from herdlm.plan.step_time import stage_layers
    from herdlm.plan.trace import write_trace

    if path is not None:
        write_trace(path, job, parts, stage_layers(job, stack))
