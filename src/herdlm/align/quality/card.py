"""The data card of what quality control kept: where it comes from, what it is, and what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from herdlm.tokens.chat import text_of

UNKNOWN = "unknown"
QUANTILES = (0.05, 0.5, 0.95)


def card(
    kept: Sequence[Mapping[str, Any]],
    funnel: Mapping[str, Any],
    *,
    name: str,
    kind: str,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The card as JSON values.

    Args:
        inputs: by file: rows, content hash and license.
    """
    lengths = [_lengths(row) for row in kept]
    return {
        "name": name,
        "kind": kind,
        "inputs": dict(inputs),
        "rows": {"given": funnel["given"], "kept": funnel["kept"], "dropped": funnel["dropped"]},
        "tasks": _counted(row.get("task") for row in kept),
        "topics": _counted(row["quality"]["topic"] for row in kept),
        "languages": _counted(row["quality"]["language"] for row in kept),
        "models": _counted(_model(row) for row in kept),
        "sources": _counted(row["lineage"].get("from") for row in kept),
        "rounds": _counted(row["lineage"].get("round") for row in kept),
        "licenses": _counted(row.get("license") for row in kept),
        "turns": _counted(
            str(sum(m["role"] == "user" for m in row.get("messages", row.get("prompt")))) for row in kept
        ),
        "characters": {
            part: {f"{q:.0%}": float(np.quantile([length[n] for length in lengths], q)) for q in QUANTILES}
            for n, part in enumerate(("asked", "answered"))
            if lengths
        },
        "difficulty": _counted(str(row["quality"]["difficulty"]) for row in kept),
        "funnel": funnel["steps"],
        "settings": dict(settings),
    }


def as_markdown(made: Mapping[str, Any]) -> str:
    """The card to read."""
    return "\n".join(_lines(made)) + "\n"


def _lines(made: Mapping[str, Any]) -> Iterator[str]:
    rows = made["rows"]
    yield f"# {made['name']}"
    yield ""
    yield f"{rows['kept']:,} {made['kind']} of {rows['given']:,}; {rows['dropped']:,} were dropped."
    yield from _table(
        "Files", ("file", "rows", "license"), [(f, i["rows"], i["license"]) for f, i in made["inputs"].items()]
    )
    for title in ("tasks", "topics", "languages", "models", "sources", "rounds", "licenses", "turns", "difficulty"):
        yield from _table(title.capitalize(), (title, "rows"), made[title].items())
    lengths = [(part, *(f"{value:,.0f}" for value in found.values())) for part, found in made["characters"].items()]
    yield from _table("Characters, by quantile", ("part", *(f"{q:.0%}" for q in QUANTILES)), lengths)
    steps = [
        (
            s["step"],
            s["given"],
            s["dropped"],
            s.get("skipped") or ", ".join(f"{r}: {n}" for r, n in s["reasons"].items()),
        )
        for s in made["funnel"]
    ]
    yield from _table("Funnel", ("step", "given", "dropped", "why"), steps)


def _table(title: str, head: Sequence[str], rows: Any) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    for row in rows:
        cells = [" ".join(str(cell).split()).replace("|", "\\|") for cell in row]
        yield f"| {' | '.join(cells)} |"


def _counted(values: Any) -> dict[str, int]:
    counts = Counter(str(value) if value not in (None, "") else UNKNOWN for value in values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _model(row: Mapping[str, Any]) -> str | None:
    found: str | None = row["lineage"].get("model") or row.get("source")
    return found


def _lengths(row: Mapping[str, Any]) -> tuple[int, int]:
    messages = row.get("messages", row.get("prompt"))
    asked = sum(len(text_of(m)) for m in messages if m["role"] in ("user", "system"))
    return asked, sum(len(text_of(m)) for m in messages if m["role"] == "assistant")
