"""Makes new problems of real ones: on new inputs, for many inputs at once, or about their results."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from herdlm.align.synth.code.inputs import new_inputs
from herdlm.align.synth.code.problems import Problem, asked, functions_of
from herdlm.align.synth.code.run_code import asserts, outputs, tell_nothing
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table
from herdlm.sandbox.sandbox import Sandbox

SHOWN = 3  # tests in the prompt, as MBPP shows


@dataclass(frozen=True, slots=True)
class Mutant:
    """A new problem with its solution and tests."""

    text: str
    code: str
    entry: str
    tests: list[str]
    way: str


Make = Callable[[Draw, Problem, str, list[str], list[str]], Mutant | None]


def mutants(draw: Draw, sandbox: Sandbox, problem: Problem, count: int, *, invent_inputs: bool) -> list[Mutant]:
    """Up to ``count`` new problems of one, each in another way; their tests come from running the real solution.

    Args:
        invent_inputs: use new inputs, for which only the solution says what is right, and not those of the given tests.
    """
    what = asked(problem)
    if not what or _depends_on_chance(problem):
        return []
    calls, results = _known(draw, sandbox, problem, invent_inputs=invent_inputs)
    if len(calls) < SHOWN or len(set(results)) < 2:
        return []
    found: list[Mutant] = []
    for way in draw.some(list(WAYS), len(WAYS)):
        if len(found) == count:
            break
        made = WAYS[way](draw, problem, what, calls, results)
        if made is None:
            continue
        tests = _tests(sandbox, made)
        if len(tests) >= SHOWN and not tell_nothing(tests):
            found.append(Mutant(made.text, made.code, made.entry, tests, way))
    return found


def _known(draw: Draw, sandbox: Sandbox, problem: Problem, *, invent_inputs: bool) -> tuple[list[str], list[str]]:
    """Calls and what they return. New inputs whose results are of no type that the given tests expect are left out."""
    given = list(problem.calls)
    calls = [*given, *new_inputs(draw, given)] if invent_inputs else given
    results = outputs(sandbox, problem.code, problem.entry, calls)
    types = {type(ast.literal_eval(result)) for result in results[: len(given)] if result is not None}
    pairs = [
        (call, result)
        for call, result in list(zip(calls, results, strict=True))[len(given) if invent_inputs else 0 :]
        if result is not None and type(ast.literal_eval(result)) in types
    ]
    return [call for call, _ in pairs], [result for _, result in pairs]


def _depends_on_chance(problem: Problem) -> bool:
    """Whether results may differ between runs: by random numbers, the clock, or the order of texts in a set."""
    tree = ast.parse(problem.code)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if names & {"random", "now", "today", "time", "id", "hash"}:
        return True
    sets = names & {"set", "frozenset"} or any(isinstance(node, ast.Set | ast.SetComp) for node in ast.walk(tree))
    return bool(sets) and any("'" in call or '"' in call for call in problem.calls)


def _tests(sandbox: Sandbox, made: Mutant) -> list[str]:
    """Asserts of a mutant, whose tests are calls so far."""
    results = outputs(sandbox, made.code, made.entry, made.tests)
    return asserts(made.entry, made.tests, results)[: 2 * SHOWN]


def _renamed(draw: Draw, problem: Problem, what: str) -> tuple[str, str]:
    """The solution under a new name of its function, and that name."""
    words = list(dict.fromkeys(word for word in re.findall(r"[a-z]{3,}", what.lower()) if word not in COMMON))
    count = draw.number(2, 3)
    words = words[:count] if draw.chance(0.6) else draw.some(words, count)
    name = "_".join(words) or draw.one(("solve", "answer"))
    if name in functions_of(problem.code) or not name.isidentifier():
        name = f"{name}_of"
    code = re.sub(rf"\b{re.escape(problem.entry)}\b", name, problem.code)
    return code, name


def _same(draw: Draw, problem: Problem, what: str, calls: list[str], results: list[str]) -> Mutant | None:
    """The same task under another name with other examples."""
    code, name = _renamed(draw, problem, what)
    text = draw.one(
        (
            f"Implement a Python function `{name}` to {what}.",
            f"I need a function called `{name}` in Python. Its task is to {what}.",
            f"Define `{name}`. This function has to {what}.",
        )
    )
    return Mutant(_fixed(text, problem), code, name, draw.some(calls, 2 * SHOWN), "same")


LOOP = "results = []\n    for item in items:\n        results.append({call})\n    return results"
EACH = (
    "Write a Python function `{name}`. It takes {kind}, and returns the list of results. For a single input, the task "
    "is to {what}.",
    "Given {kind}, your function `{name}` returns a list with the result for each. The task for one input: {what}.",
    "Implement `{name}` in Python. Its argument is {kind}; what it returns is the list of all results. One result is "
    "found as follows: {what}.",
)
ABOUT = (
    "Write a Python function `{name}` that takes a list of inputs and returns {word}. The task for one input: {what}.",
    "Your function `{name}` gets a list of inputs. It returns {word}. For each of them the task is to {what}.",
)


def _each(draw: Draw, problem: Problem, what: str, calls: list[str], results: list[str]) -> Mutant | None:
    """The task for each of a list of inputs."""
    single = _arguments(calls[0]) == 1
    name = draw.one(("solve_all", "for_each", "all_results", "process_list"))
    call = f"{problem.entry}({'item' if single else '*item'})"
    loop = draw.one((f"return [{call} for item in items]", LOOP.format(call=call)))
    code = f"{problem.code}\n\n\ndef {name}(items):\n    {loop}"
    kind = "a list of inputs" if single else "a list of tuples, each with the arguments of one case"
    text = draw.one(EACH).format(name=name, kind=kind, what=what)
    return Mutant(_fixed(text, problem), code, name, _lists(draw, calls, single=single), "each")


def _about(kind: str, word: str, body: str, names: tuple[str, ...]) -> Make:
    """A question about the results for a list of inputs."""

    def make(draw: Draw, problem: Problem, what: str, calls: list[str], results: list[str]) -> Mutant | None:
        if _arguments(calls[0]) != 1 or not all(
            type(ast.literal_eval(result)).__name__ in kind.split("|") for result in results
        ):
            return None
        name = draw.one(names)
        code = f"{problem.code}\n\n\ndef {name}(items):\n    return {body.format(f=problem.entry)}"
        text = draw.one(ABOUT).format(name=name, word=word, what=what)
        return Mutant(_fixed(text, problem), code, name, _lists(draw, calls, single=True), name)

    return make


WAYS: dict[str, Make] = {
    "same": _same,
    "each": _each,
    "filter": _about(
        "bool",
        "the inputs for which the answer is True, in their order",
        "[item for item in items if {f}(item)]",
        ("select", "keep_matching", "filter_items"),
    ),
    "count": _about(
        "bool",
        "for how many of them the answer is True",
        "sum(1 for item in items if {f}(item))",
        ("count_matching", "how_many"),
    ),
    "total": _about(
        "int|float",
        "the sum of the results for all inputs",
        "sum({f}(item) for item in items)",
        ("total_result", "sum_of_results"),
    ),
    "largest": _about(
        "int|float",
        "the input with the largest result, the first one if several share it",
        "max(items, key={f})",
        ("best_input", "argmax"),
    ),
}


def _lists(draw: Draw, calls: list[str], *, single: bool) -> list[str]:
    """Calls with lists of inputs."""
    found = []
    for _ in range(3 * SHOWN):
        items = draw.some(calls, draw.number(2, min(4, len(calls))))
        found.append("[" + ", ".join(item if single else f"({item})" for item in items) + "]")
    return list(dict.fromkeys(found))


def _arguments(call: str) -> int:
    return len(ast.literal_eval(f"({call},)"))


def _fixed(text: str, problem: Problem) -> str:
    """A text that does not name the old function."""
    return re.sub(rf"\b{re.escape(problem.entry)}\b", "it", text) if "_" in problem.entry else text


COMMON = frozenset(table("constraints/words.toml")["empty"]) | {"the", "and", "for", "given", "function", "two"}
