"""Judges by the number that an answer comes to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.boxed import last_boxed
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)"
NUMBER = re.compile(
    rf"""
    (?:(?<![\w)\]}}.])(?P<minus>[-+])\s?)?    # a sign; after a word or a number it is an operator
    (?P<currency>[$€£¥]\s?)?
    (?:(?<![\w.])(?P<whole>\d+)\s+(?=\d+/\d))?  # 1 1/2
    (?:
        (?P<top>(?<![\d./]){DIGITS})\s?/\s?(?P<bottom>\d+)(?![\d/]|\.\d)
      | (?P<decimal>{DIGITS}(?:\.\d+)?|(?<!\d)\.\d+)
        (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w)
          |\s?(?:\xd7|x|\*|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
    )
    (?P<unit>[ \t]{{0,2}}(?:%|°\s?[CFK]?|[$€£¥]|[^\W\d_]+(?:/[^\W\d_]+)?(?:\^?[23²³])?))?
    """,
    re.VERBOSE,
)
FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}|(\d)\s*(\d))")
VULGAR = re.compile(r"[¼-¾⅐-⅞]")
LATEX = (
    (r"{,}", ","),
    (r"\,", ""),
    (r"\!", ""),
    (r"\$", "$"),
    (r"\%", "%"),
    (r"^\circ", "°"),
    ("\N{MINUS SIGN}", "-"),
    ("π", r"\pi"),
    ("~", " "),
)
# What makes an expression more than the number in it: 2\pi, \sqrt{2}, 7x, 2^5.
MORE = re.compile(r"[\^/+*√!]|\\(?:sqrt|pi|log|ln|exp|sin|cos|tan|binom|infty)|\d")
VARIABLES = frozenset("xyzni")
MARK = re.compile(r"####([^#\n]*)")
AFTER_MARKED = re.compile(r"(?:\s+[^\W\d]\w*){0,2}[\s.!*]*")
TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")
BRITISH = re.compile(r"(met|lit)re")
MOST_DIGITS = 1000
MOST_DECIMAL = 10**15  # larger numbers are shown as fractions
UNITS = {
    **dict.fromkeys(("$", "dollar", "usd"), "$"),
    **dict.fromkeys(("€", "euro", "eur"), "€"),
    **dict.fromkeys(("£", "pound", "gbp"), "£"),
    **dict.fromkeys(("%", "percent", "pct"), "%"),
    **dict.fromkeys(("m", "meter"), "m"),
    **dict.fromkeys(("km", "kilometer"), "km"),
    **dict.fromkeys(("cm", "centimeter"), "cm"),
    **dict.fromkeys(("mm", "millimeter"), "mm"),
    **dict.fromkeys(("kg", "kilogram", "kilo"), "kg"),
    **dict.fromkeys(("g", "gram"), "g"),
    **dict.fromkeys(("l", "liter"), "l"),
    **dict.fromkeys(("s", "sec", "second"), "s"),
    **dict.fromkeys(("min", "minute"), "min"),
    **dict.fromkeys(("h", "hr", "hour"), "h"),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and the unit beside it, "" if there is none."""

    value: Fraction
    unit: str


def quantities(text: str) -> Iterator[Quantity]:
    """The numbers of a text: integers, decimals, thousands with commas, fractions, mixed numbers, powers of ten.

    The usual LaTeX of numbers and units is read, too.
    """
    for match in NUMBER.finditer(_plain(text)):
        value = _value(match)
        if value is not None:
            yield Quantity(value, _unit(match["currency"] or match["unit"] or ""))


def last_number(text: str) -> Fraction | None:
    """The last number of a text, or None."""
    last = _last(text)
    return last.value if last else None


def _last(text: str) -> Quantity | None:
    last = None
    for last in quantities(text):  # noqa: B007 - the last one is meant
        pass
    return last


def _only(expression: str) -> Quantity | None:
    """The number that an expression is, if it is no more than that, as 2x is. What stands before "=" does not count."""
    text = _plain(expression.rpartition("=")[2])
    found = list(quantities(text))
    if len(found) != 1 or found[0].unit in VARIABLES or MORE.search(NUMBER.sub("", text)):
        return None
    return found[0]


def _marked(answer: str) -> Quantity | None:
    """The number of the last line that is ``####`` and a number with a few words, unlike headings in Markdown."""
    for line in reversed(MARK.findall(answer)):
        text = _plain(line).strip(" \t*")
        number = NUMBER.match(text)
        if number and AFTER_MARKED.fullmatch(text, number.end()):
            return next(quantities(text), None)
    return None


def _plain(text: str) -> str:
    for written, meant in LATEX:
        text = text.replace(written, meant)
    text = TEXT.sub(r" \1", text)
    text = FRACTION.sub(lambda found: f" {found[1] or found[3]}/{found[2] or found[4]} ", text)
    return VULGAR.sub(
        lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\N{FRACTION SLASH}", "/"), text
    )


def _value(match: re.Match[str]) -> Fraction | None:
    """The number of a match; None if it divides by zero or is absurdly long."""
    if len(match[0]) > MOST_DIGITS:
        return None
    if match["top"]:
        if not int(match["bottom"]):
            return None
        value = Fraction(int(match["top"].replace(",", "")), int(match["bottom"])) + int(match["whole"] or 0)
    else:
        power = int(match["exponent"] or match["power"] or 0)
        value = Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** power
    return -value if match["minus"] == "-" else value


def _unit(written: str) -> str:
    unit = BRITISH.sub(r"\1er", written.strip().lower())
    for form in (unit, unit.removesuffix("s"), unit.removesuffix("es")):
        if form in UNITS:
            return UNITS[form]
    return unit.removesuffix("s") if len(unit) > 2 and "/" not in unit else unit


class Number(Verifier):
    """Compares the answer's number with the reference: a number, or a text that ends with one."""

    take: Literal["auto", "last", "boxed", "marked"] = Field(
        "auto", description=r"which number counts; auto is that in \boxed{}, or in a last line #### 7, or the last one"
    )
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False, description="largest absolute difference")
    relative_tolerance: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="largest difference as a share of the reference"
    )
    units: Literal["ignore", "same"] = Field("ignore", description="whether the units beside the numbers must agree")

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        expected = _expected(reference)
        found = self._find(answer)
        if found is None:
            return failed("no number")
        details = {"found": _written(found), "expected": _written(expected)}
        if abs(found.value - expected.value) > max(
            Fraction(self.tolerance), Fraction(self.relative_tolerance) * abs(expected.value)
        ):
            return failed("another number", **details)
        if self.units == "same" and found.unit != expected.unit:
            return failed("another unit", **details)
        return passed("equal", **details)

    def _find(self, answer: str) -> Quantity | None:
        boxed, marked = last_boxed(answer), _marked(answer)
        if boxed is not None and self.take in ("auto", "boxed"):
            return _only(boxed)
        if marked is not None and self.take in ("auto", "marked"):
            return marked
        return _last(answer) if self.take in ("auto", "last") else None


def _expected(reference: Any) -> Quantity:
    if isinstance(reference, str):
        boxed = last_boxed(reference)
        if found := _last(reference.rpartition("####")[2]) if boxed is None else _only(boxed):
            return found
    elif isinstance(reference, int | float) and not isinstance(reference, bool) and abs(reference) < float("inf"):
        return Quantity(Fraction(str(reference)), "")
    raise InputError(f"reference {shown(reference)} is not a number", "Write a number, or a text that ends with one")


def _written(quantity: Quantity) -> str:
    value, text = quantity.value, str(quantity.value)
    if value.denominator != 1 and abs(value) < MOST_DECIMAL and float(value) == value:
        text = repr(float(value))
    return f"{text} {quantity.unit}".strip()
