"""The stage that reads the user's own files, with synthetic data, and holds out what models are measured on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from herdlm.align.mix import check_tasks
from herdlm.align.samples.rows import read_prompts
from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.base.seeds import derive_seed, stream
from herdlm.data.formats.form import Record
from herdlm.data.read import read_dialogs, read_preferences
from herdlm.data.source import Source, parse_source
from herdlm.data.useless import digest
from herdlm.run.stage import Context
from herdlm.tokens.chat import text_of
from herdlm.tokens.chat_format import ChatFormat

GATE_PERCENT = 35  # of the held-out prompts with a verifier; the others examine
LEAST_LETTERS = 30  # of a story; a sum in words has fewer
NOT_LETTERS = re.compile(r"[^\w]|\d")

Reader = Callable[..., tuple[list[Any], Any]]


def read_stage(context: Context) -> dict[str, Any]:
    """Read files and synthetic data; hold out a share of the prompts, or those of the recipe's own files.

    Held-out prompts with a verifier decide at the gate or examine finished models; a prompt does only one of the two.
    Prompts that differ in their numbers only are held out together.
    Whatever answers a held-out prompt is held out with it.
    """
    assert context.recipe.align
    config, material = context.recipe.align.data, _Material(context)
    gate, exam = material.prompts("gate"), material.prompts("exam")
    named = {held_out_key(row["prompt"]) for row in (*gate, *exam)}
    percent = config.held_out_percent if config else 10.0
    seed = context.seed("held out")

    def is_held_out(prompt: Any) -> bool:
        key = held_out_key(prompt)
        return key in named or derive_seed(seed, key) % 1_000_000 < percent * 10_000

    counts: dict[str, Any] = {}
    first, second = list[Record](), list[Record]()  # held-out prompts with a verifier, for gate and examination
    for name, records, prompt in (
        ("dialogs", material.read("dialogs", read_dialogs), _prompt_of_dialog),
        ("pairs", material.read("preferences", read_preferences), lambda record: record["prompt"]),
        ("prompts", material.training_prompts(), lambda record: record["prompt"]),
    ):
        if context.recipe.align.mix and name != "pairs":  # now, not when answers to the prompts were drawn for days
            check_tasks(context.recipe.align.mix, records)
        kept = [record for record in records if not is_held_out(prompt(record))]
        rest = [record for record in records if is_held_out(prompt(record))]
        write_json_lines(context.out / f"{name}.jsonl", kept)
        write_json_lines(context.out / f"held_out_{name}.jsonl", rest)
        counts[name] = {"training": len(kept), "held_out": len(rest), **material.counts.get(name, {})}
        if name == "prompts":
            for row in rest:
                key = held_out_key(row["prompt"])
                if row.get("verifier") and key not in named:
                    (first if derive_seed(seed, "gate", key) % 100 < GATE_PERCENT else second).append(row)
    settings = context.stage.settings
    for name, rows in (("gate", gate or first), ("exam", exam or second)):
        most = settings.get(f"{name}_prompts")
        chosen = _evenly(rows, most, seed)
        write_json_lines(context.out / f"{name}.jsonl", chosen)
        counts[name] = dict(sorted(Counter(row["task"] for row in chosen).items()))
    if context.recipe.align.gate and not counts["gate"]:
        raise InputError(
            "the gate has no held-out prompts with a verifier to decide with",
            "Add files of prompts with answers to align.data.prompts, name some in align.data.gate, or drop align.gate",
        )
    return counts


class _Material:
    """The records of files and of generators, by kind."""

    def __init__(self, context: Context) -> None:
        assert context.recipe.align
        self.context, self.config = context, context.recipe.align.data
        self.format = ChatFormat.load(context.inputs["model"])
        self.counts: dict[str, Any] = {}

    def read(self, name: str, reader: Reader) -> list[Record]:
        """Records of the recipe's files ``name``, then of the generators."""
        files = getattr(self.config, name) if self.config else ()
        kind = {"preferences": "pairs"}.get(name, name)
        sources = [parse_source(file) for file in files] + self._made(kind)
        if not sources:
            return []
        seed = self.context.seed("held out")
        records, found = reader(sources, chat_format=self.format, seed=seed, named=True)
        self.counts[kind] = found.as_json()
        return records

    def prompts(self, name: str) -> list[Record]:
        """The prompts of the recipe's files ``name``, each with its task: the row's, or else the file's name."""
        files = getattr(self.config, name) if self.config else ()
        return self._with_tasks(parse_source(file) for file in files)

    def training_prompts(self) -> list[Record]:
        """The prompts to sample: of files of prompts, else those of the dialogs; and of generators."""
        files = (self.config.prompts or self.config.dialogs) if self.config else ()
        return self._with_tasks([*map(parse_source, files), *self._made("prompts")])

    def _with_tasks(self, sources: Iterable[Source]) -> list[Record]:
        found: dict[str, Record] = {}
        for source in sources:
            records, _ = read_prompts([source.path])
            share = stream(self.context.seed("held out"), "share", source.path.name).permutation(len(records))
            for number in sorted(share[: round(len(records) * min(source.weight, 1.0))].tolist()):
                row: Record = {"task": source.path.stem, "source": source.path.name} | records[number]
                found.setdefault(row["id"], row)
        return list(found.values())

    def _made(self, kind: str) -> list[Source]:
        made = self.context.inputs.get("synth")
        files = sorted(made.glob(f"*/{kind}.jsonl")) if made else []
        return [Source(path, 1.0) for path in files if path.is_file() and path.stat().st_size]


def held_out_key(prompt: Any) -> str:
    """What prompts share that are held out together: their words. The same problem with other numbers is among them.

    A prompt of few words, such as "What is 2 + 2?", is its numbers: it stands for itself.
    """
    said = " ".join(text_of(message) for message in prompt).lower()
    words = " ".join(NOT_LETTERS.sub(" ", said).split())
    return words if len(words) >= LEAST_LETTERS else " ".join(said.split())


def _evenly(rows: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    """At most so many rows, as many of each task as there are, chosen by hash."""
    if most is None or len(rows) <= most:
        return list(rows)
    tasks: dict[str, list[Record]] = {}
    for row in sorted(rows, key=lambda row: derive_seed(seed, "order", digest(row["prompt"]).hex())):
        tasks.setdefault(row["task"], []).append(row)
    places = range(max(map(len, tasks.values())))
    return [found[place] for place in places for _, found in sorted(tasks.items()) if place < len(found)][:most]


def _prompt_of_dialog(dialog: Record) -> Any:
    said = dialog["messages"]
    last = max(number for number, message in enumerate(said) if message["role"] == "assistant")
    return said[:last]
