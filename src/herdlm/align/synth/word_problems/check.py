"""Computes the steps of worked answers in the sandbox, from their text alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from herdlm.base.errors import HerdError
from herdlm.sandbox.sandbox import Sandbox

# Reads [[text, answer], ...] and prints what is wrong with each, "" for nothing. A line with "=" must be one step, or
# a chain of equal values; its left side is arithmetic with numbers, which it evaluates exactly.
PROGRAM = r"""
import ast, json, re, sys
from fractions import Fraction

STEP = re.compile(
    r"(?:[-(]*\$?\d[\d.,()%\s$]*[-+*/x\u00d7\u00f7]\s*)[^=a-wyzA-Z:;]*=\s*-?\$?\d[\d,]*(?:\.\d+)?%?"
)

def value(node):
    if isinstance(node, ast.Expression):
        return value(node.body)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = value(node.left), value(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise ValueError("not arithmetic")

def plain(side):
    side = re.sub(r"(?<=\d),(?=\d\d\d)", "", side.replace("$", "").replace("\u00d7", "*").replace("\u00f7", "/"))
    side = re.sub(r"(?<=\d)\s*%", "*0.01", re.sub(r"(?<=[\d.)])\s*x\s*(?=[\d(])", "*", side))
    return re.sub(r"(?<=\d)\s*[A-Za-z][A-Za-z ]*$", "", side.strip()).strip(" .")

def wrong(text, answer):
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    steps = 0
    for line in lines[:-1]:
        found = STEP.findall(line)
        if "=" in line and not found:
            return "a step cannot be read"
        for step in found:
            steps += 1
            try:
                values = [value(ast.parse(plain(side), mode="eval")) for side in step.split("=")]
            except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
                return "a step cannot be read"
            if any(abs(each - values[-1]) > Fraction(1, 200) for each in values):
                return "a step is wrong"
    ending = re.fullmatch(r"The answer is \$?(-?[\d,]+(?:\.\d+)?)\.?", lines[-1] if lines else "")
    if not ending:
        return "does not end with the answer"
    if not steps:
        return "has no step"
    given = Fraction(ending[1].replace(",", ""))
    if abs(given - Fraction(answer.replace(",", ""))) > Fraction(1, 200):
        return "the answer is wrong"
    return ""

print(json.dumps([wrong(text, answer) for text, answer in json.load(sys.stdin)]))
"""


def check_worked(sandbox: Sandbox, worked: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with each worked answer, "" for nothing: its steps, its last line, or the answer there.

    Args:
        worked: texts with one step a line and "The answer is N." at the end, and the right answer.

    Raises:
        HerdError: the sandbox does not run the check.
    """
    if not worked:
        return []
    result = sandbox.run(PROGRAM, stdin=json.dumps(list(worked)))
    if result.status != "ok":
        raise HerdError(
            f"checking steps in the sandbox ended with {result.status}: {result.stderr[-200:].strip()}",
            "Try herdlm sandbox check",
        )
    verdicts: list[str] = json.loads(result.stdout)
    return verdicts
