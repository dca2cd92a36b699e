"""What the tools of our bank do. This file runs in the sandbox: it imports nothing but the standard library."""

from __future__ import annotations

import ast
import datetime
import json
import operator
import sys
from typing import Any

OPERATIONS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Mod: operator.mod,
}
METERS: dict[str, float] = {
    "meters": 1,
    "kilometers": 1000,
    "centimeters": 0.01,
    "miles": 1609.344,
    "feet": 0.3048,
    "inches": 0.0254,
}
GRAMS: dict[str, float] = {
    "grams": 1,
    "kilograms": 1000,
    "pounds": 453.59237,
    "ounces": 28.349523125,
    "tons": 1_000_000,
}
SECONDS: dict[str, float] = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
TEMPERATURES = ("celsius", "fahrenheit")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RATES: dict[str, float] = {"USD": 1.0, "EUR": 0.9, "GBP": 0.78, "JPY": 150.0, "CHF": 0.88, "CAD": 1.36, "SEK": 10.5}
PRICES = {
    "notebook": 3.5, "backpack": 42.0, "desk lamp": 27.9, "water bottle": 12.5, "headphones": 59.0, "umbrella": 18.0,
    "chess set": 34.0, "coffee mug": 8.5, "wall clock": 22.0, "sleeping bag": 75.0, "kettle": 31.0, "garden hose": 25.5,
}  # fmt: skip
STOCK = {
    "notebook": 140, "backpack": 12, "desk lamp": 0, "water bottle": 58, "headphones": 7, "umbrella": 33,
    "chess set": 4, "coffee mug": 96, "wall clock": 15, "sleeping bag": 2, "kettle": 0, "garden hose": 21,
}  # fmt: skip
CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Canada": "Ottawa", "Norway": "Oslo",
    "Egypt": "Cairo", "Poland": "Warsaw", "Vietnam": "Hanoi", "Australia": "Canberra", "Chile": "Santiago",
    "Greece": "Athens", "Iceland": "Reykjavik", "Mongolia": "Ulaanbaatar", "Portugal": "Lisbon", "Ghana": "Accra",
}  # fmt: skip
ELEMENTS = {
    "hydrogen": ("H", 1), "helium": ("He", 2), "carbon": ("C", 6), "nitrogen": ("N", 7), "oxygen": ("O", 8),
    "sodium": ("Na", 11), "aluminum": ("Al", 13), "iron": ("Fe", 26), "copper": ("Cu", 29), "silver": ("Ag", 47),
    "tin": ("Sn", 50), "gold": ("Au", 79), "mercury": ("Hg", 80), "lead": ("Pb", 82), "uranium": ("U", 92),
}  # fmt: skip
HOURS = {
    "library": {"weekday": "9:00 to 19:00", "weekend": "10:00 to 16:00"},
    "swimming pool": {"weekday": "6:30 to 21:00", "weekend": "8:00 to 20:00"},
    "museum": {"weekday": "10:00 to 17:00", "weekend": "10:00 to 18:00"},
    "post office": {"weekday": "8:00 to 18:00", "weekend": "closed"},
    "bakery": {"weekday": "6:00 to 18:30", "weekend": "7:00 to 13:00"},
    "town hall": {"weekday": "8:00 to 16:00", "weekend": "closed"},
}
PHONES = {
    "Anna Berg": "555-0142", "Luis Romero": "555-0177", "Mei Tanaka": "555-0103", "Omar Haddad": "555-0198",
    "Grace Okafor": "555-0121", "Jonas Lind": "555-0164", "Priya Nair": "555-0136", "Tomas Novak": "555-0189",
}  # fmt: skip
MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz0123456789",
        [
            ".-",
            "-...",
            "-.-.",
            "-..",
            ".",
            "..-.",
            "--.",
            "....",
            "..",
            ".---",
            "-.-",
            ".-..",
            "--",
            "-.",
            "---",
            ".--.",
            "--.-",
            ".-.",
            "...",
            "-",
            "..-",
            "...-",
            ".--",
            "-..-",
            "-.--",
            "--..",
            "-----",
            ".----",
            "..---",
            "...--",
            "....-",
            ".....",
            "-....",
            "--...",
            "---..",
            "----.",
        ],
        strict=True,
    )
)


def calculate(expression: str) -> float:
    """The value of an arithmetic expression."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](value(node.left), value(node.right))
        raise ValueError("only numbers and + - * / ** % are allowed")

    return tidy(value(ast.parse(expression, mode="eval").body))


def tidy(number: float) -> float:
    """A number with at most two digits after the point, or six if it is below 1."""
    number = round(number, 2 if abs(number) >= 1 else 6)
    return int(number) if number == int(number) else number


def average(numbers: list[float]) -> float:
    """The mean."""
    return tidy(sum(numbers) / len(numbers))


def percentage_of(value: float, percent: float) -> float:
    """So many percent of a value."""
    return tidy(value * percent / 100)


def day_of_week(date: str) -> str:
    """The name of the weekday."""
    return datetime.date.fromisoformat(date).strftime("%A")


def days_between(start: str, end: str) -> int:
    """Days between two dates."""
    return abs((datetime.date.fromisoformat(end) - datetime.date.fromisoformat(start)).days)


def add_days(date: str, days: int) -> str:
    """A date some days later."""
    return (datetime.date.fromisoformat(date) + datetime.timedelta(days=days)).isoformat()


def is_leap_year(year: int) -> bool:
    """Whether the year has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def convert_length(value: float, from_unit: str, to_unit: str) -> float:
    """A length in another unit."""
    return tidy(value * METERS[from_unit] / METERS[to_unit])


def convert_weight(value: float, from_unit: str, to_unit: str) -> float:
    """A weight in another unit."""
    return tidy(value * GRAMS[from_unit] / GRAMS[to_unit])


def convert_duration(value: float, from_unit: str, to_unit: str) -> float:
    """A duration in another unit."""
    return tidy(value * SECONDS[from_unit] / SECONDS[to_unit])


def convert_temperature(value: float, to_unit: str) -> float:
    """A temperature in the other unit."""
    return tidy(value * 9 / 5 + 32 if to_unit == "fahrenheit" else (value - 32) * 5 / 9)


def convert_currency(amount: float, from_currency: str, to_currency: str) -> float:
    """Money in another currency."""
    return tidy(amount / RATES[from_currency] * RATES[to_currency])


def get_price(product: str) -> float:
    """What a product costs."""
    return tidy(PRICES[product])


def get_stock(product: str) -> int:
    """How many there are."""
    return STOCK[product]


def get_capital(country: str) -> str:
    """The capital."""
    return CAPITALS[country]


def get_element(name: str) -> dict[str, Any]:
    """Symbol and atomic number."""
    symbol, number = ELEMENTS[name]
    return {"symbol": symbol, "atomic_number": number}


def get_opening_hours(place: str, day: str) -> str:
    """When a place is open."""
    return HOURS[place]["weekend" if day in ("Saturday", "Sunday") else "weekday"]


def find_phone_number(name: str) -> str:
    """A number of the address book."""
    return PHONES[name]


def count_letter(text: str, letter: str) -> int:
    """How often a letter occurs."""
    return text.lower().count(letter.lower())


def reverse_text(text: str) -> str:
    """The text backwards."""
    return text[::-1]


def sort_words(words: list[str], descending: bool = False) -> list[str]:
    """The words by the alphabet."""
    return sorted(words, key=str.lower, reverse=descending)


def to_morse(text: str) -> str:
    """The text in Morse code."""
    return " ".join(MORSE[letter] for letter in text.lower() if letter in MORSE)


def shift_letters(text: str, shift: int) -> str:
    """The text with shifted letters."""

    def shifted(letter: str) -> str:
        if not letter.isascii() or not letter.isalpha():
            return letter
        base = ord("a") if letter.islower() else ord("A")
        return chr((ord(letter) - base + shift) % 26 + base)

    return "".join(map(shifted, text))


def circle_area(radius: float) -> float:
    """The area of a circle."""
    return tidy(3.141592653589793 * radius**2)


def rectangle_area(width: float, height: float) -> float:
    """The area of a rectangle."""
    return tidy(width * height)


def split_bill(total: float, people: int, tip_percent: float = 0) -> float:
    """What each person pays."""
    return tidy(total * (1 + tip_percent / 100) / people)


def compound_interest(principal: float, rate: float, years: int) -> float:
    """What savings become."""
    return tidy(principal * (1 + rate / 100) ** years)


def results(calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The result of each call, or its error, as JSON values."""
    found = []
    for name, arguments in calls:
        try:
            found.append({"result": globals()[name](**arguments)})
        except Exception as error:
            found.append({"error": f"{type(error).__name__}: {error}"})
    return found


if __name__ == "__main__":
    print(json.dumps(results(json.load(sys.stdin))))  # noqa: T201 - this is how the sandbox gets it
