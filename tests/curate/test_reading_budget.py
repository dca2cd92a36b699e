"""The code that reads, judges and writes a batch of pages, with all that calls it, is read within a budget of lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import herdlm
from herdlm.curate import annotate, pipeline
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.documents import RowWriter
from herdlm.curate.step import PageStep, run_steps
from herdlm.curate.steps.heuristics import Heuristics
from tests.reading_budget import code_lines

SOURCE = Path(herdlm.__file__).parent
LINES, FILES = 1250, 18
WORK = {function.__code__ for function in (annotate._batches, run_steps, RowWriter.write)}  # read, judge, write


class Prepare(PageStep):
    """Stands in for extraction and the other steps before the one that is read."""

    name = "prepare"

    def run(self, batch: Batch) -> Outcome:
        count = len(batch["id"])
        texts = [payload.decode() for payload in batch["payload"]]
        return Outcome([None] * count, {"text": texts, "language": ["en"] * count, "domain": ["general"] * count})


class FirstPassDoneError(Exception):
    """Ends the curation before the second pass."""


class Inline:
    """A runner in this process, so that all code runs where it is traced."""

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Any, items: Any) -> Any:
        return map(function, items)


@contextmanager
def traced(files: set[str]) -> Iterator[None]:
    """Collect the files on the call stack, whenever a function is called to read, judge or write a batch."""

    def trace(frame: FrameType | None, event: str, argument: Any) -> None:
        stack: list[CodeType] = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        if not WORK.isdisjoint(stack):
            files.update(code.co_filename for code in stack)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_a_batch_is_followed_through_a_step_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise FirstPassDoneError

    def steps(config: CurateConfig) -> list[PageStep]:
        return [Prepare(), Heuristics(config.heuristics)]

    monkeypatch.setattr(pipeline, "open_runner", lambda config, shared: Inline())
    monkeypatch.setattr(pipeline, "find_repeats", end)
    monkeypatch.setattr(pipeline, "page_steps", steps)
    monkeypatch.setattr(annotate, "page_steps", steps)
    sentence = "The river was high and the men of the village were at the bridge when it fell at last."
    page = tmp_path / "page.txt"  # repeats itself, which is the last that the heuristics look for
    page.write_text("\n".join(f"{sentence} {letter}{sentence}" for letter in "abcdefghij"))
    (tmp_path / "out").mkdir()
    seen, config = set[str](), CurateConfig()
    with traced(seen), pytest.raises(FirstPassDoneError):
        pipeline.curate([str(page)], tmp_path / "out", config, quiet=True)
    files = {path: code_lines(path) for path in map(Path, sorted(seen)) if path.is_relative_to(SOURCE)}
    names = {str(path.relative_to(SOURCE)) for path in files}
    assert {f"curate/{name}.py" for name in ("pipeline", "annotate", "step", "funnel", "ngrams", "documents")} <= names
    assert "curate/steps/heuristics.py" in names
    table = "\n".join(f"{count:5} {path.relative_to(SOURCE)}" for path, count in files.items())
    print(f"{table}\n{sum(files.values())} lines in {len(files)} files")
    assert sum(files.values()) <= LINES and len(files) <= FILES, table
