"""How the arguments of tools are drawn, and how they are said."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table
from herdlm.align.synth.tools import functions as f

Arguments = dict[str, Any]
Drawn = tuple[Arguments, dict[str, Any]]
"""Arguments, and how those are said that are said otherwise."""

TEXTS: list[str] = table("tools/bank.toml")["texts"]
WORDS: list[str] = table("tools/bank.toml")["words"]


def plain(draw: Callable[[Draw], Arguments]) -> Callable[[Draw], Drawn]:
    """Arguments that are said as they are."""
    return lambda source: (draw(source), {})


def date_of(draw: Draw) -> tuple[str, str]:
    """A date as ISO 8601 writes it, and as people do."""
    date = datetime.date(draw.number(1950, 2035), draw.number(1, 12), draw.number(1, 28))
    return date.isoformat(), draw.one((f"{date:%B} {date.day}, {date.year}", f"{date.day} {date:%B} {date.year}"))


def _one_date(draw: Draw) -> Drawn:
    date, said = date_of(draw)
    return {"date": date}, {"date": said}


def _two_dates(draw: Draw) -> Drawn:
    (start, first), (end, last) = sorted((date_of(draw), date_of(draw)))
    return {"start": start, "end": end}, {"start": first, "end": last}


def _later_date(draw: Draw) -> Drawn:
    date, said = date_of(draw)
    return {"date": date, "days": draw.number(3, 400)}, {"date": said}


def _units(table: Mapping[str, float], low: int, high: int) -> Callable[[Draw], Drawn]:
    def drawn(draw: Draw) -> Drawn:
        from_unit, to_unit = draw.some(tuple(table), 2)
        value = draw.number(low, high) if draw.chance(0.8) else draw.number(low, high) + 0.5
        return {"value": value, "from_unit": from_unit, "to_unit": to_unit}, {}

    return drawn


def _numbers(draw: Draw) -> Drawn:
    numbers = [draw.number(1, 120) for _ in range(draw.number(3, 6))]
    return {"numbers": numbers}, {"numbers": ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"}


def _expression(draw: Draw) -> Drawn:
    a, b, c = draw.number(2, 400), draw.number(2, 60), draw.number(2, 40)
    written, said = draw.one(
        (
            (f"{a} * {b}", f"{a} times {b}"),
            (f"{a} + {b} * {c}", f"{a} plus {b} times {c}"),
            (f"({a} + {b}) / {c}", f"({a} + {b}) divided by {c}"),
            (f"{b} ** 3", f"{b} to the power of 3"),
            (f"{a} - {b}", f"{a} minus {b}"),
            (f"{a} / {b}", f"{a} divided by {b}"),
            (f"{a} * {b} - {c}", f"{a} times {b} minus {c}"),
        )
    )
    return {"expression": written}, {"expression": said}


def _temperature(draw: Draw) -> Drawn:
    unit = draw.one(("celsius", "fahrenheit"))
    other = "fahrenheit" if unit == "celsius" else "celsius"
    value = draw.number(-20, 45) if unit == "celsius" else draw.number(0, 110)
    return {"value": value, "to_unit": other}, {"from_unit": unit.capitalize(), "to_unit": other.capitalize()}


def _currency(draw: Draw) -> Drawn:
    one, two = draw.some(tuple(f.RATES), 2)
    return {"amount": draw.number(5, 2000), "from_currency": one, "to_currency": two}, {}


def _words(draw: Draw) -> Drawn:
    words = draw.some(WORDS, draw.number(3, 6))
    down = draw.chance(0.3)
    arguments: Arguments = {"words": words, **({"descending": True} if down else {})}
    return arguments, {"words": ", ".join(words), "order": "from Z to A" if down else "from A to Z"}


def _bill(draw: Draw) -> Drawn:
    total, people, tip = draw.number(20, 400), draw.number(2, 9), draw.one((0, 0, 10, 15, 20))
    arguments = {"total": total, "people": people, **({"tip_percent": tip} if tip else {})}
    return arguments, {"tip": f" with a tip of {tip} percent" if tip else ""}


DRAWS: dict[str, Callable[[Draw], Drawn]] = {
    "calculate": _expression,
    "average": _numbers,
    "percentage_of": plain(lambda d: {"value": d.number(10, 2000), "percent": d.number(1, 95)}),
    "day_of_week": _one_date,
    "days_between": _two_dates,
    "add_days": _later_date,
    "is_leap_year": plain(lambda d: {"year": d.number(1800, 2200)}),
    "convert_length": _units(f.METERS, 2, 500),
    "convert_weight": _units(f.GRAMS, 2, 900),
    "convert_duration": _units(f.SECONDS, 3, 600),
    "convert_temperature": _temperature,
    "convert_currency": _currency,
    "get_price": plain(lambda d: {"product": d.one(tuple(f.PRICES))}),
    "get_stock": plain(lambda d: {"product": d.one(tuple(f.STOCK))}),
    "get_capital": plain(lambda d: {"country": d.one(tuple(f.CAPITALS))}),
    "get_element": plain(lambda d: {"name": d.one(tuple(f.ELEMENTS))}),
    "get_opening_hours": plain(
        lambda d: {
            "place": d.one(tuple(f.HOURS)),
            "day": d.one(("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday")),
        }
    ),
    "find_phone_number": plain(lambda d: {"name": d.one(tuple(f.PHONES))}),
    "count_letter": plain(lambda d: {"text": d.one(TEXTS), "letter": d.one("aeiostnrl")}),
    "reverse_text": plain(lambda d: {"text": d.one(TEXTS)}),
    "sort_words": _words,
    "to_morse": plain(lambda d: {"text": d.one(TEXTS)}),
    "shift_letters": plain(lambda d: {"text": d.one(TEXTS), "shift": d.number(1, 25)}),
    "circle_area": plain(lambda d: {"radius": d.number(2, 60)}),
    "rectangle_area": plain(lambda d: {"width": d.number(2, 90), "height": d.number(2, 90)}),
    "split_bill": _bill,
    "compound_interest": plain(
        lambda d: {"principal": d.number(1, 80) * 100, "rate": d.number(1, 9), "years": d.number(2, 25)}
    ),
}
"""How the arguments of each function are drawn."""
