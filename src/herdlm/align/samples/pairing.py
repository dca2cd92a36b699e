"""Preference pairs from the different answers to a prompt, graded by verdicts, rewards and people's corrections.

**Ratings.** A margin is a difference of rewards in *spreads*: the pooled standard deviation of the rewards within
prompts. A right answer is better than a wrong one; significantly better if its margin is at least ``better_margin``,
too, and slightly better if the reward model prefers the wrong one as clearly. Of two right answers, or two without a
verdict, the margin alone decides. A wrong answer is never chosen. A person's correction is better than any other.

**Which pairs.** A pair teaches most if the model is likely to give the rejected answer and if nothing but quality tells
the two apart. So each pair has a cost in spreads: how far the chosen answer is from the best one, how far the rejected
one is from the wrong answer that the model gives most and the reward model likes best (without verdicts: how far its
margin is from ``better_margin``), and the ratio of their lengths, by which preference models are easily misled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, cast

from herdlm.align.samples.candidates import Asked, Candidate
from herdlm.align.samples.select_config import SelectConfig
from herdlm.tokens.chat import Message, text_of
from herdlm.tokens.preferences import Preference

EDITED, SIGNIFICANT, BETTER, SLIGHT = RATINGS = ("edited", "significantly better", "better", "slightly better")
REUSED = 1.0  # what an answer that another pair has costs, in spreads


def spread(prompts: Sequence[Asked]) -> float:
    """The pooled standard deviation of rewards within prompts; 1 where none has two rewards that differ."""
    squares, freedom = [], 0
    for asked in prompts:
        rewards = [candidate.reward for candidate in asked.candidates if candidate.reward is not None]
        if len(rewards) > 1:
            mean = math.fsum(rewards) / len(rewards)
            squares += [(reward - mean) ** 2 for reward in rewards]
            freedom += len(rewards) - 1
    variance = math.fsum(squares) / freedom if freedom else 0.0
    return math.sqrt(variance) if variance > 0 else 1.0


def margin(chosen: Candidate, rejected: Candidate, unit: float) -> float | None:
    """The difference of their rewards in spreads; None if one has no reward."""
    if chosen.reward is None or rejected.reward is None:
        return None
    return (chosen.reward - rejected.reward) / unit


def rating(chosen: Candidate, rejected: Candidate, unit: float, config: SelectConfig) -> str | None:
    """How much better the one is than the other; None if it is not, or if that is not known."""
    if chosen.passed is False:
        return None
    found = margin(chosen, rejected, unit)
    if chosen.passed and rejected.passed is False:
        if found is None or abs(found) < config.better_margin:
            return BETTER
        return SIGNIFICANT if found > 0 else SLIGHT
    if found is None:
        return None
    grades = ((config.significant_margin, SIGNIFICANT), (config.better_margin, BETTER), (config.slight_margin, SLIGHT))
    return next((grade for least, grade in grades if found >= least), None)


def pairs_of(asked: Asked, edited: Sequence[Message] | None, unit: float, config: SelectConfig) -> Iterator[Preference]:
    """A prompt's pairs: a person's correction over the model's answer first, then the cheapest others."""
    usable = [c for c in asked.candidates if not c.cut or config.cut != "never"]
    if edited is not None:
        yield from _over_edited(asked, edited, usable)
    choosable = [c for c in usable if not c.cut or config.cut == "kept"]
    costs: dict[tuple[int, int], float] = {}
    for (i, chosen), (j, rejected) in product(enumerate(choosable), enumerate(usable)):
        if chosen is not rejected and chosen.system == rejected.system:
            cost = _cost(asked, chosen, rejected, unit, config)
            if cost is not None:
                costs[i, j] = cost
    used: set[Candidate] = set()
    for _ in range(config.pairs_per_prompt):
        open_ = {key: cost for key, cost in costs.items() if usable[key[1]] not in used}
        if not open_:
            return
        i, j = min(open_, key=lambda key: (open_[key] + REUSED * (choosable[key[0]] in used), key))
        chosen, rejected = choosable[i], usable[j]
        used |= {chosen, rejected}
        grade = rating(chosen, rejected, unit, config)
        assert grade is not None
        yield _pair(asked, chosen, rejected, grade, margin(chosen, rejected, unit))


def _cost(asked: Asked, chosen: Candidate, rejected: Candidate, unit: float, config: SelectConfig) -> float | None:
    """What a pair costs, in spreads; None if it is no pair."""
    if rating(chosen, rejected, unit, config) is None:
        return None
    best = max(c.rank for c in asked.candidates if c.passed is not False)
    cost = (best - chosen.rank) / unit
    if chosen.passed and rejected.passed is False:
        hardest = max(c.rank for c in asked.candidates if c.passed is False)
        cost += (hardest - rejected.rank) / unit
    else:
        found = margin(chosen, rejected, unit)
        assert found is not None
        cost += abs(found - config.better_margin)
    return cost + config.length_weight * abs(math.log2(len(chosen.answer) / len(rejected.answer)))


def _over_edited(asked: Asked, edited: Sequence[Message], usable: Sequence[Candidate]) -> Iterator[Preference]:
    """The correction over the model's best answer, which is what the person saw; none if the model gave it, too."""
    answer = text_of(edited[-1]).strip()
    if usable and all(candidate.answer != answer for candidate in asked.candidates):
        yield _pair(asked, edited, usable[0], EDITED, None)


def _pair(
    asked: Asked, chosen: Candidate | Sequence[Message], rejected: Candidate, grade: str, margin: float | None
) -> Preference:
    if isinstance(chosen, Candidate):
        model, messages, origin = chosen.model, said(chosen.answer), chosen.lineage()
    else:
        model, messages, origin = EDITED, list(chosen), {"model": EDITED}
    lineage: dict[str, Any] = {"prompt": asked.id, "chosen": origin, "rejected": rejected.lineage()}
    lineage |= {"from": asked.source} if asked.source else {}
    lineage |= {} if margin is None else {"margin": round(margin, 4)}
    pair: dict[str, Any] = {
        "prompt": with_system(asked.prompt, rejected.system),
        "chosen": messages,
        "rejected": said(rejected.answer),
        "rating": grade,
        "chosen_source": model,
        "rejected_source": rejected.model,
        "lineage": lineage,
    }
    pair |= {"tools": asked.tools} if asked.tools else {}
    return cast(Preference, pair | ({"task": asked.task} if asked.task else {}))


def said(answer: str) -> list[Message]:
    """An answer as the assistant's message."""
    return [{"role": "assistant", "content": answer}]


def with_system(prompt: Sequence[Message], system: str) -> list[Message]:
    """A prompt under a system prompt, unless it is "" or the prompt has one."""
    if not system or (prompt and prompt[0]["role"] == "system"):
        return list(prompt)
    return [{"role": "system", "content": system}, *prompt]
