"""Cuts the files of this folder from the published ones; the same input gives the same files.

    python sample/own/cut.py short-instructions.json politeness-preferences.json svamp-train.csv

A tenth of each is held out, by a hash of the text: of a word problem the text without its numbers, so that a problem
with other numbers is on the same side.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = ("Question", "Numbers", "Equation", "Answer")


def held_out(text: str) -> bool:
    """Whether the row with this text is held out: one in ten."""
    plain = re.sub(r"number\d|[^a-z]+", " ", text.lower()).strip()
    return hashlib.sha256(plain.encode()).digest()[0] < 26


def cut_json(source: str, name: str) -> None:
    """Cut a list of rows with an instruction."""
    rows: list[dict[str, Any]] = json.loads(Path(source).read_text(encoding="utf-8"))
    for out in (False, True):
        kept = [row for row in rows if held_out(f"{row['instruction']} {row['input']}") is out]
        text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in kept) + "\n]\n"
        (HERE / f"{name}{'-held-out' if out else ''}.json").write_text(text, encoding="utf-8")


def cut_problems(source: str) -> None:
    """Cut the word problems, of which the columns that a reader needs stay."""
    with Path(source).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for out in (False, True):
        with (HERE / f"word-problems{'-held-out' if out else ''}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if held_out(row["Question"]) is out)


if __name__ == "__main__":
    cut_json(sys.argv[1], "instructions")
    cut_json(sys.argv[2], "preferences")
    cut_problems(sys.argv[3])
