"""Fits the planner's serving constants to the serving rows of a calibration file, and prints the errors on unseen rows.

python benchmarks/planner_serving.py calibration.jsonl [--write]
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.published import read_rows
from herdlm.plan.serving import speed
from herdlm.plan.serving.fit import calibrate, error
from herdlm.plan.serving.rows import measured


def main(path: str, *options: str) -> None:
    """Fit, print, and write the shipped file if asked."""
    catalog, training, start = read_hardware(), read_constants(), speed.ServingConstants()
    found = [row for row in read_rows(Path(path)) if isinstance(row, dict) and row.get("kind") == "serving"]
    rows = [measured(row, catalog, start, training) for row in found]
    constants = calibrate(rows)
    print(f"{'row':12} {'fitted':>8} {'row out':>8} {'model out':>10}   predicted over measured throughput")
    for row in rows:
        errors = error(row, constants), *(constants.origin[name][row.id] for name in ("left_out_row", "left_out_model"))
        print(f"{row.id:12} {{:8.3f}} {{:8.3f}} {{:10.3f}}".format(*map(math.exp, errors)))
    for name in ("left_out_row", "left_out_model"):
        ordered = sorted(math.expm1(abs(value)) for value in constants.origin[name].values())
        print(f"{name}: median {statistics.median(ordered):.1%}, largest {ordered[-1]:.1%} of {len(ordered)} rows")
    if "--write" in options:
        Path(speed.__file__).with_name("constants.json").write_text(speed.constants_text(constants), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
