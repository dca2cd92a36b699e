"""Tool dialogs under construction: what is asked, which tools are offered, and the calls with their results."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table
from herdlm.align.synth.tools import functions
from herdlm.align.synth.tools.bank import TOOLS, Tool
from herdlm.align.synth.tools.chains import CHAINS, Calls, Chain
from herdlm.align.synth.tools.draws import DRAWS, Arguments

TEXTS = table("tools/bank.toml")
BY_FUNCTION = {tool.function: tool for tool in TOOLS}
KNOWN = ("get_capital", "get_element", "is_leap_year")  # what a model can say without a tool
JOINTS = (" Also: ", " Besides: ", " One more thing: ", " ", "\n")
NO_TOOL = (
    "I cannot do that with the functions that I have here.",
    "None of the available functions can answer this.",
    "Sorry, but I have no function for that.",
    "There is no tool for this among those that I can use.",
    "With my functions I cannot find this out.",
)
CAN_DO = (" What I can do: {about}", " They are made for other things, such as this: {about}", "", "")


@dataclass
class Turn:
    """A turn of the assistant that calls tools: how many messages come before it, and its calls."""

    before: int
    calls: list[dict[str, Any]]


@dataclass
class Work:
    """A dialog that is being made.

    Attributes:
        way: "single", "parallel", "steps" or "none".
        names: the name in the definitions of each function that is offered.
        tools: the definitions.
        messages: what was said so far.
        pending: calls whose results are awaited, by the names of functions.
        told: results so far, as text, of which the last must be in the answer.
    """

    way: str
    chain: Chain
    names: dict[str, str]
    tools: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    turns: list[Turn] = field(default_factory=list)
    pending: Calls = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    failed: str = ""

    def go_on(self, results: list[dict[str, Any]]) -> None:
        """Take the results of pending calls, and call on or answer."""
        failed = [each["error"] for each in results if "error" in each]
        if failed:
            self.failed, self.pending = "a call fails", []
            return
        for (function, _), each in zip(self.pending, results, strict=True):
            content = json.dumps(each["result"], ensure_ascii=False)
            self.messages.append({"role": "tool", "name": self.names[function], "content": content})
        self.results = [each["result"] for each in results]
        self._send(self.results or None)

    def _send(self, results: list[Any] | None) -> None:
        try:
            calls = self.chain.send(results)  # type: ignore[arg-type]
        except StopIteration as end:
            self.pending = []
            self.messages.append(records.assistant(_readable(end.value)))
            return
        assert isinstance(calls, list)
        self.pending = calls
        named = [{"name": self.names[function], "arguments": arguments} for function, arguments in calls]
        self.turns.append(Turn(len(self.messages), named))
        self.messages.append(records.assistant("", named))


def begin(draw: Draw, way: str, most_tools: int) -> Work:
    """A new dialog up to its first calls, or whole if it has none."""
    barred: set[str] = set()
    needed: tuple[str, ...] = ()
    if way == "none":
        tool = draw.one(TOOLS)
        barred = {tool.topic}
    elif way == "steps":
        make = draw.one(list(CHAINS))
        chain, needed = make(draw), CHAINS[make]
    else:
        picked = _pick(draw, 1 if way == "single" else draw.number(2, 3))
        chain, needed = _independent(draw, picked), tuple(dict.fromkeys(tool.function for tool, *_ in picked))
    others = [each.function for each in TOOLS if each.function not in needed and each.topic not in barred]
    extra = draw.number(0 if needed else 1, max(most_tools - len(needed), 1))
    offered = [*needed, *draw.some(others, extra)]
    names = {each: draw.one(BY_FUNCTION[each].names) for each in draw.some(offered, len(offered))}
    tools = [BY_FUNCTION[each].definition(name, draw.one(BY_FUNCTION[each].about)) for each, name in names.items()]
    if way == "none":
        chain = _without(draw, tool, [each["function"]["description"] for each in tools])
    request = next(chain)
    assert isinstance(request, str)
    if draw.chance(0.35):
        request = f"{draw.one(TEXTS['openers'])} {request}"
    if draw.chance(0.2):
        request = f"{request} {draw.one(TEXTS['closers'])}"
    work = Work(way, chain, names, tools, [records.user(request)])
    work.go_on([])
    return work


Picked = tuple[Tool, Arguments, dict[str, Any]]


def _pick(draw: Draw, count: int) -> list[Picked]:
    """Calls that do not depend on each other: of different tools, or of one with different arguments."""
    same = count > 1 and draw.chance(0.5)
    tools = [draw.one(TOOLS)] * count if same else draw.some(TOOLS, count)
    picked: list[Picked] = []
    for tool in tools:
        arguments, said = DRAWS[tool.function](draw)
        while any(arguments == other for _, other, _ in picked):
            arguments, said = DRAWS[tool.function](draw)
        picked.append((tool, arguments, said))
    return picked


def _independent(draw: Draw, picked: list[Picked]) -> Chain:
    joint = draw.one(JOINTS)
    yield joint.join(draw.one(tool.asks).format(**_fields(arguments, said)) for tool, arguments, said in picked)
    results = yield [(tool.function, arguments) for tool, arguments, _ in picked]
    told = [_say(draw, *each, result, alone=len(picked) == 1) for each, result in zip(picked, results, strict=True)]
    return " ".join(told)


def _without(draw: Draw, tool: Tool, abouts: list[str]) -> Chain:
    """A request that none of the tools fits."""
    arguments, said = DRAWS[tool.function](draw)
    yield draw.one(tool.asks).format(**_fields(arguments, said))
    if tool.function in KNOWN:
        result = getattr(functions, tool.function)(**arguments)
        return _say(draw, tool, arguments, said, result, alone=True)
    return draw.one(NO_TOOL) + draw.one(CAN_DO).format(about=draw.one(abouts))


def _fields(arguments: Arguments, said: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, **said}


def _say(draw: Draw, tool: Tool, arguments: Arguments, said: dict[str, Any], result: Any, *, alone: bool) -> str:
    """A result in words. With several results, a bare one would not say what it answers."""
    fields = _fields(arguments, said) | {"result": ", ".join(result) if isinstance(result, list) else result}
    if isinstance(result, bool):
        fields |= {"yes": "Yes" if result else "No", "not_": "" if result else "not "}
    if isinstance(result, dict):
        fields |= result
    text = draw.one(tool.says if alone else tool.says[:1]).format(**fields)
    return text if text.endswith((".", "?", "!")) or alone else f"{text}."


def _readable(text: str) -> str:
    """Dollars with two digits of cents, and one time instead of 1 times."""
    return re.sub(r"\b1 times\b", "once", re.sub(r"\$(\d+\.\d)(?!\d)", r"$\g<1>0", text))
