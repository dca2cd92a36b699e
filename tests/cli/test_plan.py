"""herdlm plan and herdlm calibrate: what they print as JSON, and what they refuse."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app
from herdlm.plan import measure
from tests.plan.test_published import ROW
from tests.run.conftest import ROOT

REPORT = [
    *("--model", "llama3.1-405b", "--gpus", "16384", "--gpu", "h100", "--seq-len", "8192"),
    *("--tokens-per-step", "16777216", "--tp", "8", "--cp", "1", "--pp", "16"),
]
SMALL = ["--tp", "1", "--gpus", "8", "--gpu", "h100", "--seq-len", "4096", "--tokens-per-step", "131072"]
SHAPE = ["--layers", "24", "--hidden", "2048", "--ffn", "8192", "--heads", "16", "--kv-heads", "16", "--vocab", "50304"]


def plan(*words):
    return CliRunner().invoke(app, ["plan", *words], catch_exceptions=False).output


def planned(*words):
    return json.loads(plan(*words, "--json"))


def test_the_reports_layout_as_one_json_object():
    found = planned(*REPORT)
    rate = found["tokens_per_s_per_gpu"]
    assert rate["low"] < rate["value"] < rate["high"]
    assert set(found["tflops_per_gpu"]) == set(found["mfu"]) == {"6n", "causal", "full"}
    assert found["tflops_per_gpu"]["causal"] == pytest.approx(400, rel=0.05)
    assert found["mfu"]["causal"] == pytest.approx(found["tflops_per_gpu"]["causal"] / 989.4)
    assert sum(found["parts"].values()) == pytest.approx(found["step_seconds"])
    assert sum(found["memory_gib_by_part"].values()) == pytest.approx(found["memory_gib_per_gpu"])
    assert found["step_seconds"] == pytest.approx(16_777_216 / 16_384 / rate["value"])
    assert found["searched"] == ["vpp", "micro_batch"]
    assert found["layout"]["dp_shard"] == 128


def test_options_are_read_and_what_is_given_is_not_searched():
    layout = ["--vpp", "4", "--micro-batch", "1", "--dp-shard", "32", "--async-tp", "--reshard"]
    options = [*layout, "--precision", "fp8", "--recompute", "full"]
    found = planned(*REPORT, *options)
    layout = found["layout"]
    assert (layout["vpp"], layout["micro_batch"], layout["dp_shard"], layout["dp_replicate"]) == (4, 1, 32, 4)
    assert (layout["precision"], layout["recompute"], layout["async_tp"]) == ("fp8", "full", True)
    assert found["searched"] == []


def test_another_shape_and_stack():
    plain = planned(*SHAPE, "--mlp", "plain", *SMALL)
    gated = planned(*SHAPE, *SMALL)
    assert gated["parameters"] - plain["parameters"] == 24 * 2048 * 8192
    assert planned(*SHAPE, *SMALL, "--stack", "deepspeed")["step_seconds"] != gated["step_seconds"]


def test_the_text_has_the_figures_of_the_json():
    text, found = plan(*SHAPE, *SMALL), planned(*SHAPE, *SMALL)
    assert f"{found['tokens_per_s_per_gpu']['value']:,.1f}" in text
    assert f"{found['memory_gib_per_gpu']:,.1f} GiB" in text


def test_a_layout_that_is_left_open_is_searched(tmp_path):
    trace = tmp_path / "trace.json"
    found = planned(*SHAPE, *SMALL[2:], "--explain", "--pp", "2", "--trace", str(trace))
    best = found["search"]["best"]
    assert found["layout"] == best[0]["layout"]
    assert {each["layout"]["pp"] for each in best} == {2}
    assert [each["step_seconds"] for each in best] == sorted(each["step_seconds"] for each in best)
    assert all(each["memory_gib_per_gpu"] <= 80 for each in best)
    assert found["search"]["explain"]["most"] in found["search"]["explain"]["binds"]
    assert {event["pid"] for event in json.loads(trace.read_text())["traceEvents"]} >= {0, 1}
    assert planned(*SHAPE, *SMALL[2:])["step_seconds"] <= found["step_seconds"]


def test_a_recipe_is_planned_in_its_own_layout():
    found = planned(str(ROOT / "recipes/llama3.1-405b.toml"), "--gpus", "16384")
    layout = found["layout"]
    assert (layout["tp"], layout["pp"], layout["vpp"], layout["dp_shard"]) == (8, 16, 4, 128)
    assert found["parameters"] == 405_853_388_800
    assert found["tokens_per_step"] == 16_777_216


def test_rows_of_a_file_are_lines_in_its_order(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [ROW, {**ROW, "id": "bad", "gpu": "abacus"}, {**ROW, "id": "last", "tokens_per_s_per_gpu": 1000}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = [json.loads(line) for line in plan("--file", str(path)).splitlines()]
    assert [row["id"] for row in found] == ["r1", "bad", "last"]
    assert "abacus" in found[1]["error"]
    assert found[2]["relative_error"] == pytest.approx(found[2]["tokens_per_s_per_gpu"]["value"] / 1000 - 1)


@pytest.mark.parametrize(
    "words",
    [
        SMALL,
        [*SHAPE, "--model", "8b", *SMALL],
        [*SHAPE[2:], *SMALL],
        ["--model", "8b", "--gpus", "8"],
        ["--model", "8b", *SMALL[4:]],
        ["--model", "8b", *SMALL, "--tp", "3"],
        ["--model", "8b", *SMALL, "--vpp", "2"],
        ["--model", "8b", *SMALL, "--gpu", "abacus"],
        ["--model", "8b", *SMALL, "--system", "none"],
        ["--model", "8b", *SMALL, "--stack", "none"],
        ["--model", "8b", *SMALL, "--set", "a=b"],
        ["--file", "none.jsonl"],
    ],
)
def test_what_cannot_be_planned_is_refused(words):
    with pytest.raises(InputError):
        plan(*words)


@pytest.fixture
def quick(monkeypatch):
    for name in ("ROWS", "COPIED", "REDUCED"):
        monkeypatch.setattr(measure, name, {"cpu": 4096 if name != "ROWS" else 64})
    monkeypatch.setattr(measure, "SIZES", {"cpu": (32, 64)})
    monkeypatch.setattr(measure, "AT_LEAST", 0.0)


def test_a_measured_machine_is_planned_with(quick, tmp_path):
    path = tmp_path / "mine.toml"
    invoke = CliRunner().invoke
    invoke(app, ["calibrate", "--out", str(path), "--device", "cpu", "--name", "mine"], catch_exceptions=False)
    written = tomllib.loads(path.read_text())["gpus"]["mine"]
    assert written["measured"]["gemm_tflops"] == pytest.approx(written["bf16_tflops"])
    words = [
        *SHAPE,
        "--tp",
        "1",
        "--gpus",
        "1",
        "--seq-len",
        "256",
        "--tokens-per-step",
        "256",
        "--hardware",
        str(path),
    ]
    found = planned(*words, "--gpu", "mine")
    assert found["gpu"] == "mine"
    text = path.read_text().replace("gemm_tflops = ", "gemm_tflops = 1")
    path.write_text(text)
    assert planned(*words, "--gpu", "mine")["step_seconds"] < found["step_seconds"]
    with pytest.raises(InputError):
        invoke(app, ["calibrate", "--out", str(path)], catch_exceptions=False)


def test_the_ramp_of_square_products():
    rates = {size: 10.0 / (1 + 100 / size) ** 3 for size in (64, 128, 256)} | {2**30: 10.0}
    assert measure.ramp_of(rates) == pytest.approx(100, rel=1e-3)
