"""How much code someone reads to understand one step of something: the files whose code the step runs."""

import ast
import io
import tokenize
from pathlib import Path

import herdlm

SOURCE = Path(herdlm.__file__).parent


def code_lines(path):
    """The number of lines with code on them, without blank lines, comments and docstrings."""
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


def source_files(traced):
    """Lines of code by file, for those of ``traced`` that belong to herdlm."""
    paths = [path for path in map(Path, sorted(traced)) if path.is_relative_to(SOURCE)]
    return {path.relative_to(SOURCE).as_posix(): code_lines(path) for path in paths}


def check_budget(files, lines, count):
    """Print the table, and hold it to a number of lines and of files."""
    table = "\n".join(f"{size:5} {name}" for name, size in files.items())
    print(f"{table}\n{sum(files.values()):5} lines in {len(files)} files")
    assert sum(files.values()) <= lines, table
    assert len(files) <= count, table
