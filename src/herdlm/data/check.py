"""Looks through files of rows: their form, what they hold, what would be dropped and why, and what cannot be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.data.counts import Counts, Dropped
from herdlm.data.formats.form import Kind, Record
from herdlm.data.read import Converted, check_special_parts, converted, sieved
from herdlm.data.row import Rename, RowError
from herdlm.data.useless import Sieve, digest, sides
from herdlm.tokens.chat import text_of
from herdlm.tokens.chat_format import ChatFormat

UNREADABLE = 20  # examples
HELD_OUT_ROW, HELD_OUT_PROMPT = "also in the held-out file", "with a prompt of the held-out file"
CODE = re.compile(r"```|^\s*(?:def |class |import |#include|function )", re.MULTILINE)


@dataclass(slots=True)
class FileReport:
    """What one file holds.

    Attributes:
        holds: kept records by what is in them, such as a system prompt.
        lengths: of kept records, in tokens or characters; of the longer side of a pair.
        unreadable: how many rows could not be read.
        errors: the first of them.
        problems: all of them by what is wrong.
        leaks: kept records that a held-out file has, too.
    """

    path: Path
    counts: Counts = field(default_factory=Counts)
    kinds: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    unreadable: int = 0
    errors: list[str] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    leaks: dict[str, Dropped] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "file": str(self.path),
            **self.counts.as_json(),
            "kinds": dict(self.kinds),
            "roles": dict(self.roles.most_common()),
            "holds": dict(self.holds.most_common()),
            "lengths": _quantiles(self.lengths),
            "histogram": dict(histogram(self.lengths)),
            "unreadable": self.unreadable,
            "errors": self.errors,
            "problems": dict(self.problems.most_common()),
            "held_out": {name: {"count": d.count, "examples": d.examples} for name, d in self.leaks.items()},
        }

    def lines(self, unit: str) -> list[str]:
        """The report in words."""
        counts = self.counts
        forms = ", ".join(f"{form} ({number:,})" for form, number in counts.forms.most_common())
        kinds = " and ".join(self.kinds) or "nothing"
        found = [
            f"{self.path}: {forms or 'no known form'}",
            f"  {counts.rows:,} rows give {counts.read:,} records ({kinds}), {counts.kept:,} of them of use",
        ]
        if self.lengths:
            q = _quantiles(self.lengths)
            found.append(
                f"  length in {unit}: shortest {q['min']:,}, median {q['median']:,}, 95% below {q['p95']:,}, "
                f"longest {q['max']:,}, all {q['sum']:,}"
            )
            most = max(number for _, number in histogram(self.lengths))
            for label, number in histogram(self.lengths):
                found.append(f"    {label:>9} {number:>9,} {'#' * round(40 * number / most)}".rstrip())
        for title, counter in (("roles", self.roles), ("holds", self.holds), ("columns not used", counts.unused)):
            if counter:
                found.append(
                    f"  {title}: " + ", ".join(f"{name} {number:,}" for name, number in counter.most_common(20))
                )
        found += [f"  {line}" for line in counts.lines()]
        found += [f"  {d.count:,} {name} (such as {d.examples[0]})" for name, d in self.leaks.items()]
        if self.unreadable:
            found.append(f"  {self.unreadable:,} rows cannot be read:")
            found += [f"    {number:,}: {problem}" for problem, number in self.problems.most_common(10)]
        return found


class HeldOut:
    """The records and prompts of held-out files, to find them in training files."""

    def __init__(self, paths: Sequence[Path], rename: Rename | None = None) -> None:
        self.records: set[bytes] = set()
        self.prompts: set[bytes] = set()
        for path in paths:
            for found in converted(path, None, rename):
                if isinstance(found, RowError):
                    raise found
                for record in found.records:
                    self.records.add(digest(record))
                    self.prompts.update(_prompt_digests(found.kind, record))

    def leak(self, kind: Kind, record: Record) -> str | None:
        """How a held-out file has this record, too, or None."""
        if digest(record) in self.records:
            return HELD_OUT_ROW
        return HELD_OUT_PROMPT if self.prompts.intersection(_prompt_digests(kind, record)) else None


def check(
    paths: Sequence[Path],
    *,
    kind: Kind | None = None,
    chat_format: ChatFormat | None = None,
    seq_len: int | None = None,
    held_out: Sequence[Path] = (),
    rename: Rename | None = None,
    keep: int | None = None,
) -> tuple[list[FileReport], list[tuple[Kind, Record]]]:
    """A report of each file, and the records of use.

    Args:
        keep: return at most this many records.
        kind: what to make of the rows; by default what their form is for.
        chat_format: counts tokens with it, and finds what its template refuses.

    Raises:
        InputError: a file cannot be read at all; a row that cannot be read is in the report.
    """
    if seq_len is not None and chat_format is None:
        raise InputError("--seq-len needs a tokenizer", "Add --model DIR")
    known = HeldOut(held_out, rename)
    sieve = Sieve(chat_format=chat_format, seq_len=seq_len)
    reports: list[FileReport] = []
    kept: list[tuple[Kind, Record]] = []
    for path in paths:
        report = FileReport(path)
        reports.append(report)
        for found in map(partial(_possible, chat_format), converted(path, kind, rename)):
            if isinstance(found, RowError):
                report.unreadable += 1
                report.problems[found.problem] += 1
                if len(report.errors) < UNREADABLE:
                    report.errors.append(str(found))
                continue
            report.kinds[found.kind] += len(found.records)
            for record, reason, length in sieved(found, sieve, report.counts):
                if reason is None:
                    if keep is None or len(kept) < keep:
                        kept.append((found.kind, record))
                    report.lengths.append(length)
                    describe(report, found.kind, record)
                    if held_out and (leak := known.leak(found.kind, record)):
                        dropped = report.leaks.setdefault(leak, Dropped())
                        dropped.count += 1
                        dropped.examples.append(found.row.where())
                        del dropped.examples[3:]
        report.counts.used = report.counts.kept
    return reports, kept


def _possible(chat_format: ChatFormat | None, found: Converted | RowError) -> Converted | RowError:
    """A row, or why the tokenizer cannot read it."""
    try:
        if isinstance(found, Converted):
            check_special_parts(found, chat_format)
    except RowError as error:
        return error
    return found


def describe(report: FileReport, kind: Kind, record: Record) -> None:
    """Count the roles of a record, and what it holds."""
    if kind == "text":
        report.holds.update(["code"] * bool(CODE.search(record["text"])))
        return
    messages = sides(kind, record)[0][0]
    roles = [message["role"] for message in messages]
    report.roles.update(roles)
    turns = roles.count("user")
    holds = {
        "system prompt": "system" in roles,
        "single-turn": turns <= 1,
        "multi-turn": turns > 1,
        "tools": "tools" in record or "tool" in roles or any("tool_calls" in message for message in messages),
        "code": any(CODE.search(text_of(message)) for message in messages),
        "weights": any("weight" in message for message in messages),
        "begins with the assistant": roles[:1] == ["assistant"],
        "same role twice running": any(a == b for a, b in pairwise(roles)),
        "ends without an answer": kind == "dialogs" and roles[-1] != "assistant",
        "thumb up": record.get("label") is True,
        "thumb down": record.get("label") is False,
    }
    report.holds.update(name for name, held in holds.items() if held)
    if "verifier" in record:
        report.holds[f"verifier {record['verifier']}"] += 1


def histogram(lengths: Sequence[int]) -> list[tuple[str, int]]:
    """How many lengths are in each range up to a power of two, from the first to the last that has any."""
    if not lengths:
        return []
    powers = Counter(max(length - 1, 0).bit_length() for length in lengths)
    return [(f"<= {1 << power:,}", powers[power]) for power in range(min(powers), max(powers) + 1)]


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    if not lengths:
        return {}
    ordered = sorted(lengths)
    at = {"min": 0, "median": len(ordered) // 2, "p95": min(len(ordered) * 95 // 100, len(ordered) - 1), "max": -1}
    return {name: ordered[index] for name, index in at.items()} | {"sum": sum(ordered)}


def _prompt_digests(kind: Kind, record: Record) -> list[bytes]:
    """A hash of what is asked, without the system prompt, case and spacing; of a text as a whole."""
    if kind == "text":
        return [digest(" ".join(record["text"].casefold().split()))]
    messages, first = sides(kind, record)[0]
    if kind == "dialogs":
        first = next((n for n, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    asked = [" ".join(text_of(m).casefold().split()) for m in messages[:first] if m["role"] != "system"]
    return [digest(asked)] if any(asked) else []
