"""Shows what quality control kept and dropped, and follows one example to where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.align.quality.clean import CARD, DROPPED, FUNNEL
from herdlm.base.errors import InputError
from herdlm.base.json_lines import json_lines
from herdlm.tokens.chat import text_of

SHOWN_CHARS = 600
KINDS = ("dialogs", "prompts")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which examples to show. None matches any; ``key`` is the beginning of an example's key, or its prompt's id."""

    step: str | None = None
    reason: str | None = None
    language: str | None = None
    key: str | None = None


def is_cleaned(folder: Path) -> bool:
    """Whether quality control made a folder."""
    return all((folder / name).is_file() for name in (DROPPED, FUNNEL, CARD))


def find_examples(folder: Path, wanted: Wanted, *, dropped: bool, limit: int) -> list[dict[str, Any]]:
    """The first examples that match; with a key, of those kept and those dropped.

    Raises:
        InputError: none matches.
    """
    if not dropped and (wanted.step or wanted.reason):
        raise InputError("only dropped examples have a step and a reason", "Add --dropped")
    found = [row for row in _rows(folder, wanted, dropped=dropped) if _matches(row, wanted)][:limit]
    if not found:
        steps = sorted(
            {f"{r['dropped']['step']}: {r['dropped']['reason']}" for r in _rows(folder, Wanted(), dropped=True)}
        )
        known = f"Dropped were, by step: {'; '.join(steps)}" if steps else "Nothing was dropped"
        raise InputError(f"no example of {folder} matches", known)
    if wanted.key:
        return [{**row, "origin": origin(row)} for row in found]
    return found


def _rows(folder: Path, wanted: Wanted, *, dropped: bool) -> Iterator[dict[str, Any]]:
    kept = [folder / f"{kind}.jsonl" for kind in KINDS if (folder / f"{kind}.jsonl").is_file()]
    files = [*kept, folder / DROPPED] if wanted.key else [folder / DROPPED] if dropped else kept
    return (row for file in files for _, row in json_lines(file))


def _matches(row: Mapping[str, Any], wanted: Wanted) -> bool:
    about = row.get("dropped") or row.get("quality") or {}
    said = (row.get("quality") or {}).get("language")
    return (
        (wanted.step is None or about.get("step") == wanted.step)
        and (wanted.reason is None or about.get("reason") == wanted.reason)
        and (wanted.language is None or said == wanted.language)
        and (
            wanted.key is None
            or str(about.get("key", "")).startswith(wanted.key)
            or (row.get("lineage") or {}).get("prompt") == wanted.key
        )
    )


def origin(row: Mapping[str, Any]) -> dict[str, Any]:
    """An example's lineage, and the sample it was, if the file of samples is there."""
    lineage = dict(row.get("lineage") or {})
    found: dict[str, Any] = {"lineage": lineage}
    file = Path(str(lineage.get("file", "")))
    if lineage.get("file") and file.is_file():
        for line, prompt in json_lines(file):
            if prompt.get("id") == lineage.get("prompt") and len(prompt.get("samples", ())) > lineage["sample"]:
                found["at"] = f"{file}, line {line}, sample {lineage['sample']}"
                found["sample"] = prompt["samples"][lineage["sample"]]
                found["samples"] = len(prompt["samples"])
                break
    return found


def as_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines that show examples in a terminal."""
    for row in rows:
        dropped, about = row.get("dropped"), row.get("quality") or {}
        yield f"== {(dropped or about).get('key', '')}  {about.get('topic') or row.get('task') or ''}".rstrip()
        if dropped:
            detail = f" ({dropped['detail']})" if dropped.get("detail") else ""
            repeats = f", of {dropped['of']}" if dropped.get("of") else ""
            yield _printable(f"   dropped by {dropped['step']}: {dropped['reason']}{detail}{repeats}")
        for message in row.get("messages", row.get("prompt", ())):
            text = text_of(message)
            more = f" ... and {len(text) - SHOWN_CHARS:,} more characters" if len(text) > SHOWN_CHARS else ""
            yield _printable(f"   {message['role']}: {text[:SHOWN_CHARS]}{more}")
        yield from _origin_lines(row)


def _origin_lines(row: Mapping[str, Any]) -> Iterator[str]:
    if "origin" not in row:
        return
    found = row["origin"]
    for name, value in found["lineage"].items():
        yield _printable(f"   {name}: {value}")
    if "at" in found:
        sample = found["sample"]
        verdict = (sample.get("verdict") or {}).get("reason", "none")
        yield _printable(
            f"   drawn: {found['at']} of {found['samples']}; verdict {verdict}, reward {sample.get('reward')}"
        )


def _printable(text: str) -> str:
    """Text without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
