"""Training on files on two processes, against one: the same figures and weights in any layout."""

import os
import subprocess
import sys

import pytest

from herdlm.base.json_lines import json_lines
from herdlm.model.hf import load_folder
from tests.align.conftest import SMALL
from tests.align.jobs import job
from tests.align.laid_out import RUNS
from tests.parallel.processes import launch
from tests.run.conftest import ROOT

TAUGHT = {"distill": {"weight": 0.6, "temperature": 2.0, "top_k": 20}}
TOLERANCE = 2e-4  # of a weight's largest value, after three steps of Adam in float32

CASES = {
    "sft-tp": ("sft", {"tp": 2}, {"micro_batch_rows": 2}),
    "sft-lora": ("sft", {"dp_shard": 2}, {"lora": 4}),
    "sft-cp": ("sft", {"cp": 2}, {}),
    "sft-taught-tp": ("sft", {"tp": 2}, {"teacher": "teacher", "config": TAUGHT, "lora": 4}),
    "sft-taught-dp": ("sft", {"dp_shard": 2}, {"teacher": "teacher", "config": TAUGHT, "micro_batch_rows": 1}),
    "reward-dp": ("reward", {"dp_shard": 2}, {"micro_batch_rows": 1}),
    "dpo-tp": ("dpo", {"tp": 2}, {}),
    "dpo-lora": ("dpo", {"dp_shard": 2}, {"lora": 4, "merge": False}),
    "grpo-dp": ("grpo", {"dp_shard": 2}, {"micro_batch_rows": 1}),
    "grpo-replicated": ("grpo", {"dp_replicate": 2}, {"config": {"kl_weight": 0.1, "temperature": 0.9}}),
    "grpo-tp-lora": ("grpo", {"tp": 2}, {"lora": 4}),
    "grpo-pp": ("grpo", {"pp": 2}, {"micro_batch_rows": 1, "config": {"kl_weight": 0.1}}),
    "kto-dp": ("dpo", {"dp_shard": 2}, {"config": {"loss": "kto"}, "micro_batch_rows": 2}),
}


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    """All cases in one launch of two processes: their folder, and what each process returned, by case."""
    at = tmp_path_factory.mktemp("laid-out")
    calls = [(name, [str(folder), str(at / case), layout], more) for case, (name, layout, more) in CASES.items()]
    calls.append(("sft", [str(folder), str(at / "odd"), {"tp": 3}], {}))
    return at, dict(zip([*CASES, "odd"], launch("tests.align.laid_out:several", 2, calls), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does(folder, found, tmp_path, case):
    at, told = found
    first, second = told[case]
    assert second is None
    name, _, more = CASES[case]
    act, config, data = RUNS[name]
    more = dict(more)
    config = type(config).model_validate(config.model_dump(exclude_unset=True) | more.pop("config", {}))
    keys = dict(data=f"{data}.jsonl", held_out=folder / f"test-{data}.jsonl", steps=3) | more
    expected = act(job(folder, tmp_path / "one", **keys), config)
    assert first["steps"] == expected["steps"] == 3
    assert first["last_loss"] == pytest.approx(expected["last_loss"], abs=2e-4)
    if name == "sft":
        for figure in ("loss_before", "loss"):
            assert first["held_out"][figure]["value"] == pytest.approx(expected["held_out"][figure]["value"], abs=2e-4)
    if name == "grpo":
        assert first["held_out"] == expected["held_out"]
        assert first["sampled"] == expected["sampled"]
        one, two = (sorted((where / "samples").iterdir()) for where in (tmp_path / "one", at / case))
        assert len(one) == len(two) == 2
        for here, there in zip(one, two, strict=True):
            answers = [[s["answer"] for _, row in json_lines(path) for s in row["samples"]] for path in (here, there)]
            assert answers[0] == answers[1]
    if name == "dpo":
        drift = "chosen_drift_per_token"
        assert first["held_out"][drift] == pytest.approx(expected["held_out"][drift], abs=2e-3)
        assert first["held_out"]["sampled_answers"]["before"] == expected["held_out"]["sampled_answers"]["before"]
    if more.get("merge", True):
        one, two = load_folder(tmp_path / "one"), dict(load_folder(at / case).named_parameters())
        for weight, value in one.named_parameters():
            assert (two[weight] - value).abs().max() < TOLERANCE * value.abs().max() + 1e-5, weight
    else:
        assert (at / case / "adapter_model.safetensors").exists()


def test_no_process_holds_the_whole_model_that_training_starts_from(folder, tmp_path):
    cases = {"sft": {"tp": 2}, "reward": {"dp_shard": 2}, "dpo": {"pp": 2}}
    calls = [(name, [str(folder), str(tmp_path / name), layout], {}) for name, layout in cases.items()]
    calls[2][2]["held_out"] = None  # measuring DPO samples the whole model
    told = launch("tests.align.laid_out:from_parts", 2, calls)
    for (name, _, more), (first, _) in zip(calls, told, strict=True):
        act, config, data = RUNS[name]
        keys = dict(data=f"{data}.jsonl", held_out=folder / f"test-{data}.jsonl", steps=3) | more
        expected = act(job(folder, tmp_path / f"{name}-one", **keys), config)
        assert first["last_loss"] == pytest.approx(expected["last_loss"], abs=2e-4)
        one, two = (dict(load_folder(tmp_path / at).named_parameters()) for at in (f"{name}-one", name))
        for weight, value in one.items():
            assert (two[weight] - value).abs().max() < TOLERANCE * value.abs().max() + 1e-5, (name, weight)
        if name == "reward":
            assert first["held_out"]["accuracy"] == expected["held_out"]["accuracy"]


def test_a_layout_that_does_not_fit_ends_every_process_with_the_same_error(found):
    first, second = found[1]["odd"]
    assert first == second
    assert "parallel.tp" in first


@pytest.mark.slow
def test_the_command_line_trains_on_two_processes(folder, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "herdlm.cli", "dpo", str(folder / "base"), "--data", str(folder / "pairs.jsonl")),
            *("--out", str(tmp_path / "out"), *SMALL, "--set", "parallel.tp=2", "--steps", "2", "--processes", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"Model: {tmp_path / 'out'}") == 1
    load_folder(tmp_path / "out")
