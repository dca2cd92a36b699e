"""Equations of word problems, computed one step a line; in prefix or in usual notation."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence

from herdlm.data.row import Row

OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
LONGEST = 400  # characters
Tree = float | tuple[str, "Tree", "Tree"]


def steps(row: Row, equation: str, numbers: Sequence[float]) -> tuple[list[str], float] | None:
    """The lines "a + b = c" of an equation and its value; None if it divides by zero.

    Raises:
        RowError: the equation cannot be read.
    """
    try:
        tree = _tree(equation, numbers)
    except (ValueError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        raise row.error("equation", f"{equation[:60]!r} cannot be computed: {error}", "Correct it") from error
    lines: list[str] = []
    try:
        return lines, _compute(tree, lines)
    except (ZeroDivisionError, OverflowError):
        return None


def _tree(equation: str, numbers: Sequence[float]) -> Tree:
    if len(equation) > LONGEST:
        raise ValueError("it is too long")
    for index in reversed(range(len(numbers))):
        equation = equation.replace(f"number{index}", str(numbers[index]))
    words = equation.split()
    if not words or words[0] not in OPERATIONS:
        return _usual(ast.parse(equation.strip(), mode="eval").body)
    tree = _prefix(words)
    if words:
        raise ValueError(f"{words[0]!r} is left over")
    return tree


def _prefix(words: list[str]) -> Tree:
    if not words:
        raise ValueError("a number is missing")
    word = words.pop(0)
    return (word, _prefix(words), _prefix(words)) if word in OPERATIONS else float(word)


def _usual(node: ast.expr) -> Tree:
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return SIGNS[type(node.op)], _usual(node.left), _usual(node.right)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    raise ValueError("it holds more than numbers and + - * /")


def _compute(tree: Tree, lines: list[str]) -> float:
    if isinstance(tree, float):
        return tree
    sign, left, right = tree
    first, second = _compute(left, lines), _compute(right, lines)
    value = OPERATIONS[sign](first, second)
    lines.append(f"{first:.10g} {sign} {second:.10g} = {value:.10g}")
    return value
