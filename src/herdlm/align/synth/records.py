"""Builds the records that generators yield: prompts with a verifier, dialogs with their lineage, pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from herdlm.align.samples import rows
from herdlm.align.synth.setting import Made

Messages = Sequence[dict[str, Any]]
PROGRAM = "program"
"""The source of what no model wrote."""


def user(content: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """An assistant's message, with calls of tools as ``{"name": ..., "arguments": {...}}``."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [{"type": "function", "function": dict(call)} for call in calls]
    return message


def prompt_id(messages: Messages, tools: Sequence[dict[str, Any]] = ()) -> str:
    """16 hexadecimal digits that name a prompt, as ``herdlm sample`` names it."""
    return rows.prompt_id({"prompt": list(messages), "tools": list(tools)})


def prompt(
    messages: Messages, *, task: str, source: str, verifier: str, tools: Sequence[dict[str, Any]] = (), **reference: Any
) -> Made:
    """A prompt whose answers can be checked.

    Args:
        task: a topic or capability, such as "word-problems".
        source: where it comes from.
        verifier: its name in docs/verifiers.md.
        reference: what the verifier compares with: ``answer``, ``tests``, ``instruction_id_list`` and ``kwargs``, or
            ``reference``; and ``options`` of the verifier.
    """
    record: dict[str, Any] = {"id": prompt_id(messages, tools), "prompt": list(messages)}
    if tools:
        record["tools"] = list(tools)
    return Made("prompts", {**record, "task": task, "source": source, "verifier": verifier, **reference})


def dialog(
    messages: Messages,
    *,
    task: str,
    source: str,
    origin: str,
    verdict: str,
    asked: str,
    tools: Sequence[dict[str, Any]] = (),
    **lineage: Any,
) -> Made:
    """A dialog to learn from.

    Args:
        source: who wrote the answers: the teacher's name, "program" or "edited".
        origin: where the prompt comes from.
        verdict: the verifier's reason.
        asked: the id of the prompt that it answers, see :func:`prompt_id`.
        lineage: more of what is known, such as ``sample``, the number of the teacher's answer.
    """
    record: dict[str, Any] = {"messages": list(messages)}
    if tools:
        record["tools"] = list(tools)
    traced: Mapping[str, Any] = {"prompt": asked, "model": source, "from": origin, "verdict": verdict, **lineage}
    return Made("dialogs", {**record, "task": task, "source": source, "lineage": dict(traced)})


def pair(
    messages: Messages,
    chosen: str,
    rejected: str,
    *,
    rating: str,
    chosen_source: str,
    rejected_source: str,
    task: str,
    origin: str,
    verdict: str,
    **lineage: Any,
) -> Made:
    """A preference pair; ``rating`` is "edited", "significantly better", "better" or "slightly better"."""
    traced = {"prompt": prompt_id(messages), "model": chosen_source, "from": origin, "verdict": verdict, **lineage}
    sides = {"chosen": [assistant(chosen)], "rejected": [assistant(rejected)], "rating": rating}
    sources = {"chosen_source": chosen_source, "rejected_source": rejected_source}
    return Made("pairs", {"prompt": list(messages), **sides, **sources, "task": task, "lineage": traced})
