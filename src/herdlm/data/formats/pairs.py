"""Preference pairs: a better and a worse answer to one prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from herdlm.data.formats.form import QUESTIONS, Form, Make, Record, extras, has, request, with_system
from herdlm.data.messages import Messages, answer_messages, assistant, human_assistant, messages, text, user
from herdlm.data.row import Row, kind_of
from herdlm.data.tools import json_value

CONTEXTS = (*QUESTIONS, "input")
LISTS = ("answers", "completions", "responses")
SCORES = ("pm_score", "score", "overall_score")
REPEATED = "the prompt was repeated in the answers"


def _pair(row: Row) -> list[Record]:
    """``chosen`` and ``rejected``: texts or messages, after a prompt or with the prompt in them."""
    sides = [_side(row, key) for key in ("chosen", "rejected")]
    whole = all(side and side[0]["role"] != "assistant" for side in sides)
    context = row.first("prompt") if whole else row.first(*CONTEXTS)
    if context is None:
        if not whole:
            raise row.error(
                "chosen", "the pair has no prompt", "Add a key prompt, or begin chosen and rejected with the same turns"
            )
        return [_implicit(row, [], sides)]
    prompt = request(row, context)
    if isinstance(row.value[context], str):
        sides = [_without_text(row, row.value[context], side) for side in sides]
    return [_implicit(row, prompt, [_without_prompt(row, prompt, side) for side in sides])]


def _side(row: Row, key: str) -> Messages:
    value = row.get(key)
    if isinstance(value, str) and (turns := human_assistant(value)):
        return turns
    return answer_messages(row, key, value)


def _without_text(row: Row, prompt: str, side: Messages) -> Messages:
    """An answer without the text of a prompt of several words that it begins with."""
    if len(side) == 1 and side[0]["role"] == "assistant" and len(prompt.split()) > 3:
        content = side[0]["content"]
        if isinstance(content, str) and content.startswith(prompt):
            row.notes.append(REPEATED)
            return [{**side[0], "content": content[len(prompt) :].lstrip()}]
    return side


def _without_prompt(row: Row, prompt: Messages, side: Messages) -> Messages:
    """A side without the prompt's messages that it begins with."""
    while prompt and len(side) > len(prompt) and side[: len(prompt)] == prompt:
        row.notes.append(REPEATED)
        side = side[len(prompt) :]
    bare = [message for message in prompt if message["role"] != "system"]
    while bare and len(side) > len(bare) and side[: len(bare)] == bare:
        row.notes.append(REPEATED)
        side = side[len(bare) :]
    if len(side) > len(prompt) + 1 and side[0]["role"] == "system" and side[1 : 1 + len(prompt)] == prompt:
        row.notes.append(REPEATED)
        return [side[0], *side[1 + len(prompt) :]]
    return side


def _implicit(row: Row, prompt: Messages, sides: list[Messages]) -> Record:
    """A pair whose equal leading messages belong to its prompt.

    At least an answer is left on each side, and what is left begins with the assistant where the sides allow it.
    """
    chosen, rejected = sides
    if chosen and rejected and chosen[0]["role"] == "system" == rejected[0]["role"] and prompt:
        prompt = [chosen[0], *prompt]  # a system message that stood in the answers only
        chosen, rejected = chosen[1:], rejected[1:]
    most = min(len(chosen), len(rejected)) - 1
    common = next((n for n in range(max(most, 0)) if chosen[n] != rejected[n]), max(most, 0))
    while common > 0 and chosen[common]["role"] != "assistant":
        common -= 1
    if common > 0 or (chosen and chosen[0]["role"] == "assistant"):
        prompt, chosen, rejected = [*prompt, *chosen[:common]], chosen[common:], rejected[common:]
    return {"prompt": with_system(row, prompt), "chosen": chosen, "rejected": rejected, **extras(row)}


def _openai(row: Row) -> list[Record]:
    """OpenAI's preference form."""
    given = json_value(row, "input", row.get("input"))
    if not isinstance(given, dict) or "messages" not in given:
        raise row.error("input", "it has no messages", 'Write {"messages": [...]}')
    prompt = messages(row, "input.messages", given["messages"])
    sides = [answer_messages(row, key, row.get(key)) for key in ("preferred_output", "non_preferred_output")]
    row.value |= {key: given[key] for key in ("tools", "functions") if key in given}
    return [_implicit(row, prompt, [_without_prompt(row, prompt, side) for side in sides])]


def _versus(first: str, second: str, better: str, choose: Callable[[Any], int | None]) -> Make:
    """A form whose column ``better`` says which of two answers is better: ``choose`` gives 0, 1, or -1 for a tie."""

    def make(row: Row) -> list[Record]:
        number = choose(row.get(better))
        if number is None:
            raise row.error(better, f"{row.value[better]!r} does not name one of two answers", "Correct it")
        if number < 0:
            row.useless = "neither answer is better"
            return []
        sides = [answer_messages(row, key, row.get(key)) for key in (first, second)]
        chosen, rejected = sides[number], sides[1 - number]
        if "history" in row and "human_ref_a" in row:  # a post, not earlier turns
            return [
                {"prompt": [user(text(row, "history", row.get("history")))], "chosen": chosen, "rejected": rejected}
            ]
        context = row.first(*QUESTIONS)
        return [_implicit(row, request(row, context) if context else [], [chosen, rejected])]

    return make


def _number(value: Any) -> int | None:
    return {"0": 0, "1": 1, "false": 0, "true": 1}.get(str(value).lower())


def _first_if_one(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else 1 - number


def _winner(value: Any) -> int | None:
    word = str(value).lower()
    return {"model_a": 0, "model_b": 1}.get(word, -1 if word.startswith("tie") else None)


def _strength(value: Any) -> int | None:
    """HelpSteer2's strength from -3 (the first is much better) to 3 (the second is)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return -1 if value == 0 else int(value > 0)


def _lists(row: Row) -> list[Record]:
    """LLaMA-Factory's older form: ``output`` holds the better and the worse answer."""
    better, worse = row.get("output")
    sides = [[assistant(text(row, "output", said))] for said in (better, worse)]
    return [_implicit(row, request(row, "instruction"), sides)]


def _ranked(row: Row) -> list[Record]:
    """A list of answers with ranks (1 is best) or scores: the best against each worse one."""
    context, place = row.first(*QUESTIONS), row.first(*LISTS)
    assert context and place
    scored = []
    for index, item in enumerate(json_value(row, place, row.get(place))):
        key = f"{place}[{index}]"
        if not isinstance(item, dict):
            raise row.error(key, f"it is {kind_of(item)}, not an answer", 'Write {"answer": ..., "rank": ...}')
        answer = next((item[name] for name in ("answer", "text", "response") if item.get(name) is not None), None)
        score = next((item[name] for name in ("rank", *SCORES) if item.get(name) is not None), None)
        if answer is None or isinstance(score, bool) or not isinstance(score, int | float):
            raise row.error(key, "it has no answer or no rank", 'Write {"answer": ..., "rank": ...}')
        scored.append((-score if item.get("rank") is not None else score, [assistant(text(row, key, answer))]))
    best = max(scored, key=lambda entry: entry[0], default=None)
    prompt = request(row, context)
    return [{"prompt": prompt, "chosen": best[1], "rejected": a} for score, a in scored if best and score < best[0]]


def _has_ranks(row: Row) -> bool:
    listed = row.value.get(row.first(*LISTS) or "")
    return _context(row) and isinstance(listed, list) and bool(listed) and isinstance(listed[0], dict)


def _context(row: Row) -> bool:
    return row.first(*QUESTIONS) is not None


OPENAI = Form(
    "OpenAI's preferences",
    ("input", "preferred_output", "non_preferred_output"),
    has("input", "preferred_output", "non_preferred_output"),
    {"preferences": _openai},
)
PAIRS = Form("chosen and rejected", ("prompt", "chosen", "rejected"), has("chosen", "rejected"), {"preferences": _pair})
RANKED = Form("answers with ranks", ("prompt", "answers"), _has_ranks, {"preferences": _ranked})
LIST_PAIRS = Form(
    "two outputs, the better first",
    ("instruction", "output"),
    lambda row: "instruction" in row and isinstance(row.value.get("output"), list) and len(row.value["output"]) == 2,
    {"preferences": _lists},
)


def _comparison(name: str, keys: tuple[str, str, str], choose: Callable[[Any], int | None], context: str = "") -> Form:
    wanted = (context, *keys) if context else keys
    return Form(name, wanted, has(*wanted), {"preferences": _versus(*keys, choose)})


COMPARISONS = (
    _comparison("better_response_id", ("response_0", "response_1", "better_response_id"), _number, "prompt"),
    _comparison("preference_strength", ("response_1", "response_2", "preference_strength"), _strength, "prompt"),
    _comparison("human references", ("human_ref_a", "human_ref_b", "labels"), _first_if_one, "history"),
    _comparison("arena conversations", ("conversation_a", "conversation_b", "winner"), _winner),
)
