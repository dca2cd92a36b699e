"""Wrong solutions, made from right ones: each mutant is one change of a program, drawn by a seed."""

from __future__ import annotations

import ast
import copy
import random

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
KINDS = ("operator", "off by one", "none", "empty", "name", "syntax")


def mutant(code: str, entry_point: str, kind: str, rng: random.Random) -> str | None:
    """``code`` with one change of a kind; None if there is nothing to change."""
    if kind == "syntax":
        lines = code.splitlines()
        return "\n".join([*lines[:-1], lines[-1] + " )"])
    tree = copy.deepcopy(ast.parse(code))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == entry_point]
    if kind == "operator":
        places = [
            (node, name)
            for node in ast.walk(tree)
            for name in ("op",)
            if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS
        ]
        places += [
            (node, "ops") for node in ast.walk(tree) if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS
        ]
        if not places:
            return None
        node, name = rng.choice(places)
        if name == "op":
            node.op = SWAPS[type(node.op)]()
        else:
            node.ops[0] = SWAPS[type(node.ops[0])]()
    elif kind == "off by one":
        numbers = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is int]
        if not numbers:
            return None
        rng.choice(numbers).value += rng.choice((-1, 1))
    elif kind == "none":
        returns = [n for n in ast.walk(tree) if isinstance(n, ast.Return)]
        if not returns:
            return None
        rng.choice(returns).value = ast.Constant(None)
    elif not functions:
        return None
    elif kind == "empty":
        functions[-1].body = [ast.Pass()]
    else:
        functions[-1].name = "solution_" + entry_point
    return ast.unparse(ast.fix_missing_locations(tree))


def entry_point(code: str, tests: str) -> str | None:
    """The function of ``code`` that ``tests`` call first."""
    defined = {n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    calls = (n.func.id for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
    return next((name for name in calls if name in defined), None)
