"""Stories about things that become more or fewer, are compared, put together, or shared."""

from __future__ import annotations

from herdlm.align.synth.word_problems.problem import Draw, Problem, Unsuitable, capital, pronoun
from herdlm.align.synth.word_problems.things import GAINS, LOSSES, PLACES, THINGS, Thing


def chain(draw: Draw, steps: int) -> Problem:
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


def _begin(draw: Draw, problem: Problem, thing: Thing, who: str, left: int) -> int:
    """Say what there is at first; returns the number of steps that computing it takes."""
    items, (one, two) = thing.items, thing.kinds
    way = draw.one(("given", "groups", "kinds")) if left >= 2 else "given"
    if way == "groups":
        groups, size = draw.number(2, 12), draw.number(2, 24)
        problem.whole_step(groups, "*", size)
        problem.story.append(
            draw.one(
                (
                    f"{who} has {draw.n(groups)} {thing.holders} with {draw.n(size)} {items} in each.",
                    f"There are {draw.n(groups)} {thing.holders} at {who}'s place, and each holds {draw.n(size)} {items}.",
                    f"{who} keeps {draw.n(size)} {items} in each of {draw.n(groups)} {thing.holders}.",
                    f"In each of {who}'s {draw.n(groups)} {thing.holders} there are {draw.n(size)} {items}.",
                )
            )
        )
        problem.structure.append("groups")
        return 1
    if way == "kinds":
        first, second = draw.number(3), draw.number(3)
        problem.whole_step(first, "+", second)
        problem.story.append(
            draw.one(
                (
                    f"{who} has {draw.n(first)} {one} {items} and {draw.n(second)} {two} {items}.",
                    f"{who} owns {draw.n(first)} {one} and {draw.n(second)} {two} {items}.",
                    f"Among {who}'s {items} are {draw.n(first)} {one} ones and {draw.n(second)} {two} ones, and no others.",
                )
            )
        )
        problem.structure.append("kinds")
        return 1
    number = draw.number(3)
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


def _event(draw: Draw, problem: Problem, thing: Thing, who: str, number: int, *, ends: bool) -> int:
    """One gain or loss; returns its sign."""
    now, other, he = problem.value, draw.person(), pronoun(who)
    before = problem.story[-1]
    leads = [each for each in ("Then", "Later", "After that,", "The next day,") if not before.startswith(each)]
    lead = draw.one(leads) if number or draw.chance(0.5) else ""
    subject = f"{lead} {he}" if lead else he.capitalize()
    if now >= 6 and draw.chance(0.5):
        amount = draw.number(2, max(2, int(now) - 2))
        what = draw.one((*thing.losses, *thing.losses, *LOSSES))
        problem.whole_step(now, "-", amount)
        problem.structure.append("lose")
        sign = -1
    else:
        amount = draw.number(2)
        what = draw.one((*thing.gains, *thing.gains, *GAINS))
        problem.whole_step(now, "+", amount)
        problem.structure.append("gain")
        sign = 1
    problem.story.append(f"{subject} {what.format(n=draw.n(amount), items=thing.items, other=other)}.")
    return sign


def _share(draw: Draw, problem: Problem, thing: Thing, who: str) -> None:
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
    goal = int(now) + draw.number(2)
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


def unknown(draw: Draw, steps: int) -> Problem:
    """What was there before, or how large a change was. One step, or two with a second change."""
    problem, thing, who, other = Problem(), draw.one(THINGS), draw.person(), draw.person()
    items, change, end = thing.items, draw.number(2), draw.number(3)
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
        more = draw.number(2)
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


def change(draw: Draw, steps: int) -> Problem:
    """How many came or went, from what was there before and after. One step."""
    problem, thing, who, other = Problem(), draw.one(THINGS), draw.person(), draw.person()
    items, small = thing.items, draw.number(2)
    large = small + draw.number(2)
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


def compare(draw: Draw, steps: int) -> Problem:
    """Two or three people with different numbers of things. One to three steps."""
    problem, thing = Problem(), draw.one(THINGS)
    items, (one, two, three) = thing.items, (draw.person(), draw.person(), draw.person())
    base = draw.number(3)
    problem.story.append(draw.one((f"{one} has {draw.n(base)} {items}.", f"{one} collected {draw.n(base)} {items}.")))
    if steps == 1 and draw.chance(0.4):
        return _difference(draw, problem, items, one, two, base)
    second = _compared(draw, problem, items, one, two, base)
    if steps == 1:
        problem.story.append(
            draw.one((f"How many {items} does {two} have?", f"What number of {items} does {two} have?"))
        )
        return problem
    total: int = base
    if steps == 3:
        third = _compared(draw, problem, items, two, three, int(second))
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


def _difference(draw: Draw, problem: Problem, items: str, one: str, two: str, base: int) -> Problem:
    other = draw.number(2)
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


def _compared(draw: Draw, problem: Problem, items: str, one: str, two: str, base: int) -> int:
    """Say what ``two`` has by what ``one`` has."""
    way = draw.one(("more", "fewer", "times"))
    if way == "times":
        factor = draw.number(2, 6)
        value = problem.whole_step(base, "*", factor)
        often = "twice" if factor == 2 else f"{draw.n(factor)} times"
        problem.story.append(f"{two} has {often} as many {items} as {one}.")
    elif way == "more":
        by = draw.number(2)
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
        by = draw.number(2, max(2, base - 2))
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


def groups(draw: Draw, steps: int) -> Problem:
    """Equal groups: how many in all, in each, or how many groups. One or two steps."""
    problem, thing, who = Problem(), draw.one(THINGS), draw.person()
    items, holders = thing.items, thing.holders
    size, count = draw.number(2, 25), draw.number(2, 20)
    total = size * count
    extra = draw.number(2, max(2, size - 1)) if steps == 2 else 0
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


def people(draw: Draw, steps: int) -> Problem:
    """Two groups of people at a place: all of them, one group, and those who leave. One to three steps."""
    problem, place = Problem(), draw.one(PLACES)
    one, two = draw.one((("girls", "boys"), ("adults", "children"), ("members", "guests"), ("women", "men")))
    first, second = draw.number(3), draw.number(3)
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
        amount = draw.number(2, max(2, now - 2))
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
