"""Generation speed and memory on one CPU core: herdlm's engine beside transformers and llama.cpp.

    python benchmarks/generate.py [--cases each mixed one samples] [--rounds 3] [--core 0] [--out benchmarks/results]

Shape B with random weights in BF16, saved once as a Hugging Face folder; 32 prompts of 16 to 256 tokens:

- each: 128 new tokens for every prompt
- mixed: 16 to 256 new tokens
- one: one prompt, 128 new tokens
- samples: 16 samples of one prompt of 512 tokens, 128 new tokens each; "apart" is the same without sharing (16 prompts
  that differ in their first token)

Every arm is a process of its own, pinned to the same core; all stay alive and take their turns. Tokens are drawn at
temperature 1 from the whole vocabulary. Each arm's first greedy tokens are compared, so a fast wrong arm fails.

All arms read the same BF16 weights. On a processor without BF16 units herdlm computes them in float32; transformers
runs in float32, and in BF16 as a probe of few tokens, which shows why not; llama.cpp gets GGUF files in F32, F16 and
BF16. Caches are float32 in all of them. transformers batches statically, in order of arrival and in the best of several
sizes; a batch runs until its longest is done. llama.cpp drops sequences that are done.

Speeds are output tokens per second of wall time, prompts included, medians over rounds (three times as many for "one");
those per CPU second, which other processes disturb less, stand beside them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
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

sys.path.insert(0, str(Path(__file__).parent))

SHAPES: dict[str, dict[str, int]] = {
    "B": {"vocab_size": 32_000, "dim": 512, "layers": 12, "heads": 8, "kv_heads": 4, "ffn_dim": 1376},
    "tiny": {"vocab_size": 64, "dim": 16, "layers": 2, "heads": 2, "kv_heads": 1, "ffn_dim": 24},
}
CASES = ("each", "mixed", "one", "samples", "apart")
PROBE = "probe"  # few tokens, for an arm that would take hours
ARMS = ("herdlm", "transformers float32", "transformers bfloat16", "llama.cpp F32", "llama.cpp F16", "llama.cpp BF16")
STATIC_BATCHES = (8, 16, 32)
SAMPLES, NEW = 16, 128
GOALS = {
    ("each", "transformers"): 2.5,
    ("mixed", "transformers"): 4.0,
    ("one", "transformers"): 2.0,
    ("samples", "transformers"): 5.0,
    ("samples", "apart"): 2.0,
    ("each", "llama.cpp"): 2.0,
    ("samples", "llama.cpp"): 1.5,
    ("one", "llama.cpp"): 0.9,
}


def work_of(case: str, vocabulary: int) -> tuple[list[list[int]], list[int], int]:
    """Prompts, new tokens of each, and samples of each."""
    import numpy as np

    generator = np.random.default_rng(3)
    lengths = generator.permutation(np.linspace(16, 256, 32).astype(int)).tolist()
    prompts = [generator.integers(0, vocabulary, length).tolist() for length in lengths]
    if case == "mixed":
        return prompts, generator.permutation(np.linspace(16, 256, 32).astype(int)).tolist(), 1
    if case == "one":
        return [generator.integers(0, vocabulary, 136).tolist()], [NEW], 1
    long = generator.integers(0, vocabulary, 512).tolist()
    if case == "samples":
        return [long], [NEW], SAMPLES
    if case == "apart":
        return [[first, *long[1:]] for first in range(SAMPLES)], [NEW] * SAMPLES, 1
    if case == PROBE:
        return [prompts[0][:16]], [4], 1
    return prompts, [NEW] * len(prompts), 1


class OurArm:
    """herdlm's engine, as it serves."""

    def __init__(self, folder: Path, kind: str) -> None:
        from herdlm.generate import Engine
        from herdlm.generate.load import load_model
        from herdlm.generate.matrix import fastest_type

        model = load_model(folder, "cpu", "auto")
        weight = model.model.embed_tokens.weight
        self.engine = Engine(
            model,
            None,
            max_batch=64,
            cache_tokens=20_480,
            compute=fastest_type(weight.device, weight.dtype),
            keep_model=False,
        )

    def run(
        self, prompts: list[list[int]], new: list[int], samples: int, greedy: bool
    ) -> tuple[list[int], list[float]]:
        """First sample's tokens, and seconds to the first token of each prompt."""
        from herdlm.generate import SamplingParams

        engine, started = self.engine, time.perf_counter()
        ids = []
        for index, (prompt, count) in enumerate(zip(prompts, new, strict=True)):
            how = SamplingParams(max_tokens=count, n=samples, seed=index, temperature=0 if greedy else 1)
            ids.append(engine.submit(prompt, how))
        first: dict[int, float] = {}
        tokens: list[int] = []
        while engine.busy:
            for event in engine.step():
                first.setdefault(event.request_id, time.perf_counter() - started)
                if event.completion and event.request_id == ids[0] and event.sample == 0:
                    tokens = event.completion.tokens
        engine.forget_prefixes()
        return tokens, list(first.values())


class TransformersArm:
    """transformers' generate over static batches padded on the left."""

    def __init__(self, folder: Path, kind: str) -> None:
        import torch
        from transformers import LlamaForCausalLM

        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, kind)).eval()
        self.model.generation_config.eos_token_id = None
        self.batch_size = STATIC_BATCHES[-1]

    def run(
        self, prompts: list[list[int]], new: list[int], samples: int, greedy: bool
    ) -> tuple[list[int], list[float]]:
        """See :meth:`OurArm.run`."""
        import torch
        from transformers import StoppingCriteria

        started, first = time.perf_counter(), []
        tokens: list[int] = []

        class Clock(StoppingCriteria):  # type: ignore[misc]
            """Asked after each token; stops nothing."""

            def __init__(self) -> None:
                self.first = 0.0

            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                self.first = self.first or time.perf_counter() - started
                return torch.zeros(len(ids), dtype=torch.bool)

        for begin in range(0, len(prompts), self.batch_size):
            batch, count = prompts[begin : begin + self.batch_size], max(new[begin : begin + self.batch_size])
            width = max(map(len, batch))
            ids = torch.zeros(len(batch), width, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(batch):
                ids[row, width - len(prompt) :] = torch.tensor(prompt)
                mask[row, width - len(prompt) :] = 1
            clock = Clock()
            how: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0}
            with torch.inference_mode():
                out = self.model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=count,
                    pad_token_id=0,
                    num_return_sequences=samples,
                    stopping_criteria=[clock],
                    **how,
                )
            assert out.shape == (len(batch) * samples, width + count)
            tokens = tokens or out[0, width : width + new[0]].tolist()
            first += [clock.first] * len(batch)
        return tokens, first


class LlamaCppArm:
    """llama.cpp with all sequences at once; one cache for all of them (faster here than one for each)."""

    def __init__(self, folder: Path, kind: str) -> None:
        from peers.llama_cpp_generation import LlamaCpp, write_gguf

        target = folder / f"{kind}.gguf"
        if not target.exists():
            write_gguf(folder, target, kind)
        self.kind, self.target, self.maker = kind, target, LlamaCpp
        self.made: tuple[tuple[int, int], Any] | None = None

    def run(
        self, prompts: list[list[int]], new: list[int], samples: int, greedy: bool
    ) -> tuple[list[int], list[float]]:
        """See :meth:`OurArm.run`."""
        tokens = sum(map(len, prompts)) + samples * sum(new)
        size = (-(-tokens // 256) * 256, len(prompts) * samples)
        if self.made is None or self.made[0] != size:
            if self.made is not None:
                self.made[1].close()
            self.made = (size, self.maker(self.target, *size, unified=True))
        out, first = self.made[1].generate(prompts, new * samples, samples, greedy)
        return out[0], first


def work(arm: str, shape: str, folder: Path, core: int) -> None:
    """Serve one arm: a line of JSON in, one out."""
    os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    before = resident("VmRSS")
    kind = arm.rpartition(" ")[2]
    makers = {"herdlm": OurArm, "transformers": TransformersArm, "llama.cpp": LlamaCppArm}
    runner = makers[arm.split(maxsplit=1)[0]](folder, kind)
    vocabulary = SHAPES[shape]["vocab_size"]
    prompts, _, _ = work_of("each", vocabulary)
    greedy, _ = runner.run(prompts[:1], [4], 1, True)
    answer({"before_mib": before, "greedy": greedy})
    for line in sys.stdin:
        asked = json.loads(line)
        prompts, new, samples = work_of(asked["case"], vocabulary)
        if isinstance(runner, TransformersArm):
            runner.batch_size = asked.get("batch") or STATIC_BATCHES[-1]
        if isinstance(runner, LlamaCppArm) and asked.get("warm"):
            runner.run(prompts[:1], [1] * samples, 1, False)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        wall, cpu = time.perf_counter(), time.process_time()
        _, first = runner.run(prompts, new, samples, False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer(
            {
                "wall": wall,
                "cpu": cpu,
                "tokens": sum(new) * samples,
                "first": statistics.mean(first),
                "peak_mib": resident("VmHWM"),
            }
        )


class Worker(Arm):
    """An arm's process."""

    def __init__(self, arm: str, shape: str, folder: Path, core: int) -> None:
        super().__init__(__file__, "--arm", arm, "--shape", shape, "--folder", folder, "--core", str(core))

    def run(self, **asked: Any) -> dict[str, Any]:
        """Run a case."""
        return self.ask(json.dumps(asked))


def takes_part(arm: str, case: str) -> bool:
    """Whether an arm is measured on a case."""
    if arm == "herdlm":
        return True
    if arm == "transformers bfloat16":
        return case == PROBE
    return case in (
        ("each", "mixed", "one", "samples") if arm.startswith("transformers") else ("each", "one", "samples")
    )


def measure(workers: dict[str, Worker], case: str, rounds: int, static_batches: tuple[int, ...]) -> dict[str, Any]:
    """All arms on one case, in turn."""
    arms = [arm for arm in workers if takes_part(arm, case)]
    batches: dict[str, int | None] = dict.fromkeys(arms)
    for arm in arms:
        if arm == "transformers float32" and case in ("each", "mixed"):
            tried = {}
            for size in static_batches if len(static_batches) > 1 else ():
                tried[size] = workers[arm].run(case=case, batch=size)["cpu"]
            batches[arm] = min(tried, key=lambda size: tried[size]) if tried else static_batches[0]
    taken: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in arms if number % 2 else arms[::-1]:
            taken[arm].append(workers[arm].run(case=case, batch=batches[arm], warm=number == 0))
    found = {}
    for arm, runs in taken.items():
        tokens = runs[0]["tokens"]
        found[arm] = {
            "tokens_per_second": round(tokens / statistics.median(run["wall"] for run in runs), 1),
            "tokens_per_cpu_second": round(tokens / statistics.median(run["cpu"] for run in runs), 1),
            "first_token_seconds": round(statistics.median(run["first"] for run in runs), 3),
            "peak_mib": round(max(run["peak_mib"] for run in runs)),
            "before_model_mib": round(workers[arm].ready["before_mib"]),
            "runs": [{key: round(value, 3) for key, value in run.items()} for run in runs],
        } | ({"static_batch": batches[arm]} if batches[arm] else {})
    return found


def ratios(cases: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """herdlm over each peer's fastest form, and over itself without sharing, beside the goals."""
    rows = []
    for (case, peer), goal in GOALS.items():
        if case not in cases or "herdlm" not in cases[case]:
            continue
        others = cases.get("apart", {}) if peer == "apart" else cases[case]
        names = ["herdlm"] if peer == "apart" else [arm for arm in others if arm.startswith(peer)]
        for arm in names if others else []:
            ratio = {"case": case, "over": peer if peer == "apart" else arm, "goal": goal}
            for key, short in (("tokens_per_second", "wall"), ("tokens_per_cpu_second", "cpu")):
                ratio[short] = round(cases[case]["herdlm"][key] / others[arm][key], 2)
            rows.append(ratio)
    return rows


def hardware() -> dict[str, Any]:
    """What the numbers belong to."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(
        (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "unknown"
    )
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    versions = {}
    for name in ("torch", "transformers", "numpy", "llama-cpp-python"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": model,
        "units": flags,
        "cores": os.cpu_count(),
        "cores_used": 1,
        "python": platform.python_version(),
        **versions,
    }


def save_model(shape: str, folder: Path) -> None:
    """Random weights in BF16."""
    import torch

    from herdlm.model.config import ModelConfig
    from herdlm.model.hf import save_folder
    from herdlm.model.transformer import build, initialize

    model = build(ModelConfig(max_seq_len=2048, **SHAPES[shape]))
    initialize(model, 0, std=0.05)
    save_folder(model.to(torch.bfloat16), folder)


def main() -> None:
    """Run the comparison and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="B")
    parser.add_argument("--cases", nargs="+", choices=(*CASES, PROBE), default=[*CASES, PROBE])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--static-batches", nargs="+", type=int, default=list(STATIC_BATCHES))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        work(given.arm, given.shape, given.folder, given.core)
        return
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "shape": SHAPES[given.shape],
        "rounds": given.rounds,
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"generate-cpu-{report['date']}.json"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_model(given.shape, folder)
        workers = {arm: Worker(arm, given.shape, folder, given.core) for arm in given.arms}
        greedy = {arm: tuple(worker.ready["greedy"]) for arm, worker in workers.items()}
        if len({tokens for arm, tokens in greedy.items() if arm != "transformers bfloat16"}) > 1:
            raise RuntimeError(f"the arms do not generate the same: {greedy}")
        report["cases"] = {}
        for case in given.cases:
            report["cases"][case] = measure(
                workers, case, given.rounds * (3 if case in ("one", PROBE) else 1), tuple(given.static_batches)
            )
            print(f"\n{case:>24}   tokens/s  per CPU s  first token s   peak MiB", flush=True)
            for arm, row in report["cases"][case].items():
                speeds = f"{row['tokens_per_second']:>10,.1f} {row['tokens_per_cpu_second']:>10,.1f}"
                print(f"{arm:>24} {speeds} {row['first_token_seconds']:>14.2f} {row['peak_mib']:>10,}", flush=True)
            report["ratios"] = ratios(report["cases"])
            report["load_at_end"] = [round(value, 2) for value in os.getloadavg()]
            target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for worker in workers.values():
            worker.close()
    for row in report["ratios"]:
        print(
            f"{row['case']:>8} over {row['over']:<22} {row['wall']:.2f} x, CPU time {row['cpu']:.2f} x, "
            f"goal {row['goal']}"
        )
    print(f"\nwritten to {target.name}")


if __name__ == "__main__":
    main()
