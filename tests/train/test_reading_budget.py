"""Who wants to read one whole training step, the model included, reads at most 1,800 lines of code."""

import ast
import io
import sys
import tokenize
from pathlib import Path

import herdlm
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.conftest import small_model
from tests.train.test_loop import batches

SOURCE = Path(herdlm.__file__).parent
LINES = 1800


def code_lines(path: Path) -> int:
    """Lines with code on them: no blank ones, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, node.end_lineno + 1))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


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
    files = {path: code_lines(path) for path in map(Path, sorted(seen)) if path.is_relative_to(SOURCE)}
    names = {str(path.relative_to(SOURCE)) for path in files}
    assert {"train/loop.py", "train/objectives.py", "model/transformer.py", "model/losses.py"} <= names
    told = "\n".join(f"{count:5} {path.relative_to(SOURCE)}" for path, count in files.items())
    assert sum(files.values()) <= LINES, told
    print(f"{told}\n{sum(files.values())} lines")
