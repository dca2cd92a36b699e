"""Stories about money, work, ways, sizes, ages and parts of a whole."""

from __future__ import annotations

from fractions import Fraction

from herdlm.align.synth.word_problems.problem import Draw, Problem, Unsuitable, capital, pronoun, shown
from herdlm.align.synth.word_problems.things import CONVERSIONS, PLACES, SOLD, THINGS, VEHICLES, WORKERS


def money(amount: Fraction | int) -> str:
    """Dollars, with cents if there are any."""
    return f"${shown(amount)}" if Fraction(amount).denominator == 1 else f"${float(amount):.2f}"


def shop(draw: Draw, steps: int) -> Problem:
    """Somebody buys things: what they cost, and what is left. One to four steps."""
    problem, who = Problem(), draw.person()
    plural, single, low, high = draw.one(SOLD)
    count, price = draw.number(2, 12), Fraction(draw.number(low, high))
    if draw.chance(0.2):
        price += Fraction(1, 2)
    if steps == 1 and draw.chance(0.4):
        problem.step(count * price, "/", count)
        problem.structure.append("unit price")
        problem.story = [
            f"{who} paid {money(count * price)} for {draw.n(count)} {plural}, which all cost the same.",
            f"What did one {single} cost in dollars?",
        ]
        return problem
    problem.step(count, "*", price)
    problem.structure.append("price")
    problem.story = [
        draw.one(
            (
                f"{who} bought {draw.n(count)} {plural} for {money(price)} each.",
                f"A {single} costs {money(price)}, and {who} bought {draw.n(count)} of them.",
                f"At a shop, {who} took {draw.n(count)} {plural} at {money(price)} apiece.",
            )
        )
    ]
    left = steps - 1
    if left >= 2:
        left -= _buy_more(draw, problem, plural, two=left >= 2 and draw.chance(0.7))
    total = problem.value
    for _ in range(left):
        _pay(draw, problem, who, last=_ == left - 1)
    if not left:
        problem.story.append(
            draw.one((f"How many dollars did {who} spend?", f"How much did {who} pay in all, in dollars?"))
            if total == problem.value
            else ""
        )
    return problem


def _buy_more(draw: Draw, problem: Problem, taken: str, *, two: bool) -> int:
    """Buy other things as well; returns the number of steps."""
    before = problem.value
    plural, single, low, high = draw.one([each for each in SOLD if each[0] != taken])
    price = draw.number(low, high)
    if two:
        count = draw.number(2, 9)
        cost = problem.step(count, "*", price)
        problem.step(before, "+", cost)
        problem.story.append(f"There were also {draw.n(count)} {plural} on the bill, at {money(price)} each.")
        problem.structure.append("second price")
        return 2
    problem.step(before, "+", price)
    problem.story.append(f"There was also one {single} for {money(price)} on the bill.")
    problem.structure.append("one more")
    return 1


def _pay(draw: Draw, problem: Problem, who: str, *, last: bool) -> None:
    """A coupon or, as the last step, the change."""
    total = problem.value
    if not last:
        off = draw.number(2, max(2, int(total) // 3))
        problem.step(total, "-", off)
        problem.story.append(f"A coupon took {money(off)} off the price.")
        problem.structure.append("coupon")
        return
    if draw.chance(0.3) and total >= 6 and total.denominator == 1:
        friends = [n for n in range(2, 7) if total % n == 0]
        if friends:
            number = draw.one(friends)
            problem.step(total, "/", number)
            problem.story.append(
                f"{capital(draw.n(number))} people shared the cost equally. How many dollars did each of them pay?"
            )
            problem.structure.append("split")
            return
    bill = next((note for note in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if note > total), None)
    if bill is None:
        raise Unsuitable
    problem.step(bill, "-", total)
    problem.structure.append("change")
    problem.story += draw.one(
        (
            (f"{who} paid with {money(bill)}.", "How many dollars did the cashier give back?"),
            (f"Before this, {who} had {money(bill)}.", "How many dollars were left?"),
            (f"How much change does {who} get from {money(bill)}, in dollars?",),
        )
    )


def work(draw: Draw, steps: int) -> Problem:
    """Work at a steady rate. One to three steps."""
    problem = Problem()
    worker, does, items = draw.one(WORKERS)
    unit = draw.one(("hour", "day"))
    rate, units = draw.number(2, 40), draw.number(2, 12)
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
        other = draw.number(2, 40)
        made = problem.value
        more = problem.whole_step(other, "*", units)
        problem.whole_step(made, "+", more)
        problem.structure.append("second rate")
        problem.story += [
            f"In the same time, a second {worker} {does} {draw.n(other)} {items} per {unit}.",
            f"How many {items} is that together?",
        ]
    elif steps == 2:
        spoiled = draw.number(2, max(2, total - 2))
        problem.whole_step(total, "-", spoiled)
        problem.structure.append("spoiled")
        problem.story += [
            f"{capital(draw.n(spoiled))} of them turn out to be faulty.",
            draw.one((f"How many good {items} are there?", "How many of them are good?")),
        ]
    else:
        problem.story.append(draw.one((f"How many {items} is that in all?", "How many is that altogether?")))
    return problem


def travel(draw: Draw, steps: int) -> Problem:
    """Speed, time and distance. One to three steps."""
    problem = Problem()
    who, moves, low, high = draw.one(VEHICLES)
    speed, hours = draw.number(low, high), draw.number(2, 9)
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
        slower, longer = draw.number(low, high), draw.number(2, 6)
        before = problem.value
        more = problem.whole_step(slower, "*", longer)
        problem.whole_step(before, "+", more)
        problem.structure.append("second part")
        problem.story += [
            f"Then the {who} goes on at {draw.n(slower)} kilometers per hour for {draw.n(longer)} hours.",
            "How long is the whole way in kilometers?",
        ]
    elif steps == 2:
        whole = distance + draw.number(5)
        problem.whole_step(whole, "-", distance)
        problem.structure.append("rest of the way")
        problem.story.append(f"The whole way is {draw.n(whole)} kilometers. How many kilometers are left?")
    else:
        problem.story.append(draw.one(("How many kilometers is that?", f"How far does the {who} get, in kilometers?")))
    return problem


def convert(draw: Draw, steps: int) -> Problem:
    """Units, with something taken away before. One or two steps."""
    problem = Problem()
    small, large, size = draw.one(CONVERSIONS)
    count = draw.number(2, 12)
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
    used = draw.number(2, max(2, count * size - 2))
    problem.whole_step(count * size, "-", used)
    problem.structure.append("rest")
    stories = {
        "minutes": f"A film festival lasts {draw.n(count)} hours, and {draw.n(used)} minutes of it are over. How many minutes remain?",
        "days": f"A holiday lasts {draw.n(count)} weeks, and {draw.n(used)} days of it have passed. How many days are left?",
        "hours": f"A journey takes {draw.n(count)} days. After {draw.n(used)} hours, how many hours are still to go?",
        "months": f"A contract runs for {draw.n(count)} years, and {draw.n(used)} months are over. How many months remain?",
        "seconds": f"A song lasts {draw.n(count)} minutes. It has played for {draw.n(used)} seconds. How many seconds are left?",
        "eggs": f"A kitchen had {draw.n(count)} dozens of eggs and used {draw.n(used)} eggs. How many eggs were left?",
        "centimeters": f"From a rope of {draw.n(count)} meters, {draw.n(used)} centimeters are cut off. How many centimeters remain?",
        "grams": f"A sack holds {draw.n(count)} kilograms of flour, and {draw.n(used)} grams are taken out. How many grams are left?",
        "cents": f"{draw.person()} had {draw.n(count)} dollars and spent {draw.n(used)} cents. How many cents were left?",
        "meters": f"A trail is {draw.n(count)} kilometers long. After {draw.n(used)} meters, how many meters are still ahead?",
        "milliliters": f"A canister holds {draw.n(count)} liters of water. {capital(draw.n(used))} milliliters are poured out. How many milliliters remain?",
    }
    problem.story = [stories[small]]
    return problem


def saving(draw: Draw, steps: int) -> Problem:
    """Money that is saved week by week. One to three steps."""
    problem, who = Problem(), draw.person()
    unit = draw.one(("week", "month", "day"))
    rate, units = draw.number(2, 30), draw.number(2, 15)
    if steps == 1:
        problem.whole_step(rate * units, "/", rate)
        problem.structure.append("time to save")
        problem.story = [
            f"{who} saves {money(rate)} every {unit}.",
            f"After how many {unit}s has {pronoun(who)} saved {money(rate * units)}?",
        ]
        return problem
    problem.whole_step(rate, "*", units)
    problem.structure.append("saved")
    problem.story = [f"{who} saves {money(rate)} every {unit} for {draw.n(units)} {unit}s."]
    first = problem.value
    if steps == 3:
        had = draw.number(5)
        problem.whole_step(first, "+", had)
        problem.structure.append("had before")
        problem.story.append(f"At the beginning, {pronoun(who)} already had {money(had)}.")
    now = problem.value
    if draw.chance(0.5):
        cost = draw.number(2, max(2, int(now) - 2))
        problem.whole_step(now, "-", cost)
        problem.story.append(f"Then {pronoun(who)} spends {money(cost)} on a gift. How many dollars are left?")
    else:
        goal = int(now) + draw.number(2)
        problem.whole_step(goal, "-", now)
        problem.story.append(f"A tent costs {money(goal)}. How many more dollars does {who} need to buy it?")
    return problem


def parts(draw: Draw, steps: int) -> Problem:
    """Halves, quarters and percentages of things. One to three steps."""
    problem, thing, who = Problem(), draw.one(THINGS), draw.person()
    items = thing.items
    total = draw.number(2, 20) * 4
    name, factor = draw.one((("half", 2), ("a third", 3), ("a quarter", 4), ("a fifth", 5)))
    if draw.chance(0.4):
        percent = draw.one((10, 20, 25, 50, 75))
        total = draw.number(1, 8) * 20
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
    more = draw.number(2)
    problem.whole_step(problem.value, "+", more)
    problem.story.append(
        f"Afterwards {who} bought {draw.n(more)} new ones. How many {items} does {pronoun(who)} have now?"
    )
    return problem


def field(draw: Draw, steps: int) -> Problem:
    """Rectangles, and seats in rows. One to three steps."""
    problem = Problem()
    long, wide = draw.number(3, 40), draw.number(2, 25)
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
        more = draw.number(2)
        problem.whole_step(seats, "+", more)
        problem.story.append(f"Workers bring {draw.n(more)} extra chairs.")
        problem.structure.append("extra")
    now = problem.value
    guests = draw.number(2, max(2, int(now) - 2))
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


def ages(draw: Draw, steps: int) -> Problem:
    """Ages now, before and later. One or two steps."""
    problem, one, two = Problem(), draw.person(), draw.person()
    age, years = draw.number(5, 60), draw.number(2, 20)
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
            age = draw.number(5, 20)
            factor = draw.number(2, 4)
            problem.whole_step(age, "*", factor)
            problem.story = [
                f"{one} is {draw.n(age)} years old.",
                f"{two} is {'twice' if factor == 2 else f'{draw.n(factor)} times'} as old.",
            ]
        else:
            problem.whole_step(age, "+", years)
            problem.story = [f"{one} is {draw.n(age)} years old.", f"{two} is {draw.n(years)} years older."]
        if steps == 2:
            later = draw.number(2, 15)
            problem.whole_step(problem.value, "+", later)
            problem.story.append(f"How old will {two} be in {draw.n(later)} years?")
        else:
            problem.story.append(f"How old is {two}?")
    problem.structure += ["age", relation]
    return problem
