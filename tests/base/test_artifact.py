"""Artifacts exist whole or not at all; logs survive being cut off; seeds are streams of their own."""

import json

import pytest

from herdlm.base.artifact import publish, read_manifest, verify
from herdlm.base.errors import DamagedError
from herdlm.base.events import EventLog, read_events
from herdlm.base.seeds import derive_seed, stream

PLAIN = dict(
    kind="k",
    stage="s",
    fingerprint="f",
    inputs={},
    recipe={},
    seeds={},
    counts={},
    seconds=1.0,
    code={},
    volatile=("events.jsonl",),
)


def make(folder, name, **files):
    working = folder / f"{name}.working"
    working.mkdir()
    for file, text in files.items():
        (working / file.replace("_", ".")).write_text(text)
    return publish(working, folder / name, **PLAIN)


def test_equal_files_have_equal_content_whatever_their_logs(tmp_path):
    one = make(tmp_path, "one", a_txt="x", events_jsonl="1")
    two = make(tmp_path, "two", a_txt="x", events_jsonl="2")
    three = make(tmp_path, "three", a_txt="y", events_jsonl="1")
    assert one.content == two.content != three.content
    assert read_manifest(tmp_path / "one") == one
    assert not (tmp_path / "one.working").exists()


def test_publishing_again_replaces_the_whole_folder(tmp_path):
    make(tmp_path, "one", a_txt="x", b_txt="y")
    make(tmp_path, "one", a_txt="z")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["a.txt", "manifest.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one"]


def test_a_folder_without_a_manifest_does_not_exist(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "a.txt").write_text("x")
    assert read_manifest(tmp_path / "half") is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), r"a\.txt is missing"),
        (lambda p: p.write_text("longer"), r"a\.txt is damaged: 6 bytes where its manifest says 1"),
        (lambda p: p.write_text("y"), r"a\.txt is damaged: its content is not what its manifest says"),
    ],
)
def test_damage_is_named_with_the_remedy(tmp_path, damage, message):
    manifest = make(tmp_path, "one", a_txt="x")
    verify(tmp_path / "one", manifest)
    damage(tmp_path / "one" / "a.txt")
    with pytest.raises(DamagedError, match=message) as caught:
        verify(tmp_path / "one", manifest)
    assert "Delete" in caught.value.remedy


def test_a_damaged_manifest_is_an_error_not_an_absence(tmp_path):
    make(tmp_path, "one", a_txt="x")
    (tmp_path / "one" / "manifest.json").write_text('{"kind": ')
    with pytest.raises(DamagedError, match="not a valid manifest"):
        read_manifest(tmp_path / "one")


def test_a_torn_last_line_is_passed_over_and_cut_steps_are_dropped(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    for step in (1, 2, 3):
        log.write("step", step=step)
    log.write("note", text="kept")
    with log.path.open("a") as file:
        file.write('{"kind": "step", "st')
    assert [e["step"] for e in read_events(log.path, "step")] == [1, 2, 3]
    log.truncate_after("step", "step", 2)
    assert [e.get("step") for e in read_events(log.path)] == [1, 2, None]
    assert all(json.loads(line) for line in log.path.read_text().splitlines())


def test_streams_are_their_own_and_the_same_again():
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
    assert len({derive_seed(1, "a"), derive_seed(1, "b"), derive_seed(2, "a"), derive_seed(1, "a", 0)}) == 4
    assert derive_seed(1, "ab") != derive_seed(1, "a", "b")
    assert stream(1, "x").random(3).tolist() == stream(1, "x").random(3).tolist()
