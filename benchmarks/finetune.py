"""Fine-tuning beside TRL on one CPU thread: supervised fine-tuning, DPO and LoRA, speed and memory.

    python benchmarks/finetune.py [--shapes A] [--model FOLDER] [--tasks sft dpo lora] [--rounds 5] [--threads 1]
        [--dialogs FILE] [--pairs FILE] [--out benchmarks/results]

Every arm is a process of its own, and all take their steps in turn. All arms of a task start from the same weights,
see the same dialogs or pairs in each step, and use BF16 autocast over FP32 weights, gradient clipping and AdamW.
Collation is outside the clock. TRL runs without gradient checkpointing, which is slower:

- sft, lora: "trl padded" has its default collator and batches of --micro-batch dialogs in the order of the data, as
  many in a step as needed. "trl packed" gets the same packed rows as herdlm, laid end to end as its packing does; since
  transformers 5, documents that start at position 0 do not attend to each other, without flash attention, too.
- dpo: "trl" has the reference's log-probabilities in the data, as herdlm has; "trl in memory" is its default, which
  runs the reference model in every step.

A step's first loss and gradient norm, and the loss after one update, are compared, so a fast wrong arm fails. Speeds
are tokens of dialogs, without padding, in a median round's wall time; ratios of CPU time, which other processes disturb
less, stand beside them. Memory is the resident set's peak over the timed steps, less what the process held before it
built its model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arms import Arm, answer, resident
from finetune_arms import Job, OurArm, TheirArm
from finetune_data import STEPS, Sizes
from train import SHAPES, forget_peak, hardware
from versions import ABSENT, missing

ARMS = {
    "sft": ("herdlm", "trl padded", "trl packed"),
    "dpo": ("herdlm", "trl precomputed", "trl in memory"),
    "lora": ("herdlm", "trl padded", "trl packed"),
}
NEEDED = {"sft": ("trl",), "dpo": ("trl",), "lora": ("trl", "peft")}
GOALS = {"sft": 1.5, "dpo": 1.5, "lora": 1.0}
TOLERANCES = {  # relative: of the first loss, the first gradient norm, the loss after one update
    "bfloat16": (2e-3, 2e-2, 1e-2),
    "float32": (1e-5, 1e-4, 1e-4),
}
DPO_ROUNDING = 15.0
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["A"])
    parser.add_argument("--model", type=Path, help="the folder of a model that is measured, too")
    parser.add_argument("--tasks", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--arms", nargs="+", help="the arms of TRL that run beside herdlm; default: all")
    parser.add_argument("--dialogs", type=Path, help="a file of dialogs for --model; default: drawn from a seed")
    parser.add_argument("--pairs", type=Path, help="a file of preference pairs for --model; likewise")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rows", type=int, default=2, help="packed rows in a step of fine-tuning")
    parser.add_argument("--step-pairs", type=int, default=4, help="pairs in a step of DPO")
    parser.add_argument("--micro-batch", type=int, default=8, help="dialogs in a padded batch; TRL's default is 8")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters, on all seven matrices of a layer")
    parser.add_argument("--precision", choices=TOLERANCES, default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def job_of(given: argparse.Namespace, task: str, shape: str | None) -> Job:
    """What the arms of one task train."""
    sizes = Sizes(given.seq_len, given.rows, given.step_pairs, given.micro_batch)
    data = given.pairs if task == "dpo" else given.dialogs
    model = None if shape else given.model
    return Job(task, shape, model, None if shape else data, sizes, given.rank, given.precision)


def work(given: argparse.Namespace) -> None:
    """Serve one arm: a step's number in, a line of JSON out."""
    import torch

    torch.set_num_threads(given.threads)
    if given.arm.startswith("trl"):
        import trl.trainer.dpo_trainer
        import trl.trainer.sft_trainer  # noqa: F401
    else:
        import herdlm.align.dpo
        import herdlm.model.hf
        import herdlm.train.loop  # noqa: F401
    before = resident("VmRSS")  # with the libraries, which are no part of what training needs
    job = job_of(given, given.tasks[0], given.shapes[0] if given.shapes else None)
    runner = OurArm(job) if given.arm == "herdlm" else TheirArm(job, given.arm.partition(" ")[2])
    (loss, norm), (second, _) = runner.step(0), runner.step(1 % STEPS)
    forget_peak()
    tokens = runner.tokens if isinstance(runner, OurArm) else None
    checks = {"first_loss": loss, "first_gradient_norm": norm, "second_loss": second}
    answer({"checks": checks, "facts": runner.facts, "tokens": tokens, "before_mib": before})
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss, _ = runner.step(int(line) % STEPS)
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer({**taken, "loss": loss, "peak_mib": resident("VmHWM")})


def start(given: argparse.Namespace, task: str, shape: str | None, arm: str) -> Arm:
    """An arm's process."""
    options: list[Any] = ["--arm", arm, "--tasks", task, "--shapes", *([shape] if shape else [])]
    names = (
        "model",
        "dialogs",
        "pairs",
        "threads",
        "seq_len",
        "rows",
        "step_pairs",
        "micro_batch",
        "rank",
        "precision",
    )
    for name in names:
        if (value := getattr(given, name)) is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    return Arm(__file__, *options, threads=given.threads)


def check(workers: dict[str, Arm], precision: str, task: str) -> None:
    """Refuse arms that do not compute the same step.

    The loss of DPO is that of a difference between two log-probabilities of a whole answer, whose roundings in BF16 do
    not cancel where the reference was computed in another batch.

    Raises:
        RuntimeError: a loss or a gradient norm differs.
    """
    found = {arm: worker.ready["checks"] for arm, worker in workers.items()}
    first = next(iter(found.values()))
    more = DPO_ROUNDING if task == "dpo" and precision == "bfloat16" else 1.0
    for key, tolerance in zip(first, (more * value for value in TOLERANCES[precision]), strict=True):
        values = {arm: values[key] for arm, values in found.items()}
        if max(values.values()) - min(values.values()) > tolerance * abs(first[key]):
            raise RuntimeError(f"the arms do not compute the same {key}: {values}")


def compare(given: argparse.Namespace, task: str, shape: str | None, arms: list[str]) -> dict[str, Any]:
    """Measure all arms of one task, in turn."""
    workers = {arm: start(given, task, shape, arm) for arm in arms}
    check(workers, given.precision, task)
    tokens = workers["herdlm"].ready["tokens"]
    times: dict[str, list[dict[str, Any]]] = {arm: [] for arm in workers}
    for number in range(given.rounds):
        for arm in list(workers) if number % 2 else list(workers)[::-1]:
            times[arm].append(workers[arm].ask(str(number)))
    for worker in workers.values():
        worker.close()
    results = {}
    for arm, taken in times.items():
        speeds = {
            name: statistics.median(tokens[n % STEPS] / step[key] for n, step in enumerate(taken))
            for name, key in (("tokens_per_second", "wall"), ("tokens_per_cpu_second", "cpu"))
        }
        ready = workers[arm].ready
        results[arm] = {
            **{name: round(speed, 1) for name, speed in speeds.items()},
            "memory_mib": round(max(step["peak_mib"] for step in taken) - ready["before_mib"]),
            "before_model_mib": round(ready["before_mib"]),
            **{name: round(value, 5) for name, value in (ready["checks"] | ready["facts"]).items()},
        }
    return {"tokens_per_step": tokens, "rounds": given.rounds, "arms": results, "ratios": ratios(results, task)}


def ratios(arms: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """herdlm over each arm of TRL, beside the goal; memory likewise, where less is better."""
    return [
        {
            "ratio": f"herdlm / {arm}",
            "wall": round(arms["herdlm"]["tokens_per_second"] / row["tokens_per_second"], 3),
            "cpu": round(arms["herdlm"]["tokens_per_cpu_second"] / row["tokens_per_cpu_second"], 3),
            "memory": round(arms["herdlm"]["memory_mib"] / row["memory_mib"], 3),
            "goal": GOALS[task],
        }
        for arm, row in arms.items()
        if arm != "herdlm"
    ]


def show(name: str, task: str, results: dict[str, Any]) -> None:
    """Print one task's results."""
    print(f"\n{name}, {task}: {'':16} tokens/s   per CPU s   memory MiB   reference, CPU s")
    for arm, row in results["arms"].items():
        figures = f"{row['tokens_per_second']:>9,.0f} {row['tokens_per_cpu_second']:>11,.0f} {row['memory_mib']:>12,}"
        print(f"{arm:>28} {figures} {row.get('reference_cpu_seconds', 0):>18.1f}")
    for row in results["ratios"]:
        speed = f"{row['wall']:.2f} x (CPU time {row['cpu']:.2f} x, goal {row['goal']})"
        print(f"{row['ratio']:>38}: {speed}, memory {row['memory']:.2f} x")


def main() -> None:
    """Run the comparison and write its results."""
    given = parse()
    if given.arm:
        work(given)
        return
    skipped = {
        task: sorted({arm for name in NEEDED[task] for arm in missing(ARMS[task], {"trl": name})})
        for task in given.tasks
    }
    wanted = {"herdlm", *(given.arms or [arm for arms in ARMS.values() for arm in arms])}
    chosen = {task: [arm for arm in ARMS[task] if arm in wanted and arm not in skipped[task]] for task in given.tasks}
    models: list[str | None] = [*given.shapes, *([None] if given.model else [])]
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(given.threads, LIBRARIES),
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
        "precision": given.precision,
        "sizes": {name: getattr(given, name) for name in ("seq_len", "rows", "step_pairs", "micro_batch", "rank")},
        "data": [file.name if file else "drawn" for file in (given.dialogs, given.pairs)],
        "skipped": skipped,
        "models": {},
    }
    print(f"{report['hardware']['cpu']}, threads: {given.threads}, load {report['load_at_start'][0]}")
    for task, arms in skipped.items():
        for arm in arms:
            print(f"{task}, {arm}: {ABSENT}: skipped")
    for shape in models:
        name = f"shape {shape}" if shape else given.model.name
        report["models"][name] = {}
        for task in given.tasks:
            results = compare(given, task, shape, chosen[task])
            report["models"][name][task] = results
            show(name, task, results)
    report["load_at_end"] = [round(value, 2) for value in os.getloadavg()]
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"finetune-cpu-{report['date']}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {target.name}")


if __name__ == "__main__":
    main()
