"""Selects from judged samples: the answers to fine-tune on, and the pairs to prefer by.

The same sets are selected whatever the order of the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from herdlm.align.samples.candidates import Asked, Candidate, Row, joined
from herdlm.align.samples.pairing import EDITED, RATINGS, pairs_of, said, spread, with_system
from herdlm.align.samples.rows import prompt_id
from herdlm.align.samples.select_config import SelectConfig
from herdlm.tokens.chat import Message, text_of
from herdlm.tokens.dialogs import Dialog
from herdlm.tokens.preferences import Preference

KEPT = "kept"
NO_TASK = "no task"
ONLY_EMPTY, ONLY_CUT, NONE_RIGHT = "only empty answers", "only answers cut at the length limit", "no right answer"
LOW_REWARD, NO_REWARD = "reward below the quantile", "no reward"
UNVERIFIED, BEYOND, NOT_ASKED = "beyond the share of unverified", "beyond the task's limit", "keep_per_prompt is 0"
SIMILAR_WORDS = 3
NEAR_BEST = 1.5  # spreads below the best answer to which ``diverse`` looks for others


@dataclass(slots=True)
class Selected:
    """What was selected, and why the rest was not.

    Attributes:
        kept: dialogs to fine-tune on, with lineage.
        pairs: pairs in four grades, with lineage.
        outcomes: by a prompt's id, ``KEPT`` or the reason why none of its answers is kept.
        counts: as ``herdlm select --json`` prints it.
    """

    kept: list[Dialog]
    pairs: list[Preference]
    outcomes: dict[str, str]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """A person's answer to a prompt."""

    dialog: Mapping[str, Any]
    prompt: list[Message]
    answer: list[Message]


def select(
    rows: Iterable[Row], config: SelectConfig | None = None, edited: Sequence[Mapping[str, Any]] = ()
) -> Selected:
    """Select from rows of samples; those of one prompt, from several models or rounds, are joined by ``id``.

    Of each prompt the best answers are kept: right ones if there are verdicts; by reward plus the logarithm of how
    often an answer was given (without rewards: the most frequent, of equals the shortest). Of the prompts without a
    verdict, the best ``share_unverified`` of each task give an answer.

    Args:
        rows: as ``herdlm sample`` and ``herdlm judge`` write them.
        edited: people's answers as dialogs. They are all kept, in place of the model's answers to their prompts.
    """
    config = config or SelectConfig()
    prompts = joined(rows, systems=config.systems == "keep")
    edits = _edits(edited)
    unit = spread(prompts)
    pairs: list[Preference] = []
    tasks: dict[str, list[Asked]] = {}
    for asked in prompts:
        tasks.setdefault(asked.task, []).append(asked)
    for asked in prompts:
        edit = edits.get(asked.id)
        pairs += pairs_of(asked, edit.answer if edit else None, unit, config)
    pairs = _limited(pairs, config.pairs_per_task)
    by_id = {asked.id: asked for asked in prompts}
    kept = [_edited_dialog(name, edit, by_id.get(name)) for name, edit in sorted(edits.items())]
    outcomes = dict.fromkeys(edits, KEPT)
    for _, found in sorted(tasks.items()):
        chosen, reasons = _keep([asked for asked in found if asked.id not in edits], config, unit)
        kept += chosen
        outcomes |= reasons
    counts = _counts(prompts, kept, pairs, outcomes, unit) | {"edits_without_samples": len(edits.keys() - by_id.keys())}
    return Selected(kept, pairs, outcomes, counts)


def _keep(prompts: Sequence[Asked], config: SelectConfig, unit: float) -> tuple[list[Dialog], dict[str, str]]:
    """The dialogs to keep of one task, and each prompt's outcome."""
    rewards = [c.reward for asked in prompts for c in asked.candidates if c.reward is not None]
    least = float(np.quantile(rewards, config.min_reward_quantile)) if rewards else -math.inf
    outcomes: dict[str, str] = {}
    ranked: list[tuple[Asked, list[Candidate]]] = []
    for asked in prompts:
        allowed = _allowed(asked, least, config, unit)
        if isinstance(allowed, str):
            outcomes[asked.id] = allowed
        else:
            ranked.append((asked, allowed))
    ranked.sort(key=lambda entry: (entry[1][0].reward is None, *entry[1][0].order[:2], entry[0].id))
    unverified = [asked.id for asked, _ in ranked if not asked.judged]
    beyond = set(unverified[math.ceil(len(unverified) * config.share_unverified) :])
    outcomes |= dict.fromkeys(beyond, UNVERIFIED)
    ranked = [(asked, allowed) for asked, allowed in ranked if asked.id not in beyond]
    # The best answer of each prompt comes before the second of any, so that a limit keeps as many prompts as it can.
    places = range(max((len(allowed) for _, allowed in ranked), default=0))
    order = [(asked, allowed[place]) for place in places for asked, allowed in ranked if place < len(allowed)]
    taken = order[: config.keep_per_task]
    outcomes |= {asked.id: BEYOND for asked, _ in order[len(taken) :]}
    outcomes |= {asked.id: KEPT for asked, _ in taken}
    return [_dialog(asked, candidate) for asked, candidate in taken], outcomes


def _allowed(asked: Asked, least: float, config: SelectConfig, unit: float) -> list[Candidate] | str:
    """The answers to keep of a prompt, the best first, or why there is none."""
    rewarded = any(c.reward is not None for c in asked.candidates)
    tests: tuple[tuple[str, Callable[[Candidate], bool]], ...] = (
        (NONE_RIGHT, lambda c: bool(c.passed) or not asked.judged),
        (ONLY_CUT, lambda c: not c.cut or config.cut == "kept"),
        (NO_REWARD, lambda c: c.reward is not None or not rewarded),
        (LOW_REWARD, lambda c: c.reward is None or c.reward >= least),
        (NOT_ASKED, lambda c: config.keep_per_prompt > 0),
    )
    found = list(asked.candidates)
    if not found:
        return ONLY_EMPTY
    for reason, passes in tests:
        found = [candidate for candidate in found if passes(candidate)]
        if not found:
            return reason
    if config.diverse:
        found = _diverse([c for c in found if found[0].rank - c.rank <= NEAR_BEST * unit], config.keep_per_prompt)
    return found[: config.keep_per_prompt]


def _diverse(found: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best answer, then each time the one least like those taken; of equals the best."""
    taken, left = [found[0]], list(found[1:])
    while left and len(taken) < count:
        following = min(left, key=lambda c: max(likeness(c.answer, other.answer) for other in taken))
        taken.append(following)
        left.remove(following)
    return taken


def likeness(left: str, right: str) -> float:
    """The Jaccard similarity of two answers' word 3-grams, from 0 to 1."""
    one, other = _grams(left), _grams(right)
    return len(one & other) / len(one | other)


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + SIMILAR_WORDS]) for i in range(max(len(words) - SIMILAR_WORDS + 1, 1))}


def _dialog(asked: Asked, candidate: Candidate) -> Dialog:
    lineage = {"prompt": asked.id, **candidate.lineage()} | ({"from": asked.source} if asked.source else {})
    dialog: dict[str, Any] = {"messages": [*with_system(asked.prompt, candidate.system), *said(candidate.answer)]}
    dialog |= {"tools": asked.tools} if asked.tools else {}
    dialog |= {"task": asked.task} if asked.task else {}
    return cast(Dialog, dialog | {"source": candidate.model, "lineage": lineage})


def _edits(dialogs: Sequence[Mapping[str, Any]]) -> dict[str, Edit]:
    """People's answers by the id of their prompt; of several to one prompt, the last."""
    found = {}
    for dialog in dialogs:
        messages = dialog["messages"]
        last = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
        name = (dialog.get("lineage") or {}).get("prompt") or prompt_id(
            {"prompt": messages[:last], "tools": dialog.get("tools")}
        )
        found[name] = Edit(dialog, messages[:last], messages[last:])
    return found


def _edited_dialog(name: str, edit: Edit, asked: Asked | None) -> Dialog:
    own = {"task": asked.task} if asked and asked.task else {}
    lineage = {**(edit.dialog.get("lineage") or {}), "prompt": name, "model": EDITED}
    return cast(Dialog, {**own, **edit.dialog, "source": EDITED, "lineage": lineage})


def _limited(pairs: Sequence[Preference], limit: int | None) -> list[Preference]:
    """The first pairs of each task, better ratings first."""
    if limit is None:
        return list(pairs)
    seen: Counter[str] = Counter()
    taken = set()
    for number in sorted(range(len(pairs)), key=lambda n: (RATINGS.index(pairs[n]["rating"]), n)):
        task = pairs[number].get("task", "")
        seen[task] += 1
        if seen[task] <= limit:
            taken.add(number)
    return [pair for number, pair in enumerate(pairs) if number in taken]


def _counts(
    prompts: Sequence[Asked],
    kept: Sequence[Dialog],
    pairs: Sequence[Preference],
    outcomes: Mapping[str, str],
    unit: float,
) -> dict[str, Any]:
    tasks = sorted({asked.task for asked in prompts})
    by_task = {}
    for task in tasks:
        own = [asked for asked in prompts if asked.task == task]
        by_task[task or NO_TASK] = _figures(
            own,
            [dialog for dialog in kept if dialog.get("task", "") == task],
            [pair for pair in pairs if pair.get("task", "") == task],
        )
    left_out = Counter(outcomes[asked.id] for asked in prompts)
    left_out.pop(KEPT, None)
    return {
        **_figures(prompts, kept, pairs),
        "left_out": dict(sorted(left_out.items())),
        "spread": unit,
        "lengths": lengths(pairs),
        "tasks": by_task,
    }


def _figures(prompts: Sequence[Asked], kept: Sequence[Dialog], pairs: Sequence[Preference]) -> dict[str, Any]:
    grades = Counter(pair["rating"] for pair in pairs)
    return {
        "prompts": len(prompts),
        "answers": sum(asked.samples for asked in prompts),
        "judged": sum(asked.judged for asked in prompts),
        "any_right": sum(asked.any_right for asked in prompts),
        "kept": len(kept),
        "pairs": {grade: grades[grade] for grade in RATINGS},
    }


def lengths(pairs: Sequence[Preference]) -> dict[str, Any]:
    """Mean lengths of chosen and rejected answers in characters, and the share of pairs whose chosen one is longer."""
    if not pairs:
        return {}
    chosen, rejected = ([sum(len(text_of(m)) for m in pair[side]) for pair in pairs] for side in ("chosen", "rejected"))
    longer = sum((a > b) + (a == b) / 2 for a, b in zip(chosen, rejected, strict=True))
    return {
        "chosen": round(sum(chosen) / len(pairs), 1),
        "rejected": round(sum(rejected) / len(pairs), 1),
        "chosen_longer": round(longer / len(pairs), 4),
    }
