"""Makes new problems of real ones: on new inputs, for many inputs at once, or about their results."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth.code.problems import Problem, asked, functions_of
from herdlm.align.synth.code.run_code import asserts, outputs, tell_nothing
from herdlm.align.synth.draw import Draw
from herdlm.sandbox.sandbox import Sandbox

SHOWN = 3  # tests in the prompt, as MBPP shows
INPUTS = 24  # inputs that are tried


@dataclass(frozen=True, slots=True)
class Mutant:
    """A new problem with its solution and tests."""

    text: str
    code: str
    entry: str
    tests: list[str]
    way: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The least and the largest whole number in an argument's examples, which new ones do not leave by much."""

    least: int
    most: int

    @classmethod
    def of(cls, examples: Sequence[Any]) -> Seen:
        """Of all numbers in some values."""
        numbers = [number for example in examples for number in _numbers(example)] or [0]
        return cls(min(numbers), max(numbers))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _numbers(item)


def varied(draw: Draw, value: Any, seen: Seen) -> Any:
    """A literal that is like another one, but different."""
    if isinstance(value, bool):
        return not value if draw.chance(0.5) else value
    if isinstance(value, int):
        return min(max(value + draw.number(-4, 6), seen.least), seen.most + 3)
    if isinstance(value, float):
        return round(value + draw.number(0, 4) + 0.5, 2)
    if isinstance(value, str):
        return _varied_text(draw, value)
    if isinstance(value, list | tuple):
        items = [varied(draw, item, seen) if draw.chance(0.6) else item for item in value]
        if len(items) > 2 and draw.chance(0.3) and not _is_table(items):
            items.pop(draw.number(0, len(items) - 1))
        elif items and draw.chance(0.3) and not _is_table(items):
            items.insert(draw.number(0, len(items)), varied(draw, draw.one(items), seen))
        return type(value)(items)
    if isinstance(value, dict):
        return {key: varied(draw, item, seen) for key, item in value.items()}
    if isinstance(value, set):
        return {varied(draw, item, seen) for item in sorted(value, key=repr)}
    return value


def _is_table(items: Sequence[Any]) -> bool:
    """Whether items are rows, whose number other arguments may speak of."""
    return all(isinstance(item, list | tuple) for item in items)


def _varied_text(draw: Draw, text: str) -> str:
    words = text.split(" ")
    way = draw.number(0, 3)
    if len(words) > 2 and way < 2:
        return " ".join(draw.some(words, len(words)))
    if way == 2 and len(text) > 3:
        cut = draw.number(1, len(text) - 1)
        return text[cut:] + text[:cut]
    if way == 3 and text:
        at = draw.number(0, len(text) - 1)
        return text[:at] + text[at] * 2 + text[at + 1 :]
    return text[::-1]


def new_inputs(draw: Draw, calls: Sequence[str]) -> list[str]:
    """Argument texts like those of given calls, each different."""
    found: dict[str, None] = {}
    given = [ast.literal_eval(f"({call},)") for call in calls]
    given = [arguments for arguments in given if len(arguments) == len(given[0])]
    seen = [Seen.of([arguments[place] for arguments in given]) for place in range(len(given[0]))]
    for _ in range(INPUTS):
        arguments = draw.one(given)
        text = ", ".join(repr(varied(draw, *each)) for each in zip(arguments, seen, strict=True))
        if text not in calls:
            found[text] = None
    return list(found)


Make = Callable[[Draw, Problem, str, list[str], list[str]], Mutant | None]


def mutants(draw: Draw, sandbox: Sandbox, problem: Problem, count: int) -> list[Mutant]:
    """Up to ``count`` new problems of one, each in another way; their tests come from running the real solution."""
    what = asked(problem)
    if not what or not problem.calls or _depends_on_chance(problem):
        return []
    calls = [*problem.calls, *new_inputs(draw, problem.calls)]
    known = [
        (call, result)
        for call, result in zip(calls, outputs(sandbox, problem.code, problem.entry, calls), strict=True)
        if result is not None
    ]
    if len(known) < SHOWN + 1:
        return []
    fresh = [(call, result) for call, result in known if call not in problem.calls]
    if len({result for _, result in fresh}) < 2:
        return []
    ways = draw.some(list(WAYS), len(WAYS))
    found = []
    for way in ways:
        if len(found) == count:
            break
        made = WAYS[way](draw, problem, what, [call for call, _ in fresh], [result for _, result in fresh])
        if made is None:
            continue
        tests = _tests(sandbox, made)
        if len(tests) < SHOWN or tell_nothing(tests):
            continue
        found.append(Mutant(made.text, made.code, made.entry, tests, way))
    return found


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


def _each(draw: Draw, problem: Problem, what: str, calls: list[str], results: list[str]) -> Mutant | None:
    """The task for each of a list of inputs."""
    single = _arguments(calls[0]) == 1
    name = draw.one(("solve_all", "for_each", "all_results", "process_list"))
    loop = draw.one(
        (
            f"    return [{problem.entry}({'item' if single else '*item'}) for item in items]",
            f"    results = []\n    for item in items:\n        results.append({problem.entry}({'item' if single else '*item'}))\n    return results",
        )
    )
    code = f"{problem.code}\n\n\ndef {name}(items):\n{loop}"
    kind = "a list of inputs" if single else "a list of tuples, each with the arguments of one case,"
    text = draw.one(
        (
            f"Write a Python function `{name}` that takes {kind} and returns the list of results. For a single input, the task is to {what}.",
            f"Given {kind.rstrip(',')}, your function `{name}` returns a list with the result for each. The task for one input: {what}.",
        )
    )
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
        text = f"Write a Python function `{name}` that takes a list of inputs and returns {word}. The task for one input: {what}."
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


COMMON = frozenset(
    [
        "the",
        "given",
        "and",
        "for",
        "from",
        "that",
        "with",
        "using",
        "function",
        "each",
        "all",
        "its",
        "has",
        "into",
        "two",
        "not",
        "are",
        "whether",
    ]
)
