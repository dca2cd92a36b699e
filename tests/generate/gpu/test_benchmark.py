"""The benchmark of generation on a GPU runs, on a CPU and a small shape, and its figures mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import warm

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "gpu_generate.py"


def test_all_engines_run_and_are_compared(tmp_path):
    done = warm.run("benchmarks.gpu_generate", "--device", "cpu", "--tiny", "--out", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.glob("generate-gpu-tiny-*.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    runs, shape, rates = report["runs"], report["shape"], report["bytes_per_second"]
    assert [(run["precision"], run["cuda_graphs"]) for run in runs.values()] == [
        ("bf16", False),
        ("bf16", False),
        ("fp8", False),
    ]
    # Counted by hand: attention, feed-forward and norms of three layers, the last norm, the head; keys and values.
    layer = 64 * 16 * (2 * 4 + 2 * 2) + 3 * 64 * 96 + 2 * 64
    weights = 2 * (3 * layer + 64 + 96 * 64)
    for name, run in runs.items():
        for entry in run["decode"]:
            read = entry["batch"] * (shape["context"] + 3 + shape["steps"] / 2) * 2 * 3 * 2 * 16 * 2
            fp8 = 3 * 64 * 96 if name == "fp8" else 0  # of the one layer in the middle
            assert entry["bytes"] == weights - fp8 + read
            assert entry["tokens_per_second"] == pytest.approx(entry["batch"] / entry["step_seconds"], abs=0.1)
            share = entry["bytes"] / rates["copy"] / entry["step_seconds"]
            assert entry["share_of_bound"] == {"copy": pytest.approx(share, abs=1e-4)}
        split = run["parts_at_batch_1"]
        assert split["matrices"] > 0 and split["attention"] > 0 and split["rest_of_graph"] is None
    matrices = 3 * (layer - 2 * 64)
    flops = 2 * matrices * 48 + 2 * 96 * 64 * 2 + 2 * 3 * 64 * 24 * 48
    fill = runs["bf16"]["prefill"]
    assert fill["tflops"] == pytest.approx(flops / fill["step_seconds"] / 1e12, abs=0.01)
    ratio = fill["step_seconds"] / runs["fp8"]["prefill"]["step_seconds"]
    assert report["ratios"]["fp8_over_bf16_prefill"] == pytest.approx(ratio, abs=1e-3)
    assert 0 < report["ratios"]["greedy_tokens_alike_bf16_fp8"] <= 1
    assert str(PROGRAM.parent) not in file.read_text(encoding="utf-8")


def test_no_gpu_is_said_at_once(tmp_path):
    done = warm.run("benchmarks.gpu_generate", "--out", tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2 and "no CUDA device" in done.stderr and not list(tmp_path.iterdir())
