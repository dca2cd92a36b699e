"""One whole training step, the model included, is read in at most 10 files and 1,500 lines, 1,000 of them code."""

import sys
from pathlib import Path

from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.conftest import small_model
from tests.reading_budget import SOURCE, code_lines
from tests.train.test_loop import batches

FILES, LINES, CODE_LINES = 10, 1500, 1000


def test_a_step_is_read_within_the_budget(tokenizer):
    seen = set()

    def trace(frame, event, argument):
        seen.add(frame.f_code.co_filename)

    data = batches(tokenizer, epochs=1)
    config = TrainConfig(peak_lr=1e-3, precision="float32", prefetch_steps=0)  # all in this thread
    model, before = small_model(), sys.gettrace()
    sys.settrace(trace)
    try:
        train(model, NextToken(), data, config, quiet=True)
    finally:
        sys.settrace(before)
    files = [path for path in map(Path, sorted(seen)) if path.is_relative_to(SOURCE)]
    names = {str(path.relative_to(SOURCE)) for path in files}
    assert {"train/loop.py", "train/objectives.py", "model/transformer.py", "model/losses.py"} <= names
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    code = [code_lines(path) for path in files]
    table = [f"{n:5} {c:5} {path.relative_to(SOURCE)}" for path, n, c in zip(files, lines, code, strict=True)]
    summary = "\n".join([*table, f"{sum(lines):5} {sum(code):5} lines, code lines in {len(files)} files"])
    print(summary)
    assert len(files) <= FILES and sum(lines) <= LINES and sum(code) <= CODE_LINES, summary
