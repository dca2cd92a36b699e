"""Collect what a run of rounds showed: each model on the held-out prompts by task, what each part is worth, seconds.

    herdlm align recipes/smollm2-rounds.toml --out runs/rounds
    python benchmarks/rounds.py runs/rounds [--evaluation FOLDER] [--out benchmarks/results]

Everything comes from the files of that run, and of an evaluation of its models if there is one. Nothing is measured
anew. The recipe as it was run is in the result, so that a run that was cut down says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from versions import version

KEPT = (
    "rounds",
    "remember_rounds",
    "data",
    "synth",
    "seed_sft",
    "rejection",
    "reward",
    "sft",
    "dpo",
    "average",
    "gate",
)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def models(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The pass rate of each examined model, in all and by task."""
    return [
        {
            "model": each["label"],
            "asked": each["asked"],
            "pass_rate": each["pass_rate"],
            "tasks": {task: {"right": right, "asked": asked} for task, right, asked in each["tasks"]},
        }
        for each in report["examinations"]
    ]


def checks(report: dict[str, Any]) -> dict[str, Any]:
    """The paired difference behind each claim and step."""
    keys = ("claim", "value", "low", "high", "verdict")
    return {c["name"]: {key: c[key] for key in keys} for c in (*report["checks"], *report["further_checks"])}


def rounds(run: Path, report: dict[str, Any]) -> list[dict[str, Any]]:
    """What went into each round and what its gate decided."""
    found = []
    for each in report["rounds"]:
        gate = run / "stages" / f"round-{each['number']}-gate" / "verdict.json"
        reward = read(run / "stages" / f"round-{each['number']}-reward" / "manifest.json")["counts"]
        keys = ("pairs", "held_out_pairs", "held_out")
        found.append(
            each | {"verdict": read(gate) if gate.is_file() else None, "reward": {key: reward.get(key) for key in keys}}
        )
    return found


def main() -> None:
    """Collect and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--evaluation", type=Path, help="a folder that herdlm evaluate wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    report = read(arguments.run / "stages" / "report" / "report.json")
    align = report["settings"]["align"]
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "versions": {name: version(name) for name in ("herdlm", "torch")},
        "recipe": {"name": report["name"], "seed": report["seed"], **{key: align[key] for key in KEPT}},
        "models": models(report),
        "checks": checks(report),
        "rounds": rounds(arguments.run, report),
        "seconds": {time["stage"]: round(time["seconds"], 1) for time in report["times"]},
    }
    if arguments.evaluation:
        results = read(arguments.evaluation / "results.json")
        found["evaluation"] = {key: results[key] for key in ("settings", "models", "comparisons")}
    path = arguments.out / f"rounds-cpu-{found['date']}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
