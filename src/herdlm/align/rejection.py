"""Rejection sampling: keeps the best of several answers to a prompt, by verifier and reward model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from herdlm.align.bank.tasks import BY_NAME, Question, is_right
from herdlm.align.config import RejectionConfig
from herdlm.align.preferences import as_dialog, assistant
from herdlm.tokens.dialogs import Dialog


def best_answers(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    rewards: Sequence[Sequence[float]],
    config: RejectionConfig,
    *,
    source: str,
) -> tuple[list[Dialog], dict[str, Any]]:
    """The answers to keep as fine-tuning data, and counts per task.

    Answers are ranked by their reward plus the logarithm of how often the model gave them. In a task with a verifier
    only right answers are kept; in the others, the best-ranked ``keep_share_unverified``. Selecting within each task
    keeps easy tasks from crowding out hard ones.
    """
    ranked: dict[str, list[tuple[float, int, str]]] = {}
    for number, (question, given, scores) in enumerate(zip(questions, answers, rewards, strict=True)):
        reward = dict(zip(given, scores, strict=True))
        allowed = [
            (reward[answer] + math.log(count), answer)
            for answer, count in Counter(given).items()
            if math.isfinite(reward[answer]) and (not BY_NAME[question.task].verifiable or is_right(question, answer))
        ]
        if allowed:
            rank, answer = max(allowed)
            ranked.setdefault(question.task, []).append((rank, number, answer))
    kept: list[Dialog] = []
    counts: dict[str, Any] = {"prompts": len(questions), "kept": 0, "tasks": {}}
    for task, candidates in sorted(ranked.items()):
        candidates.sort(key=lambda entry: (-entry[0], entry[1]))
        limit = config.keep_per_task
        if not BY_NAME[task].verifiable:
            limit = min(limit, math.ceil(len(candidates) * config.keep_share_unverified))
        chosen = candidates[:limit]
        right = sum(is_right(questions[number], answer) for _, number, answer in chosen)
        counts["tasks"][task] = {"candidates": len(candidates), "kept": len(chosen), "right": right}
        kept += [as_dialog(questions[number], answer, source=source) for _, number, answer in chosen]
    counts["kept"] = len(kept)
    return kept, counts


def best_of_prompts(
    rows: Sequence[Mapping[str, Any]], rewards: Sequence[Sequence[float]], config: RejectionConfig, *, source: str
) -> tuple[list[Dialog], dict[str, Any]]:
    """The answers to keep of prompts without a verifier, and counts; see :func:`best_answers`.

    Args:
        rows: each with ``prompt``, perhaps ``tools`` and ``task``, and ``samples``, its answers.
    """
    ranked: dict[str, list[tuple[float, int, str]]] = {}
    for number, (row, scores) in enumerate(zip(rows, rewards, strict=True)):
        reward = dict(zip(row["samples"], scores, strict=True))
        allowed = [
            (reward[answer] + math.log(count), answer)
            for answer, count in Counter(row["samples"]).items()
            if answer and math.isfinite(reward[answer])
        ]
        if allowed:
            rank, answer = max(allowed)
            ranked.setdefault(row.get("task", ""), []).append((rank, number, answer))
    kept: list[Dialog] = []
    counts: dict[str, Any] = {"prompts": len(rows), "kept": 0, "tasks": {}}
    for task, candidates in sorted(ranked.items()):
        candidates.sort(key=lambda entry: (-entry[0], entry[1]))
        limit = min(config.keep_per_task, math.ceil(len(candidates) * config.keep_share_unverified))
        counts["tasks"][task or "all"] = {"candidates": len(candidates), "kept": len(candidates[:limit])}
        for _, number, answer in candidates[:limit]:
            row = rows[number]
            dialog: Dialog = {"messages": [*row["prompt"], *assistant(answer)], "source": source}
            if "tools" in row:
                dialog["tools"] = row["tools"]
            kept.append(dialog)
    counts["kept"] = len(kept)
    return kept, counts
