"""Training speed and memory on one CPU thread: herdlm's step beside transformers' LlamaForCausalLM with fused AdamW.

    python benchmarks/train.py [--shapes A B] [--rounds 9] [--out benchmarks/results]

Every arm is a process of its own, so that its peak memory is its own; all stay alive and take their steps in turn, so
that whatever else the machine does falls on all alike. All arms start from the same weights, see the same batches of
packed documents (transformers gets its four-dimensional boolean mask, built outside the clock) and keep FP32 weights
under BF16 autocast, with gradient clipping and AdamW. Every arm's first loss is compared, so a fast wrong arm fails.

Speeds are medians over rounds of wall time; ratios of CPU time, which other processes disturb less, stand beside them.
Memory is the resident set's peak over the timed steps; what the process held before it built its model is stated too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arms import Arm, answer, resident
from versions import ABSENT, missing, version

SHAPES: dict[str, dict[str, int]] = {
    "A": {"vocab_size": 8192, "dim": 256, "layers": 8, "heads": 4, "kv_heads": 2, "ffn_dim": 688},
    "B": {"vocab_size": 32_000, "dim": 512, "layers": 12, "heads": 8, "kv_heads": 4, "ffn_dim": 1376},
    "tiny": {"vocab_size": 64, "dim": 16, "layers": 2, "heads": 2, "kv_heads": 1, "ffn_dim": 24},
}
ROWS = {"A": 4, "B": 2, "tiny": 2}
SEQ_LEN = 512
BATCHES = 4
ARMS = ("herdlm", "herdlm compiled", "transformers", "transformers compiled")
GOALS = {"A": (1.3, 1.05), "B": (1.2, 1.0)}
LONGEST_PROBE = 1.0  # seconds that a product may take when the processor's peak is measured
WARM_STEPS = 2 * BATCHES  # a compiled arm meets every batch's documents before the clock starts


def make_batches(shape: str, seq_len: int) -> list[Any]:
    """The same packed documents for every arm: log-normal lengths (median 150, mean about 200 tokens)."""
    import numpy as np

    from herdlm.tokens.batch import Piece, assemble

    generator = np.random.default_rng(5)
    batches = []
    for _ in range(BATCHES):
        rows = []
        for _ in range(ROWS[shape]):
            row: list[Piece] = []
            room = seq_len
            while room:
                length = min(max(int(generator.lognormal(5.0, 0.8)), 8), room)
                tokens = generator.integers(0, SHAPES[shape]["vocab_size"], length + 1)
                row.append(Piece(tokens, np.ones(length, np.float32)))
                room -= length
            rows.append(row)
        batches.append(assemble(rows, seq_len, 0))
    return batches


class OurArm:
    """One step as the training loop takes it: the same objective, gradients, clipping and optimizer."""

    def __init__(self, shape: str, compiled: bool) -> None:
        import torch

        from herdlm.model.config import ModelConfig
        from herdlm.model.transformer import build, initialize
        from herdlm.parallel.blocks import apply_compile
        from herdlm.train.config import TrainConfig
        from herdlm.train.loop import OneProcess, make_optimizer
        from herdlm.train.objectives import NextToken

        model = build(ModelConfig(**SHAPES[shape]))
        initialize(model, 0)
        if compiled:
            for layer in model.model.layers:
                apply_compile(layer)
        model.train()
        self.run, self.objective = OneProcess(model), NextToken()
        self.optimizer = make_optimizer(model, TrainConfig(peak_lr=3e-4))
        self.autocast = torch.autocast("cpu", torch.bfloat16)

    def step(self, batch: Any) -> float:
        """One optimizer step; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total, _, _ = self.run.gradients(self.objective, [batch], self.autocast)
        self.run.clip(1.0)
        self.optimizer.step()
        return float(total)


class TheirArm:
    """transformers' model, with the same weights, optimizer and clipping."""

    def __init__(self, shape: str, compiled: bool) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from herdlm.model.config import ModelConfig
        from herdlm.model.transformer import build, initialize
        from herdlm.train.config import TrainConfig
        from herdlm.train.loop import make_optimizer

        config = ModelConfig(**SHAPES[shape])
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.dim,
                intermediate_size=config.ffn_dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                rms_norm_eps=config.norm_eps,
                use_cache=False,
                rope_parameters={"rope_theta": config.rope_theta, "rope_type": "default"},
            )
        )
        ours = build(config)
        initialize(ours, 0)
        self.model.load_state_dict(ours.state_dict())
        self.model.train()
        self.optimizer = make_optimizer(self.model, TrainConfig(peak_lr=3e-4))  # type: ignore[arg-type]
        self.forward = torch.compile(self.model) if compiled else self.model
        self.masks: dict[int, Any] = {}

    def step(self, batch: Any) -> float:
        """One optimizer step; the loss."""
        import torch

        mask = self.masks[id(batch)]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.forward(
                input_ids=batch.tokens,
                attention_mask=mask,
                position_ids=batch.positions,
                labels=batch.targets,
                shift_labels=batch.targets,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def prepare(self, batch: Any) -> None:
        """Build a batch's mask, which is not timed."""
        same = batch.documents[:, None, :, None] == batch.documents[:, None, None, :]
        self.masks[id(batch)] = same.tril()


def work(arm: str, shape: str, seq_len: int) -> None:
    """Serve one arm: a line "step N" in, a line of JSON out."""
    import torch

    torch.set_num_threads(1)
    if arm.startswith("transformers"):
        import transformers  # noqa: F401 - its libraries belong to what is held before the model
    before = resident("VmRSS")
    runner = (OurArm if arm.startswith("herdlm") else TheirArm)(shape, arm.endswith("compiled"))
    batches = make_batches(shape, seq_len)
    if isinstance(runner, TheirArm):
        for batch in batches:
            runner.prepare(batch)
    first = runner.step(batches[0])
    started = time.perf_counter()
    for number in range(1, WARM_STEPS):
        runner.step(batches[number % BATCHES])
    forget_peak()
    answer({"first_loss": first, "warm_seconds": time.perf_counter() - started, "before_mib": before})
    for line in sys.stdin:
        batch = batches[int(line) % BATCHES]
        wall, cpu = time.perf_counter(), time.process_time()
        loss = runner.step(batch)
        answer(
            {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "loss": loss,
                "peak_mib": resident("VmHWM"),
            }
        )


def forget_peak() -> None:
    """Give freed memory back, then start the peak again: what compiling took is not what a step takes."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class Worker(Arm):
    """An arm's process."""

    def __init__(self, arm: str, shape: str, seq_len: int) -> None:
        super().__init__(__file__, "--arm", arm, "--shapes", shape, "--seq-len", str(seq_len))

    def step(self, number: int) -> dict[str, Any]:
        """Take a step on batch ``number``."""
        return self.ask(str(number))


def compare(shape: str, seq_len: int, rounds: int, peak: float, arms: tuple[str, ...]) -> dict[str, Any]:
    """Measure all arms on one shape, in turn."""
    from herdlm.model.config import ModelConfig

    config = ModelConfig(**SHAPES[shape])
    workers = {arm: Worker(arm, shape, seq_len) for arm in arms}
    losses = {arm: worker.ready["first_loss"] for arm, worker in workers.items()}
    if max(losses.values()) - min(losses.values()) > 2e-3 * min(losses.values()):
        raise RuntimeError(f"the arms do not compute the same loss: {losses}")
    times: dict[str, list[dict[str, Any]]] = {arm: [] for arm in workers}
    for number in range(rounds):
        order = list(workers) if number % 2 else list(workers)[::-1]
        for arm in order:
            times[arm].append(workers[arm].step(number))
    for worker in workers.values():
        worker.close()
    tokens = ROWS[shape] * seq_len
    results = {}
    for arm, taken in times.items():
        wall, cpu = (statistics.median(step[key] for step in taken) for key in ("wall", "cpu"))
        speed = tokens / wall
        results[arm] = {
            "tokens_per_second": round(speed, 1),
            "tokens_per_cpu_second": round(tokens / cpu, 1),
            "fastest_tokens_per_second": round(tokens / min(step["wall"] for step in taken), 1),
            "share_of_matmul_peak": round(speed * config.flops_per_token(0) / peak, 4),
            "peak_mib": round(max(step["peak_mib"] for step in taken)),
            "before_model_mib": round(workers[arm].ready["before_mib"]),
            "warm_seconds": round(workers[arm].ready["warm_seconds"], 1),
            "first_loss": round(losses[arm], 5),
        }
    return {"shape": SHAPES[shape], "rows": ROWS[shape], "seq_len": seq_len, "rounds": rounds, "arms": results}


def ratios(results: dict[str, Any], shape: str) -> list[dict[str, Any]]:
    """herdlm's best form over each form of transformers, beside the goals; memory likewise, where less is better."""
    arms = results["arms"]
    rows = []
    for (ours, theirs), goal in zip(
        (("herdlm", "transformers"), ("herdlm compiled", "transformers compiled")),
        GOALS.get(shape, (None, None)),
        strict=True,
    ):
        if ours in arms and theirs in arms:
            rows.append(
                {
                    "ratio": f"{ours} / {theirs}",
                    "wall": round(arms[ours]["tokens_per_second"] / arms[theirs]["tokens_per_second"], 3),
                    "cpu": round(arms[ours]["tokens_per_cpu_second"] / arms[theirs]["tokens_per_cpu_second"], 3),
                    "memory": round(arms[ours]["peak_mib"] / arms[theirs]["peak_mib"], 3),
                    "goal": goal,
                }
            )
    return rows


def matmul_peak() -> float:
    """FLOP/s of a BF16 product of square matrices on one thread, the best of ten.

    They are 2,048 wide, or 512 where the processor has no BF16 units and a larger product would take seconds.
    """
    import torch

    torch.set_num_threads(1)
    found = 0.0
    for side in (512, 2048):
        a, b = (torch.randn(side, side).bfloat16() for _ in range(2))
        for _ in range(10):
            started = time.perf_counter()
            torch.mm(a, b)
            found = max(found, 2 * side**3 / (time.perf_counter() - started))
        if 2 * 2048**3 / found > LONGEST_PROBE:
            break
    return found


def hardware(threads: int = 1, libraries: tuple[str, ...] = ("torch", "transformers", "numpy")) -> dict[str, Any]:
    """What the numbers belong to."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = {name: version(name) for name in libraries}
    return {"cpu": model, "cores": os.cpu_count(), "threads": threads, "python": platform.python_version(), **versions}


def main() -> None:
    """Run the comparison and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        work(given.arm, given.shapes[0], given.seq_len)
        return
    peak = matmul_peak()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "matmul_peak_gflops": round(peak / 1e9, 1),
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
        "flops": "6 per matrix weight and token, attention not counted",
        "skipped": missing(given.arms, {"transformers": "transformers"}),
        "shapes": {},
    }
    print(f"{report['hardware']['cpu']}, one thread, BF16 products {report['matmul_peak_gflops']} GFLOP/s")
    for shape in given.shapes:
        arms = tuple(arm for arm in given.arms if arm not in report["skipped"])
        results = compare(shape, given.seq_len, given.rounds, peak, arms)
        results["ratios"] = ratios(results, shape)
        report["shapes"][shape] = results
        print(f"\nshape {shape}: {'':22} tokens/s   per CPU s   of peak   peak MiB   (before the model)")
        for arm, row in results["arms"].items():
            speeds = f"{row['tokens_per_second']:>9,.0f} {row['tokens_per_cpu_second']:>11,.0f}"
            memory = f"{row['peak_mib']:>10,} {row['before_model_mib']:>12,}"
            print(f"{arm:>31} {speeds} {row['share_of_matmul_peak']:>9.1%} {memory}")
        for arm in report["skipped"]:
            print(f"{arm:>31} {ABSENT}: skipped")
        for row in results["ratios"]:
            speed = f"{row['wall']:.2f} x (CPU time {row['cpu']:.2f} x, goal {row['goal']})"
            print(f"{row['ratio']:>47}: {speed}, memory {row['memory']:.2f} x")
    report["load_at_end"] = [round(value, 2) for value in os.getloadavg()]
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"train-cpu-{report['date']}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {target.name}")


if __name__ == "__main__":
    main()
