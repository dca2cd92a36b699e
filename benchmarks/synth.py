"""Measures the data that generators make without a teacher: how different it is, how fast, and what it shares.

    python benchmarks/synth.py RECIPE.toml [FILE ...]

For each generator of the recipe: prompts, how many requests are near-duplicates of an earlier one (at least half of
all their runs of three words in common), records per second of processor time, the sandbox's included, and, for each
FILE of a benchmark's prompts, how many prompts share eight words in a row with one of them, and those words. Prints
JSON.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from herdlm.align.synth.recipe import read_synth_recipe
from herdlm.align.synth.run import synthesize
from herdlm.base.json_lines import read_json_lines

SHINGLE, SHARED, ALIKE = 3, 8, 0.5


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return re.findall(r"\w+", text.lower())


def sequences(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of n words."""
    found = words(text)
    return {tuple(found[at : at + n]) for at in range(len(found) - n + 1)}


def near_duplicates(texts: Sequence[str]) -> int:
    """How many texts have a Jaccard similarity of at least ALIKE with an earlier one."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sets = [sequences(text, SHINGLE) for text in texts]
    count = 0
    for number, own in enumerate(sets):
        common = Counter(other for sequence in own for other in places[sequence])
        count += any(shared / (len(own) + len(sets[other]) - shared) >= ALIKE for other, shared in common.items())
        for sequence in own:
            places[sequence].append(number)
    return count


def asked(row: dict[str, Any]) -> str:
    """The request in a row of any file: the first message of the user, or a text."""
    messages = row.get("prompt") or row.get("question") or row.get("text") or ""
    if isinstance(messages, list):
        said = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
        return str(said[0].get("content")) if said else ""
    return str(messages)


def processor_seconds() -> float:
    """Of this process and of its ended children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def in_common(texts: Iterable[str], others: Iterable[str]) -> tuple[int, list[str]]:
    """How many texts share a run of SHARED words with one of the others, and the runs."""
    known = {sequence for other in others for sequence in sequences(other, SHARED)}
    shared = [sequences(text, SHARED) & known for text in texts]
    runs = sorted({" ".join(run) for each in shared for run in each})
    return sum(map(bool, shared)), runs


def measure(recipe: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Figures of each generator of a recipe, run alone."""
    config = read_synth_recipe(recipe)
    names = [name for name in type(config).model_fields if name not in ("name", "seed", "teacher", "documents", "own")]
    figures: dict[str, Any] = {}
    for name in (name for name in names if getattr(config, name) is not None):
        others = [f"{other}=false" for other in names if other != name]
        with tempfile.TemporaryDirectory() as folder:
            start = processor_seconds()
            counts = synthesize(read_synth_recipe(recipe, others), Path(folder, "out"), quiet=True)[name]
            seconds = processor_seconds() - start
            path = Path(folder, "out", name, "prompts.jsonl")
            rows = read_json_lines(path) if path.is_file() else []
        texts = list(dict.fromkeys(asked(row) for row in rows))  # prompts of later turns ask the same
        figures[name] = {
            "prompts": len(rows),
            "dialogs": counts["dialogs"],
            "dropped": counts["reasons"],
            "different requests": len(texts),
            "near-duplicates of an earlier request": near_duplicates(texts),
            "records a processor second": round((counts["prompts"] + counts["dialogs"]) / seconds, 1),
        }
        for file in files:
            number, runs = in_common(texts, map(asked, read_json_lines(file)))
            figures[name][f"sharing {SHARED} words in a row with {file.name}"] = {"prompts": number, "runs": runs[:20]}
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]), indent=2))
