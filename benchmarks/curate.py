"""The whole of curation, WARC to de-duplicated Parquet, against the equivalent datatrove pipeline, in one run.

    HERDLM_DATA=... python benchmarks/curate.py --datatrove-python PATH [--rounds 1] [--out benchmarks/results]

Both take the pages of ``web/docs.warc.gz`` and ``web/handbooks.warc.gz`` through two processes. datatrove's pipeline is
``peers/datatrove_pipeline.py``, run by a Python of its own (its pins are in that file). It extracts, tells languages,
applies Gopher's rules and removes near duplicates; herdlm's default does that and all its other steps: repair, domains,
personal data, hosts, outliers, quality, repeated lines, older versions, the account of every page dropped.

Told for each arm: seconds by the clock, CPU seconds of the process and all its descendants (sampled from /proc), and
its own split by step or stage; the ratio of pages per second by both measures. Arms take turns where there are
more rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ARCHIVES = ("docs", "handbooks")
WORKERS = 2
POLL_SECONDS = 0.2
TICK = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """CPU seconds of a process and its descendants so far, and the most memory they held together."""

    def __init__(self, root: int) -> None:
        self.root, self.peak_bytes = root, 0
        self._seconds: dict[int, float] = {}
        self._family = {root}

    def sample(self) -> None:
        """Look at all processes: a descendant stays one when its parent ends before it."""
        stats = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has just ended
            stats[int(path.parent.name)] = fields
        grown = True
        while grown:
            more = {pid for pid, fields in stats.items() if int(fields[1]) in self._family} - self._family
            self._family, grown = self._family | more, bool(more)
        here = [pid for pid in self._family if pid in stats]
        for pid in here:
            self._seconds[pid] = (int(stats[pid][11]) + int(stats[pid][12])) / TICK
        self.peak_bytes = max(self.peak_bytes, sum(int(stats[pid][21]) * PAGE_BYTES for pid in here))

    @property
    def seconds(self) -> float:
        """CPU seconds, less what a process used after the last look at it."""
        return sum(self._seconds.values())


def run(command: list[str]) -> tuple[dict[str, Any], str]:
    """What a command took, and its standard output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        usage = Usage(process.pid)
        while process.poll() is None:
            usage.sample()
            time.sleep(POLL_SECONDS)
        assert process.stdout
        printed = process.stdout.read()
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    told = {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": usage.seconds,
        "peak_memory_mib": usage.peak_bytes / 2**20,
    }
    return told, printed


def documents(folder: Path) -> int:
    """How many rows the Parquet files of a folder have."""
    return sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))


def herdlm(sources: list[Path], out: Path) -> dict[str, Any]:
    """Curate with the defaults."""
    command = [sys.executable, "-m", "herdlm.cli", "curate", *map(str, sources), "--out", str(out), "--quiet"]
    told, _ = run([*command, "--set", f"curate.workers={WORKERS}"])
    timing = json.loads((out / "timing.json").read_text())
    return {**told, "documents": documents(out / "documents"), "steps": timing}


def datatrove(python: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run the peer's pipeline."""
    script = Path(__file__).parent / "peers" / "datatrove_pipeline.py"
    model = files("herdlm.curate") / "models" / "lid.176.ftz"
    told, printed = run([python, str(script), str(folder), str(out), str(model), "--workers", str(WORKERS)])
    return {**told, "documents": documents(out / "result"), "stages": json.loads(printed.strip().splitlines()[-1])}


def main() -> None:
    """Run both and print one JSON report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--datatrove-python", help="of an environment with datatrove; without it herdlm runs alone")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "HERDLM_DATA" not in os.environ:
        sys.exit("HERDLM_DATA is not set: name the folder that holds web/docs.warc.gz and web/handbooks.warc.gz")
    web = Path(os.environ["HERDLM_DATA"]) / "web"
    arms: dict[str, list[dict[str, Any]]] = {"herdlm": [], "datatrove": []}
    with tempfile.TemporaryDirectory() as scratch:
        crawl = Path(scratch) / "crawl"
        crawl.mkdir()
        for name in ARCHIVES:
            (crawl / f"{name}.warc.gz").symlink_to(web / f"{name}.warc.gz")
        for turn in range(options.rounds):
            arms["herdlm"].append(herdlm(sorted(crawl.iterdir()), Path(scratch) / f"herdlm-{turn}"))
            if options.datatrove_python:
                out = Path(scratch) / f"datatrove-{turn}"
                arms["datatrove"].append(datatrove(options.datatrove_python, crawl, out))
        pages = json.loads((Path(scratch) / "herdlm-0" / "funnel.json").read_text())["input"]["documents"]
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "processes": WORKERS,
        "pages": pages,
        "versions": {"python": platform.python_version(), "pyarrow": importlib.metadata.version("pyarrow")},
        "arms": arms,
    }
    speeds = {
        measure: {
            name: pages / statistics.median(turn[measure] for turn in turns) for name, turns in arms.items() if turns
        }
        for measure in ("seconds", "cpu_seconds")
    }
    report["pages per second"], report["pages per CPU second"] = speeds["seconds"], speeds["cpu_seconds"]
    if not arms["datatrove"]:
        report["skipped"] = {"datatrove": "give --datatrove-python PATH to measure it"}
    else:
        report["ratio"] = {measure: each["herdlm"] / each["datatrove"] for measure, each in speeds.items()}
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        (options.out / f"curate-cpu-{report['date']}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
