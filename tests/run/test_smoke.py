"""The smoke recipe end to end, and what a second run, a changed key, a kill and damage do to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from herdlm.generate import Engine, SamplingParams
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import stages_of
from tests.run.conftest import ROOT, SMOKE, herdlm, manifest

pytestmark = pytest.mark.timeout(1800)


def test_every_stage_is_made(smoke_run):
    folder = smoke_run
    names = [stage.name for stage in stages_of(read_recipe(SMOKE))]
    assert sorted(p.name for p in (folder / "stages").iterdir()) == sorted(names)
    assert not list((folder / "working").iterdir())
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_finished_models_are_measured_on_a_standard_task(smoke_run):
    folder = smoke_run / "stages" / "benchmarks"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [each["model"] for each in results["models"]] == ["flagship-bf16", "flagship-fp8", "small-bf16"]
    assert {each["tasks"]["arc_easy"]["n"] for each in results["models"]} == {12}
    assert results["date"] is None  # equal runs give equal files
    assert (folder / "index.html").is_file() and (folder / "items" / "arc_easy.js").is_file()
    report = json.loads((smoke_run / "stages" / "report" / "report.json").read_text(encoding="utf-8"))
    rows = {(row["task"], row["metric"]): row["figures"][0]["value"] for row in report["benchmarks"]["rows"]}
    assert rows["arc_easy", "acc"] == results["models"][0]["tasks"]["arc_easy"]["acc"]["value"]


def test_a_second_run_does_nothing_and_says_so(smoke_run):
    done = herdlm("run", SMOKE, "--out", smoke_run)
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    result = json.loads(herdlm("run", SMOKE, "--out", smoke_run, "--json").stdout)
    assert result["made"] == []


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ("forecast.axis=parameters", {"forecast", "report"}),
        pytest.param("compute.stages_at_once=1", {"report"}, marks=pytest.mark.slow),  # which prints the recipe
        pytest.param(
            "quantize.granularity=tensor",
            {"flagship-fp8", "compare-fp8", "examine-flagship-fp8", "benchmarks", "report"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "experiments.dpo_nll.peak_lr=3e-3",
            {"dpo-with-nll", "dpo-without-nll", "examine-dpo-with-nll", "examine-dpo-without-nll", "report"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_changed_key_remakes_exactly_what_depends_on_it(smoke_copy, change, remade):
    done = herdlm("run", SMOKE, "--out", smoke_copy, "--set", change, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["made"]) == remade


def test_from_remakes_a_stage_and_what_follows_to_the_same_bytes(smoke_copy):
    before = manifest(smoke_copy, "forecast")["content"]
    done = herdlm("run", SMOKE, "--out", smoke_copy, "--from", "forecast", "--json")
    assert set(json.loads(done.stdout)["made"]) == {"forecast", "report"}
    assert manifest(smoke_copy, "forecast")["content"] == before


def test_a_killed_run_goes_on_to_bitwise_the_same_weights(smoke_copy):
    name = f"pretrain-{read_recipe(SMOKE).herd.flagship}"
    undisturbed = manifest(smoke_copy, name)["content"]
    shutil.rmtree(smoke_copy / "stages" / name)
    arguments = [sys.executable, "-m", "herdlm.cli", "run", str(SMOKE), "--out", str(smoke_copy), "--until", name]
    kills = 0
    for checkpoint in ("step-00000010", "step-00000020"):
        process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        saved = smoke_copy / "working" / name / "checkpoints" / checkpoint
        while process.poll() is None and not saved.exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += saved.exists() and not (smoke_copy / "stages" / name).exists()
    assert kills, "the run was over before it could be killed"
    assert not (smoke_copy / "stages" / name).exists()
    done = herdlm("run", SMOKE, "--out", smoke_copy, "--until", name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == [name]
    assert manifest(smoke_copy, name)["content"] == undisturbed


def test_damaged_and_missing_files_stop_the_run_with_a_remedy(smoke_copy):
    weights = smoke_copy / "stages" / "round-1-sft" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))  # same size: noticed when a stage is to read it
    done = herdlm("run", SMOKE, "--out", smoke_copy, "--from", "round-1-dpo")
    assert done.returncode == 2
    assert f"{weights} is damaged" in done.stderr
    assert "run the recipe again" in done.stderr
    weights.unlink()
    done = herdlm("run", SMOKE, "--out", smoke_copy)
    assert done.returncode == 2
    assert f"{weights} is missing" in done.stderr


def test_two_runs_on_one_folder_are_refused(smoke_copy):
    import fcntl

    with (smoke_copy / ".run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = herdlm("run", SMOKE, "--out", smoke_copy)
    assert done.returncode == 2
    assert f"another herdlm run works on {smoke_copy}" in done.stderr


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_half_a_stage_is_not_a_stage(smoke_copy, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small]).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        done = herdlm("run", SMOKE, "--out", small / "run", "--until", "curate")
        assert done.returncode == 2, done.stderr
        assert "no space left on the disk" in done.stderr
        assert not list((small / "run" / "stages").glob("*")) if (small / "run" / "stages").exists() else True
    finally:
        subprocess.run(["umount", small], check=True)


def test_stages_tells_the_state(smoke_copy):
    rows = {row["name"]: row["state"] for row in json.loads(herdlm("stages", smoke_copy, "--json").stdout)}
    assert set(rows.values()) == {"finished"}
    shutil.rmtree(smoke_copy / "stages" / "round-1-sft")
    rows = {row["name"]: row["state"] for row in json.loads(herdlm("stages", smoke_copy, "--json").stdout)}
    assert rows["round-1-sft"] == "to come"
    assert rows["round-1-reward"] == "finished"
    assert rows["round-1-dpo"] == "out of date"


def begin_curation(folder, until, **more):
    """A run that curates into ``folder``, a second or so after the path ``until`` of it came to be."""
    command = [sys.executable, "-m", "herdlm.cli", "run", str(SMOKE), "--out", str(folder), "--until", "curate"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True, **more)
    while process.poll() is None and not (folder / until).exists():
        time.sleep(0.01)
    time.sleep(1.3)
    return process


@pytest.mark.slow
def test_a_run_killed_in_its_first_seconds_leaves_no_worker_behind(tmp_path):
    process = begin_curation(tmp_path / "run", ".workers.lock", stderr=subprocess.DEVNULL)
    process.kill()
    process.wait()
    done = herdlm("run", SMOKE, "--out", tmp_path / "run", "--until", "curate")
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "run", "curate")["counts"]["output"]["documents"] > 900


def test_an_interrupt_is_told_and_nothing_half_done_is_kept(tmp_path):
    process = begin_curation(tmp_path / "run", "working/curate", stderr=subprocess.PIPE, text=True)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to the run and its workers alike
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted".lower() in errors.lower()
    assert not (tmp_path / "run" / "stages" / "curate").exists()


def test_the_readmes_script_runs(smoke_copy, tmp_path):
    readme = (ROOT / "README.md").read_text()
    script = readme.split("```python\n")[1].split("```")[0]
    script = script.replace("recipes/tiny.toml", str(SMOKE)).replace("runs/tiny", str(smoke_copy))
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_alone_gives_the_runs_weights_and_a_manifest(smoke_copy, tmp_path):
    stages = smoke_copy / "stages"
    arguments = ("train", SMOKE, "--tokens", stages / "tokens", "--tokenizer", stages / "tokenizer", "--model", "small")
    done = herdlm(*arguments, "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    alone, within = (f / "model.safetensors" for f in (tmp_path / "small", stages / "pretrain-small"))
    assert alone.read_bytes() == within.read_bytes()
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["kind"] == "model"
    assert herdlm(*arguments, "--out", tmp_path / "small").returncode == 2


def test_trace_leads_back_to_the_crawls_hash(smoke_run):
    import hashlib

    crawl = ROOT / "sample" / "starter.warc.gz"
    lineage = json.loads(herdlm("trace", smoke_run / "models" / "flagship-fp8" / "model.safetensors", "--json").stdout)
    sources = []

    def walk(origin):
        sources.extend([origin] if origin["kind"] == "source" else [])
        for below in origin["origins"]:
            walk(below)

    walk(lineage)
    assert [s["content"] for s in sources] == [hashlib.sha256(crawl.read_bytes()).hexdigest()]
    assert herdlm("trace", smoke_run / "models" / "small").stdout.startswith("stages/small-bf16")


def test_the_flagship_answers_on_the_command_line(smoke_run):
    done = herdlm("generate", smoke_run, "--prompt", "Repeat after me: one", "--chat", "--json", "--max-tokens", "5")
    assert done.returncode == 0, done.stderr
    (completion,) = json.loads(done.stdout)
    engine = Engine.load(smoke_run / "models" / "flagship", dtype="auto")
    from herdlm.tokens.chat_format import ChatFormat

    format = ChatFormat.of(engine.tokenizer)
    prompt = format.prompt([{"role": "user", "content": "Repeat after me: one"}])
    params = SamplingParams(max_tokens=5, temperature=0.0, stop_tokens=format.stop_tokens)
    assert completion["tokens"] == engine.generate([prompt], params)[0][0].tokens


def test_transformers_loads_the_resulting_models(smoke_run):
    from transformers import AutoModelForCausalLM

    for name in ("flagship", "flagship-fp8", "small"):
        model = AutoModelForCausalLM.from_pretrained(smoke_run / "models" / name)
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_an_unknown_stage_is_named_on_one_line(smoke_run):
    done = herdlm("run", SMOKE, "--out", smoke_run, "--until", "nowhere")
    assert done.returncode == 2
    assert "the recipe has no stage nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
