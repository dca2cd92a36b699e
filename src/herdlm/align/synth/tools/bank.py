"""The tools of our bank: how they are described, what people ask of them, and how their results are told."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.tools import functions as f

Arguments = dict[str, Any]
Drawn = tuple[Arguments, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool.

    Attributes:
        function: its name in :mod:`herdlm.align.synth.tools.functions`.
        names: what it may be called in a definition.
        about: wordings of its description.
        parameters: name, type, and description of each; a type may be "array of string" or a list of allowed values.
        draw: arguments, and how they are said where that is otherwise.
        asks: requests; ``{name}`` stands for an argument as it is said.
        says: how the result is told; ``{result}`` is the result.
        optional: parameters that may be left out.
        topic: tools of one topic are never each other's wrong choices.
    """

    function: str
    names: tuple[str, ...]
    about: tuple[str, ...]
    parameters: Mapping[str, tuple[Any, str]]
    draw: Callable[[Draw], Drawn]
    asks: tuple[str, ...]
    says: tuple[str, ...]
    topic: str
    optional: Mapping[str, Any] = field(default_factory=dict)

    def definition(self, name: str, about: str) -> dict[str, Any]:
        """Its definition in OpenAI's form."""
        properties = {key: _schema(kind) | {"description": text} for key, (kind, text) in self.parameters.items()}
        required = [key for key in self.parameters if key not in self.optional]
        described = {"type": "object", "properties": properties, "required": required}
        return {"type": "function", "function": {"name": name, "description": about, "parameters": described}}


def _schema(kind: Any) -> dict[str, Any]:
    if isinstance(kind, list):
        return {"type": "string", "enum": kind}
    if kind.startswith("array of "):
        return {"type": "array", "items": {"type": kind.removeprefix("array of ")}}
    return {"type": kind}


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


TEXTS = (
    "the early bird catches the worm", "banana bread", "silver moonlight", "open sesame", "winter is long",
    "Mississippi", "bookkeeper", "a quiet harbor", "seven small steps", "green tea and honey", "Amsterdam", "balloon",
    "good morning", "paper lantern", "three wise owls", "garden party", "lemon tree", "north wind",
)  # fmt: skip
WORD_LISTS = ("pear", "apple", "melon", "Zurich", "Oslo", "violin", "drum", "cedar", "maple", "birch", "otter", "lynx")


def _words(draw: Draw) -> Drawn:
    words = draw.some(WORD_LISTS, draw.number(3, 6))
    down = draw.chance(0.3)
    arguments: Arguments = {"words": words, **({"descending": True} if down else {})}
    return arguments, {"words": ", ".join(words), "order": "from Z to A" if down else "from A to Z"}


def _bill(draw: Draw) -> Drawn:
    total, people, tip = draw.number(20, 400), draw.number(2, 9), draw.one((0, 0, 10, 15, 20))
    arguments = {"total": total, "people": people, **({"tip_percent": tip} if tip else {})}
    return arguments, {"tip": f" with a tip of {tip} percent" if tip else ""}


ISO = "date as YYYY-MM-DD"
TOOLS = (
    Tool(
        "calculate", ("calculate", "calculator", "evaluate_expression"),
        ("Evaluate an arithmetic expression.", "Compute the value of an expression with + - * / ** and parentheses."),
        {"expression": ("string", "the expression, such as 2 * (3 + 4)")},
        _expression,
        ("What is {expression}?", "Please compute {expression}.", "I need the result of {expression}."),
        ("The result is {result}.", "{result}", "It is {result}."), "numbers",
    ),
    Tool(
        "average", ("average", "mean_of_numbers", "compute_average"),
        ("Compute the average of numbers.", "Return the arithmetic mean of a list of numbers."),
        {"numbers": ("array of number", "the numbers")}, _numbers,
        ("What is the average of {numbers}?", "My scores were {numbers}. What is the mean?"),
        ("The average is {result}.", "On average that is {result}."), "numbers",
    ),
    Tool(
        "percentage_of", ("percentage_of", "percent", "compute_percentage"),
        ("Compute a percentage of a value.", "Return how much so many percent of a number are."),
        {"value": ("number", "the whole"), "percent": ("number", "percent of it")},
        plain(lambda d: {"value": d.number(10, 2000), "percent": d.number(1, 95)}),
        ("How much is {percent}% of {value}?", "Tell me {percent} percent of {value}."),
        ("{percent}% of {value} is {result}.", "That is {result}."), "numbers",
    ),
    Tool(
        "day_of_week", ("day_of_week", "get_weekday", "weekday"),
        ("Return the day of the week of a date.", "Find out which weekday a date is."),
        {"date": ("string", ISO)}, _one_date,
        ("Which day of the week is {date}?", "What weekday was or will be {date}?", "I was asked about {date}: which weekday is it?"),
        ("{date} is a {result}.", "It is a {result}."), "calendar",
    ),
    Tool(
        "days_between", ("days_between", "count_days", "date_difference"),
        ("Count the days between two dates.", "Return how many days lie between two dates."),
        {"start": ("string", f"first {ISO}"), "end": ("string", f"last {ISO}")}, _two_dates,
        ("How many days are there between {start} and {end}?", "How long is it in days from {start} to {end}?"),
        ("There are {result} days between {start} and {end}.", "It is {result} days."), "calendar",
    ),
    Tool(
        "add_days", ("add_days", "date_after", "shift_date"),
        ("Add days to a date.", "Return the date so many days after another."),
        {"date": ("string", f"the first {ISO}"), "days": ("integer", "how many days later")}, _later_date,
        ("Which date is {days} days after {date}?", "My contract starts on {date} and runs for {days} days. On which date does it end?"),
        ("It is {result}.", "{days} days after {date} it is {result}."), "calendar",
    ),
    Tool(
        "is_leap_year", ("is_leap_year", "check_leap_year"),
        ("Tell whether a year is a leap year.", "Check if February has 29 days in a year."),
        {"year": ("integer", "the year")}, plain(lambda d: {"year": d.number(1800, 2200)}),
        ("Is {year} a leap year?", "Does February {year} have 29 days?"),
        ("{yes}, {year} is {not_}a leap year.",), "calendar",
    ),
    Tool(
        "convert_length", ("convert_length", "length_converter", "convert_distance"),
        ("Convert a length from one unit to another.", "Change the unit of a length."),
        {
            "value": ("number", "the length"),
            "from_unit": (list(f.METERS), "its unit"),
            "to_unit": (list(f.METERS), "the unit that is wanted"),
        },
        _units(f.METERS, 2, 500),
        ("How many {to_unit} are {value} {from_unit}?", "Convert {value} {from_unit} to {to_unit}."),
        ("{value} {from_unit} are {result} {to_unit}.", "That is {result} {to_unit}."), "units",
    ),
    Tool(
        "convert_weight", ("convert_weight", "weight_converter", "convert_mass"),
        ("Convert a weight from one unit to another.", "Change the unit of a weight."),
        {
            "value": ("number", "the weight"),
            "from_unit": (list(f.GRAMS), "its unit"),
            "to_unit": (list(f.GRAMS), "the unit that is wanted"),
        },
        _units(f.GRAMS, 2, 900),
        ("How many {to_unit} are {value} {from_unit}?", "What is {value} {from_unit} in {to_unit}?"),
        ("{value} {from_unit} are {result} {to_unit}.", "It is {result} {to_unit}."), "units",
    ),
    Tool(
        "convert_duration", ("convert_duration", "time_converter"),
        ("Convert a duration from one unit to another.", "Change seconds, minutes, hours, days or weeks into another unit."),
        {
            "value": ("number", "the duration"),
            "from_unit": (list(f.SECONDS), "its unit"),
            "to_unit": (list(f.SECONDS), "the unit that is wanted"),
        },
        _units(f.SECONDS, 3, 600),
        ("How many {to_unit} are {value} {from_unit}?", "Express {value} {from_unit} in {to_unit}."),
        ("{value} {from_unit} are {result} {to_unit}.",), "units",
    ),
    Tool(
        "convert_temperature", ("convert_temperature", "temperature_converter"),
        ("Convert a temperature between Celsius and Fahrenheit.",),
        {"value": ("number", "degrees in the other unit"), "to_unit": (["celsius", "fahrenheit"], "the unit that is wanted")},
        _temperature,
        ("What are {value} degrees {from_unit} in {to_unit}?", "It is {value} degrees {from_unit} here. How much is that in {to_unit}?"),
        ("{value} degrees {from_unit} are {result} degrees {to_unit}.",), "units",
    ),
    Tool(
        "convert_currency", ("convert_currency", "exchange", "currency_converter"),
        ("Convert an amount of money into another currency.", "Exchange money at today's rate."),
        {
            "amount": ("number", "how much money"),
            "from_currency": (list(f.RATES), "code of its currency"),
            "to_currency": (list(f.RATES), "code of the currency that is wanted"),
        },
        _currency,
        ("How much are {amount} {from_currency} in {to_currency}?", "I want to change {amount} {from_currency} into {to_currency}. What do I get?"),
        ("{amount} {from_currency} are {result} {to_currency}.", "You get {result} {to_currency}."), "money",
    ),
    Tool(
        "get_price", ("get_price", "product_price", "lookup_price"),
        ("Look up the price of a product in our shop, in dollars.", "Return what a product costs in dollars."),
        {"product": ("string", "name of the product")}, plain(lambda d: {"product": d.one(tuple(f.PRICES))}),
        ("What does the {product} cost?", "How much is the {product} in your shop?", "Tell me the price of the {product}."),
        ("The {product} costs ${result}.", "It costs ${result}."), "shop",
    ),
    Tool(
        "get_stock", ("get_stock", "check_inventory", "stock_level"),
        ("Look up how many of a product are in stock.", "Return the number of pieces of a product in the warehouse."),
        {"product": ("string", "name of the product")}, plain(lambda d: {"product": d.one(tuple(f.STOCK))}),
        ("How many pieces of the {product} are in stock?", "Is the {product} available, and how many do you have?"),
        ("There are {result} pieces of the {product} in stock.", "We have {result} of the {product}."), "shop",
    ),
    Tool(
        "get_capital", ("get_capital", "capital_of", "lookup_capital"),
        ("Return the capital of a country.", "Look up a country's capital city."),
        {"country": ("string", "name of the country")}, plain(lambda d: {"country": d.one(tuple(f.CAPITALS))}),
        ("What is the capital of {country}?", "Which city is the capital of {country}?"),
        ("The capital of {country} is {result}.", "It is {result}."), "countries",
    ),
    Tool(
        "get_element", ("get_element", "element_info", "periodic_table"),
        ("Return the symbol and the atomic number of a chemical element.",),
        {"name": ("string", "name of the element in small letters")}, plain(lambda d: {"name": d.one(tuple(f.ELEMENTS))}),
        ("What are the symbol and the atomic number of {name}?", "I need the symbol and atomic number of {name}."),
        ("The symbol of {name} is {symbol}, and its atomic number is {atomic_number}.",), "chemistry",
    ),
    Tool(
        "get_opening_hours", ("get_opening_hours", "opening_hours", "when_open"),
        ("Return when a place in our town is open on a day of the week.",),
        {
            "place": (list(f.HOURS), "the place"),
            "day": (["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"], "day of the week"),
        },
        plain(lambda d: {"place": d.one(tuple(f.HOURS)), "day": d.one(("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday"))}),
        ("When is the {place} open on {day}?", "What are the opening hours of the {place} on {day}?"),
        ("Opening hours of the {place} on {day}: {result}.",), "town",
    ),
    Tool(
        "find_phone_number", ("find_phone_number", "lookup_contact", "phone_book"),
        ("Find the phone number of a person in the address book.",),
        {"name": ("string", "first and last name")}, plain(lambda d: {"name": d.one(tuple(f.PHONES))}),
        ("What is the phone number of {name}?", "How can I reach {name} by phone?", "I want to call {name}. Which number is it?"),
        ("The number of {name} is {result}.", "You can reach {name} at {result}."), "contacts",
    ),
    Tool(
        "count_letter", ("count_letter", "letter_count", "count_character"),
        ("Count how often a letter occurs in a text.",),
        {"text": ("string", "the text"), "letter": ("string", "one letter")},
        plain(lambda d: {"text": d.one(TEXTS), "letter": d.one("aeiostnrl")}),
        ('How often does the letter "{letter}" occur in "{text}"?', 'Count the letter "{letter}" in "{text}".'),
        ('The letter "{letter}" occurs {result} times in "{text}".', "It occurs {result} times."), "texts",
    ),
    Tool(
        "reverse_text", ("reverse_text", "reverse_string"),
        ("Reverse the order of the characters of a text.",), {"text": ("string", "the text")},
        plain(lambda d: {"text": d.one(TEXTS)}),
        ('Write "{text}" backwards.', 'What is "{text}" in reverse?'), ('Backwards it reads "{result}".', "{result}"), "texts",
    ),
    Tool(
        "sort_words", ("sort_words", "alphabetize", "order_words"),
        ("Sort words by the alphabet.",),
        {"words": ("array of string", "the words"), "descending": ("boolean", "from Z to A; false by default")}, _words,
        ("Sort these words {order}: {words}.", "Put the following in alphabetical order, {order}: {words}."),
        ("In order: {result}.", "{result}"), "texts", optional={"descending": False},
    ),
    Tool(
        "to_morse", ("to_morse", "morse_code", "encode_morse"),
        ("Translate a text into Morse code.",), {"text": ("string", "the text")}, plain(lambda d: {"text": d.one(TEXTS)}),
        ('What is "{text}" in Morse code?', 'Encode "{text}" in Morse code.'), ("In Morse code: {result}", "{result}"), "texts",
    ),
    Tool(
        "shift_letters", ("shift_letters", "caesar_cipher", "rotate_alphabet"),
        ("Encrypt a text by shifting each letter in the alphabet.",),
        {"text": ("string", "the text"), "shift": ("integer", "by how many places")},
        plain(lambda d: {"text": d.one(TEXTS), "shift": d.number(1, 25)}),
        ('Encrypt "{text}" with a Caesar cipher and a shift of {shift}.', 'Shift every letter of "{text}" by {shift} places.'),
        ("The encrypted text is: {result}", "{result}"), "texts",
    ),
    Tool(
        "circle_area", ("circle_area", "area_of_circle"),
        ("Compute the area of a circle.",), {"radius": ("number", "its radius")}, plain(lambda d: {"radius": d.number(2, 60)}),
        ("What is the area of a circle with a radius of {radius}?", "A round pond has a radius of {radius} meters. How large is its surface in square meters?"),
        ("The area is {result}.",), "geometry",
    ),
    Tool(
        "rectangle_area", ("rectangle_area", "area_of_rectangle"),
        ("Compute the area of a rectangle.",), {"width": ("number", "its width"), "height": ("number", "its height")},
        plain(lambda d: {"width": d.number(2, 90), "height": d.number(2, 90)}),
        ("What is the area of a rectangle of {width} by {height}?", "A floor is {width} meters wide and {height} meters long. How many square meters is it?"),
        ("The area is {result}.",), "geometry",
    ),
    Tool(
        "split_bill", ("split_bill", "bill_per_person", "share_costs"),
        ("Compute what each person pays of a bill, with a tip if one is given.",),
        {"total": ("number", "the bill"), "people": ("integer", "how many share it"), "tip_percent": ("number", "tip in percent; 0 by default")},
        _bill,
        ("{people} people share a bill of ${total}{tip}. What does each pay?", "We are {people} and the bill is ${total}{tip}. How much is it per person?"),
        ("Each person pays ${result}.", "It is ${result} per person."), "money", optional={"tip_percent": 0},
    ),
    Tool(
        "compound_interest", ("compound_interest", "savings_growth", "future_value"),
        ("Compute what savings grow to with interest that is paid once a year.",),
        {"principal": ("number", "the savings"), "rate": ("number", "interest in percent"), "years": ("integer", "number of years")},
        plain(lambda d: {"principal": d.number(1, 80) * 100, "rate": d.number(1, 9), "years": d.number(2, 25)}),
        ("I put ${principal} into an account at {rate}% a year. How much is it after {years} years?", "What do ${principal} become in {years} years with {rate} percent interest a year?"),
        ("After {years} years it is ${result}.", "It grows to ${result}."), "money",
    ),
)  # fmt: skip
