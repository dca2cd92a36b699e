"""``herdlm verify``: a flipped bit in any file of a run is told, and whatever is not one is refused."""

import json
import random
import shutil
import sys

import pytest

from herdlm.base.artifact import VOLATILE, publish
from herdlm.base.errors import InputError
from herdlm.cli.app import main
from herdlm.run.root import OWN, SEALED, refuse_foreign_run, root_damage, seal_root
from herdlm.run.stage import RunFolder, Stage
from herdlm.run.verify import verify_path


def artifact(folder, name, inputs=None):
    working = folder.root / "w"
    (working / "more").mkdir(parents=True)
    (working / "a.txt").write_text(f"the text of {name}\n" * 20)
    (working / "more" / "b.bin").write_bytes(random.Random(name).randbytes(300))
    (working / "events.jsonl").write_text('{"time": 1.5}\n')
    return publish(
        working,
        folder.stage(name),
        kind="text",
        stage=name,
        fingerprint="f",
        inputs=inputs or {},
        recipe={"key": [1, 2.5, "x"]},
        seeds={"stage": 1},
        counts={"words": 3},
        seconds=0.1234,
        code={"herdlm": "0"},
        volatile=VOLATILE,
    )


@pytest.fixture
def run(tmp_path):
    """A finished run of two stages."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    for name in ("one", "two"):
        artifact(folder, name)
    folder.recipe.write_text('{"name": "x"}\n')
    folder.report.write_text("<html></html>\n")
    folder.models.mkdir()
    (folder.models / "flagship").symlink_to("../stages/two")
    seal_root(folder)
    return folder


def test_a_whole_run(run, capsys):
    found = verify_path(run.root)
    assert (found.damage, found.notes, found.artifacts) == ([], [], 2)
    assert found.files == 6 + 3
    assert verify_path(run.models / "flagship").files == 3


def test_every_flipped_bit_is_told(run):
    draw = random.Random(3)
    files = [path for path in sorted(run.root.rglob("*")) if path.is_file() and not path.is_symlink()]
    assert len(files) == 3 + 2 * 4
    for path in files:
        content = path.read_bytes()
        for _ in range(40 if path.suffix == ".json" else 5):
            damaged = bytearray(content)
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            assert any(path.name in line for line in verify_path(run.root).damage), path
        path.write_bytes(content)
    assert not verify_path(run.root).damage


def test_files_that_are_gone_or_too_many(run):
    (run.stage("one") / "a.txt").unlink()
    (run.stage("two") / "more" / ".b.bin.77.tmp").write_text("left")
    (run.models / "flagship").unlink()
    (run.models / "flagship").symlink_to("../stages/one")
    (run.root / "stages" / "three").mkdir()
    told = "\n".join(verify_path(run.root).damage)
    for part in ("a.txt is missing", ".tmp is not in the manifest", "does not lead to", "three is no artifact"):
        assert part in told


def test_the_command(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["herdlm", "verify", str(run.root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and "are as they were written" in capsys.readouterr().out
    (run.stage("one") / "a.txt").write_text("other")
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err.count("\n") == 1 and "a.txt" in said.err


def test_what_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            verify_path(path)


def test_a_leftover_is_never_published(tmp_path):
    folder = RunFolder(tmp_path / "run")
    (folder.root / "w" / "more").mkdir(parents=True)
    (folder.root / "w" / "more" / ".part-00000.parquet.8436.tmp").write_bytes(b"PAR1")
    (folder.root / "w" / "more" / "b.bin").write_bytes(b"x")
    manifest = publish(
        folder.root / "w", folder.stage("s"), kind="k", stage="s", fingerprint="", inputs={}, recipe={}, seeds={},
        counts={}, seconds=0, code={},
    )  # fmt: skip
    assert list(manifest.files) == ["more/b.bin"]
    assert not list(folder.stage("s").rglob("*.tmp"))


def test_somebody_elses_files_are_not_replaced(tmp_path):
    folder = RunFolder(tmp_path / "home")
    folder.stage("tokens").mkdir(parents=True)
    (folder.stage("tokens") / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="herdlm did not make"):
        artifact(folder, "tokens")
    assert (folder.stage("tokens") / "precious.txt").read_text() == "mine"
    shutil.rmtree(folder.root / "w")
    with pytest.raises(InputError, match="herdlm did not make"):
        refuse_foreign_run(folder.root, [Stage("tokens", "tokens", "a:b")])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match=r"thesis.doc, which no run made"):
        refuse_foreign_run(tmp_path / "other", [])


def test_the_record_of_the_top(run):
    record = json.loads((run.root / SEALED).read_text())
    assert set(record["files"]) == {"recipe.json", "report.html"} and set(record["files"]) <= OWN
    (run.root / SEALED).write_text(json.dumps(record | {"files": {}}))
    assert root_damage(run) == [f"{run.root / SEALED} is not what was written"]
