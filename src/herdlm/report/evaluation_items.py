"""The items of an evaluation as scripts that its page loads, one a task: unlike other files, a page on a disk may load
scripts beside it, so that it needs no server.

A script is one call, ``herdlmItems(TASK, TEXT)``, and its text is JSON: all that a model said is data to the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from herdlm.base.artifact import file_name

FOLDER = "items"
LONGEST = 20_000  # characters of a text that the page shows; the records hold the whole

Record = Mapping[str, Any]


def write_items(folder: Path, task: str, records: Mapping[str, Sequence[Record]]) -> str:
    """Write the script with a task's items.

    Args:
        records: of each model; items are joined by their ``id``.

    Returns:
        its path in ``folder``.
    """
    value = {"models": list(records), "items": joined_items(records)}
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    script = f"herdlmItems({json.dumps(task)}, {json.dumps(text, ensure_ascii=False)});\n"
    path = folder / FOLDER / f"{file_name(task)}.js"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(script.encode("utf-8", "backslashreplace"))  # a lone surrogate becomes JavaScript's escape
    temporary.replace(path)
    return f"{FOLDER}/{path.name}"


def joined_items(records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """The items of a task, each with what every model said, in the order of their numbers.

    A prompt is [characters that it shares with the prompt before, the rest, where the question starts]; positions
    count UTF-16 units, as JavaScript does.
    """
    by_model = [{record["id"]: record for record in each} for each in records.values()]
    numbers = sorted({number for found in by_model for number in found})
    joined = [[found.get(number) for found in by_model] for number in numbers]
    prompts = [list(dict.fromkeys(_short(record["prompt"]) for record in each if record)) for each in joined]
    shared = _shared(prompts)
    items = []
    for index, (number, each) in enumerate(zip(numbers, joined, strict=True)):
        written = []
        for slot, prompt in enumerate(prompts[index]):
            before = shared[index][slot]
            after = shared[index + 1][slot] if index + 1 < len(shared) and slot < len(shared[index + 1]) else 0
            start = _question_start(prompt, max(before, after))
            written.append([_units(prompt[:before]), prompt[before:], _units(prompt[:start])])
        first = next(record for record in each if record)
        item = {"id": number, "prompts": written, "models": [_said(record, prompts[index]) for record in each]}
        if first.get("group") is not None:
            item["group"] = str(first["group"])
        if "choices" in first:
            item["choices"] = [_short(text) for text in first["choices"]]
            expected = first["expected"]
            item["right"] = expected if isinstance(expected, list) else [expected]
        elif first.get("expected") is not None:
            expected = first["expected"]
            item["expected"] = _short(expected if isinstance(expected, str) else _json(expected))
        items.append(item)
    return items


def _said(record: Record | None, prompts: Sequence[str]) -> dict[str, Any] | None:
    """What a model said about an item; keys without content are left out."""
    if record is None:
        return None
    details = {name: each for name, each in (record.get("details") or {}).items() if any(each)}
    metrics = {name: _value(value) for name, value in record.get("values", {}).items()}
    for name, (total, size) in record.get("ratios", {}).items():
        ratio = total / size if size else math.nan
        metrics[name] = _number(math.exp(min(ratio, 700)) if name.endswith("perplexity") else ratio)
    said = {
        "passed": record["passed"],
        "reason": record.get("reason"),
        "prompt": prompts.index(_short(record["prompt"])),
        "picked": record.get("answer"),
        "answers": [_short(text) for text in record.get("answers", ())],
        "logprobs": [_number(value) for value in record.get("logprobs", ())],
        "tokens": record.get("tokens"),
        "finish": record.get("finish"),
        "cut": record.get("cut"),
        "metrics": metrics,
        "details": _short(_json(details)) if details else None,
    }
    return {key: value for key, value in said.items() if key == "passed" or value not in (None, "", [], {})}


def _shared(prompts: Sequence[Sequence[str]]) -> list[list[int]]:
    """For each prompt how many characters it shares with the prompt in its place of the item before."""
    found: list[list[int]] = []
    before: Sequence[str] = ()
    for each in prompts:
        found.append([_common(before[slot], text) if slot < len(before) else 0 for slot, text in enumerate(each)])
        before = each
    return found


def _common(first: str, second: str) -> int:
    """The length of the longest common start."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _question_start(prompt: str, shared: int) -> int:
    """Where the question starts behind a description and worked examples.

    These are what neighbors share, up to the last message or paragraph that starts in it. Examples that are drawn for
    each item are not shared: such a prompt is shown from its start.
    """
    for mark, keep in (("\n[user] ", 1), ("\n\n", 2)):
        found = prompt.rfind(mark, 0, shared)
        if found >= 0:
            return found + keep
    return 0


def _short(text: str) -> str:
    """A text that is too long without its middle."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters, which the records have ...]\n{text[-half:]}"


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _value(value: Any) -> Any:
    return [_number(each) for each in value] if isinstance(value, list) else _number(value)


def _number(value: float | None) -> float | None:
    """JSON has no infinite numbers."""
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
