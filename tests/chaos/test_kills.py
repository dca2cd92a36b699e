"""A training on several processes that is killed, stopped, starved and damaged ends with the undisturbed weights."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from herdlm.base.events import read_events
from tests.run.conftest import ROOT, SMOKE, smoke_run  # noqa: F401 - a fixture

PROCESSES = 2
SETTINGS = (
    "--set",
    "pretrain.steps=1200",
    "--set",
    "pretrain.train.checkpoint_every_steps=10",
    "--set",
    "pretrain.train.watchdog_seconds=20",
    "--set",
    "parallel.dp_shard=2",
    "--set",
    "track.tensorboard='off'",
)
# What happens to the run, once each time it is started; in random order.
MISCHIEF = [
    *["kill all"] * 6,
    *["kill one"] * 5,
    *["kill while writing"] * 4,
    *["terminate"] * 3,
    "stop one",
    *["kill and flip a bit"] * 2,
    *["kill and truncate"] * 2,
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def start(stages: Path, out: Path, restarts: int = 0) -> subprocess.Popen:
    """A training on :data:`PROCESSES` processes under torchrun."""
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={PROCESSES}",
        f"--max-restarts={restarts}",
    ]
    folders = ["--tokens", str(stages / "tokens"), "--tokenizer", str(stages / "tokenizer")]
    training = ["-m", "herdlm.cli", "train", str(SMOKE), *folders, "--model", "small", "--out", str(out), *SETTINGS]
    return subprocess.Popen(
        [sys.executable, *torchrun, *training],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 900) -> str:
    """Wait for the end of all processes of the run; what they printed."""
    told, _ = process.communicate(timeout=timeout)
    return told


def ranks(launcher: int) -> list[int]:
    """The processes that train, below torchrun."""
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def saved(out: Path, pattern: str = "step-*") -> list[Path]:
    return sorted((out.parent / f".{out.name}.working" / "checkpoints").glob(pattern))


def wait_until(process: subprocess.Popen, happens) -> bool:
    """Whether it happened before the run ended."""
    while process.poll() is None:
        if happens():
            return True
        time.sleep(0.002)
    return False


def damage(checkpoint: Path, way: str, rng: random.Random) -> None:
    path = rng.choice(sorted(checkpoint.glob("*.safetensors")))
    content = bytearray(path.read_bytes())
    if way.endswith("truncate"):
        content = content[: rng.randrange(len(content))]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def disturb(process: subprocess.Popen, out: Path, way: str, rng: random.Random) -> None:
    """Do one of :data:`MISCHIEF` at a random moment after the run has got past what was saved before."""
    before = [path.name for path in saved(out)]
    if way == "kill while writing":
        # One checkpoint further on than the first, so that each run gains ground.
        wait_until(process, lambda: [path.name for path in saved(out)] != before)
        wait_until(process, lambda: saved(out, ".step-*.tmp"))
    else:
        wait_until(process, lambda: [path.name for path in saved(out)] != before)
        time.sleep(rng.random() * 0.4)
    victims = ranks(process.pid)
    if way == "kill one":
        os.kill(rng.choice(victims), signal.SIGKILL)
    elif way == "stop one":
        os.kill(rng.choice(victims), signal.SIGSTOP)  # the others wait for it until their watchdogs end them
    elif way == "terminate":
        for victim in victims:
            os.kill(victim, signal.SIGTERM)
    else:  # each rank has a process group of its own
        for victim in [process.pid, *victims]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)


@pytest.fixture(scope="module")
def stages(smoke_run):  # noqa: F811
    return smoke_run / "stages"


@pytest.fixture(scope="module")
def undisturbed(stages, tmp_path_factory):
    """The weights of the run that nothing happens to."""
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    process = start(stages, out)
    told = finish(process)
    assert process.returncode == 0, told
    return (out / "model.safetensors").read_bytes()


def test_mischief_loses_nothing(stages, undisturbed, tmp_path):
    out, rng = tmp_path / "model", random.Random(4)
    plan = rng.sample(MISCHIEF, len(MISCHIEF))
    endings = []
    for way in plan:
        assert not out.exists(), f"finished before it was disturbed {len(plan)} times: give it more steps"
        process = start(stages, out)
        disturb(process, out, way, rng)
        told = finish(process)
        endings.append((way, process.returncode))
        if way == "terminate":
            assert process.returncode == 0, told
            assert "was asked to stop; its state after step" in told
        elif way == "stop one":
            assert "finished no step for 20 s" in told
            assert "train_step" in told  # the stack of a rank that waited
        elif way in ("kill and flip a bit", "kill and truncate"):
            damage(saved(out)[-1], way, rng)
    process = start(stages, out)
    told = finish(process)
    assert process.returncode == 0, told
    print(endings)
    events = out / "events.jsonl"
    steps = [event["step"] for event in read_events(events, "step")]
    assert steps == list(range(1, 1201))
    damaged = list(read_events(events, "damaged"))
    assert len(damaged) >= 4  # each told which checkpoint was damaged and which one was used instead
    assert all(event["instead"] < event["damaged"] and ".safetensors" in event["what"] for event in damaged)
    assert (out / "model.safetensors").read_bytes() == undisturbed


def test_torchrun_starts_the_group_again_after_a_rank_died(stages, undisturbed, tmp_path):
    out = tmp_path / "model"
    process = start(stages, out, restarts=2)
    assert wait_until(process, lambda: len(saved(out)) == 2)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    told = finish(process)
    assert process.returncode == 0, told
    assert (out / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_the_run_with_its_reason_and_it_goes_on_when_there_is_room(stages, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        out = disk / "model"
        process = start(stages, out)
        told = finish(process)
        assert process.returncode != 0
        assert re.search(r"[Nn]o space left on .*\. Free space", told), told
        assert saved(out)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        process = start(stages, out)
        told = finish(process)
        assert process.returncode == 0, told
        assert (out / "model.safetensors").read_bytes() == undisturbed
    finally:
        subprocess.run(["umount", str(disk)], check=True)
