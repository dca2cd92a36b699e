"""Rounds that are killed at random moments end with the files of rounds that were not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.align.conftest import dialogs, folder, pairs, write_lines  # noqa: F401 - a fixture
from tests.run.conftest import ROOT, herdlm
from tests.run.test_files import RECIPE

KILLS = 20
MORE = """
[align.gate]
prompts = 20
max_answer_tokens = 6
[align.average]
[align.quality]
quality = false
language = false
[experiments]
control_sft = true
ablations = ["rejection"]
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture
def home(folder, tmp_path):  # noqa: F811
    """A recipe of two rounds with every stage that a round can have, on a model of random weights."""
    shutil.copytree(folder / "base", tmp_path / "base")
    write_lines(tmp_path / "chats.jsonl", dialogs(0, 40))
    write_lines(tmp_path / "pairs.jsonl", pairs(0, 40))
    asked = [
        {"prompt": f"{row['messages'][0]['content']} {word}", "verifier": "regex", "reference": "[aeiou]"}
        for word, row in zip(("once", "again") * 60, dialogs(1, 120), strict=True)
    ]
    write_lines(tmp_path / "prompts.jsonl", asked)
    text = RECIPE.replace("[align.seed_sft]", 'prompts = ["prompts.jsonl"]\nheld_out_percent = 45.0\n[align.seed_sft]')
    (tmp_path / "mine.toml").write_text(text.replace("prompts = 6", "prompts = 24") + MORE)
    return tmp_path


def contents(run):
    """The content hash of every stage, the report's apart, whose page has times."""
    found = {path.parent.name: json.loads(path.read_text()) for path in (run / "stages").glob("*/manifest.json")}
    return {name: manifest["content"] for name, manifest in found.items() if name != "report"}


def test_rounds_killed_at_random_moments_end_with_the_same_files(home):
    whole = herdlm("run", home / "mine.toml", "--out", home / "whole", seconds=900)
    assert whole.returncode == 0, whole.stderr
    rng, kills, run = random.Random(13), 0, home / "killed"
    command = [sys.executable, "-m", "herdlm.cli", "run", str(home / "mine.toml"), "--out", str(run), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    while kills < KILLS and time.monotonic() - began < 1500:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(3, 14))
            break  # it came to its end before it could be killed
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    done = herdlm("run", home / "mine.toml", "--out", run, seconds=900)
    assert done.returncode == 0, done.stderr
    assert kills >= 5, f"the run was over after {kills} kills"
    assert contents(run) == contents(home / "whole")
