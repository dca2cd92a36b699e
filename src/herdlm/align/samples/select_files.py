"""Selects from files of samples, and writes what was selected: ``herdlm select``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.align.samples.candidates import Row
from herdlm.align.samples.pairing import RATINGS
from herdlm.align.samples.rows import read_samples
from herdlm.align.samples.select import Selected, select
from herdlm.align.samples.select_config import SelectConfig
from herdlm.base.errors import InputError
from herdlm.data.read import read_dialogs
from herdlm.data.source import Source
from herdlm.data.write import write_records

COLUMNS = ("task", "prompts", "answers", "any right", "kept", *RATINGS)


def select_files(
    files: Sequence[Path],
    config: SelectConfig,
    *,
    kept: Path | None = None,
    pairs: Path | None = None,
    edited: Path | None = None,
) -> Selected:
    """Select from files of samples; writes ``kept`` and ``pairs``, if given, both or none.

    Raises:
        InputError: a file cannot be read, or one to write exists.
    """
    outputs = [path for path in (kept, pairs) if path is not None]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise InputError("--kept and --pairs are the same file", "Name two files")
    for path in outputs:
        if path.exists():
            raise InputError(f"{path} exists", "Choose a new file")
    dialogs = read_dialogs([Source(edited)])[0] if edited is not None else []
    rows: list[Row] = [{**row, "file": str(file)} for file in files for row in read_samples(file)]
    selected = select(rows, config, dialogs)
    if kept is not None:
        write_records(kept, (dict(dialog) for dialog in selected.kept))
    if pairs is not None:
        try:
            write_records(pairs, (dict(pair) for pair in selected.pairs))
        except BaseException:
            if kept is not None:
                kept.unlink()
            raise
    return selected


def table(counts: dict[str, Any]) -> Iterator[str]:
    """The lines of the report: a row per task and one for all, then what was left out and the pairs' lengths."""
    shown = [(name, counts["tasks"][name]) for name in counts["tasks"]] + [("all", counts)]
    rows = [COLUMNS, *(_row(name, figures) for name, figures in shown)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    for row in rows:
        cells = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    for reason, count in counts["left_out"].items():
        yield f"left out: {reason}: {count:,} prompts"
    if counts["edits_without_samples"]:
        yield f"{counts['edits_without_samples']:,} edited answers belong to no prompt of the samples; they are kept"
    if found := counts["lengths"]:
        yield (
            f"characters of chosen and rejected answers: {found['chosen']:,} and {found['rejected']:,}; "
            f"the chosen one is longer in {found['chosen_longer']:.0%} of pairs"
        )


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    right = f"{figures['any_right']:,}" if figures["judged"] else "-"
    numbers = [f"{figures['prompts']:,}", f"{figures['answers']:,}", right, f"{figures['kept']:,}"]
    return (name, *numbers, *(f"{figures['pairs'][grade]:,}" for grade in RATINGS))
