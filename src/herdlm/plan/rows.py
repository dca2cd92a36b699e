"""Predicts rows of published measurements, one result for each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from herdlm.base.errors import HerdError, InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Catalog
from herdlm.plan.predict import fastest
from herdlm.plan.published import Row, published
from herdlm.plan.serving.rows import predict_row as serving_row
from herdlm.plan.serving.speed import serving_constants


def predict_rows(rows: list[Row | InputError], catalog: Catalog, constants: Constants) -> Iterator[dict[str, Any]]:
    """The prediction of each row, or an object with its id and its error."""
    for row in rows:
        if isinstance(row, InputError):
            yield {"id": None, "error": str(row)}
            continue
        about = {"id": row.get("id"), "kind": row.get("kind", "training")}
        try:
            yield {**about, **_predict(row, catalog, constants)}
        except (HerdError, ValueError, TypeError, LookupError, ArithmeticError) as error:  # no row stops the others
            yield {**about, "error": str(error) or type(error).__name__}


def _predict(row: Row, catalog: Catalog, constants: Constants) -> dict[str, Any]:
    kind = row.get("kind", "training")
    if kind == "serving":
        return serving_row(row, catalog, serving_constants(), constants)
    if kind != "training":
        raise InputError(f"rows of the kind {kind!r} are not predicted", "Leave them out")
    found = published(row)
    best = fastest(
        found.jobs, found.machine(catalog), constants, found.stack, known_stack=found.known_stack, within_memory=False
    )
    error = best.rate / found.measured - 1 if found.measured else None
    return {
        **best.as_json(),
        "stack": found.stack.name,
        "searched": _searched(found.jobs),
        "measured_tokens_per_s_per_gpu": found.measured,
        "relative_error": error,
    }


def _searched(jobs: tuple[Any, ...]) -> list[str]:
    """What the row left open."""
    return [name for name in ("vpp", "micro_batch") if len({getattr(job.layout, name) for job in jobs}) > 1]
