"""Generation speed on one NVIDIA Hopper GPU: decoding against the memory's rate, throughput, prefill, and FP8's gain.

    python benchmarks/gpu_generate.py [--out benchmarks/results]        under 9 minutes on one GPU of 80 GB
    python benchmarks/gpu_generate.py --device cpu --tiny               the same code on a small shape, a test of it

Not measured so far: no GPU was at hand when this was written. The shape is the 8B's, the weights are random. Three
engines run one after the other: BF16 from CUDA graphs, BF16 launched step by step, and FP8 (the feed-forward of all
layers but the first and the last, quantized in memory by the product's own functions) from graphs.

- decode: one engine step, drawing and the host's work included, at batch 1, 64 and 256; its share of the bound is the
  time that reading the weights and the cache once would take at the memory's rate, over the time it took: at the rate
  of a large copy measured here (bytes read plus bytes written), and at the datasheet's. Goal: 70% at batch 1.
- parts of a step at batch 1: all matrices with SwiGLU, and RoPE with writing and attention, each recorded and replayed
  alone; the rest of the graph (norms, embedding, gaps); drawing and the host.
- prefill: 8 prompts of 2,048 tokens in one step; TFLOP/s count 2 per matrix weight and token and attention as causal.
  Goal: FP8 1.4 times as fast as BF16.
- samples: 16 of one prompt of 512 tokens, and 16 prompts of as many tokens that share nothing.

A run fails if a log-probability is not finite, or if graphs give other tokens than launches.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import herdlm
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.gpu.attention import PlannedAttention, attention_type
from herdlm.generate.gpu.graphs import recorder
from herdlm.generate.paged_attention import StepInput, bytes_per_token
from herdlm.model.config import ModelConfig
from herdlm.model.fp8 import quantize, weight_scale
from herdlm.model.transformer import Transformer, build

PEAK_FLOPS = 989e12  # H100 and H200 SXM, BF16, dense
DATASHEET_BYTES = {"H200": 4.8e12, "H100": 3.35e12}  # SXM
GOAL_SHARE, GOAL_FP8 = 0.70, 1.4
CAP = 1200.0


@dataclass(frozen=True)
class Shape:
    """A model and what it is asked.

    Attributes:
        batches, context, steps: sequences that decode together, the tokens before them, and the steps that are timed.
        prompts, prompt_tokens: of the prefill.
        samples, sample_prompt, sample_tokens: samples of one prompt, its tokens, and theirs.
        copied: bytes of the copy that measures the memory's rate.
    """

    model: ModelConfig
    batches: tuple[int, ...]
    context: int
    steps: int
    prompts: int
    prompt_tokens: int
    samples: int
    sample_prompt: int
    sample_tokens: int
    copied: int


EIGHT = ModelConfig(vocab_size=128_256, dim=4096, layers=32, heads=32, kv_heads=8, ffn_dim=14_336, max_seq_len=8192)
FULL = Shape(EIGHT, (1, 64, 256), 512, 48, 8, 2048, 16, 512, 128, 2**32)
SMALL = ModelConfig(vocab_size=96, dim=64, layers=3, heads=4, kv_heads=2, ffn_dim=96, max_seq_len=128)
TINY = Shape(SMALL, (1, 3), 9, 3, 2, 24, 3, 20, 4, 2**16)
WARM, CHECKED, CHECKED_TOKENS = 3, 4, 16  # steps, prompts, and tokens of each


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: torch.device, *, calls: int = 1, repeats: int = 5) -> float:
    """Median time of one call of ``work``, of ``calls`` that follow on each other, after one to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        taken.append((time.perf_counter() - started) / calls)
    return statistics.median(taken)


def copy_rate(shape: Shape, device: torch.device) -> float:
    """Bytes read plus bytes written per second by a large copy."""
    source = torch.randint(0, 255, (shape.copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * shape.copied / seconds(lambda: target.copy_(source), device, calls=4)


@torch.no_grad()
def random_model(config: ModelConfig, device: torch.device, *, fp8: bool) -> Transformer:
    """The same random weights for the same shape, made on the device."""
    model = build(config, device, torch.bfloat16)
    draw = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=parameter.shape[1] ** -0.5, generator=draw)
    for layer in model.model.layers[1:-1] if fp8 else ():
        for name in ("gate_proj", "up_proj", "down_proj"):
            whole = getattr(layer.mlp, name)
            with torch.device("meta"):
                linear = Fp8Linear(whole.in_features, whole.out_features, "row", CAP)
            weight = whole.weight.float()
            linear.weight_scale = weight_scale(weight.abs().amax(-1, keepdim=True))
            linear.weight = quantize(weight, linear.weight_scale)
            setattr(layer.mlp, name, linear)
    return model.requires_grad_(False)


def make_engine(shape: Shape, device: torch.device, *, fp8: bool, graphs: bool) -> Engine:
    """An engine with room for the largest batch, which takes the whole prefill in one step."""
    room = max(shape.batches) * (shape.context + shape.steps + WARM + 32)
    room += shape.prompts * (shape.prompt_tokens + 16) + shape.samples * (
        shape.sample_prompt + shape.sample_tokens + 32
    )
    return Engine(
        random_model(shape.model, device, fp8=fp8),
        None,
        cache_tokens=room,
        keep_model=False,
        cuda_graphs=graphs,
        max_batch=max(*shape.batches, shape.samples, CHECKED),
        step_tokens=shape.prompts * shape.prompt_tokens,
    )


def prompts(shape: Shape, count: int, length: int, seed: int) -> list[list[int]]:
    """Random prompts, no two alike."""
    return np.random.default_rng(seed).integers(0, shape.model.vocab_size, (count, length)).tolist()


def step_bytes(shape: Shape, batch: int, context: float, *, fp8: bool) -> float:
    """Bytes that a decode step must read: every matrix once, the embedding's rows left out, and the cache."""
    config = shape.model
    feed_forward = 3 * config.dim * config.ffn_dim
    weights = 2 * (config.body_parameters + config.vocab_size * config.dim)
    weights -= (config.layers - 2) * feed_forward if fp8 else 0
    return weights + batch * context * bytes_per_token(config, torch.bfloat16)


def prefill_flops(shape: Shape) -> float:
    """2 per matrix weight and token, the head's for the last token of each prompt; attention causal."""
    config, tokens = shape.model, shape.prompts * shape.prompt_tokens
    body = config.body_parameters - (2 * config.layers + 1) * config.dim
    attention = 2 * config.layers * config.heads * config.head_size * shape.prompt_tokens * tokens
    return 2.0 * body * tokens + 2.0 * config.vocab_size * config.dim * shape.prompts + attention


def start_decoding(engine: Engine, asked: list[list[int]], tokens: int) -> list[int]:
    """Submit prompts and step until all of them decode; their request ids."""
    params = SamplingParams(max_tokens=tokens)
    ids = [engine.submit(prompt, params, stream=False) for prompt in asked]
    rows = engine.scheduler.sequences
    while engine.scheduler.waiting or (rows.length - rows.computed)[rows.running()].max() > 1:
        engine.step()
    return ids


def decode(engine: Engine, shape: Shape, batch: int, rates: dict[str, float], *, fp8: bool) -> dict[str, Any]:
    """Time engine steps in which ``batch`` sequences draw a token each."""
    total = shape.steps + WARM + 8
    ids = start_decoding(engine, prompts(shape, batch, shape.context, 10 + batch), total)
    taken = []
    for _ in range(WARM + shape.steps):
        started = time.perf_counter()
        engine.step()  # it ends with the tokens on the host
        taken.append(time.perf_counter() - started)
    for request in ids:
        engine.abort(request)
    step = statistics.median(taken[WARM:])
    bound = step_bytes(shape, batch, shape.context + WARM + shape.steps / 2, fp8=fp8)
    return {
        "batch": batch,
        "context": shape.context,
        "step_seconds": step,
        "tokens_per_second": round(batch / step, 1),
        "bytes": bound,
        "share_of_bound": {name: round(bound / rate / step, 4) for name, rate in rates.items()},
    }


def prefill(engine: Engine, shape: Shape) -> dict[str, Any]:
    """Time the step that takes all prompts."""
    taken = []
    for repeat in range(4):
        for prompt in prompts(shape, shape.prompts, shape.prompt_tokens, 100 + repeat):
            engine.submit(prompt, SamplingParams(max_tokens=1), stream=False)
        started = time.perf_counter()
        engine.step()
        taken.append(time.perf_counter() - started)
        assert not engine.busy, "the prompts did not fit into one step"
    step = statistics.median(taken[1:])
    rate = prefill_flops(shape) / step
    return {
        "step_seconds": step,
        "tokens_per_second": round(shape.prompts * shape.prompt_tokens / step, 1),
        "tflops": round(rate / 1e12, 2),
        "share_of_bf16_peak": round(rate / PEAK_FLOPS, 4),
    }


def feed_forward_seconds(engine: Engine, shape: Shape) -> float:
    """One layer's feed-forward over the tokens of the prefill."""
    x = torch.randn(shape.prompts * shape.prompt_tokens, shape.model.dim, device=engine.device, dtype=engine.compute)
    return seconds(lambda: engine.model.model.layers[1].mlp(x), engine.device, calls=3)


def samples(engine: Engine, shape: Shape) -> dict[str, float]:
    """Tokens per second of samples of one prompt, and of prompts that share nothing."""
    speeds = {}
    for name, count, each in (("one prompt", 1, shape.samples), ("apart", shape.samples, 1)):
        taken = []
        for repeat in range(2):
            asked = prompts(shape, count, shape.sample_prompt, 200 + repeat + count)
            started = time.perf_counter()
            engine.generate(asked, SamplingParams(max_tokens=shape.sample_tokens, n=each))
            taken.append(time.perf_counter() - started)
        speeds[name] = round(shape.samples * shape.sample_tokens / taken[-1], 1)
    return {**speeds, "gain": round(speeds["one prompt"] / speeds["apart"], 3)}


def attention_work(engine: Engine, shape: Shape) -> Callable[[], None]:
    """Attention of all layers for one sequence that decodes, with RoPE and the writing of its keys and values."""
    config, size, cache = shape.model, engine.pool.page_size, engine.cache
    position, tables = np.array([shape.context]), np.arange(1, engine.pool.pages_for(shape.context + 1) + 1)[None]
    slots = tables[0, position // size] * size + position % size
    step = StepInput(
        np.zeros(1, np.int32), position, slots, position, np.ones(1, np.int64), tables, np.zeros((2, 0), np.int64)
    )
    attend = attention_type(cache)(cache, step)
    heads = torch.randn(
        1, config.heads + 2 * config.kv_heads, config.head_size, device=engine.device, dtype=engine.compute
    )
    rotation = torch.ones(1, 1, config.head_size // 2, dtype=torch.complex64, device=engine.device)
    q, k, v = heads[None].split((config.heads, config.kv_heads, config.kv_heads), dim=2)

    def work() -> None:
        for layer in range(config.layers):
            if isinstance(attend, PlannedAttention):
                attend.attend_unrotated(layer, heads, rotation)
            else:
                attend(layer, q, k, v)

    return work


def matrix_work(engine: Engine, shape: Shape) -> Callable[[], None]:
    """All matrices for one token, and the head."""
    config, model = shape.model, engine.model

    def drawn(size: int) -> Tensor:
        return torch.randn(1, size, device=engine.device, dtype=engine.compute)

    x, mixed = drawn(config.dim), drawn(config.heads * config.head_size)

    def work() -> None:
        for layer in model.model.layers:
            layer.qkv(x)
            layer.out(mixed)
            layer.mlp(x)
        model.logits(x)

    return work


@torch.inference_mode()
def parts(engine: Engine, shape: Shape, step: float) -> dict[str, float | None]:
    """Seconds of a decode step at batch 1 by part; without graphs there is no rest of one."""
    device, record = engine.device, recorder(engine.device)
    found: dict[str, float | None] = {
        name: seconds(record(work(engine, shape)), device, calls=10)
        for name, work in (("matrices", matrix_work), ("attention", attention_work))
    }
    graph = seconds(engine._graphs.steps[1], device, calls=10) if engine._graphs else None
    rest = None if graph is None else graph - found["matrices"] - found["attention"]
    engine.pool.forget_contents()  # pages have been written over
    return {**found, "rest_of_graph": rest, "draw_and_host": None if graph is None else step - graph}


def greedy(engine: Engine, shape: Shape) -> list[list[int]]:
    """Tokens for a few prompts, each the most likely; their log-probabilities are checked."""
    asked = prompts(shape, CHECKED, shape.sample_prompt, 300)
    done = engine.generate(asked, SamplingParams(max_tokens=CHECKED_TOKENS, temperature=0.0, logprobs=True))
    assert all(math.isfinite(value) for (one,) in done for value in one.logprobs), "a logit is not finite"
    return [one.tokens for (one,) in done]


def run_arm(shape: Shape, device: torch.device, rates: dict[str, float], *, fp8: bool, graphs: bool) -> dict[str, Any]:
    """All figures of one engine."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    engine = make_engine(shape, device, fp8=fp8, graphs=graphs)
    result: dict[str, Any] = {
        "precision": "fp8" if fp8 else "bf16",
        "cuda_graphs": engine._graphs is not None,
        "greedy": greedy(engine, shape),
        "decode": [decode(engine, shape, batch, rates, fp8=fp8) for batch in shape.batches],
    }
    result["parts_at_batch_1"] = parts(engine, shape, result["decode"][0]["step_seconds"])
    if graphs:
        result["prefill"] = prefill(engine, shape)
        result["feed_forward_seconds"] = feed_forward_seconds(engine, shape)
        result["samples"] = samples(engine, shape)
    if device.type == "cuda":
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def measure(shape: Shape, device: torch.device) -> dict[str, Any]:
    """All engines, one after the other, and what their figures say together."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    datasheet = next((rate for kind, rate in DATASHEET_BYTES.items() if kind in name), None)
    rates = {"copy": copy_rate(shape, device)} | ({"datasheet": datasheet} if datasheet else {})
    runs = {}
    for arm, fp8, graphs in (("bf16", False, True), ("bf16 launched", False, False), ("fp8", True, True)):
        runs[arm] = run_arm(shape, device, rates, fp8=fp8, graphs=graphs)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    drawn = {arm: run.pop("greedy") for arm, run in runs.items()}
    assert drawn["bf16"] == drawn["bf16 launched"], "graphs give other tokens than launches"
    same = [
        a == b for one, other in zip(drawn["bf16"], drawn["fp8"], strict=True) for a, b in zip(one, other, strict=True)
    ]
    bf16, launched, fp8 = runs.values()
    return {
        "bytes_per_second": rates,
        "runs": runs,
        "ratios": {
            "graphs_over_launches": [
                round(b["step_seconds"] / a["step_seconds"], 3)
                for a, b in zip(bf16["decode"], launched["decode"], strict=True)
            ],
            "fp8_over_bf16_prefill": round(bf16["prefill"]["step_seconds"] / fp8["prefill"]["step_seconds"], 3),
            "fp8_over_bf16_feed_forward": round(bf16["feed_forward_seconds"] / fp8["feed_forward_seconds"], 3),
            "fp8_over_bf16_decode": [
                round(a["step_seconds"] / b["step_seconds"], 3)
                for a, b in zip(bf16["decode"], fp8["decode"], strict=True)
            ],
            "greedy_tokens_alike_bf16_fp8": round(sum(same) / len(same), 3),
        },
        "goals": {"share_of_bound_at_batch_1": GOAL_SHARE, "fp8_over_bf16_prefill": GOAL_FP8},
    }


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [("engine", "batch", "ms a step", "tokens/s", "share of bound", "prefill TFLOP/s", "samples/apart")]
    for arm, run in results["runs"].items():
        for entry in run["decode"]:
            shares = ", ".join(f"{share:.0%} of {name}" for name, share in entry["share_of_bound"].items())
            more = (
                (f"{run['prefill']['tflops']:,.0f}", f"{run['samples']['gain']:.2f}") if "prefill" in run else ("", "")
            )
            figures = (f"{entry['step_seconds'] * 1e3:.2f}", f"{entry['tokens_per_second']:,.0f}", shares)
            lines.append((arm, str(entry["batch"]), *figures, *more))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    for arm, run in results["runs"].items():
        split = {name: value for name, value in run["parts_at_batch_1"].items() if value is not None}
        text.append(f"{arm}, batch 1: " + ", ".join(f"{name} {value * 1e3:.2f} ms" for name, value in split.items()))
    return "\n".join([*text, f"ratios: {results['ratios']}", f"goals: {results['goals']}"])


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a small shape, for a test of this program")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; --device cpu --tiny tries the program itself")
    device, shape = torch.device(given.device), TINY if given.tiny else FULL
    started = time.monotonic()
    results = measure(shape, device)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": {"device": name, **versions, "herdlm": herdlm.__version__},
        "shape": {**asdict(shape), "model": shape.model.model_dump(exclude_none=True)},
        "seconds": round(time.monotonic() - started, 1),
        **results,
    }
    print(table(results))
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"generate-gpu-{'tiny-' if given.tiny else ''}{report['date']}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {target.name}")


if __name__ == "__main__":
    main()
