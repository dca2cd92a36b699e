"""The training benchmarks run and mean what they say, on shapes small enough for a test."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests import warm

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, out: Path, *arguments: str) -> dict[str, Any]:
    done = warm.run(f"benchmarks.{name}", *arguments, "--out", out)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.json")
    text = file.read_text(encoding="utf-8")
    assert str(BENCHMARKS) not in text and str(Path.home()) not in text
    report: dict[str, Any] = json.loads(text)
    return report


def cpu_arms(out: Path, *arms: str) -> dict[str, Any]:
    report = run("train", out, "--shapes", "tiny", "--seq-len", "64", "--rounds", "1", "--arms", *arms)
    for arm in report["shapes"]["tiny"]["arms"].values():
        assert arm["share_of_matmul_peak"] > 0 and arm["peak_mib"] > arm["before_model_mib"] > 0
    return report


def test_an_arm_is_measured_on_a_cpu(tmp_path: Path) -> None:
    assert cpu_arms(tmp_path, "herdlm")["shapes"]["tiny"]["ratios"] == []


@pytest.mark.slow
def test_cpu_arms_start_from_one_loss_and_are_compared(tmp_path: Path) -> None:
    report = cpu_arms(tmp_path, "herdlm", "transformers")
    arms = report["shapes"]["tiny"]["arms"]
    assert arms["herdlm"]["first_loss"] == pytest.approx(arms["transformers"]["first_loss"], rel=2e-3)
    (ratio,) = report["shapes"]["tiny"]["ratios"]
    speeds = [arms[name]["tokens_per_second"] for name in ("herdlm", "transformers")]
    assert ratio["wall"] == pytest.approx(speeds[0] / speeds[1], abs=1e-3)
    assert {"cpu", "torch", "transformers"} <= report["hardware"].keys()


TINY = ("--shapes", "tiny", "--seq-len", "64", "--rounds", "1", "--rank", "2")


def test_fine_tuning_is_measured(tmp_path: Path) -> None:
    report = run("finetune", tmp_path, *TINY, "--arms", "herdlm")
    tasks = report["models"]["shape tiny"]
    assert tasks.keys() == {"sft", "dpo", "lora"}
    for task in tasks.values():
        assert task["arms"]["herdlm"]["tokens_per_second"] > 0 and task["ratios"] == []
    assert tasks["dpo"]["arms"]["herdlm"]["first_loss"] == pytest.approx(math.log(2), rel=1e-3)


@pytest.mark.slow
def test_fine_tuning_starts_from_the_losses_and_gradients_of_trl(tmp_path: Path) -> None:
    report = run("finetune", tmp_path, *TINY, "--precision", "float32")
    for task, results in report["models"]["shape tiny"].items():
        arms = results["arms"]
        assert len(arms) == 3
        for arm in arms.values():
            for key, tolerance in (("first_loss", 1e-5), ("first_gradient_norm", 1e-4)):
                assert arm[key] == pytest.approx(arms["herdlm"][key], rel=tolerance), (task, key)
        assert [ratio["ratio"] for ratio in results["ratios"]] == [f"herdlm / {arm}" for arm in arms][1:]
    reference = [
        report["models"]["shape tiny"]["dpo"]["arms"][arm]["reference"] for arm in ("herdlm", "trl precomputed")
    ]
    assert reference[0] == pytest.approx(reference[1], rel=1e-5)


def test_gpu_benchmark_on_a_cpu(tmp_path: Path) -> None:
    report = run("gpu_train", tmp_path, "--device", "cpu", "--tiny", "--eager")
    shape = report["shapes"]["tiny"]
    kinds = [(r["precision"], r["documents"]) for r in shape["runs"]]
    assert kinds == [("bf16", "one per row"), ("bf16", "packed"), ("fp8 linear layers", "one per row")]
    model = shape["model"]
    body = model["layers"] * (4 * 32 * 32 - 2 * 32 * 16 + 3 * 32 * 48)  # the key and value matrices are half as wide
    flops = 6 * (body + 96 * 32) + 12 * model["layers"] * 2 * 16 * shape["seq_len"]
    for run_ in shape["runs"]:
        assert run_["mfu_full_attention"] == pytest.approx(run_["tokens_per_second"] * flops / 989e12, abs=1e-4)
        parts = run_["split_seconds"]
        timed = sum(parts[name] for name in ("attention", "matmul", "loss", "optimizer", "rest"))
        assert timed == pytest.approx(run_["step_seconds"])
        assert run_["last_loss"] < run_["first_loss"] * 1.1
    assert shape["runs"][0]["first_loss"] == pytest.approx(shape["runs"][2]["first_loss"], rel=0.05)


def test_no_gpu_is_said_at_once(tmp_path: Path) -> None:
    done = warm.run("benchmarks.gpu_train", "--out", tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2 and "no CUDA device" in done.stderr and not list(tmp_path.iterdir())
