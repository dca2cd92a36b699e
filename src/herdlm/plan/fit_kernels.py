"""Fits the rates of kernels and links on published micro-benchmarks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean, median
from typing import Any

import numpy as np

from herdlm.plan.hardware import Catalog
from herdlm.plan.published import Row

SHRINK = 1.0  # rows' worth of the mean of all architectures in the share of each
LONG = 16_384  # tokens of a row of attention beyond which its rate stays


def fit_kernels(rows: Iterable[Row], catalog: Catalog) -> dict[str, Any]:
    """Constants of kernels and links by name."""
    micro = [row for row in rows if row.get("kind") == "microbench"]
    return {**_attention(micro), "gemm_best": _products(micro, catalog), **_links(micro)}


def _products(rows: list[Row], catalog: Catalog) -> dict[str, float]:
    """The share of the peak rate that the best product reaches, by architecture and precision.

    An architecture's share is drawn towards the mean of all, so that no single row decides it.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["what"].startswith("GEMM"):
            gpu = catalog.machine(row["gpu"]).gpu
            precision = "fp8" if "fp8" in row["precision"] else "bf16"
            found[f"{gpu.architecture}-{precision}"].append(row["tflops"] * 1e12 / gpu.peak(precision))
    shares = {}
    for precision in ("bf16", "fp8"):
        common = fmean(share for key, each in found.items() if key.endswith(precision) for share in each)
        shares[f"other-{precision}"] = common
        for key, each in found.items():
            if key.endswith(precision):
                shares[key] = (sum(each) + SHRINK * common) / (len(each) + SHRINK)
    shares.setdefault("ampere-fp8", shares["ampere-bf16"])
    return shares


def _attention(rows: list[Row]) -> dict[str, Any]:
    """Rates of attention under a causal mask, forward and backward, with what short rows and small heads lose.

    cuDNN and FlashAttention-3 were measured forward alone; their backward pass is assumed to lose as much as
    FlashAttention-2's, of which both are published.
    """
    peak = 989.4
    seen: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for row in rows:
        if not row.get("causal"):
            continue
        where = (row["seq_len"], row["head_dim"])
        if "backward" in row["what"]:
            seen["flash2-both"].append((*where, row["tflops"] / peak))
        for kernel, key in (("flash2", "tflops_fa2"), ("flash3", "tflops_fa3"), ("cudnn", "tflops_cudnn")):
            if row.get(key):
                seen[kernel].append((*where, row[key] / peak))
    ramps, powers, rates = [], [], {}
    for kernel, points in seen.items():
        full = [point for point in points if point[1] <= 128]
        best = _curve(full)
        rates[kernel], ramp, power = best
        ramps.append(ramp)
        powers.append(power)
    backward = rates["flash2-both"] / rates["flash2"]
    return {
        "attention_rate": {
            "flash2": rates["flash2-both"],
            "flash3": rates["flash3"] * backward,
            "cudnn": rates["cudnn"] * backward,
        },
        "attention_ramp": median(ramps),
        "attention_heads": median(powers),
    }


def _curve(points: list[tuple[int, int, float]]) -> tuple[float, float, float]:
    """(rate, ramp, power) of rate * (heads / 128)^power / (1 + ramp / row), by least squares on the inverse."""
    best = (math.inf, 0.0, 0.0, 0.0)
    for power in np.linspace(0, 1, 101):
        y = np.array([(heads / 128) ** power / share for _, heads, share in points])
        x = np.stack([np.ones(len(points)), np.array([1 / row for row, _, _ in points])], axis=1)
        scale = 1 / y
        (one, slope), *_ = np.linalg.lstsq(x * scale[:, None], y * scale, rcond=None)
        error = float((((x @ np.array([one, slope])) / y - 1) ** 2).sum())
        if error < best[0]:
            best = (error, float(1 / one), float(slope / one), float(power))
    return best[1:]


def _links(rows: list[Row]) -> dict[str, float]:
    """Shares of the specified rate of links and networks that rings reach on large messages."""
    specified = {"NVLink4 (8x H100, no SHARP)": 450, "NVLink3 (8x A100)": 300}
    link = [
        row["busbw_GBps_out_of_place"] / rate for row in rows for name, rate in specified.items() if name in row["what"]
    ]
    link += [row["busbw_GBps_out_of_place"] / 450 for row in rows if "(ring)" in row["what"]]
    network = {"400Gb RDMA, one NIC": 50, "NVL3 + 8x200Gb": 200, "NVL4 + 8x400Gb": 400}
    cards = [
        row["busbw_GBps_out_of_place"] / rate
        for row in rows
        for name, rate in network.items()
        if name in row["what"] and "SHARP" not in row["what"]
    ]
    return {"link": fmean(link), "network": fmean(cards)}
