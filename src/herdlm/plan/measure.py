"""Measures a machine's products, attention, memory and collectives, and writes them as a hardware file."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional

from herdlm.base.errors import InputError
from herdlm.plan.hardware import Catalog, Measured

SIZES = {"cpu": (128, 256, 512, 1024, 2048), "cuda": (512, 1024, 2048, 4096, 8192)}
ROWS = {"cpu": 1024, "cuda": 8192}  # tokens of a row of attention
HEADS, HEAD_SIZE = 16, 128
COPIED = {"cpu": 2**28, "cuda": 2**31}  # bytes
REDUCED = {"cpu": 2**25, "cuda": 2**30}
AT_LEAST = 0.2  # seconds that each measurement repeats for


def measure(device: str) -> tuple[Measured, dict[int, float]]:
    """What a device reaches, and FLOP/s of square products by size.

    With RANK in the environment all processes of the group measure its all-reduce together.
    """
    place = torch.device(device)
    by_size = {size: _product(size, place) for size in SIZES[place.type]}
    best = max(by_size.values())
    return (
        Measured(
            gemm_tflops=best / 1e12,
            gemm_ramp=ramp_of(by_size),
            attention_tflops=_attention(place) / 1e12,
            memory_gb_s=_copy(place) / 1e9,
            collective_gb_s=_reduce(place) / 1e9,
        ),
        by_size,
    )


def ramp_of(by_size: dict[int, float]) -> float:
    """The ramp r with which rate / best is nearest to 1 / (1 + r / n)^3, by the median over the smaller sizes."""
    best = max(by_size.values())
    found = sorted(size * ((best / rate) ** (1 / 3) - 1) for size, rate in by_size.items() if rate < best)
    return found[len(found) // 2] if found else 0.0


def _seconds(run: Callable[[], object], place: torch.device) -> float:
    """The shortest time of a call, after one that warms up."""

    def once() -> float:
        started = time.perf_counter()
        run()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter() - started

    once()
    found = [once()]
    while sum(found) < AT_LEAST and len(found) < 1000:
        found.append(once())
    return min(found)


def _product(size: int, place: torch.device) -> float:
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=place) for _ in range(2))
    return 2.0 * size**3 / _seconds(lambda: a @ b, place)


def _attention(place: torch.device) -> float:
    rows = ROWS[place.type]
    q, k, v = (
        torch.randn(1, HEADS, rows, HEAD_SIZE, dtype=torch.bfloat16, device=place, requires_grad=True) for _ in range(3)
    )

    def run() -> None:
        functional.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]

    return 3.5 * 2.0 * rows * rows * HEADS * HEAD_SIZE / _seconds(run, place)


def _copy(place: torch.device) -> float:
    source = torch.empty(COPIED[place.type], dtype=torch.uint8, device=place).zero_()
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _seconds(lambda: target.copy_(source), place)


def _reduce(place: torch.device) -> float:
    """Bus bandwidth of an all-reduce; 0 for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0.0
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    members = dist.get_world_size()
    values = torch.zeros(REDUCED[place.type] // 4, device=place)
    times = []
    for _ in range(5):  # as often on every rank
        begun = time.perf_counter()
        dist.all_reduce(values)
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        times.append(time.perf_counter() - begun)
    if started:
        dist.destroy_process_group()
    return 2 * (members - 1) / members * 4 * values.numel() / min(times)


def hardware_text(name: str, device: str, measured: Measured, by_size: dict[int, float], catalog: Catalog) -> str:
    """The measurements as a hardware file: on top of a known GPU, or as a machine of its own."""
    shapes = ", ".join(f"{size}: {rate / 1e12:.4g}" for size, rate in by_size.items())
    lines = [f"# Square products in BF16, TFLOP/s by size: {shapes}", f"[gpus.{name}]"]
    known = _known(catalog) if torch.device(device).type == "cuda" else None
    if known is not None:
        lines.append(f'like = "{known}"')
    else:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        if torch.device(device).type == "cuda":
            gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        lines += [
            f"bf16_tflops = {measured.gemm_tflops:.6g}",
            f"fp8_tflops = {measured.gemm_tflops:.6g}",
            f"memory_gib = {gib:.4g}",
            f"memory_tb_s = {measured.memory_gb_s / 1000:.6g}",
            "watts = 0 # not measured",
            "dollars_per_hour = 0",
            'architecture = "other"',
            f'system = "{name}"',
        ]
    lines += [f"[gpus.{name}.measured]", *(f"{key} = {value:.6g}" for key, value in asdict(measured).items())]
    if known is None:
        rate = measured.collective_gb_s or measured.memory_gb_s
        lines += [
            f"[links.{name}]",
            'kind = "host"',
            f"gb_s = {rate:.6g}",
            "latency_us = 20",
            f"[networks.{name}]",
            'kind = "ethernet"',
            "gb_s = 1.25",
            "latency_us = 50",
            'levels = [{ name = "cluster", gpus = 0, oversubscription = 1 }]',
            f"[systems.{name}]",
            f"gpus_per_node = {max(int(os.environ.get('LOCAL_WORLD_SIZE', '1')), 1)}",
            f'link = "{name}"',
            f'network = "{name}"',
        ]
    return "\n".join(lines) + "\n"


def _known(catalog: Catalog) -> str | None:
    try:
        return catalog.find_gpu(torch.cuda.get_device_name())
    except InputError:
        return None


def write_hardware(path: Path, name: str, text: str) -> None:
    """Write the file at once, so that a reader never sees a part of it.

    Raises:
        InputError: the name is no bare key of TOML, or the file exists.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{name!r} is no name of a GPU in a hardware file", "Use letters, digits, - and _")
    if path.exists():
        raise InputError(f"{path} exists", "Remove it, or give another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(path)
