"""Makes dialogs with tools of our bank, whose calls are run, and with tools of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.config import ToolsConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.tools.dialogs import BY_FUNCTION, Work, begin
from herdlm.align.synth.tools.own import own_tools
from herdlm.align.synth.tools.run_calls import run_calls
from herdlm.base.errors import InputError
from herdlm.verifiers.call import FunctionCall

TASK = "tools"
SOURCE = "synth: tools"
BATCH = 200  # dialogs whose calls run together
TRIES = 300


def generate(setting: Setting, options: ToolsConfig) -> Iterator[Made]:
    """Prompts and dialogs with tools.

    Raises:
        InputError: no way has a share, or definitions are wrong.
    """
    shares = {"single": options.single, "parallel": options.parallel, "steps": options.steps, "none": options.none}
    if not sum(shares.values()):
        raise InputError(f"{setting.name}: all shares are 0", "Set single, parallel, steps or none")
    ways = _spread(shares, options.count)
    for start in range(0, options.count, BATCH):
        works = [_new(setting, options, ways[number], number) for number in range(start, min(start + BATCH, len(ways)))]
        _run(setting, works)
        for work in works:
            yield from _checked(work)
    if options.definitions:
        yield from own_tools(setting, options)


def _spread(shares: dict[str, float], count: int) -> list[str]:
    """Ways in turn, each as often as its share says: the next one is furthest behind."""
    made = dict.fromkeys(shares, 0)
    found = []
    for number in range(1, count + 1):
        way = max(shares, key=lambda name: shares[name] / sum(shares.values()) * number - made[name])
        made[way] += 1
        found.append(way)
    return found


def _new(setting: Setting, options: ToolsConfig, way: str, number: int) -> Work:
    for attempt in range(TRIES):
        work = begin(Draw(setting.random("dialog", number, attempt)), way, options.most_tools)
        if setting.is_new(work.messages[0]["content"]):
            return work
    raise InputError(f"{setting.name}: no new request in {TRIES} tries after {number:,}", "Lower count")


def _run(setting: Setting, works: list[Work]) -> None:
    """Run the calls of all dialogs, round by round."""
    while waiting := [work for work in works if work.pending]:
        calls = [call for work in waiting for call in work.pending]
        results = iter(run_calls(setting.sandbox, calls))
        for work in waiting:
            work.go_on([next(results) for _ in work.pending])


def _checked(work: Work) -> Iterator[Made]:
    """The prompts of a dialog's turns with calls, and the dialog, if the verifier passes each turn and the answer."""
    described = [tool["function"] for tool in work.tools]
    wrong = work.failed or _wrong_answer(work)
    prompts = []
    for before, calls in [(turn.before, turn.calls) for turn in work.turns] or [(1, [])]:
        reference = {"function": described, "ground_truth": [_possible(work, call) for call in calls]}
        answer = json.dumps(calls, ensure_ascii=False) if calls else str(work.messages[before]["content"])
        verdict = FunctionCall()(answer, reference)
        wrong = wrong or ("" if verdict.passed else verdict.reason)
        prompts.append(
            records.prompt(
                work.messages[:before], task=TASK, source=SOURCE, verifier="call", tools=work.tools, reference=reference
            )
        )
    if wrong:
        yield dropped({"messages": work.messages, "tools": work.tools}, wrong)
        return
    yield from prompts
    yield records.dialog(
        work.messages,
        task=TASK,
        source=records.PROGRAM,
        origin=SOURCE,
        verdict="calls as expected" if work.turns else "calls no function",
        asked=prompts[0].record["id"],
        tools=work.tools,
        way=work.way,
    )


def _wrong_answer(work: Work) -> str:
    """Whether the answer tells the last results."""
    answer = str(work.messages[-1].get("content"))
    for result in work.results:
        parts = result if isinstance(result, list) else list(result.values()) if isinstance(result, dict) else [result]
        if not isinstance(result, bool) and not all(_told(part, answer) for part in parts):
            return "the answer does not tell the result"
    return ""


def _told(part: Any, answer: str) -> bool:
    return str(part) in answer or (part == 1 and "once" in answer)


def _possible(work: Work, call: dict[str, Any]) -> dict[str, Any]:
    """A call with the values that its parameters may have; "" stands for one that may be left out."""
    function = next(function for function, name in work.names.items() if name == call["name"])
    optional = BY_FUNCTION[function].optional
    values = {key: [value, *([""] if optional.get(key) == value else [])] for key, value in call["arguments"].items()}
    left = {key: [value, ""] for key, value in optional.items() if key not in values}
    return {call["name"]: values | left}
