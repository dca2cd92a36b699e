"""Reads programming problems with solutions and tests, and functions from files of Python code."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import form_of
from herdlm.data.row import RowError

HARMLESS = frozenset(
    [
        "math",
        "re",
        "itertools",
        "functools",
        "collections",
        "string",
        "heapq",
        "bisect",
        "operator",
        "statistics",
        "fractions",
        "decimal",
        "datetime",
        "copy",
        "typing",
        "random",
        "cmath",
        "textwrap",
        "json",
    ]
)


SPEAKING = frozenset(("open", "input", "exec", "eval", "print", "exit", "quit"))
"""Built-in functions that do more than to return something."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with a solution.

    Attributes:
        text: what is asked; "" for a snippet that nobody described.
        code: Python that solves it.
        entry: the function under test.
        calls: argument texts of the calls in its tests, such as "[1, 2], 3".
        tests: assert statements.
        origin: the file.
    """

    text: str
    code: str
    entry: str
    calls: tuple[str, ...]
    tests: tuple[str, ...]
    origin: str


def read_problems(paths: Sequence[Path]) -> Iterator[Problem]:
    """The problems of files as MBPP has them (``text``, ``code``, ``test_list``).

    A problem whose tests are not plain asserts of one function is left out.

    Raises:
        InputError: a file cannot be read, or none of its rows is such a problem.
    """
    for path in paths:
        found = 0
        for row in read_rows(path, is_row=lambda row: form_of(row) is not None):
            if isinstance(row, RowError):
                raise row
            text, code, tests = (row.value.get(key) for key in ("text", "code", "test_list"))
            text = text or row.value.get("prompt")
            if not (isinstance(text, str) and isinstance(code, str) and isinstance(tests, list)):
                raise row.error("test_list", "the row has not text, code and tests", "Give files as MBPP's")
            found += 1
            problem = _problem(text, code, tests, path.name)
            if problem is not None:
                yield problem
        if not found:
            raise InputError(f"{path} holds no problems", "Give files as MBPP's")


def _problem(text: str, code: str, tests: Sequence[Any], origin: str) -> Problem | None:
    try:
        code = ast.unparse(ast.parse(code.replace("\r\n", "\n")))  # one layout, without trailing blanks
    except (SyntaxError, ValueError):
        return None
    defined = functions_of(code)
    calls, names = [], set()
    for test in tests:
        for name, arguments in calls_in(str(test), defined):
            names.add(name)
            calls.append(arguments)
    if len(names) != 1 or len(calls) < len(tests):
        return None
    return Problem(" ".join(text.split()), code, names.pop(), tuple(calls), tuple(map(str, tests)), origin)


def functions_of(code: str) -> dict[str, ast.FunctionDef]:
    """The functions of a program's top level; none if it is not Python."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return {}
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def calls_in(test: str, defined: dict[str, ast.FunctionDef]) -> Iterator[tuple[str, str]]:
    """The calls with literal arguments of the functions in an assert statement."""
    try:
        tree = ast.parse(test)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in defined
            and not node.keywords
        ):
            try:
                for argument in node.args:
                    ast.literal_eval(argument)
            except ValueError:
                continue
            yield node.func.id, ", ".join(ast.unparse(argument) for argument in node.args)


def read_snippets(paths: Sequence[Path]) -> Iterator[Problem]:
    """Functions of Python files that need nothing around them but harmless modules of the standard library.

    Raises:
        InputError: a file is missing or is no Python.
    """
    for path in paths:
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} cannot be read as Python: {error}", "Give .py files") from error
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or not node.args.args or node.decorator_list:
                continue
            needed = _imports_for(node, imports)
            if needed is None or not any(isinstance(each, ast.Return) and each.value for each in ast.walk(node)):
                continue
            code = "\n".join([*needed, *([""] * 2 if needed else []), ast.unparse(node)])
            yield Problem("", code, node.name, (), (), path.name)


def _imports_for(node: ast.FunctionDef, imports: Sequence[ast.Import | ast.ImportFrom]) -> list[str] | None:
    """The imports that a function needs; None if it needs other things of its file."""
    own = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)} | {node.name}
    own |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    own |= {each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef)}
    own |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - own
    used -= set(dir(builtins)) - SPEAKING
    found = []
    for statement in imports:
        module = statement.module if isinstance(statement, ast.ImportFrom) else statement.names[0].name
        names = {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        if used & names:
            if module not in HARMLESS:
                return None
            found.append(ast.unparse(statement))
            used -= names
    return None if used else found


def asked(problem: Problem) -> str:
    """What a problem asks, without "write a function to"; "" if it is said in another way."""
    match = re.fullmatch(
        r"Write a (?:python )?function (?:to|that|which|for) ([^*/\n\[\]]{8,250}?)\.?",
        problem.text,
        re.IGNORECASE | re.DOTALL,
    )
    return match[1].strip() if match else ""
