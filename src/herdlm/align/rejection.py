"""Rejection sampling: of K answers to a prompt, keep what verifier and reward model find best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from herdlm.align.bank.tasks import BY_NAME, Question, is_right
from herdlm.align.config import RejectionConfig
from herdlm.align.preferences import as_dialog
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

    An answer ranks by its reward plus the logarithm of how often the model gave it. Where the task has a verifier only
    right answers may stay; elsewhere the upper share by rank within the task does. Selecting inside each task keeps
    hard tasks from vanishing behind easy ones.
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
    for task, found in sorted(ranked.items()):
        found.sort(key=lambda entry: (-entry[0], entry[1]))
        limit = config.keep_per_task
        if not BY_NAME[task].verifiable:
            limit = min(limit, math.ceil(len(found) * config.keep_share_unverified))
        chosen = found[:limit]
        right = sum(is_right(questions[number], answer) for _, number, answer in chosen)
        counts["tasks"][task] = {"candidates": len(found), "kept": len(chosen), "right": right}
        kept += [as_dialog(questions[number], answer, source=source) for _, number, answer in chosen]
    counts["kept"] = len(kept)
    return kept, counts
