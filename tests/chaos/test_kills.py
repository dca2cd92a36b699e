"""Kills at random moments of a training on several processes: nothing is lost, and the weights end the same."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run.conftest import ROOT, SMOKE, smoke_run  # noqa: F401 - a fixture

KILLS = int(os.environ.get("HERDLM_TEST_KILLS", "20"))
PROCESSES = 2
SETTINGS = (
    "--set", "pretrain.steps=800", "--set", "pretrain.train.checkpoint_every_steps=10",
    "--set", "pretrain.train.watchdog_seconds=60", "--set", "parallel.tp=2",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def command(stages: Path, out: Path) -> list[str]:
    """A training on :data:`PROCESSES` processes under torchrun without restarts: the test restarts it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}", "-m", "herdlm.cli"]
    folders = ["--tokens", str(stages / "tokens"), "--tokenizer", str(stages / "tokenizer")]
    return [
        sys.executable, *torchrun, "train", str(SMOKE), *folders, "--model", "small", "--out", str(out), *SETTINGS
    ]  # fmt: skip


def start(stages: Path, out: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(stages, out), cwd=ROOT, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def ranks(launcher: int) -> list[int]:
    """The processes that train, below torchrun."""
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def newest(out: Path) -> str:
    saved = sorted((out.parent / f".{out.name}.working" / "checkpoints").glob("step-*"))
    return saved[-1].name if saved else ""


def test_random_kills_lose_nothing(smoke_run, tmp_path):  # noqa: F811
    stages = smoke_run[0] / "stages"
    undisturbed = tmp_path / "undisturbed"
    assert start(stages, undisturbed).wait(timeout=300) == 0
    out, rng, told = tmp_path / "killed", random.Random(4), []
    kills = 0
    while not out.exists() and kills < 4 * KILLS:
        before = newest(out)
        process = start(stages, out)
        if kills < KILLS:
            # Let it get past what is saved, then strike at a random moment of a checkpoint's cycle.
            while process.poll() is None and newest(out) == before:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.4)
            way = rng.choice(["all", "one", "terminate"])
            victims = ranks(process.pid)
            if process.poll() is None and victims:
                kills += 1
                if way == "all":
                    os.killpg(process.pid, signal.SIGKILL)
                elif way == "one":
                    os.kill(rng.choice(victims), signal.SIGKILL)
                else:
                    for victim in victims:
                        os.kill(victim, signal.SIGTERM)
            told.append((way, before))
        process.wait(timeout=200)
        with contextlib.suppress(ProcessLookupError):  # torchrun's ranks must not outlive it
            os.killpg(process.pid, signal.SIGKILL)
    print(f"{kills} kills: {told}")
    assert kills >= KILLS
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
