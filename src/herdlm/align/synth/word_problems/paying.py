"""Stories about money: prices, change, and savings."""

from __future__ import annotations

from fractions import Fraction

from herdlm.align.synth.word_problems.problem import Problem, StoryDraw, Unsuitable, capital, pronoun, shown
from herdlm.align.synth.word_problems.things import SOLD


def money(amount: Fraction | int) -> str:
    """Dollars, with cents if there are any."""
    return f"${shown(amount)}" if Fraction(amount).denominator == 1 else f"${float(amount):.2f}"


def shop(draw: StoryDraw, steps: int) -> Problem:
    """Somebody buys things: what they cost, and what is left. One to four steps."""
    problem, who = Problem(), draw.person()
    plural, single, low, high = draw.one(SOLD)
    count, price = draw.upto(2, 12), Fraction(draw.upto(low, high))
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


def _buy_more(draw: StoryDraw, problem: Problem, taken: str, *, two: bool) -> int:
    """Buy other things as well; returns the number of steps."""
    before = problem.value
    plural, single, low, high = draw.one([each for each in SOLD if each[0] != taken])
    price = draw.upto(low, high)
    if two:
        count = draw.upto(2, 9)
        cost = problem.step(count, "*", price)
        problem.step(before, "+", cost)
        problem.story.append(f"There were also {draw.n(count)} {plural} on the bill, at {money(price)} each.")
        problem.structure.append("second price")
        return 2
    problem.step(before, "+", price)
    problem.story.append(f"There was also one {single} for {money(price)} on the bill.")
    problem.structure.append("one more")
    return 1


def _pay(draw: StoryDraw, problem: Problem, who: str, *, last: bool) -> None:
    """A coupon or, as the last step, the change."""
    total = problem.value
    if not last:
        off = draw.upto(2, max(2, int(total) // 3))
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


def saving(draw: StoryDraw, steps: int) -> Problem:
    """Money that is saved week by week. One to three steps."""
    problem, who = Problem(), draw.person()
    unit = draw.one(("week", "month", "day"))
    rate, units = draw.upto(2, 30), draw.upto(2, 15)
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
        had = draw.upto(5)
        problem.whole_step(first, "+", had)
        problem.structure.append("had before")
        problem.story.append(f"At the beginning, {pronoun(who)} already had {money(had)}.")
    now = problem.value
    if draw.chance(0.5):
        cost = draw.upto(2, max(2, int(now) - 2))
        problem.whole_step(now, "-", cost)
        problem.story.append(f"Then {pronoun(who)} spends {money(cost)} on a gift. How many dollars are left?")
    else:
        goal = int(now) + draw.upto(2)
        problem.whole_step(goal, "-", now)
        problem.story.append(f"A tent costs {money(goal)}. How many more dollars does {who} need to buy it?")
    return problem
