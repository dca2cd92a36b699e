"""Dialogs with tools of the user's own, which are described but not run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.config import ToolsConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.base.errors import InputError
from herdlm.data.row import parse_json
from herdlm.verifiers.call import FunctionCall
from herdlm.verifiers.calls import parse_calls
from herdlm.verifiers.json_schema import Json

TASK = "tools"
REQUESTS = (
    "Here is the description of a function:\n\n{definition}\n\nWrite {count} different requests of users for which "
    "this function has to be called. Each gives all values that are needed. Write one request a line and nothing else."
)


def own_tools(setting: Setting, options: ToolsConfig) -> Iterator[Made]:
    """Dialogs of examples in the definitions and, with a teacher, of requests that it invents and answers.

    A call of the teacher's is kept if its arguments fit the definition and more than half of its answers agree.

    Raises:
        InputError: a file is wrong, or neither examples nor a teacher are there.
    """
    for path in options.definitions:
        described = _read(path)
        tools = [{"type": "function", "function": function} for function, _ in described]
        for function, examples in described:
            for request, arguments in examples:
                yield from _made(setting, tools, function, request, arguments, origin=path.name, source="user")
        if setting.teacher is None:
            if not any(examples for _, examples in described):
                setting.need_teacher(f"{path} without examples")
            continue
        yield from _taught(setting, options, path, tools, [function for function, _ in described])


def _read(path: Path) -> list[tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]]:
    """Definitions of functions, each with its examples."""
    try:
        value = parse_json(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}", "Give a JSON list of definitions") from error
    found = []
    for number, tool in enumerate(value if isinstance(value, list) else [value]):
        where = f"{path}, definition {number + 1}"
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError(f"{where} has no name", 'Write {"name": ..., "description": ..., "parameters": {...}}')
        if not isinstance(function.get("parameters"), dict):
            raise InputError(f"{where}: parameters of {function['name']} are missing", "Write a JSON schema")
        examples = tool.get("examples", []) or function.get("examples", [])
        pairs = []
        for example in examples:
            if not isinstance(example, dict) or not isinstance(example.get("request"), str):
                raise InputError(f"{where}: an example has no request", 'Write {"request": "...", "arguments": {...}}')
            if not isinstance(example.get("arguments"), dict):
                raise InputError(
                    f"{where}: an example has no arguments", 'Write {"request": "...", "arguments": {...}}'
                )
            pairs.append((example["request"], example["arguments"]))
        found.append(({key: function[key] for key in function if key != "examples"}, pairs))
    if len({function["name"] for function, _ in found}) < len(found):
        raise InputError(f"{path} defines a function twice", "Give each a name of its own")
    return found


def _made(
    setting: Setting,
    tools: Sequence[dict[str, Any]],
    function: dict[str, Any],
    request: str,
    arguments: dict[str, Any],
    *,
    origin: str,
    source: str,
) -> Iterator[Made]:
    """Prompt and dialog of a request and the arguments of its call, if these fit the definition."""
    messages = [records.user(request)]
    described = [tool["function"] for tool in tools]
    call = {"name": function["name"], "arguments": arguments}
    row = {"messages": [*messages, records.assistant("", [call])], "tools": list(tools)}
    if not setting.is_new(request):
        yield dropped(row, REPEATED)
        return
    if not Json(schema=function["parameters"])(json.dumps(arguments)).passed:
        yield dropped(row, "arguments do not fit the definition")
        return
    reference = {
        "function": described,
        "ground_truth": [{function["name"]: {key: [value] for key, value in arguments.items()}}],
    }
    verdict = FunctionCall()(json.dumps([call], ensure_ascii=False), reference)
    if not verdict.passed:
        yield dropped(row, verdict.reason)
        return
    made = records.prompt(messages, task=TASK, source=origin, verifier="call", tools=tools, reference=reference)
    yield made
    yield records.dialog(
        row["messages"],
        task=TASK,
        source=source,
        origin=origin,
        verdict=verdict.reason,
        asked=made.record["id"],
        tools=tools,
    )


def _taught(
    setting: Setting, options: ToolsConfig, path: Path, tools: list[dict[str, Any]], functions: list[dict[str, Any]]
) -> Iterator[Made]:
    teacher = setting.need_teacher("definitions")
    asked = [
        [records.user(REQUESTS.format(definition=json.dumps(function, indent=1), count=options.requests))]
        for function in functions
    ]
    answers = setting.ask(asked, "requests", path.name, temperature=options.temperature, max_tokens=options.max_tokens)
    for function, (answer,) in zip(functions, answers, strict=True):
        requests = _lines(answer.text)[: options.requests]
        offered = _offered(setting, tools, function, options.most_tools)
        dialogs = [[records.user(request)] for request in requests]
        drawn = setting.ask(
            dialogs,
            "calls",
            path.name,
            samples=options.votes,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            tools=offered,
        )
        for request, samples in zip(requests, drawn, strict=True):
            arguments = _agreed([sample.whole for sample in samples], function["name"])
            if arguments is None:
                yield dropped({"prompt": [records.user(request)], "tools": offered}, "the calls do not agree")
                continue
            yield from _made(setting, offered, function, request, arguments, origin=path.name, source=teacher.name)


def _offered(
    setting: Setting, tools: list[dict[str, Any]], function: dict[str, Any], most: int
) -> list[dict[str, Any]]:
    """The function among some others, in a random order."""
    draw = Draw(setting.random("offered", function["name"]))
    own = [tool for tool in tools if tool["function"]["name"] == function["name"]]
    others = [tool for tool in tools if tool["function"]["name"] != function["name"]]
    return draw.some(both := [*own, *draw.some(others, draw.number(0, most - 1))], len(both))


def _lines(text: str) -> list[str]:
    lines = [re.sub(r"^\s*(?:\d+[.)]|[-*])\s*", "", line).strip().strip('"') for line in text.splitlines()]
    return [line for line in dict.fromkeys(lines) if len(line.split()) >= 3]


def _agreed(answers: Sequence[str], name: str) -> dict[str, Any] | None:
    """The arguments of the one call on which more than half of the answers agree."""
    seen: Counter[str] = Counter()
    for answer in answers:
        calls = parse_calls(answer)
        if len(calls) == 1 and calls[0].name == name:
            seen[json.dumps(calls[0].arguments, sort_keys=True)] += 1
    if not seen:
        return None
    text, count = seen.most_common(1)[0]
    arguments: dict[str, Any] = json.loads(text)
    return arguments if count * 2 > len(answers) else None
