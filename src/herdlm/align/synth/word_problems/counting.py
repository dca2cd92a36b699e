"""Stories about things that are compared, put together or shared, or whose number before a change is asked."""

from __future__ import annotations

from herdlm.align.synth.word_problems.problem import Problem, StoryDraw, Unsuitable, capital, pronoun
from herdlm.align.synth.word_problems.things import GAINS, LOSSES, PLACES, THINGS


def unknown(draw: StoryDraw, steps: int) -> Problem:
    """What was there before, or how large a change was. One step, or two with a second change."""
    problem, thing, who, other = Problem(), draw.one(THINGS), draw.person(), draw.person()
    items, change, end = thing.items, draw.upto(2), draw.upto(3)
    if draw.chance(0.5):
        what = draw.one((*thing.gains, *GAINS)).format(n=draw.n(change), items=items, other=other)
        lines = [f"{who} had some {items}.", f"Then {pronoun(who)} {what}."]
        start = (
            problem.whole_step(end + change, "-", change) if steps == 1 else Problem().step(end + change, "-", change)
        )
        total, sign = end + change, "-"
    else:
        what = draw.one((*thing.losses, *LOSSES)).format(n=draw.n(change), items=items, other=other)
        lines = [f"{who} had some {items}.", f"First {pronoun(who)} {what}."]
        start, total, sign = Problem().step(end, "+", change), end, "+"
        if steps == 1:
            problem.whole_step(end, "+", change)
    if start < 2:
        raise Unsuitable
    if steps == 2:
        more = draw.upto(2)
        lines.append(f"After that, {other} brought {draw.n(more)} {items} as a present.")
        problem.whole_step(total + more, "-", more)
        problem.whole_step(total, sign, change)
        total += more
    problem.structure += ["unknown start", sign]
    problem.story = [
        *lines,
        f"Now there are {draw.n(total)} {items}.",
        draw.one(
            (
                f"How many {items} did {who} have at first?",
                f"With how many {items} did {who} begin?",
                f"How many {items} were there in the beginning?",
            )
        ),
    ]
    return problem


def change(draw: StoryDraw, steps: int) -> Problem:
    """How many came or went, from what was there before and after. One step."""
    problem, thing, who, other = Problem(), draw.one(THINGS), draw.person(), draw.person()
    items, small = thing.items, draw.upto(2)
    large = small + draw.upto(2)
    problem.whole_step(large, "-", small)
    problem.structure.append("unknown change")
    if draw.chance(0.5):
        problem.story = [
            f"{who} had {draw.n(small)} {items}.",
            draw.one((f"{other} gave {who} some more {items}.", f"Then {pronoun(who)} got some more.")),
            f"Now {who} has {draw.n(large)} {items}.",
            draw.one((f"How many {items} did {who} get?", f"How many {items} were added?")),
        ]
    else:
        problem.story = [
            f"{who} had {draw.n(large)} {items}.",
            draw.one((f"{who} gave some of them to {other}.", "Some of them got lost.", f"{other} took some of them.")),
            f"There are {draw.n(small)} {items} left.",
            draw.one((f"How many {items} are gone?", f"How many {items} does {who} no longer have?")),
        ]
    return problem


def compare(draw: StoryDraw, steps: int) -> Problem:
    """Two or three people with different numbers of things. One to three steps."""
    problem, thing = Problem(), draw.one(THINGS)
    items, (one, two, three) = thing.items, (draw.person(), draw.person(), draw.person())
    base = draw.upto(3)
    problem.story.append(draw.one((f"{one} has {draw.n(base)} {items}.", f"{one} collected {draw.n(base)} {items}.")))
    if steps == 1 and draw.chance(0.4):
        return _difference(draw, problem, items, one=one, two=two, base=base)
    second = _compared(draw, problem, items, one=one, two=two, base=base)
    if steps == 1:
        problem.story.append(
            draw.one((f"How many {items} does {two} have?", f"What number of {items} does {two} have?"))
        )
        return problem
    total: int = base
    if steps == 3:
        third = _compared(draw, problem, items, one=two, two=three, base=int(second))
        total = int(problem.whole_step(second, "+", third))
        problem.structure.append("two of three")
        problem.story.append(
            draw.one(
                (f"How many {items} do {two} and {three} have together?", f"What do {two} and {three} have in all?")
            ).replace("What do", f"How many {items} do")
        )
        return problem
    problem.whole_step(total, "+", second)
    problem.structure.append("together")
    problem.story.append(
        draw.one(
            (
                f"How many {items} do they have together?",
                f"How many {items} do {one} and {two} have in all?",
                f"What is the total number of {items} that {one} and {two} have?",
            )
        )
    )
    return problem


def _difference(draw: StoryDraw, problem: Problem, items: str, *, one: str, two: str, base: int) -> Problem:
    other = draw.upto(2)
    if other == base:
        raise Unsuitable
    problem.story.append(f"{two} has {draw.n(other)} {items}.")
    high, low = (one, two) if base > other else (two, one)
    problem.whole_step(max(base, other), "-", min(base, other))
    problem.structure.append("difference")
    problem.story.append(
        draw.one(
            (
                f"How many more {items} does {high} have than {low}?",
                f"How many fewer {items} does {low} have than {high}?",
                f"By how many {items} is {high} ahead of {low}?",
            )
        )
    )
    return problem


def _compared(draw: StoryDraw, problem: Problem, items: str, *, one: str, two: str, base: int) -> int:
    """Say what ``two`` has by what ``one`` has."""
    way = draw.one(("more", "fewer", "times"))
    if way == "times":
        factor = draw.upto(2, 6)
        value = problem.whole_step(base, "*", factor)
        often = "twice" if factor == 2 else f"{draw.n(factor)} times"
        problem.story.append(f"{two} has {often} as many {items} as {one}.")
    elif way == "more":
        by = draw.upto(2)
        value = problem.whole_step(base, "+", by)
        problem.story.append(
            draw.one(
                (
                    f"{two} has {draw.n(by)} more {items} than {one}.",
                    f"{one} has {draw.n(by)} fewer {items} than {two}.",
                )
            )
        )
    else:
        by = draw.upto(2, max(2, base - 2))
        value = problem.whole_step(base, "-", by)
        problem.story.append(
            draw.one(
                (
                    f"{two} has {draw.n(by)} fewer {items} than {one}.",
                    f"{one} has {draw.n(by)} more {items} than {two}.",
                )
            )
        )
    problem.structure.append(way)
    return int(value)


def groups(draw: StoryDraw, steps: int) -> Problem:
    """Equal groups: how many in all, in each, or how many groups. One or two steps."""
    problem, thing, who = Problem(), draw.one(THINGS), draw.person()
    items, holders = thing.items, thing.holders
    size, count = draw.upto(2, 25), draw.upto(2, 20)
    total = size * count
    extra = draw.upto(2, max(2, size - 1)) if steps == 2 else 0
    way = draw.one(("total", "size", "count"))
    problem.structure += [way, *(["rest"] if extra else [])]
    if way == "total":
        problem.whole_step(count, "*", size)
        problem.story.append(f"{who} filled {draw.n(count)} {holders} with {draw.n(size)} {items} each.")
        if extra:
            problem.whole_step(total, "+", extra)
            problem.story.append(f"{capital(draw.n(extra))} {items} did not fit in and were left over.")
            problem.story.append(f"How many {items} did {who} have?")
        else:
            problem.story.append(draw.one((f"How many {items} are there in all?", f"How many {items} did {who} use?")))
        return problem
    if extra:
        problem.whole_step(total + extra, "-", extra)
        problem.story.append(f"{who} had {draw.n(total + extra)} {items} and kept {draw.n(extra)} of them.")
    else:
        problem.story.append(draw.one((f"{who} has {draw.n(total)} {items}.", f"There are {draw.n(total)} {items}.")))
    rest = "The others" if extra else "They"
    if way == "size":
        problem.whole_step(total, "/", count)
        problem.story.append(f"{rest} were put into {draw.n(count)} {holders}, the same number in each.")
        problem.story.append(draw.one((f"How many {items} are in each?", f"How many {items} did each one get?")))
    else:
        problem.whole_step(total, "/", size)
        problem.story.append(f"{rest} were packed so that each of the {holders} held {draw.n(size)} {items}.")
        problem.story.append(draw.one((f"How many {holders} were filled?", f"How many {holders} were needed?")))
    return problem


def people(draw: StoryDraw, steps: int) -> Problem:
    """Two groups of people at a place: all of them, one group, and those who leave. One to three steps."""
    problem, place = Problem(), draw.one(PLACES)
    one, two = draw.one((("girls", "boys"), ("adults", "children"), ("members", "guests"), ("women", "men")))
    first, second = draw.upto(3), draw.upto(3)
    if steps == 1 and draw.chance(0.5):
        problem.whole_step(first + second, "-", first)
        problem.structure.append("part")
        problem.story = [
            f"There are {draw.n(first + second)} people at the {place}.",
            f"{capital(draw.n(first))} of them are {one}, and the others are {two}.",
            f"How many {two} are there?",
        ]
        return problem
    problem.whole_step(first, "+", second)
    problem.structure.append("whole")
    problem.story = [
        draw.one(
            (
                f"{capital(draw.n(first))} {one} and {draw.n(second)} {two} came to the {place}.",
                f"At the {place} there were {draw.n(first)} {one} and {draw.n(second)} {two}.",
            )
        )
    ]
    for _ in range(steps - 1):
        now = int(problem.value)
        amount = draw.upto(2, max(2, now - 2))
        if draw.chance(0.5):
            problem.whole_step(now, "-", amount)
            problem.story.append(draw.one(("Then", "Later")) + f" {draw.n(amount)} people went home.")
        else:
            problem.whole_step(now, "+", amount)
            problem.story.append(draw.one(("Then", "Later")) + f" {draw.n(amount)} more people arrived.")
        problem.structure.append("come or go")
    problem.story.append(
        draw.one((f"How many people were at the {place}?", "How many people were there in all?"))
        if steps == 1
        else draw.one((f"How many people were at the {place} then?", "How many people were there in the end?"))
    )
    return problem
