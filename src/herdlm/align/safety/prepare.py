"""Writes a guard's training dialogs, and labeled rows that are kept from training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.align.safety.categories import CategoryNames
from herdlm.align.safety.dialogs import Augmentation, drops_can_be_told, guard_dialogs
from herdlm.align.safety.labels import Labeled, read_labeled
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.data.write import write_records
from herdlm.serve.guard.guard import PLACEHOLDERS, PROMPT

FEW_SHARE = 0.05  # of the rarer label
NO_DROPS = "no categories were dropped, since some unsafe rows have none: a shorter list would give away what is safe"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of the files' rows.

    Attributes:
        counts: rows by what is judged and how it is labeled.
        warnings: what a guard cannot learn from them.
    """

    dialogs: int
    held_out: int
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """What a person reads."""
        lines = [f"dialogs   {self.dialogs:>7,}", f"held out  {self.held_out:>7,}"]
        lines += [f"  {name:18}{count:>7,}" for name, count in self.counts.items()]
        return lines + [f"  dropped, {reason}: {count:,}" for reason, count in self.dropped.items()]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "dialogs": self.dialogs,
            "held_out": self.held_out,
            "counts": dict(self.counts),
            "dropped": dict(self.dropped),
            "warnings": list(self.warnings),
        }


def prepare(
    files: Sequence[Path],
    out: Path,
    names: CategoryNames,
    augmentation: Augmentation,
    *,
    held_out: Path | None = None,
    share: float = 0.0,
    wording: Path | None = None,
    seed: int = 0,
) -> Prepared:
    """Write the dialogs of the files' labeled rows to ``out``, and a share of the rows as they are to ``held_out``.

    All rows with the same first message are on one side.

    Raises:
        InputError: a row cannot be read, nothing is left, a file exists already, or the wording lacks a placeholder.
    """
    for path in (out, held_out):
        if path is not None and path.exists():
            raise InputError(f"{path} exists", "Choose a new file")
    template = _template(wording)
    rows, dropped = read_labeled(files, names)
    kept = [row for row in rows if not _is_held_out(row, share, seed)]
    others = [row for row in rows if _is_held_out(row, share, seed)]
    if not kept or (held_out is not None and not others):
        raise InputError(f"{len(rows)} rows cannot be divided at {share:g}", "Give more rows, or another share")
    if held_out is not None:
        write_records(held_out, map(_record, others))
    dialogs = _distinct(guard_dialogs(kept, augmentation, template=template, seed=seed))
    write_records(out, dialogs)
    counts = Counter(f"{row.subject}, {'unsafe' if row.unsafe else 'safe'}" for row in kept)
    warnings = tuple(_warnings(kept, augmentation))
    return Prepared(len(dialogs), len(others), dict(sorted(counts.items())), dropped, warnings)


def _distinct(dialogs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The dialogs without equal copies, which training would drop."""
    return list({json.dumps(dialog["messages"]): dialog for dialog in dialogs}.values())


def _template(wording: Path | None) -> str:
    if wording is None:
        return PROMPT
    if not wording.is_file():
        raise InputError(f"{wording} does not exist", "Check the path of the wording")
    text = wording.read_text(encoding="utf-8").strip()
    if missing := [part for part in PLACEHOLDERS if part not in text]:
        raise InputError(f"{wording} has no {missing[0]}", f"Write {', '.join(PLACEHOLDERS)} where they belong")
    return text


def _is_held_out(row: Labeled, share: float, seed: int) -> bool:
    first = str(row.messages[0]["content"])
    return derive_seed(seed, "held out", first) < share * 2**63


def _record(row: Labeled) -> dict[str, Any]:
    found: dict[str, Any] = {"messages": list(row.messages), "unsafe": row.unsafe, "source": row.source}
    if row.codes:
        found["categories"] = list(row.codes)
    elif row.group:
        found["type"] = row.group
    return found


def _warnings(rows: Sequence[Labeled], augmentation: Augmentation) -> list[str]:
    found = []
    for subject in ("prompt", "answer"):
        labels = [row.unsafe for row in rows if row.subject == subject]
        if min(sum(labels), len(labels) - sum(labels)) < FEW_SHARE * len(labels) or not labels:
            what = f"{sum(labels):,} of {len(labels):,} {subject}s are unsafe" if labels else f"there are no {subject}s"
            found.append(f"{what}: a guard can hardly learn from these files to judge {subject}s")
    if augmentation.drop and not drops_can_be_told(rows):
        found.append(NO_DROPS)
    return found
