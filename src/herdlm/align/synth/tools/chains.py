"""Requests that need several calls, one after the other.

A chain is a generator: it yields the request, then lists of calls, for each of which it is sent the results, and
returns the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.tools import functions as f
from herdlm.align.synth.tools.draws import TEXTS, date_of

Calls = list[tuple[str, dict[str, Any]]]
Chain = Generator[str | Calls, list[Any], str]
"""Yields the request first, and calls after it."""


def price_of_many(draw: Draw) -> Chain:
    """A price, then a product."""
    product, number = draw.one(tuple(f.PRICES)), draw.number(2, 30)
    yield draw.one(
        (
            f"What do {number} pieces of the {product} cost together?",
            f"I would like to order the {product} {number} times. What is the total price?",
        )
    )
    (price,) = yield [("get_price", {"product": product})]
    (total,) = yield [("calculate", {"expression": f"{number} * {price}"})]
    return draw.one(
        (f"The {product} costs ${price}, so {number} of them cost ${total}.", f"Together they cost ${total}.")
    )


def price_in_currency(draw: Draw) -> Chain:
    """A price, then another currency."""
    product, currency = draw.one(tuple(f.PRICES)), draw.one([code for code in f.RATES if code != "USD"])
    yield draw.one(
        (f"What does the {product} cost in {currency}?", f"How much {currency} is the {product} in your shop?")
    )
    (price,) = yield [("get_price", {"product": product})]
    (amount,) = yield [("convert_currency", {"amount": price, "from_currency": "USD", "to_currency": currency})]
    return draw.one((f"It costs ${price}, which is {amount} {currency}.", f"The {product} costs {amount} {currency}."))


def two_prices(draw: Draw) -> Chain:
    """Two prices at once, then their sum or difference."""
    one, two = draw.some(tuple(f.PRICES), 2)
    more = draw.chance(0.5)
    yield (
        f"How much are the {one} and the {two} together?"
        if more
        else (f"What is the difference in price between the {one} and the {two}?")
    )
    first, second = yield [("get_price", {"product": one}), ("get_price", {"product": two})]
    high, low = max(first, second), min(first, second)
    (result,) = yield [("calculate", {"expression": f"{first} + {second}" if more else f"{high} - {low}"})]
    tell = f"The {one} costs ${first} and the {two} costs ${second}"
    return f"{tell}. Together that is ${result}." if more else f"{tell}, so the difference is ${result}."


def value_of_stock(draw: Draw) -> Chain:
    """Stock and price, then their product."""
    product = draw.one([each for each, number in f.STOCK.items() if number])
    yield draw.one(
        (f"What are all pieces of the {product} in stock worth?", f"Compute the value of our stock of the {product}.")
    )
    stock, price = yield [("get_stock", {"product": product}), ("get_price", {"product": product})]
    (value,) = yield [("calculate", {"expression": f"{stock} * {price}"})]
    return f"There are {stock} pieces at ${price} each, which are worth ${value}."


def weekday_later(draw: Draw) -> Chain:
    """A later date, then its weekday."""
    (date, said), days = date_of(draw), draw.number(5, 300)
    yield draw.one(
        (
            f"Which day of the week is {days} days after {said}?",
            f"On which weekday do {days} days end that begin on {said}?",
        )
    )
    (later,) = yield [("add_days", {"date": date, "days": days})]
    (day,) = yield [("day_of_week", {"date": later})]
    return draw.one((f"{days} days later it is {later}, a {day}.", f"It is a {day}."))


def open_on_date(draw: Draw) -> Chain:
    """A weekday, then opening hours."""
    (date, said), place = date_of(draw), draw.one(tuple(f.HOURS))
    yield draw.one(
        (f"When is the {place} open on {said}?", f"I want to visit the {place} on {said}. When can I go there?")
    )
    (day,) = yield [("day_of_week", {"date": date})]
    (hours,) = yield [("get_opening_hours", {"place": place, "day": day})]
    return f"{said} is a {day}. Opening hours of the {place}: {hours}."


def weeks_between(draw: Draw) -> Chain:
    """Days between dates, then weeks or hours."""
    (start, first), (end, last) = sorted((date_of(draw), date_of(draw)))
    unit = draw.one(("weeks", "hours"))
    yield f"How many {unit} are there between {first} and {last}?"
    (days,) = yield [("days_between", {"start": start, "end": end})]
    (count,) = yield [("convert_duration", {"value": days, "from_unit": "days", "to_unit": unit})]
    return draw.one((f"There are {days} days between them, which are {count} {unit}.", f"It is {count} {unit}."))


def about_capital(draw: Draw) -> Chain:
    """A capital, then something done with its name."""
    country = draw.one(tuple(f.CAPITALS))
    way = draw.one(("backwards", "letter", "morse"))
    letter = draw.one("aeo")
    yield {
        "backwards": f"Write the name of the capital of {country} backwards.",
        "letter": f'How often does the letter "{letter}" occur in the name of the capital of {country}?',
        "morse": f"How do you write the capital of {country} in Morse code?",
    }[way]
    (capital,) = yield [("get_capital", {"country": country})]
    call: tuple[str, dict[str, Any]] = {
        "backwards": ("reverse_text", {"text": capital}),
        "letter": ("count_letter", {"text": capital, "letter": letter}),
        "morse": ("to_morse", {"text": capital}),
    }[way]
    (result,) = yield [call]
    told = {
        "backwards": f"The capital of {country} is {capital}, which is {result} backwards.",
        "letter": f'The capital is {capital}, in which the letter "{letter}" occurs {result} times.',
        "morse": f"The capital is {capital}, in Morse code: {result}",
    }
    return told[way]


def area_and_cost(draw: Draw) -> Chain:
    """An area, then what covering it costs."""
    width, height, price = draw.number(3, 20), draw.number(3, 25), draw.number(4, 60)
    what = draw.one(("Tiles", "Carpet", "Turf", "Wooden boards"))
    cost = "costs" if what in ("Carpet", "Turf") else "cost"
    floor = f"A floor is {width} meters wide and {height} meters long."
    yield f"{floor} {what} {cost} ${price} a square meter. What do I pay?"
    (area,) = yield [("rectangle_area", {"width": width, "height": height})]
    (total,) = yield [("calculate", {"expression": f"{area} * {price}"})]
    return f"The floor has {area} square meters, so you pay ${total}."


def bill_in_currency(draw: Draw) -> Chain:
    """A share of a bill, then another currency."""
    total, people = draw.number(30, 600), draw.number(2, 8)
    currency = draw.one([code for code in f.RATES if code != "USD"])
    yield f"{people} friends share a bill of ${total}. How much is one share in {currency}?"
    (share,) = yield [("split_bill", {"total": total, "people": people})]
    (amount,) = yield [("convert_currency", {"amount": share, "from_currency": "USD", "to_currency": currency})]
    return f"Each share is ${share}, which is {amount} {currency}."


def code_backwards(draw: Draw) -> Chain:
    """An encrypted text, then backwards."""
    text, shift = draw.one(TEXTS), draw.number(1, 25)
    yield f'Shift each letter of "{text}" by {shift} and then write the result backwards.'
    (secret,) = yield [("shift_letters", {"text": text, "shift": shift})]
    (back,) = yield [("reverse_text", {"text": secret})]
    told: str = draw.one((f'Shifted it is "{secret}", and backwards "{back}".', back))
    return told


def pond(draw: Draw) -> Chain:
    """A radius in feet, then the area in square meters."""
    feet = draw.number(5, 80)
    yield f"A round pond has a radius of {feet} feet. How many square meters does it cover?"
    (meters,) = yield [("convert_length", {"value": feet, "from_unit": "feet", "to_unit": "meters"})]
    (area,) = yield [("circle_area", {"radius": meters})]
    return f"The radius is {meters} meters, so the pond covers {area} square meters."


CHAINS: dict[Callable[[Draw], Chain], tuple[str, ...]] = {
    price_of_many: ("get_price", "calculate"),
    price_in_currency: ("get_price", "convert_currency"),
    two_prices: ("get_price", "calculate"),
    value_of_stock: ("get_stock", "get_price", "calculate"),
    weekday_later: ("add_days", "day_of_week"),
    open_on_date: ("day_of_week", "get_opening_hours"),
    weeks_between: ("days_between", "convert_duration"),
    about_capital: ("get_capital", "reverse_text", "count_letter", "to_morse"),
    area_and_cost: ("rectangle_area", "calculate"),
    bill_in_currency: ("split_bill", "convert_currency"),
    code_backwards: ("shift_letters", "reverse_text"),
    pond: ("convert_length", "circle_area"),
}
"""Each chain, and the functions that it calls."""
