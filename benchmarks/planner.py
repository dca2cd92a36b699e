"""Fits the planner's constants on published measurements, and prints its errors beside those of a constant MFU.

    python benchmarks/planner.py calibration.jsonl [--write src/herdlm/plan/constants.json] [--unseen other.jsonl]

Each publication is predicted from a fit on the others. The report's Table 4 is never in a fit.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from dataclasses import replace
from pathlib import Path

from herdlm.plan.constants import Constants, constants_text
from herdlm.plan.fit_constants import fit_constants, predict_row, training_rows
from herdlm.plan.fit_kernels import fit_kernels
from herdlm.plan.hardware import Catalog, read_hardware
from herdlm.plan.models import shape_named
from herdlm.plan.predict import fastest
from herdlm.plan.published import Published, read_rows
from herdlm.plan.request import Request
from herdlm.plan.stacks import stack_named
from herdlm.plan.validate import (
    Unseen,
    constant_mfu,
    leave_out_publications,
    leave_out_rows,
    quantile,
    with_intervals,
)  # fmt: skip

TABLE_4 = ((8192, 1, 8192, 430), (16_384, 1, 8192, 400), (16_384, 16, 131_072, 380))
TOKENS, SHAPE = 16_777_216, shape_named("llama3.1-405b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="published measurements to fit on, as JSON lines")
    parser.add_argument("--by-row", action="store_true", help="also predict each row from a fit on all others")
    parser.add_argument("--write", type=Path, help="write the fitted constants to this file")
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="measurements to predict, not to fit on")
    options = parser.parse_args()
    catalog, raw = read_hardware(), read_rows(options.file)
    rows = training_rows(raw)
    start = Constants(**fit_kernels([row for row in raw if isinstance(row, dict)], catalog))
    constants = fit_constants(rows, catalog, start)
    by_publication = leave_out_publications(rows, catalog, start)
    constants = with_intervals(constants, by_publication)
    constants = replace(constants, origin=origin(options.file, rows))
    print_fit(rows, catalog, constants)
    print_errors("each publication from a fit on the others", by_publication)
    if options.by_row:
        print_errors("each row from a fit on the others", leave_out_rows(rows, catalog, start))
    print_by_publication(rows, by_publication)
    print_table_4(catalog, constants)
    for path in options.unseen:
        print_unseen(path, rows, catalog, constants)
    if options.write:
        options.write.write_text(constants_text(constants), "utf-8")


def origin(path: Path, rows: list[Published]) -> dict[str, object]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "file": path.name,
        "rows": [row.id for row in rows],
        "method": "benchmarks/planner.py: damped Gauss-Newton with priors and Huber weights; intervals by publications "
        "left out",
    }


def print_fit(rows: list[Published], catalog: Catalog, constants: Constants) -> None:
    print(constants_text(replace(constants, origin={})))
    for row in rows:
        predicted = predict_row(row, catalog, constants)
        print(
            f"{row.id}  {row.stack.name:16} {predicted:10,.1f} {row.measured:10,.1f} "
            f"{predicted / row.measured - 1:+6.1%}"
        )


def print_errors(title: str, unseen: Unseen) -> None:
    print(f"\n{title} ({len(unseen.ours)} rows)")
    for name, errors in (("planner", unseen.ours), ("constant MFU", unseen.baseline)):
        shares = [abs(math.expm1(error)) for error in errors.values()]
        print(f"  {name:12}  median {quantile(shares, 0.5):6.1%}  p90 {quantile(shares, 0.9):6.1%}")


def print_by_publication(rows: list[Published], unseen: Unseen) -> None:
    print("\nmedian error by publication left out: planner, constant MFU")
    for publication in dict.fromkeys(row.publication for row in rows):
        ids = [row.id for row in rows if row.publication == publication]
        ours, base = ([abs(math.expm1(part[i])) for i in ids] for part in (unseen.ours, unseen.baseline))
        print(f"  {publication:40} {len(ids):3} rows  {quantile(ours, 0.5):6.1%}  {quantile(base, 0.5):6.1%}")


def print_table_4(catalog: Catalog, constants: Constants) -> None:
    print("\nLlama 3 report, Table 4 (causal count; in no fit)")
    found = []
    for gpus, cp, seq_len, measured in TABLE_4:
        request = Request(
            shape_named("llama3.1-405b"), gpus, "h100", seq_len, TOKENS, tp=8, cp=cp, pp=16, micro_batch=1
        )
        best = fastest(request.jobs(), catalog.machine("h100", "llama3-pods"), constants, stack_named(None))
        value = best.as_json()["tflops_per_gpu"]["causal"]
        found.append(value)
        print(
            f"  {gpus:6} GPUs, cp {cp:2}: {value:5.1f} of {measured} ({value / measured - 1:+.1%}), "
            f"V = {best.job.layout.vpp}"
        )
    print(f"  drop from the first to the second row: {1 - found[1] / found[0]:.1%} of 7.0%")


def print_unseen(path: Path, seen: list[Published], catalog: Catalog, constants: Constants) -> None:
    rows, constant = training_rows(read_rows(path)), constant_mfu(seen, catalog)
    ours = {row.id: math.log(predict_row(row, catalog, constants) / row.measured) for row in rows}
    base = {row.id: math.log(constant(row) / row.measured) for row in rows}
    print_errors(f"{path.name}, not in the fit", Unseen(ours, base))
    inside = 0
    for row in rows:
        best = fastest(
            row.jobs, row.machine(catalog), constants, row.stack, known_stack=row.known_stack, within_memory=False
        )
        inside += abs(math.log(best.rate / row.measured)) <= best.width
    print(f"  80% intervals hold {inside} of {len(rows)} rows")


if __name__ == "__main__":
    sys.exit(main())
