"""A curation that was killed goes on where it was, and never mixes what was made of other input or another recipe."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
from tests.curate.crawls import Write, article, page, record, zipped
from tests.curate.test_curate import content

SCRIPT = """
import sys
from pathlib import Path
from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
if __name__ == "__main__":
    curate([sys.argv[1]], Path(sys.argv[2]), CurateConfig(workers=2, shard_megabytes=0.004), quiet=True)
"""


class Inline:
    """A runner that counts what it is given, runs it here, and dies after ``lives`` items."""

    def __init__(self, lives: int = 10**9) -> None:
        self.lives = lives
        self.ran: list[str] = []

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Any, items: Any) -> Any:
        for item in items:
            if len(self.ran) >= self.lives:
                raise KeyboardInterrupt
            self.ran.append(f"{function.__name__} {item}")
            yield function(item)


@pytest.fixture
def crawl(write: Write) -> Path:
    pages = [
        record(f"https://x.example/{i}", page(article("en", f"{i % 50}"), article("en", f"{i % 50} more")))
        for i in range(60)
    ]
    return write("c.warc.gz", zipped(*pages))


def run(crawl: Path, out: Path, runner: Inline, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> None:
    monkeypatch.setattr("herdlm.curate.pipeline.open_runner", lambda config, shared: runner)
    out.mkdir(exist_ok=True)
    curate([str(crawl)], out, CurateConfig(shard_megabytes=0.004, **keys), quiet=True)


def test_every_task_runs_once_wherever_the_run_was_stopped(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Inline()
    run(crawl, tmp_path / "whole", undisturbed, monkeypatch)
    assert len(undisturbed.ran) > 20
    for lives in range(1, len(undisturbed.ran), 8):
        out = tmp_path / f"out-{lives}"
        stopped, later = Inline(lives), Inline()
        with pytest.raises(KeyboardInterrupt):
            run(crawl, out, stopped, monkeypatch)
        assert list(out.iterdir()) == []
        run(crawl, out, later, monkeypatch)
        assert stopped.ran + later.ran == undisturbed.ran
        assert content(out) == content(tmp_path / "whole")
        assert not (tmp_path / f".out-{lives}.curate").exists()


def test_work_for_another_recipe_or_other_input_is_done_anew(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = {"heuristics": {"min_words": 1}}
    for change in ("recipe", "input"):
        out, lives = tmp_path / change, 12
        with pytest.raises(KeyboardInterrupt):
            run(crawl, out, Inline(lives), monkeypatch)
        if change == "input":
            data = crawl.read_bytes()
            crawl.write_bytes(data[: len(data) - 4000])
        keys = loose if change == "recipe" else {}
        later, fresh = Inline(), Inline()
        run(crawl, out, later, monkeypatch, **keys)
        run(crawl, tmp_path / f"{change}-fresh", fresh, monkeypatch, **keys)
        assert later.ran == fresh.ran
        assert content(out) == content(tmp_path / f"{change}-fresh")


def test_a_half_written_file_is_no_finished_shard(crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(crawl, tmp_path / "out", Inline(4), monkeypatch)
    first = tmp_path / ".out.curate/pages/shard-000000.parquet"
    first.write_bytes(first.read_bytes()[:-20])
    later = Inline()
    run(crawl, tmp_path / "out", later, monkeypatch)
    assert later.ran[0].startswith("annotate shard 0 ")
    assert later.ran[1].startswith("annotate shard 4 ")


def test_a_killed_run_goes_on(crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to the parent alone: its workers end by themselves, and what they had finished is used."""
    out, pages = tmp_path / "out", tmp_path / ".out.curate/pages"
    out.mkdir()
    started = subprocess.Popen([sys.executable, "-c", SCRIPT, crawl, out], start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(pages.glob("shard-*.parquet")) if pages.exists() else []) < 2:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    started.kill()
    started.wait()
    while True:  # until no process of the session is left
        try:
            os.killpg(started.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    finished = len(list(pages.glob("shard-*.parquet")))
    later, whole = Inline(), Inline()
    run(crawl, out, later, monkeypatch)
    run(crawl, tmp_path / "whole", whole, monkeypatch)
    redone = sum(ran.startswith("annotate") for ran in later.ran)
    assert redone == sum(ran.startswith("annotate") for ran in whole.ran) - finished
    assert content(out) == content(tmp_path / "whole")


def test_work_with_another_list_is_done_anew(crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("y.example\n")
    keys = {"url": {"blocked_domains": [str(blocked)]}}
    with pytest.raises(KeyboardInterrupt):
        run(crawl, tmp_path / "out", Inline(6), monkeypatch, **keys)
    blocked.write_text("z.example\n")
    os.utime(blocked, ns=(0, 0))
    later = Inline()
    run(crawl, tmp_path / "out", later, monkeypatch, **keys)
    assert later.ran[0].startswith("annotate shard 0 ")
