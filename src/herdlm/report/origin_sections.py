"""The page's sections on a run's origin: time per stage, lineage, recipe and caveats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from herdlm.report import charts, format
from herdlm.report.data import Lineage, Node, ReportData, StageTime
from herdlm.report.markup import Html, table, tag

HASH_SHOWN = 12


def times_section(times: tuple[StageTime, ...]) -> list[Html]:
    """Time per part of the run and per stage."""
    phases: dict[str, float] = {}
    for time in times:
        phases[time.phase] = phases.get(time.phase, 0.0) + time.seconds
    total = sum(phases.values())
    longest = max(phases.values()) or 1.0
    slowest = max(times, key=lambda time: time.seconds)
    each = max(slowest.seconds, 1e-9)
    return [
        tag(
            "p",
            f"All stages together took {format.seconds(total)}, the longest of them {slowest.stage} with "
            f"{format.seconds(slowest.seconds)}. Stages that ran in parallel took less wall time.",
        ),
        table(
            "Time by part of the run",
            ("Part", "Stages", "Time", "Share", "As a bar"),
            (
                (
                    phase,
                    sum(time.phase == phase for time in times),
                    format.seconds(seconds),
                    format.percent(seconds / total if total else 0.0),
                    charts.share_bar(seconds / longest),
                )
                for phase, seconds in phases.items()
            ),
            text_columns=(0, 4),
        ),
        tag(
            "details",
            tag("summary", f"All {len(times)} stages"),
            table(
                "Time by stage",
                ("Stage", "Part", "Seconds", "As a bar"),
                (
                    (tag("code", time.stage), time.phase, f"{time.seconds:.1f}", charts.share_bar(time.seconds / each))
                    for time in times
                ),
                text_columns=(0, 1, 3),
            ),
        ),
    ]


def lineage_section(lineage: Lineage) -> list[Html]:
    """The final model's main line from the source file on, and all its ancestors."""
    nodes = {node.name: node for node in lineage.nodes}
    sources = [node for node in lineage.nodes if not node.made_from]
    chain = [
        tag("li", tag("div", tag("span", name), tag("code", nodes[name].content[:HASH_SHOWN], class_="hash")))
        for name in lineage.line
    ]
    first = nodes[lineage.line[0]]
    return [
        tag(
            "p",
            f"The final model {lineage.final} has {len(lineage.nodes) - 1} ancestors, down to "
            f"{len(sources)} source file{'' if len(sources) == 1 else 's'}. Each names what it was made from by the "
            "SHA-256 of its content; each of these hashes is the one in that artifact's own manifest. The main line:",
        ),
        tag("ol", chain, class_="chain"),
        tag("p", f"{first.name}: SHA-256 ", tag("code", first.content, class_="hash foreign"), class_="quiet"),
        tag(
            "details",
            tag("summary", f"All {len(lineage.nodes)} artifacts and sources with their hashes"),
            table(
                f"Lineage of {lineage.final}",
                ("Artifact", "Kind", "SHA-256 of its content", "Made from"),
                (_lineage_row(node) for node in lineage.nodes),
                text_columns=(0, 1, 2, 3),
            ),
        ),
    ]


def settings_section(data: ReportData) -> list[Html]:
    """The recipe as it was run, every key."""
    keys = list(_flat(data.settings))
    code = ", ".join(f"{name} {version}" for name, version in data.code)
    return [
        tag("p", f"Recipe “{data.name}”, seed {data.seed}, made by {code}."),
        tag(
            "details",
            tag("summary", f"All {len(keys)} settings"),
            table(
                "The recipe, every key resolved",
                ("Key", "Value"),
                ((tag("code", key), tag("code", value)) for key, value in keys),
                text_columns=(0, 1),
            ),
        ),
    ]


def notes_section(data: ReportData) -> list[Html]:
    """What a reader has to know before repeating any of these numbers."""
    notes = []
    if data.start:
        notes += [
            "The annotator of the preference data is the tasks' verifier. In a team it is a person, who errs at times.",
            "Skills are procedural. Training and held-out questions share their wordings, not their instances: the "
            "words, numbers or texts in a held-out question were in no training question. Nothing here measures "
            "general ability.",
        ]
    if data.quantization:
        notes.append(
            "FP8 is simulated on a CPU: its numbers are those of FP8, its speed is not. Only GPUs from the Hopper "
            "generation on compute in it."
        )
    notes += [
        f"It is one run with one seed ({data.seed}). Intervals are over held-out questions; they hold nothing of how "
        "much another seed would differ. They are 95% each, not corrected for how many are read together.",
        "Checkpoint averaging is part of training where the recipe sets it; its own effect is not measured here.",
    ]
    if data.control:
        notes.append(
            "The rounds are measured together: rejection sampling, reward model, edits, SFT and DPO. The control takes "
            "out demonstrations, edits and the number of steps, and nothing else."
        )
    if data.forecast:
        notes.append("The forecast rests on a ladder of a few small models and is one forecast of one model: no law.")
    return [tag("ul", [tag("li", note) for note in notes])]


def _lineage_row(node: Node) -> tuple[Html, ...]:
    made_from = [tag("code", name) for name in node.made_from]
    parts: list[Html | str] = []
    for number, part in enumerate(made_from):
        parts += [", ", part] if number else [part]
    return (
        tag("code", node.name),
        tag("span", node.kind, class_="nowrap"),
        tag("code", node.content, class_="foreign"),
        tag("span", parts or "—"),
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value, ensure_ascii=False)
