"""Takes examples through the steps, and counts what each took in and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.quality.config import QualityConfig
from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Embed, Shared
from herdlm.align.quality.steps.quality import set_scores
from herdlm.align.quality.steps.topics import UNKNOWN
from herdlm.base.errors import InputError
from herdlm.base.progress import Progress

DESCRIBING = ("topics", "difficulty")  # steps that scores depend on
NO_MODEL, NO_ITEMS = "there is no model for embeddings", "there are no evaluation files"


@dataclass(slots=True)
class Controlled:
    """What stayed, in the order given; what was dropped, with ``dropped``: step, reason, detail; and the funnel."""

    kept: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    funnel: dict[str, Any]


def control(
    rows: Sequence[Mapping[str, Any]],
    config: QualityConfig | None = None,
    *,
    embed: Embed | None = None,
    against: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    quiet: bool = True,
) -> Controlled:
    """Judge dialogs (``messages``) or prompts (``prompt``). The same rows stay whatever their order.

    A row that stays gets ``quality``: its key, topic, difficulty, language and score. Rewards, verdicts and marks are
    read from the row or its ``lineage``.

    Args:
        embed: texts to vectors of length 1, [N, D]; None: steps that need them are passed over, and the funnel says so.
        against: texts of evaluation items, by name.
        seeds: texts with topics, for the topics of rows without a task.

    Raises:
        InputError: a row is neither a dialog nor a prompt.
    """
    for number, row in enumerate(rows):
        if "messages" not in row and ("prompt" not in row or "chosen" in row):
            raise InputError(f"row {number + 1} is neither a dialog nor a prompt", "Give rows with messages or prompt")
    shared = Shared(embed=embed, against=against or {}, seeds=seeds, seed=seed)
    examples = sorted(
        (Example(row, number, topic=row.get("task") or UNKNOWN) for number, row in enumerate(rows)),
        key=lambda e: e.order,
    )
    drops: dict[int, tuple[str, Drop]] = {}
    counts: list[dict[str, Any]] = []
    scored = False
    left, steps = examples, (config or QualityConfig()).steps()
    with Progress("quality control", len(steps), "steps", quiet=quiet) as progress:
        for step in steps:
            if step.name not in DESCRIBING and not scored:
                set_scores(left)
                scored = True
            skipped = NO_MODEL if step.needs_embeddings and embed is None else ""
            skipped = skipped or (NO_ITEMS if step.name == "contamination" and not shared.against else "")
            found = [None] * len(left) if skipped else step.run(left, shared)
            drops |= {e.number: (step.name, drop) for e, drop in zip(left, found, strict=True) if drop is not None}
            counts.append(_counted(step.name, left, found, skipped) | shared.report.get(step.name, {}))
            left = [example for example, drop in zip(left, found, strict=True) if drop is None]
            progress.advance()
    by_number = {example.number: example for example in examples}
    kept = [_kept(by_number[example.number]) for example in sorted(left, key=lambda e: e.number)]
    dropped = [_dropped(by_number[number], *drops[number]) for number in sorted(drops)]
    return Controlled(kept, dropped, {"given": len(rows), "kept": len(kept), "dropped": len(dropped), "steps": counts})


def _counted(name: str, given: Sequence[Example], found: Sequence[Drop | None], skipped: str) -> dict[str, Any]:
    drops = [(example, drop) for example, drop in zip(given, found, strict=True) if drop is not None]
    row: dict[str, Any] = {
        "step": name,
        "given": len(given),
        "dropped": len(drops),
        "reasons": dict(sorted(Counter(drop.reason for _, drop in drops).items())),
        "topics": dict(sorted(Counter(example.topic for example, _ in drops).items())),
    }
    return row | ({"skipped": skipped} if skipped else {})


def _kept(example: Example) -> dict[str, Any]:
    found = {
        "key": example.key,
        "topic": example.topic,
        "difficulty": example.difficulty,
        "language": example.language,
        "score": round(example.score, 4),
    }
    return {**example.row, "quality": found | example.notes}


def _dropped(example: Example, step: str, drop: Drop) -> dict[str, Any]:
    why = {"key": example.key, "step": step, "reason": drop.reason, "detail": drop.detail, "of": drop.of}
    return {**example.row, "dropped": {name: value for name, value in why.items() if value}}
