"""Rejection sampling: keeps the best of several answers to a prompt, by verifier and reward model."""

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
