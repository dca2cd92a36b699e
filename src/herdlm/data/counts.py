"""Counts of what was read, kept, repaired and dropped, by reason, with examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from herdlm.data.row import Row

EXAMPLES = 3


@dataclass(slots=True)
class Dropped:
    """How many records were dropped for one reason, and where the first of them are."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    """What became of the rows of one or several files; ``read`` is the sum of ``kept`` and all dropped.

    Attributes:
        rows: rows that could be read.
        read: records made of them; a row may hold several, such as a tree of answers.
        used: rows after the weights of files, in which a row may be several times, or not at all.
        forms: rows by the name of their form.
        repaired: rows by what was repaired in them.
        unused: rows by the name of a column that was not read.
    """

    rows: int = 0
    read: int = 0
    kept: int = 0
    used: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    forms: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def row(self, row: Row, form: str) -> None:
        """Count a row that was converted."""
        self.rows += 1
        self.forms[form] += 1
        self.repaired.update(sorted(set(row.notes)))
        self.unused.update(sorted(row.value.keys() - row.used))

    def drop(self, reason: str, where: str) -> None:
        """Count a record that is not used."""
        self.read += 1
        dropped = self.dropped.setdefault(reason, Dropped())
        dropped.count += 1
        if len(dropped.examples) < EXAMPLES:
            dropped.examples.append(where)

    def keep(self) -> None:
        """Count a record that is used."""
        self.read += 1
        self.kept += 1

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "rows": self.rows,
            "read": self.read,
            "kept": self.kept,
            "used": self.used,
            "dropped": {r: {"count": d.count, "examples": d.examples} for r, d in sorted(self.dropped.items())},
            "forms": dict(self.forms.most_common()),
            "repaired": dict(self.repaired.most_common()),
            "unused_columns": dict(self.unused.most_common()),
        }

    def lines(self) -> list[str]:
        """The dropped and repaired rows, in words, a line each."""
        found = [
            f"{dropped.count:,} dropped: {reason} (such as {dropped.examples[0]})"
            for reason, dropped in sorted(self.dropped.items())
        ]
        return found + [f"{count:,} rows: {what}" for what, count in self.repaired.most_common()]
