"""Speed of ``herdlm evaluate`` beside lm-eval's Hugging Face model on the same folder, items, type and threads.

    python benchmarks/evaluate.py --model FOLDER --data FOLDER [--cases arc_easy:0 mmlu:5] [--limit 100]
        [--dtype bfloat16 float32] [--threads 1] [--batches 1 8 32] [--rounds 3] [--out benchmarks/results]

A case is a task and its number of examples; ``--data`` holds the benchmarks' files as ``herdlm evaluate`` takes them.
Every arm is a process of its own; all stay alive and take their turns, after one round over a few items that is not
counted. herdlm's arm evaluates as the command does, from reading items to their records on disk. lm-eval's gets the
same contexts and continuations ready-made, and only its model's ``loglikelihood`` is measured, with the batch size that
was fastest in the first round. Log-likelihoods of both are compared, so a fast wrong arm fails.

Items per second of wall time are medians over rounds; those per CPU second, which other processes disturb less, stand
beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arms import Arm, answer, resident
from versions import missing, version

CASES = ("arc_easy:0", "mmlu:5")
DTYPES = ("bfloat16", "float32")
ARMS = ("herdlm", "lm-eval")
PEERS = {"lm-eval": "lm_eval"}
WARM = 4  # items
GOAL = 3.0  # items per CPU second over lm-eval's
CLOSE = {"float32": 1e-3, "bfloat16": 1.0}  # nats between log-likelihoods of both arms


class OurArm:
    """``herdlm evaluate`` on one case."""

    def __init__(self, model: Path, dtype: str) -> None:
        from herdlm.evaluate.engines import EngineOptions
        from herdlm.evaluate.local import LocalModel

        self.model = LocalModel(model, EngineOptions("cpu", dtype))

    def run(self, case: str, data: Path, limit: int, batch: int | None) -> list[float]:
        """Log-likelihoods of all continuations."""
        from herdlm.evaluate.asking import Settings
        from herdlm.evaluate.run import evaluate, load
        from herdlm.evaluate.task import load_task

        name, shots = case.split(":")
        self.model.engines.engine.forget_prefixes()
        with tempfile.TemporaryDirectory() as out:
            loaded = load(load_task(name), [data], Settings(shots=int(shots), chat=False, limit=limit))
            result = evaluate(self.model, loaded, Path(out), quiet=True)
        return [value for record in result.records for value in record["logprobs"]]


class LmEvalArm:
    """lm-eval's Hugging Face model on the same contexts and continuations."""

    def __init__(self, model: Path, dtype: str) -> None:
        from lm_eval.models.huggingface import HFLM

        self.model = HFLM(str(model), device="cpu", dtype=dtype)
        self.asked: dict[tuple[str, int], list[Any]] = {}

    def prepare(self, case: str, data: Path, limit: int) -> None:
        """Make a case's requests."""
        from lm_eval.api.instance import Instance

        if (case, limit) not in self.asked:
            pairs = requests_of(case, data, limit)
            self.asked[case, limit] = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]

    def run(self, case: str, data: Path, limit: int, batch: int | None) -> list[float]:
        """Log-likelihoods of all continuations."""
        self.model.batch_size_per_gpu = batch or 1
        found = self.model.loglikelihood(self.asked[case, limit], disable_tqdm=True)
        return [value for value, _ in found]


def requests_of(case: str, data: Path, limit: int) -> list[tuple[str, str]]:
    """The contexts and continuations of a case, as herdlm asks them."""
    from herdlm.evaluate.asking import Settings
    from herdlm.evaluate.kinds import Choice
    from herdlm.evaluate.run import load
    from herdlm.evaluate.task import load_task

    name, shots = case.split(":")
    loaded = load(load_task(name), [data], Settings(shots=int(shots), chat=False, limit=limit))
    choice = Choice(loaded.task, loaded.asking, chat=False)
    return [
        (request.question.text, request.continuation)
        for number in loaded.numbers
        for request in choice._requests(number)[0]
    ]


def work(arm: str, model: Path, data: Path, dtype: str, threads: int) -> None:
    """Serve one arm: a line of JSON in, one out."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.redirect_stdout(sys.stderr):
        runner = {"herdlm": OurArm, "lm-eval": LmEvalArm}[arm](model, dtype)
    answer({"model_mib": resident("VmRSS")})
    for line in sys.stdin:
        asked = json.loads(line)
        case, limit = asked["case"], asked["limit"]
        if isinstance(runner, LmEvalArm):
            runner.prepare(case, data, limit)
        wall, cpu = time.perf_counter(), time.process_time()
        values = runner.run(case, data, limit, asked.get("batch"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer({"wall": wall, "cpu": cpu, "logprobs": values, "peak_mib": resident("VmHWM")})


class Worker(Arm):
    """An arm's process."""

    def __init__(self, arm: str, options: argparse.Namespace, dtype: str) -> None:
        super().__init__(
            *(__file__, "--arm", arm, "--model", options.model, "--data", options.data, "--dtype", dtype),
            *("--threads", str(options.threads)),
            threads=options.threads,
        )

    def run(self, **asked: Any) -> dict[str, Any]:
        """Run a case."""
        return self.ask(json.dumps(asked))


def measure(workers: dict[str, Worker], case: str, options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """All arms on one case, in turn."""
    for worker in workers.values():
        worker.run(case=case, limit=WARM)
    batch = None
    if "lm-eval" in workers and len(options.batches) > 1:
        few = max(options.limit // 4, WARM)
        tried = {size: workers["lm-eval"].run(case=case, limit=few, batch=size)["cpu"] for size in options.batches}
        batch = min(tried, key=lambda size: tried[size])
    elif "lm-eval" in workers:
        batch = options.batches[0]
    taken: dict[str, list[dict[str, Any]]] = {arm: [] for arm in workers}
    for number in range(options.rounds):
        for arm in list(workers) if number % 2 else list(workers)[::-1]:
            taken[arm].append(workers[arm].run(case=case, limit=options.limit, batch=batch))
    found: dict[str, Any] = {}
    for arm, runs in taken.items():
        found[arm] = {
            "items_per_second": round(options.limit / statistics.median(run["wall"] for run in runs), 2),
            "items_per_cpu_second": round(options.limit / statistics.median(run["cpu"] for run in runs), 2),
            "peak_mib": round(max(run["peak_mib"] for run in runs)),
            "runs": [{key: round(run[key], 3) for key in ("wall", "cpu")} for run in runs],
        } | ({"batch_size": batch} if arm == "lm-eval" else {})
    if len(taken) > 1:
        pairs = list(zip(taken["herdlm"][0]["logprobs"], taken["lm-eval"][0]["logprobs"], strict=True))
        apart = max(abs(own - theirs) for own, theirs in pairs)
        assert apart < CLOSE[dtype], f"{case}: log-likelihoods differ by {apart}"
        found["continuations"] = len(pairs)
        found["largest_difference_nats"] = round(apart, 6)
        found["herdlm_over_lm_eval"] = {
            short: round(found["herdlm"][key] / found["lm-eval"][key], 2)
            for key, short in (("items_per_second", "wall"), ("items_per_cpu_second", "cpu"))
        } | {"goal": GOAL}
    return found


def hardware(threads: int) -> dict[str, Any]:
    """What the numbers belong to."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    versions = {name: version(name) for name in ("torch", "transformers", "lm_eval", "numpy", "numba")}
    return {
        "cpu": model,
        "units": flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **versions,
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.arm:
        work(options.arm, options.model, options.data, options.dtype[0], options.threads)
        return {}
    absent = missing(ARMS, PEERS)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(options.threads),
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
        "model": options.model.name,
        "items": options.limit,
        "skipped": absent,
        "dtypes": {},
    }
    for dtype in options.dtype:
        workers = {arm: Worker(arm, options, dtype) for arm in ARMS if arm not in absent}
        try:
            cases = {case: measure(workers, case, options, dtype) for case in options.cases}
        finally:
            for worker in workers.values():
                worker.close()
        result["dtypes"][dtype] = cases
        print(json.dumps({dtype: cases}, indent=2), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"evaluate-cpu-{result['date']}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)
    return result


if __name__ == "__main__":
    main()
