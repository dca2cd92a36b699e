"""Stories in which things become more or fewer, step by step."""

from __future__ import annotations

from herdlm.align.synth.word_problems.problem import Problem, StoryDraw, capital, pronoun
from herdlm.align.synth.word_problems.things import GAINS, LOSSES, THINGS, Thing


def chain(draw: StoryDraw, steps: int) -> Problem:
    """Somebody has things, which become more or fewer, and shares or counts them in the end. One to four steps."""
    problem, thing, who = Problem(), draw.one(THINGS), draw.person()
    left = steps
    left -= _begin(draw, problem, thing, who, left)
    ends = left >= 1 and (steps > 1 and draw.chance(0.45))
    left -= ends
    last = 0
    for number in range(left):
        last = _event(draw, problem, thing, who, number, ends=ends)
    if ends:
        _share(draw, problem, thing, who)
    elif last < 0:
        problem.story.append(
            draw.one(
                (
                    f"How many {thing.items} are left?",
                    f"How many {thing.items} does {who} have left?",
                    f"How many {thing.items} does {who} still have?",
                    f"What number of {thing.items} remains?",
                )
            )
        )
    else:
        problem.story.append(
            draw.one(
                (
                    f"How many {thing.items} does {who} have now?",
                    f"How many {thing.items} are there altogether now?",
                    f"Find the number of {thing.items} {who} has now.",
                    f"How many {thing.items} does {who} have in the end?",
                )
            )
        )
    return problem


def _begin(draw: StoryDraw, problem: Problem, thing: Thing, who: str, left: int) -> int:
    """Say what there is at first; returns the number of steps that computing it takes."""
    items, (one, two) = thing.items, thing.kinds
    way = draw.one(("given", "groups", "kinds")) if left >= 2 else "given"
    if way == "groups":
        groups, size = draw.upto(2, 12), draw.upto(2, 24)
        problem.whole_step(groups, "*", size)
        problem.story.append(
            draw.one(
                (
                    f"{who} has {draw.n(groups)} {thing.holders} with {draw.n(size)} {items} in each.",
                    f"There are {draw.n(groups)} {thing.holders} at {who}'s place. Each holds {draw.n(size)} {items}.",
                    f"{who} keeps {draw.n(size)} {items} in each of {draw.n(groups)} {thing.holders}.",
                    f"In each of {who}'s {draw.n(groups)} {thing.holders} there are {draw.n(size)} {items}.",
                )
            )
        )
        problem.structure.append("groups")
        return 1
    if way == "kinds":
        first, second = draw.upto(3), draw.upto(3)
        problem.whole_step(first, "+", second)
        problem.story.append(
            draw.one(
                (
                    f"{who} has {draw.n(first)} {one} {items} and {draw.n(second)} {two} {items}.",
                    f"{who} owns {draw.n(first)} {one} and {draw.n(second)} {two} {items}.",
                    f"{who}'s {items} are {one} or {two}: {draw.n(first)} {one} ones and {draw.n(second)} {two} ones.",
                )
            )
        )
        problem.structure.append("kinds")
        return 1
    number = draw.upto(3)
    problem.value += number
    problem.story.append(
        draw.one(
            (
                f"{who} had {draw.n(number)} {items}.",
                f"{who} started with {draw.n(number)} {items}.",
                f"In the morning, {who} had {draw.n(number)} {items}.",
                f"There were {draw.n(number)} {items} in {who}'s room.",
                f"{who} counted {draw.n(number)} {items} on Monday.",
            )
        )
    )
    return 0


def _event(draw: StoryDraw, problem: Problem, thing: Thing, who: str, number: int, *, ends: bool) -> int:
    """One gain or loss; returns its sign."""
    now, other, he = problem.value, draw.person(), pronoun(who)
    before = problem.story[-1]
    leads = [each for each in ("Then", "Later", "After that,", "The next day,") if not before.startswith(each)]
    lead = draw.one(leads) if number or draw.chance(0.5) else ""
    subject = f"{lead} {he}" if lead else he.capitalize()
    if now >= 6 and draw.chance(0.5):
        amount = draw.upto(2, max(2, int(now) - 2))
        what = draw.one((*thing.losses, *thing.losses, *LOSSES))
        problem.whole_step(now, "-", amount)
        problem.structure.append("lose")
        sign = -1
    else:
        amount = draw.upto(2)
        what = draw.one((*thing.gains, *thing.gains, *GAINS))
        problem.whole_step(now, "+", amount)
        problem.structure.append("gain")
        sign = 1
    problem.story.append(f"{subject} {what.format(n=draw.n(amount), items=thing.items, other=other)}.")
    return sign


def _share(draw: StoryDraw, problem: Problem, thing: Thing, who: str) -> None:
    """Divide what there is, or compare it with a goal."""
    now, items = problem.value, thing.items
    parts = [n for n in range(2, 13) if now % n == 0 and now / n >= 2]
    if parts and draw.chance(0.6):
        count = draw.one(parts)
        problem.whole_step(now, "/", count)
        problem.structure.append("share")
        problem.story += draw.one(
            (
                (
                    f"{capital(pronoun(who))} divides all of them equally among {draw.n(count)} friends.",
                    f"How many {items} does each friend get?",
                ),
                (
                    f"Now {who} puts them into {draw.n(count)} {thing.holders}, the same number in each.",
                    f"How many {items} go into each?",
                ),
                (
                    f"If all the {items} are packed equally into {draw.n(count)} {thing.holders}, "
                    "how many does each contain?",
                ),
            )
        )
        return
    goal = int(now) + draw.upto(2)
    problem.whole_step(goal, "-", now)
    problem.structure.append("goal")
    problem.story.append(
        draw.one(
            (
                f"{who} needs {draw.n(goal)} {items}. How many more does {pronoun(who)} need?",
                f"How many {items} short of {draw.n(goal)} is {who} now?",
                f"How many more {items} must {who} get to have {draw.n(goal)}?",
            )
        )
    )
