"""Damage to any byte of any file of a checkpoint: the one before is taken, or an error says what is wrong."""

import json
import random
import shutil

import pytest
import torch
from torch import nn

from herdlm.base.errors import DamagedError
from herdlm.train.checkpoint import Average, Checkpointer
from herdlm.train.config import TrainConfig

STEPS = (10, 20, 30)


def parts():
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    return model, torch.optim.AdamW(model.parameters()), Average()


def keeper(folder, model, optimizer, average):
    config = TrainConfig(peak_lr=0.1, warmup_steps=1, checkpoint_every_steps=10, checkpoints_kept=3)
    return Checkpointer(folder, model, optimizer, average, config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints, and the weights and the average of each."""
    folder, expected = tmp_path_factory.mktemp("saved") / "checkpoints", {}
    model, optimizer, average = parts()
    with keeper(folder, model, optimizer, average) as checkpointer:
        for step in STEPS:
            model(torch.randn(2, 4)).sum().backward()
            optimizer.step()
            average.add(model)
            checkpointer.save(step)
            expected[step] = (model.weight.detach().clone(), average.count, average.weights["weight"].clone())
    return folder, expected


def restored(folder):
    model, optimizer, average = parts()
    with keeper(folder, model, optimizer, average) as checkpointer:
        step, damaged = checkpointer.restore()
    return step, damaged, (model.weight.detach(), average.count, average.weights["weight"])


def check(folder, expected, newest):
    step, damaged, state = restored(folder)
    assert step == newest
    assert len(damaged) == sum(each > newest for each in STEPS)
    assert torch.equal(state[0], expected[step][0]) and torch.equal(state[2], expected[step][2])
    assert state[1] == expected[step][1]


def test_whole_checkpoints_give_the_newest(saved):
    check(*saved, newest=30)


def test_a_flipped_bit_anywhere_sends_to_the_checkpoint_before(saved, tmp_path):
    source, expected = saved
    draw = random.Random(7)
    files = sorted(path.name for path in (source / "step-00000030").iterdir())
    assert len(files) == 3
    places = [(name, None) for name in files * 12] + [("state.json", at) for at in (9, 14)]
    for number, (name, at) in enumerate(places):
        folder = shutil.copytree(source, tmp_path / str(number))
        path = folder / "step-00000030" / name
        content = bytearray(path.read_bytes())
        at = draw.randrange(len(content)) if at is None else at
        content[at] ^= 1 << (0 if number >= len(files) * 12 else draw.randrange(8))
        path.write_bytes(content)
        check(folder, expected, newest=20)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "state.json").write_text(""),
        lambda folder: (folder / "state.json").write_text("null"),
        lambda folder: (folder / "state.json").write_text("[" * 100_000),
        lambda folder: (folder / "state.json").write_text('{"step": 30, "average_count": 3, "processes": 1}'),
        lambda folder: (folder / "hashes-00000.json").write_text("{}"),
        lambda folder: (folder / "hashes-00000.json").write_text("[]"),
        lambda folder: (folder / "hashes-00000.json").unlink(),
        lambda folder: next(folder.glob("shard-*")).unlink(),
        lambda folder: (folder / "shard-00002-model-00001-of-00001.safetensors").write_bytes(b"foreign"),
        lambda folder: next(folder.glob("shard-*")).write_bytes(b""),
    ],
)
def test_records_that_are_empty_or_foreign_are_damage(saved, tmp_path, damage):
    folder = shutil.copytree(saved[0], tmp_path / "c")
    damage(folder / "step-00000030")
    check(folder, saved[1], newest=20)


def test_a_state_with_all_hashes_that_nobody_sealed(saved, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "c")
    path = folder / "step-00000030" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"average_count": 2}))
    check(folder, saved[1], newest=20)


def test_a_checkpoint_under_another_name(saved, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "c")
    shutil.copytree(folder / "step-00000010", folder / "step-00000040")
    (folder / "step-abc").mkdir()
    step, damaged, _ = restored(folder)
    assert step == 30
    assert "of step 10" in damaged["step-00000040"]


def test_when_none_is_whole_an_error_says_so(saved, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "c")
    for path in folder.iterdir():
        (path / "state.json").write_text("{}")
    with pytest.raises(DamagedError, match="state.json"):
        restored(folder)
