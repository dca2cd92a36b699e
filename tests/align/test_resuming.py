"""A training command that is killed goes on where it was, to bitwise the same model; another command begins anew."""

import json
import signal

import pytest

from herdlm.align.dpo_training import dpo
from herdlm.align.sft import sft
from herdlm.base.artifact import hash_file
from herdlm.base.events import read_events
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.preferences import PreferenceBatches
from tests import warm
from tests.align.conftest import SMALL
from tests.align.jobs import DPO, SFT, job
from tests.run.conftest import herdlm

OFTEN = ("--set", "train.checkpoint_every_steps=2", "--set", "train.prefetch_steps=0")
# A template with the date: a run that resumes on another day must render what it rendered before.
DATED = "{{ strftime_now('%H:%M:%S.%f') }}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("sft", "--data", "chats.jsonl", "--held-out", "test-chats.jsonl", "--rows-per-step", "2"),
        ("dpo", "--data", "pairs.jsonl", "--held-out", "test-pairs.jsonl", "--pairs-per-step", "4"),
        ("dpo", "--data", "pairs.jsonl", "--loss", "kto", "--pairs-per-step", "8", "--lora", "2"),
        ("reward", "--data", "pairs.jsonl", "--pairs-per-step", "4"),
    ],
    ids=lambda command: " ".join(word for word in command if "." not in word and not word.startswith("--")),
)
def test_a_killed_command_ends_with_the_same_model(folder, tmp_path, command):
    name, *words = command
    words = [str(folder / word) if word.endswith(".jsonl") else word for word in words]
    arguments = (name, folder / "base", *words, "--peak-lr", "1e-3", *SMALL, *OFTEN)
    whole = herdlm(*arguments, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = warm.run("tests.align.killed", 5, *arguments, "--out", tmp_path / "resumed")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    resumed = herdlm(*arguments, "--out", tmp_path / "resumed")
    assert resumed.returncode == 0, resumed.stderr
    assert hash_file(tmp_path / "whole" / "model.safetensors") == hash_file(tmp_path / "resumed" / "model.safetensors")
    setups = [event["step"] for event in read_events(tmp_path / "resumed" / "events.jsonl", "setup")]
    assert setups == [0, 4]
    told = [json.loads((tmp_path / each / "training.json").read_text()) for each in ("whole", "resumed")]
    assert told[0] == told[1]


@pytest.mark.slow
def test_a_template_sees_the_date_at_which_the_run_began(folder, tmp_path):
    template = tmp_path / "dated.jinja"
    template.write_text(
        "{% for m in messages %}<|start_header_id|>" + DATED + "{{ m.role }}<|end_header_id|>"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    )
    arguments = ("sft", folder / "base", "--data", folder / "chats.jsonl", "--out", tmp_path / "out", *SMALL, *OFTEN)
    arguments = (*arguments, "--chat-template", template, "--seq-len", 256, "--rows-per-step", 2)
    killed = warm.run("tests.align.killed", 5, *arguments)
    assert killed.returncode == -signal.SIGKILL
    resumed = herdlm(*arguments)
    assert resumed.returncode == 0, resumed.stderr  # other tokens would be refused as other data
    assert [event["step"] for event in read_events(tmp_path / "out" / "events.jsonl", "setup")] == [0, 4]


@pytest.mark.slow
def test_another_rate_begins_anew(folder, tmp_path):
    arguments = ("sft", folder / "base", "--data", folder / "chats.jsonl", "--out", tmp_path / "out", *SMALL, *OFTEN)
    arguments = (*arguments, "--rows-per-step", 2)
    assert warm.run("tests.align.killed", 5, *arguments).returncode == -signal.SIGKILL
    assert herdlm(*arguments, "--peak-lr", "1e-3").returncode == 0
    assert [event["step"] for event in read_events(tmp_path / "out" / "events.jsonl", "setup")] == [0]


@pytest.mark.parametrize(
    ("run", "config", "batches", "data"), [(sft, SFT, DialogBatches, "chats"), (dpo, DPO, PreferenceBatches, "pairs")]
)
def test_an_interrupted_call_resumes(folder, tmp_path, monkeypatch, run, config, batches, data):
    files = dict(data=f"{data}.jsonl", held_out=folder / f"test-{data}.jsonl", steps=5)
    config = config.model_copy(update={"train": config.train.model_copy(update={"prefetch_steps": 0})})
    whole = run(job(folder, tmp_path / "whole", **files), config)
    plain, asked = batches.micro_batches, []

    def interrupted(self, step):
        asked.append(step)
        if asked == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(batches, "micro_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(job(folder, tmp_path / "resumed", **files), config)
    assert run(job(folder, tmp_path / "resumed", **files), config) == whole
    assert asked == [0, 1, 2, 3, 2, 3, 4]
    assert hash_file(tmp_path / "whole" / "model.safetensors") == hash_file(tmp_path / "resumed" / "model.safetensors")
