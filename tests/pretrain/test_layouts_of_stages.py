"""Stages with gates, and probes, on two processes against one: in any layout, cut off, and stopped by a gate."""

import json
import os
import subprocess
import sys

import pytest
import torch

from herdlm.model.hf import load_folder, save_folder
from herdlm.recipe import read_recipe
from tests.conftest import small_model
from tests.parallel.processes import launch
from tests.pretrain.laid_out import FLOAT32
from tests.pretrain.test_staged_pretraining import KEYS, staged
from tests.run.conftest import ROOT
from tests.scaling.test_anneal_probe import KEYS as PROBE_KEYS
from tests.scaling.test_anneal_probe import data, probe  # noqa: F401 - a fixture

TOLERANCE = 1e-5  # float32, of a weight's largest value
STRICT = "pretrain.gate.needle_rate=0.5"
SELDOM = "pretrain.train.checkpoint_every_steps=20"
UNTIED = ["herd.tied_embeddings=false"]


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    """A BF16 folder to start from, of another shape than the recipe's model."""
    folder = tmp_path_factory.mktemp("start")
    save_folder(small_model(seed=5, max_seq_len=64, attention_bias=True), folder, dtype=torch.bfloat16)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def found(data, start, tmp_path_factory):  # noqa: F811
    """All functions of :mod:`tests.pretrain.laid_out` in one launch of two processes, and their folder."""
    folder = tmp_path_factory.mktemp("laid-out")
    calls = [
        ("staged", [str(data), str(folder / "stopped"), ["parallel.tp=2", SELDOM, STRICT]]),
        ("staged", [str(data), str(folder / "stopped"), ["parallel.tp=2", SELDOM], 41]),
        ("staged", [str(data), str(folder / "stopped"), ["parallel.cp=2", SELDOM]]),
        ("staged", [str(data), str(folder / "started"), ["parallel.tp=2", SELDOM], None, str(start)]),
        ("probe", [str(data), str(folder / "probe"), ["parallel.pp=2", SELDOM, *UNTIED]]),
        ("staged", [str(data), str(folder / "odd"), ["parallel.cp=2", "pretrain.seq_len=18"]]),
    ]
    return folder, launch("tests.pretrain.laid_out:several", 2, calls)


def test_processes_start_from_a_folder_as_one_does(data, start, found):  # noqa: F811
    folder, (_, _, _, started, *_) = found
    assert started["ended"] == ["", ""]
    _, expected = staged(data, folder / "started-alone", FLOAT32, SELDOM, start=start)
    counts = started["counts"][0]
    assert counts["validation_nats_per_token"] == pytest.approx(expected["validation_nats_per_token"], rel=1e-5)
    one, two = (load_folder(folder / name) for name in ("started-alone", "started"))
    assert one.config == two.config
    assert one.config.attention_bias and one.config.max_seq_len == 128
    weights = dict(one.named_parameters())
    for name, value in two.named_parameters():
        assert (value - weights[name]).abs().max() <= 1e-4 * weights[name].abs().max(), name


def test_a_gate_that_fails_ends_every_process_with_the_same_error_and_leaves_one_folder(found):
    _, (failed, *_) = found
    assert failed["ended"][0] == failed["ended"][1]
    assert failed["ended"][0].startswith("HerdError 1: the gate of long-context stage 1 at step 35 failed: it")
    assert not failed["published"]
    assert {path.split("/")[0] for path in failed["failed"]} == {"failed-gate-1"}
    names = {path.split("/")[1] for path in failed["failed"]}
    assert names >= {"gate.json", "config.json", "model.safetensors", "tokenizer.json", "events.jsonl"}


def test_with_a_wider_gate_the_same_run_goes_on_in_another_layout_to_the_weights_of_one_process(data, found):  # noqa: F811
    folder, (_, cut_off, done, *_) = found
    assert cut_off["ended"] == ["cut off", "cut off"]
    assert cut_off["first_step"] == 35  # not one of its steps is taken again
    assert done["first_step"] == 40
    assert done["ended"] == ["", ""]
    assert done["counts"][1] == {}
    _, expected = staged(data, folder / "whole", FLOAT32, SELDOM)
    counts = done["counts"][0]
    assert counts["validation_nats_per_token"] == pytest.approx(expected["validation_nats_per_token"], rel=1e-5)
    assert [(gate["stage"], gate["needles"]) for gate in counts["gates"]] == [
        (gate["stage"], gate["needles"]) for gate in expected["gates"]
    ]
    for gate, other in zip(counts["gates"], expected["gates"], strict=True):
        assert gate["short_loss"] == pytest.approx(other["short_loss"], rel=1e-5)
        assert gate["short_loss_allowed"] == pytest.approx(other["short_loss_allowed"], rel=1e-5)
    one, two = load_folder(folder / "whole"), load_folder(folder / "stopped")
    assert one.config == two.config
    assert two.config.rope_scaling.original_max_position_embeddings == 32
    weights = dict(two.named_parameters())
    for name, value in one.named_parameters():
        assert (weights[name] - value).abs().max().item() < TOLERANCE * value.abs().max().item(), name


def test_a_probe_on_two_processes_tells_what_one_tells(data, found):  # noqa: F811
    folder, (*_, (first, second), _) = found
    assert second == {}
    assert json.loads((folder / "probe" / "probe.json").read_text()) == first
    expected = probe(data, folder / "probe-whole", more=[FLOAT32, SELDOM, *UNTIED])
    for which, values in expected["held_out"].items():
        for key, value in values.items():
            loss = first["held_out"][which][key]
            assert loss == (value if isinstance(value, str) else pytest.approx(value, abs=2e-4)), (which, key)
    assert {k: v for k, v in first.items() if k != "held_out"} == {k: v for k, v in expected.items() if k != "held_out"}
    assert (folder / "probe" / "new" / "tokenizer.json").exists()


@pytest.mark.parametrize(("of_all", "of_rank", "expected"), [(3, 2, 2), (1, 2, 1), (3, None, 3), (None, 2, 2)])
def test_rows_per_micro_batch_of_the_layout_holds_on_one_process(of_all, of_rank, expected):
    given = {"pretrain.rows_per_micro_batch": of_all, "parallel.rows_per_micro_batch": of_rank}
    keys = [f"{key}={value}" for key, value in given.items() if value is not None]
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *keys])
    assert recipe.job("small").batching().rows_per_micro_batch == expected


def test_a_row_length_that_the_layout_cannot_cut_is_refused_before_training(found):
    *_, odd = found[1]
    assert odd["ended"][0] == odd["ended"][1]
    assert odd["ended"][0].startswith("InputError 2: seq_len 18 is not a multiple of 2 x parallel.cp x parallel.tp")
    assert odd["first_step"] is None


def on_two(*arguments):
    """The command line as a user calls it, with --processes 2."""
    return subprocess.run(
        [sys.executable, "-m", "herdlm.cli", *map(str, arguments), "--processes", "2"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        check=False,
    )


@pytest.mark.slow
def test_the_command_line_ends_with_1_where_a_gate_fails_on_two_processes(data, tmp_path):  # noqa: F811
    keys = [word for key in [*KEYS, "parallel.tp=2", STRICT] for word in ("--set", key)]
    folders = ("--tokens", data / "tokens", "--tokenizer", data / "tokenizer", "--out", tmp_path / "model")
    done = on_two("train", "recipes/tiny.toml", "--model", "small", *folders, *keys)
    assert done.returncode == 1
    assert "herdlm: the gate of long-context stage 1 at step 35 failed" in done.stderr
    (failed,) = (tmp_path / ".model.working").glob("failed-gate-*")
    assert load_folder(failed).config.rope_scaling is not None
    assert json.loads((failed / "gate.json").read_text())["stage"] == 1


@pytest.mark.slow
def test_the_command_line_probes_on_two_processes(data, tmp_path):  # noqa: F811
    keys = [word for key in [*PROBE_KEYS, "parallel.tp=2"] for word in ("--set", key)]
    folders = ("--tokens", data / "tokens", "--tokenizer", data / "tokenizer", "--out", tmp_path / "probe")
    done = on_two("anneal-probe", "recipes/tiny.toml", "--new", data / "new", *folders, *keys, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "probe" / "probe.json").read_text())
