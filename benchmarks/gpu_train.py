"""Training speed on one NVIDIA Hopper GPU: model FLOP utilization, where the time goes, and what FP8 adds.

    python benchmarks/gpu_train.py [--out benchmarks/results]           under 9 minutes on one GPU
    python benchmarks/gpu_train.py --device cpu --tiny                  the same code on small shapes, a test of it

Shapes are a 1B-class model and an 8-layer cut of the 8B, sequence 8,192, packed documents, FP32 weights under BF16
autocast, AdamW: the training loop's own objective, gradients, clipping and optimizer, with compiled layers. MFU counts
6 FLOPs per matrix weight and token and attention in full (12 x layers x heads x head size x sequence), against the
dense BF16 peak of 989 TFLOP/s. Published figures to hold it against: 62% (NeMo, 8B, 8 x H100) and 33 to 39%
(torchtitan, 8B, on H100 with a lower clock).

The split of a step is of parts timed alone at the step's shapes (forward and backward): attention, the layers' matrix
products, the head with its loss, the optimizer; the rest is what remains. The roofline is the step's arithmetic at the
peak plus the optimizer's bytes at the memory's rate.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.fp8_training import apply_fp8
from herdlm.model.losses import linear_logprobs
from herdlm.model.transformer import Layer, Transformer, build, initialize
from herdlm.parallel.blocks import apply_compile
from herdlm.tokens.batch import Batch, Piece, assemble
from herdlm.train.config import TrainConfig
from herdlm.train.loop import OneProcess, make_optimizer
from herdlm.train.objectives import NextToken

PEAK_FLOPS = 989e12  # H100 and H200 SXM, BF16, dense
PEAK_BYTES = 3.35e12  # H100 SXM
GOAL_MFU = 0.60
ADAMW_BYTES = 28  # read weight, gradient and two moments, write weight and moments, FP32 each


@dataclass(frozen=True)
class Shape:
    """A model and the tokens of one step."""

    model: ModelConfig
    rows: int
    seq_len: int


LARGE = {"vocab_size": 128_256, "kv_heads": 8, "heads": 32, "max_seq_len": 8192}
SHAPES = {
    "1b": Shape(ModelConfig(**LARGE, dim=2048, layers=16, ffn_dim=8192, tied_embeddings=True), 2, 8192),
    "8b-cut": Shape(ModelConfig(**LARGE, dim=4096, layers=8, ffn_dim=14_336), 1, 8192),
}
TINY = {"tiny": Shape(ModelConfig(vocab_size=96, dim=32, layers=2, heads=2, kv_heads=1, ffn_dim=48), 2, 64)}
STEPS, WARM_STEPS = 10, 4


def packed(shape: Shape, seed: int, *, whole: bool) -> Batch:
    """Random tokens in documents of log-normal length (median an eighth of the row), or one document a row."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(shape.rows):
        row: list[Piece] = []
        room = shape.seq_len
        while room:
            drawn = room if whole else int(generator.lognormal(np.log(shape.seq_len / 8), 0.8))
            length = min(max(drawn, 8), room)
            tokens = generator.integers(0, shape.model.vocab_size, length + 1)
            row.append(Piece(tokens, np.ones(length, np.float32)))
            room -= length
        rows.append(row)
    return assemble(rows, shape.seq_len, 0)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median wall time of ``work`` after one warm call."""
    taken = []
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """6 per matrix weight, the head included, and attention in full."""
    return config.flops_per_token(0) + 12 * config.layers * config.heads * config.head_size * seq_len


def prepare(shape: Shape, device: torch.device, *, compiled: bool, fp8: bool) -> Transformer:
    """A model ready to train."""
    model = build(shape.model, device)
    initialize(model, 0)
    for layer in model.model.layers:
        if fp8:
            apply_fp8(layer)
        if compiled:
            apply_compile(layer)
    return model.train()


def step_time(shape: Shape, device: torch.device, *, compiled: bool, fp8: bool, whole: bool) -> dict[str, Any]:
    """Time whole optimizer steps; seconds per step, loss and memory."""
    model = prepare(shape, device, compiled=compiled, fp8=fp8)
    optimizer = make_optimizer(model, TrainConfig(peak_lr=1e-4))
    run, objective = OneProcess(model), NextToken()
    batches = [packed(shape, seed, whole=whole) for seed in range(4)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, taken = [], []
    for number in range(WARM_STEPS + STEPS):
        synchronize(device)
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss, *_ = run.gradients(objective, [batches[number % 4]], torch.autocast(device.type, torch.bfloat16))
        run.clip(1.0)
        optimizer.step()
        synchronize(device)
        taken.append(time.perf_counter() - started)
        losses.append(float(loss))
    step = statistics.median(taken[WARM_STEPS:])
    tokens = shape.rows * shape.seq_len
    result = {
        "precision": "fp8 linear layers" if fp8 else "bf16",
        "compiled": compiled,
        "documents": "one per row" if whole else "packed",
        "step_seconds": step,
        "tokens_per_second": round(tokens / step, 1),
        "mfu_full_attention": round(tokens * flops_per_token(shape.model, shape.seq_len) / step / PEAK_FLOPS, 4),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "optimizer_seconds": seconds(optimizer.step, device),
    }
    if device.type == "cuda":
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return result


def attention_seconds(shape: Shape, device: torch.device, *, whole: bool) -> float:
    """Forward and backward of all layers' attention."""
    config = shape.model
    attend = DocumentAttention(packed(shape, 0, whole=whole).documents.to(device))
    sizes = (config.heads, config.kv_heads, config.kv_heads)
    q, k, v = (
        torch.randn(
            shape.rows, shape.seq_len, heads, config.head_size, device=device, dtype=torch.bfloat16
        ).requires_grad_()
        for heads in sizes
    )
    gradient = torch.randn_like(q)
    return config.layers * seconds(lambda: torch.autograd.grad(attend(0, q, k, v), (q, k, v), gradient), device)


def product_seconds(shape: Shape, device: torch.device, *, fp8: bool) -> float:
    """Forward and backward of the matrix products of all layers."""
    with device:
        layer = Layer(shape.model, 0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.02)
    if fp8:
        apply_fp8(layer)
    linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    tokens = shape.rows * shape.seq_len
    inputs = [
        torch.randn(tokens, linear.in_features, device=device, dtype=torch.bfloat16).requires_grad_()
        for linear in linears
    ]
    gradients = [torch.randn(tokens, n.out_features, device=device, dtype=torch.bfloat16) for n in linears]

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            outputs = [linear(x) for linear, x in zip(linears, inputs, strict=True)]
        torch.autograd.backward(outputs, gradients)

    return shape.model.layers * seconds(work, device)


def loss_seconds(shape: Shape, device: torch.device) -> float:
    """Forward and backward of the head and its loss."""
    config, tokens = shape.model, shape.rows * shape.seq_len
    hidden = torch.randn(tokens, config.dim, device=device).requires_grad_()
    head = torch.randn(config.vocab_size, config.dim, device=device).mul_(0.02).requires_grad_()
    targets = torch.randint(0, config.vocab_size, (tokens,), device=device)

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            total = linear_logprobs(hidden, head, targets).sum()
        torch.autograd.grad(total, (hidden, head))

    return seconds(work, device)


def split(shape: Shape, device: torch.device, step: dict[str, Any]) -> dict[str, float]:
    """A step's seconds by part, each timed alone, and the distance from the roofline."""
    whole = step["documents"] == "one per row"
    parts = {
        "attention": attention_seconds(shape, device, whole=whole),
        "matmul": product_seconds(shape, device, fp8=step["precision"] != "bf16"),
        "loss": loss_seconds(shape, device),
        "optimizer": step["optimizer_seconds"],
    }
    parts["rest"] = step["step_seconds"] - sum(parts.values())
    arithmetic = shape.rows * shape.seq_len * flops_per_token(shape.model, shape.seq_len) / PEAK_FLOPS
    roofline = arithmetic + shape.model.parameters * ADAMW_BYTES / PEAK_BYTES
    return {**parts, "roofline_seconds": roofline, "times_the_roofline": step["step_seconds"] / roofline}


def describe(device: torch.device) -> dict[str, Any]:
    """What the numbers belong to."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    return {"device": name, **versions, "herdlm": importlib.metadata.version("herdlm")}


def measure(shapes: dict[str, Shape], device: torch.device, *, compiled: bool) -> dict[str, Any]:
    """All arms of all shapes."""
    results: dict[str, Any] = {}
    for name, shape in shapes.items():
        runs = []
        for fp8, whole in ((False, True), (False, False), (True, True)):
            run = step_time(shape, device, compiled=compiled, fp8=fp8, whole=whole)
            run["split_seconds"] = split(shape, device, run)
            runs.append(run)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            torch._dynamo.reset()
        results[name] = {
            "model": shape.model.model_dump(exclude_none=True),
            "rows": shape.rows,
            "seq_len": shape.seq_len,
            "parameters": shape.model.parameters,
            "runs": runs,
            "fp8_speed_up": round(runs[0]["step_seconds"] / runs[2]["step_seconds"], 3),
        }
    return results


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    timed = ("attention", "matmul", "loss", "optimizer", "rest")
    head = ("shape", "precision", "documents", "tokens/s", "MFU", *timed, "x roofline")
    lines = [head]
    for name, result in results.items():
        for run in result["runs"]:
            parts = run["split_seconds"]
            shares = [f"{parts[part] / run['step_seconds']:.0%}" for part in timed]
            speed = (f"{run['tokens_per_second']:,.0f}", f"{run['mfu_full_attention']:.1%}")
            distance = f"{parts['times_the_roofline']:.2f}"
            lines.append((name, run["precision"], run["documents"], *speed, *shares, distance))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="small shapes, for a test of this program")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--eager", action="store_true", help="do not compile layers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; --device cpu --tiny tries the program itself")
    device = torch.device(given.device)
    shapes = TINY if given.tiny else {name: SHAPES[name] for name in given.shapes}
    started = time.monotonic()
    results = measure(shapes, device, compiled=not given.eager)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": describe(device),
        "peak_tflops": PEAK_FLOPS / 1e12,
        "mfu_count": "6 per matrix weight and token, attention in full; FP8 runs against the BF16 peak as well",
        "mfu_goal": GOAL_MFU,
        "seconds": round(time.monotonic() - started, 1),
        "shapes": results,
    }
    print(table(results))
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"train-gpu-{'tiny-' if given.tiny else ''}{report['date']}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {target.name}")


if __name__ == "__main__":
    main()
