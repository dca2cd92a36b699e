"""The options of ``herdlm plan`` that look for layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SearchOption = Annotated[
    bool, typer.Option("--search", help="Look for the fastest layouts that fit; options that are given stay.")
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Search, and say what binds the best layout.")]
BestOption = Annotated[int, typer.Option("--best", min=1, help="Layouts that a search lists.")]
TraceOption = Annotated[
    Path | None, typer.Option(help="Write the step's timeline to this file, for Chrome's tracing page or Perfetto.")
]
RUN_TOKENS = 10**12  # of the run whose days and dollars a search compares, unless --tokens says


def best_layout(
    request: Any, given: dict[str, Any], machine: Any, constants: Any, stack: Any, *, best: int, tokens: float | None
) -> tuple[Any, dict[str, Any]]:
    """The prediction of the fastest layout that fits, and the report of its search.

    Args:
        given: fields of the layout that stay.
    """
    from herdlm.plan.predict import predict
    from herdlm.plan.search_report import LayoutSearch

    looked = LayoutSearch.of(request, given, machine, constants, stack)
    found = looked.run(best)
    report = looked.report(found, int(tokens or RUN_TOKENS))
    return predict(found.best[0].job, machine, constants, stack), report


def write_trace(path: Path, prediction: Any) -> None:
    """Write the trace of a predicted step."""
    from herdlm.plan import trace
    from herdlm.plan.step_time import stage_layers

    job = prediction.job
    trace.write_trace(path, job, prediction.step.parts, stage_layers(job, prediction.stack))
