"""Reads the points of a scaling ladder from a CSV file: model size, tokens or FLOPs, loss, and benchmark scores."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError

Floats = NDArray[np.float64]

# By role, the names of columns in the order in which they are preferred; compared without case and punctuation.
NAMES = {
    "params": (
        "params parameters paramcount parametercount nparams numparams nparameters numparameters n modelsize "
        "modelparams modelparameters totalparams totalparameters size "
    ),
    "tokens": (
        "tokens trainingtokens traintokens trainedtokens ntokens numtokens totaltokens tokenstrained "
        "tokensseen d datasetsize datasize traindata "
    ),
    "flops": (
        "flops flop trainingflops trainingflop trainflops totalflops compute trainingcompute traincompute c "
        "nflops computeflops "
    ),
    "budget": "budget flopbudget flopsbudget computebudget isoflop isoflopbudget budgetflops",
    "loss": (
        "loss validationloss valloss evalloss heldoutloss testloss finalloss validationnatspertoken "
        "natspertoken crossentropy l trainingloss trainloss "
    ),
    "task": "task benchmark dataset taskname evaluation",
    "nll": (
        "nll negativeloglikelihood normalizednll normalisednll nllperchar nllpertoken nllrightanswer "
        "correctnll answernll tasknll taskloss bpb bitsperbyte "
    ),
    "accuracy": "accuracy acc score passrate exactmatch accnorm",
    "chance": "chance randomaccuracy floor chancelevel",
}
POSITIVE = ("params", "tokens", "flops", "budget", "loss")
UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
UNITS |= {f"{name}{end}": UNITS[name[0]] for name in ("million", "billion", "trillion") for end in ("", "s")}
UNIT = re.compile(r"^(.*?)[\s_(\[]+(k|m|b|t|millions?|billions?|trillions?)[)\]]?$", re.I)
NUMBER = re.compile(r"^([+-]?(?:\d[\d_]*(?:,\d{3})*(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([kmbt]?)$", re.I)
FLOPS_PER_PARAMETER_TOKEN = 6.0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file: its number, the numbers by role, and the task it names."""

    line: int
    numbers: Mapping[str, float]
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Trained models, one an entry: arrays of the same length.

    Args:
        flops: of training; 6 x params x tokens if the file has none.
        budget: the nominal budget of each point, if the file names it.
        flops_factor: median of flops / (params x tokens), which turns a budget into tokens.
        source: the file's name, for messages.
        warnings: what a reader of the results must know about the points.
    """

    params: Floats
    tokens: Floats
    flops: Floats
    loss: Floats
    budget: Floats | None = None
    flops_factor: float = FLOPS_PER_PARAMETER_TOKEN
    source: str = "the points"
    columns: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    def some(self, keep: NDArray[np.bool_]) -> Points:
        """The points where ``keep`` is true."""
        budget = None if self.budget is None else self.budget[keep]
        return replace(
            self,
            params=self.params[keep],
            tokens=self.tokens[keep],
            flops=self.flops[keep],
            loss=self.loss[keep],
            budget=budget,
        )

    def with_loss(self, loss: Floats) -> Points:
        """The same models with other losses."""
        return replace(self, loss=loss)


def read_rows(path: Path, where: Sequence[str] = ()) -> tuple[list[Row], dict[str, str]]:
    """Read a CSV file; returns its rows and the column that each role was taken from.

    Commas, semicolons or tabs separate; lines that begin with # and empty lines are skipped. Numbers may have a suffix
    (1.3B) or thousands separators, and a column's name may have a unit: params (B), tokens_billions.

    Args:
        where: conditions COLUMN=VALUE that a row must meet to be read.

    Raises:
        InputError: the file cannot be read, lacks columns, or has a bad row; names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Give a CSV file with the columns of a ladder") from error
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} is empty", "Give a line of column names and one line per model")
    delimiter = max(",;\t", key=lines[0][1].count)
    cells = [[cell.strip() for cell in row] for row in csv.reader((line for _, line in lines), delimiter=delimiter)]
    header, body = cells[0], list(zip((n for n, _ in lines[1:]), cells[1:], strict=True))
    places = _places(path, header)
    conditions = [_condition(path, header, text) for text in where]
    rows = []
    for number, row in body:
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {number} has {len(row)} cells, but line {lines[0][0]} names {len(header)} columns",
                "Give each column one cell; put cells that contain a separator in quotes",
            )
        if all(row[place] == value for place, value in conditions):
            rows.append(_row(path, number, row, places))
    if not rows:
        raise InputError(f"{path} has no rows{' that meet --where' if where else ''}", "Give one line per model")
    return rows, {role: header[place] for role, (place, _) in places.items()}


def _places(path: Path, header: Sequence[str]) -> dict[str, tuple[int, float]]:
    """By role, the position of its column and the unit of its numbers."""
    found: dict[str, tuple[int, int, float]] = {}
    for place, written in enumerate(header):
        for name, unit in _readings(written):
            for role, listed in NAMES.items():
                names = listed.split()
                if name in names and (role not in found or names.index(name) < found[role][0]):
                    found[role] = (names.index(name), place, unit)
    if not found:
        raise InputError(
            f"{path}: none of the columns {', '.join(header[:8])} is known",
            "Name columns params, tokens or flops, and loss in the first line",
        )
    return {role: (place, unit) for role, (_, place, unit) in found.items()}


def _readings(written: str) -> list[tuple[str, float]]:
    """A column's name as written, and with a unit taken off its end."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    readings = [(plain(written), 1.0)]
    if unit := UNIT.match(written):
        readings.append((plain(unit[1]), UNITS[unit[2].lower()]))
    return readings


def _condition(path: Path, header: Sequence[str], text: str) -> tuple[int, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in header:
        raise InputError(
            f"--where {text} names no column of {path}", f"Write COLUMN=VALUE with one of {', '.join(header)}"
        )
    return header.index(name), value


def _row(path: Path, line: int, row: Sequence[str], places: Mapping[str, tuple[int, float]]) -> Row:
    numbers = {}
    for role, (place, unit) in places.items():
        if role == "task" or not row[place]:
            continue
        numbers[role] = _number(f"{path}: line {line}", role, row[place]) * unit
    task = row[places["task"][0]] if "task" in places else None
    return Row(line, numbers, task or None)


def _number(where: str, role: str, text: str) -> float:
    read = NUMBER.match(text)
    value = float(read[1].replace(",", "").replace("_", "")) * UNITS.get(read[2].lower(), 1.0) if read else math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {role} {text!r} is not a number", "Correct the cell or remove the line")
    if role in POSITIVE and value <= 0:
        raise InputError(f"{where}: {role} {text} is not above 0", "Correct the cell or remove the line")
    return value


def points_of(rows: Sequence[Row], columns: Mapping[str, str], source: str) -> Points:
    """The trained models among ``rows``; what is repeated for each task counts once.

    Raises:
        InputError: a row lacks its loss, its model's size, or both tokens and FLOPs.
    """
    unique: dict[tuple[float, ...], dict[str, float]] = {}
    for row in rows:
        numbers = dict(row.numbers)
        if "flops" not in numbers and "budget" in numbers:
            numbers["flops"] = numbers["budget"]
        for role in ("params", "loss"):
            if role not in numbers:
                raise InputError(
                    f"{source}: line {row.line} has no {role}", f"Give a column {role} with a number in each line"
                )
        if not numbers.keys() & {"tokens", "flops"}:
            raise InputError(f"{source}: line {row.line} has neither tokens nor flops", "Give a column of one of them")
        key = tuple(numbers.get(role, 0.0) for role in POSITIVE)
        if row.task is None:  # without tasks, equal rows are repeated trainings
            key = (*key, row.line)
        unique[key] = numbers
    return make_points(list(unique.values()), columns, source)


def make_points(models: Sequence[Mapping[str, float]], columns: Mapping[str, str], source: str) -> Points:
    """Points of models given by role; whichever of tokens and FLOPs is missing follows from 6 x params x tokens."""
    factor, warnings = FLOPS_PER_PARAMETER_TOKEN, []
    ratios = [m["flops"] / (m["params"] * m["tokens"]) for m in models if {"flops", "tokens"} <= m.keys()]
    nominal = "flops" not in columns and "budget" in columns
    if ratios:
        median = float(np.median(ratios))
        spread = float(np.quantile(ratios, 0.9) / np.quantile(ratios, 0.1))
        if not 1 <= median <= 60:
            raise InputError(
                f"{source}: flops are {median:.3g} x params x tokens, where about 6 is expected",
                "Check the units of the columns: single parameters, tokens and FLOPs",
            )
        if not nominal:
            factor = median
        if spread > 1.5:
            warnings.append(
                f"FLOPs per parameter and token range over a factor {spread:.2f}: tokens at a budget follow their "
                f"median, {factor:.2f}"
            )
    made = []
    for m in models:
        tokens = m["tokens"] if "tokens" in m else m["flops"] / (factor * m["params"])
        flops = m["flops"] if "flops" in m and not nominal else factor * m["params"] * tokens
        made.append((m["params"], tokens, flops, m["loss"]))
    table = np.array(made, dtype=np.float64).reshape(-1, 4)
    named = all("budget" in m for m in models)
    budget = np.array([m["budget"] for m in models]) if named else None
    return Points(
        params=table[:, 0],
        tokens=table[:, 1],
        flops=table[:, 2],
        loss=table[:, 3],
        budget=budget,
        flops_factor=factor,
        source=source,
        columns=dict(columns),
        warnings=tuple(warnings),
    )


def read_points(path: Path, where: Sequence[str] = ()) -> Points:
    """Read the trained models of a CSV file; see :func:`read_rows` and :func:`points_of`."""
    rows, columns = read_rows(path, where)
    return points_of(rows, columns, str(path))
