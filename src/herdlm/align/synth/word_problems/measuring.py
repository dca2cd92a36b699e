"""Stories about work, ways, units, sizes, ages and parts of a whole."""

from __future__ import annotations

from fractions import Fraction

from herdlm.align.synth.word_problems.problem import Problem, StoryDraw, Unsuitable, capital, pronoun
from herdlm.align.synth.word_problems.things import CONVERSIONS, PLACES, THINGS, VEHICLES, WORKERS


def work(draw: StoryDraw, steps: int) -> Problem:
    """Work at a steady rate. One to three steps."""
    problem = Problem()
    worker, does, items = draw.one(WORKERS)
    unit = draw.one(("hour", "day"))
    rate, units = draw.upto(2, 40), draw.upto(2, 12)
    total = rate * units
    if steps == 1 and draw.chance(0.5):
        problem.whole_step(total, "/", rate)
        problem.structure.append("time")
        problem.story = [
            f"A {worker} {does} {draw.n(rate)} {items} per {unit}.",
            f"How many {unit}s does the {worker} need for {draw.n(total)} {items}?",
        ]
        return problem
    problem.whole_step(rate, "*", units)
    problem.structure.append("rate")
    problem.story = [
        draw.one(
            (
                f"A {worker} {does} {draw.n(rate)} {items} in one {unit} and works for {draw.n(units)} {unit}s.",
                f"Every {unit}, a {worker} {does} {draw.n(rate)} {items}. This goes on for {draw.n(units)} {unit}s.",
            )
        )
    ]
    if steps == 3:
        other = draw.upto(2, 40)
        made = problem.value
        more = problem.whole_step(other, "*", units)
        problem.whole_step(made, "+", more)
        problem.structure.append("second rate")
        problem.story += [
            f"In the same time, a second {worker} {does} {draw.n(other)} {items} per {unit}.",
            f"How many {items} is that together?",
        ]
    elif steps == 2:
        spoiled = draw.upto(2, max(2, total - 2))
        problem.whole_step(total, "-", spoiled)
        problem.structure.append("spoiled")
        problem.story += [
            f"{capital(draw.n(spoiled))} of them turn out to be faulty.",
            draw.one((f"How many good {items} are there?", "How many of them are good?")),
        ]
    else:
        problem.story.append(draw.one((f"How many {items} is that in all?", "How many is that altogether?")))
    return problem


def travel(draw: StoryDraw, steps: int) -> Problem:
    """Speed, time and distance. One to three steps."""
    problem = Problem()
    who, moves, low, high = draw.one(VEHICLES)
    speed, hours = draw.upto(low, high), draw.upto(2, 9)
    distance = speed * hours
    if steps == 1 and draw.chance(0.6):
        by, asked, unit = draw.one(
            ((speed, "How many hours does it take?", 0), (hours, "How fast is that, in kilometers per hour?", 1))
        )
        problem.whole_step(distance, "/", by)
        problem.structure.append("speed" if unit else "duration")
        how = f"in {draw.n(hours)} hours" if unit else f"at {draw.n(speed)} kilometers per hour"
        problem.story = [f"A {who} {moves} {draw.n(distance)} kilometers {how}.", asked]
        return problem
    problem.whole_step(speed, "*", hours)
    problem.structure.append("distance")
    problem.story = [f"A {who} {moves} at {draw.n(speed)} kilometers per hour for {draw.n(hours)} hours."]
    if steps == 3:
        slower, longer = draw.upto(low, high), draw.upto(2, 6)
        before = problem.value
        more = problem.whole_step(slower, "*", longer)
        problem.whole_step(before, "+", more)
        problem.structure.append("second part")
        problem.story += [
            f"Then the {who} goes on at {draw.n(slower)} kilometers per hour for {draw.n(longer)} hours.",
            "How long is the whole way in kilometers?",
        ]
    elif steps == 2:
        whole = distance + draw.upto(5)
        problem.whole_step(whole, "-", distance)
        problem.structure.append("rest of the way")
        problem.story.append(f"The whole way is {draw.n(whole)} kilometers. How many kilometers are left?")
    else:
        problem.story.append(draw.one(("How many kilometers is that?", f"How far does the {who} get, in kilometers?")))
    return problem


def convert(draw: StoryDraw, steps: int) -> Problem:
    """Units, with something taken away before. One or two steps."""
    problem = Problem()
    kind = draw.one(CONVERSIONS)
    small, large, size = kind.small, kind.large, kind.size
    count = draw.upto(2, 12)
    if steps == 1 and draw.chance(0.5):
        problem.whole_step(count * size, "/", size)
        problem.structure.append("to large units")
        problem.story = [
            draw.one(
                (
                    f"How many {large} are {draw.n(count * size)} {small}?",
                    f"Express {draw.n(count * size)} {small} in {large}.",
                )
            )
        ]
        return problem
    problem.whole_step(count, "*", size)
    problem.structure.append("to small units")
    if steps == 1:
        problem.story = [
            draw.one(
                (
                    f"How many {small} are there in {draw.n(count)} {large}?",
                    f"Express {draw.n(count)} {large} in {small}.",
                )
            )
        ]
        return problem
    used = draw.upto(2, max(2, count * size - 2))
    problem.whole_step(count * size, "-", used)
    problem.structure.append("rest")
    story = kind.story.format(count=draw.n(count), used=draw.n(used), who=draw.person())
    problem.story = [story]
    return problem


def parts(draw: StoryDraw, steps: int) -> Problem:
    """Halves, quarters and percentages of things. One to three steps."""
    problem, thing, who = Problem(), draw.one(THINGS), draw.person()
    items = thing.items
    total = draw.upto(2, 20) * 4
    name, factor = draw.one((("half", 2), ("a third", 3), ("a quarter", 4), ("a fifth", 5)))
    if draw.chance(0.4):
        percent = draw.one((10, 20, 25, 50, 75))
        total = draw.upto(1, 8) * 20
        problem.story = [f"{who} had {draw.n(total)} {items}, and {percent}% of them were {thing.kinds[0]}."]
        problem.whole_step(total, "*", Fraction(percent, 100))
        problem.structure.append("percent")
        asked = f"How many {thing.kinds[0]} {items} were there?"
        rest = f"How many of the {items} were not {thing.kinds[0]}?"
    else:
        total -= total % factor
        if total < 2 * factor:
            raise Unsuitable
        problem.story = [f"{who} had {draw.n(total)} {items} and gave {name} of them to {draw.person()}."]
        problem.whole_step(total, "/", factor)
        problem.structure.append("fraction")
        asked = f"How many {items} did {who} give away?"
        rest = f"How many {items} did {who} keep?"
    part = problem.value
    if steps == 1:
        problem.story.append(asked)
        return problem
    problem.whole_step(total, "-", part)
    problem.structure.append("rest of it")
    if steps == 2:
        problem.story.append(rest)
        return problem
    if "percent" in problem.structure:
        raise Unsuitable
    more = draw.upto(2)
    problem.whole_step(problem.value, "+", more)
    problem.story.append(
        f"Afterwards {who} bought {draw.n(more)} new ones. How many {items} does {pronoun(who)} have now?"
    )
    return problem


def field(draw: StoryDraw, steps: int) -> Problem:
    """Rectangles, and seats in rows. One to three steps."""
    problem = Problem()
    long, wide = draw.upto(3, 40), draw.upto(2, 25)
    what = draw.one(("garden", "field", "playground", "parking lot", "room", "courtyard"))
    if steps == 1:
        problem.whole_step(long, "*", wide)
        problem.structure.append("area")
        problem.story = [
            f"A {what} is {draw.n(long)} meters long and {draw.n(wide)} meters wide.",
            draw.one(("What is its area in square meters?", f"How many square meters does the {what} cover?")),
        ]
        return problem
    if steps == 2 and draw.chance(0.5):
        half = problem.whole_step(long, "+", wide)
        problem.whole_step(half, "*", 2)
        problem.structure.append("perimeter")
        problem.story = [
            f"A {what} is {draw.n(long)} meters long and {draw.n(wide)} meters wide.",
            f"How many meters of fence go once around the {what}?",
        ]
        return problem
    seats = problem.whole_step(long, "*", wide)
    problem.structure.append("seats")
    hall = draw.one(PLACES)
    problem.story = [f"The hall of a {hall} has {draw.n(long)} rows with {draw.n(wide)} seats each."]
    if steps == 3:
        more = draw.upto(2)
        problem.whole_step(seats, "+", more)
        problem.story.append(f"Workers bring {draw.n(more)} extra chairs.")
        problem.structure.append("extra")
    now = problem.value
    guests = draw.upto(2, max(2, int(now) - 2))
    problem.whole_step(now, "-", guests)
    problem.structure.append("empty")
    problem.story.append(
        draw.one(
            (
                f"If {draw.n(guests)} guests sit down, how many seats stay empty?",
                f"{capital(draw.n(guests))} seats are taken. How many are free?",
            )
        )
    )
    return problem


def ages(draw: StoryDraw, steps: int) -> Problem:
    """Ages now, before and later. One or two steps."""
    problem, one, two = Problem(), draw.person(), draw.person()
    age, years = draw.upto(5, 60), draw.upto(2, 20)
    relation = draw.one(("more", "times") if steps == 2 else ("later", "before", "more"))
    if relation == "later":
        problem.whole_step(age, "+", years)
        problem.story = [
            f"{one} is {draw.n(age)} years old.",
            f"How old will {pronoun(one)} be in {draw.n(years)} years?",
        ]
    elif relation == "before":
        problem.whole_step(age, "-", years)
        problem.story = [f"{one} is {draw.n(age)} years old.", f"How old was {pronoun(one)} {draw.n(years)} years ago?"]
    else:
        if relation == "times":
            age = draw.upto(5, 20)
            factor = draw.upto(2, 4)
            problem.whole_step(age, "*", factor)
            problem.story = [
                f"{one} is {draw.n(age)} years old.",
                f"{two} is {'twice' if factor == 2 else f'{draw.n(factor)} times'} as old.",
            ]
        else:
            problem.whole_step(age, "+", years)
            problem.story = [f"{one} is {draw.n(age)} years old.", f"{two} is {draw.n(years)} years older."]
        if steps == 2:
            later = draw.upto(2, 15)
            problem.whole_step(problem.value, "+", later)
            problem.story.append(f"How old will {two} be in {draw.n(later)} years?")
        else:
            problem.story.append(f"How old is {two}?")
    problem.structure += ["age", relation]
    return problem
