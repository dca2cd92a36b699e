"""The stage that reads the user's own files, with synthetic data, and holds out what models are measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.base.seeds import derive_seed
from herdlm.data.formats.form import Record
from herdlm.data.read import read_dialogs, read_preferences, read_prompts
from herdlm.data.source import Source, parse_source
from herdlm.data.useless import digest
from herdlm.run.stage import Context
from herdlm.tokens.chat_format import ChatFormat

Reader = Callable[..., tuple[list[Any], Any]]


def read_stage(context: Context) -> dict[str, Any]:
    """Read files and synthetic data; hold out a share of the prompts, or those of the recipe's own files.

    Held-out prompts with a verifier decide at the gate or examine finished models; a prompt does only one of the two.
    Whatever answers a held-out prompt is held out with it.
    """
    assert context.recipe.align
    config, material = context.recipe.align.data, _Material(context)
    gate, exam = material.prompts("gate"), material.prompts("exam")
    named = {prompt_key(row) for row in (*gate, *exam)}
    percent = config.held_out_percent if config else 10.0
    seed = context.seed("held out")

    def is_held_out(prompt: Any) -> bool:
        return digest(prompt) in named or derive_seed(seed, digest(prompt).hex()) % 1_000_000 < percent * 10_000

    counts: dict[str, Any] = {}
    for name, records, prompt in (
        ("dialogs", material.read("dialogs", read_dialogs), _prompt_of_dialog),
        ("pairs", material.read("preferences", read_preferences), lambda record: record["prompt"]),
        ("prompts", material.training_prompts(), lambda record: record["prompt"]),
    ):
        kept = [record for record in records if not is_held_out(prompt(record))]
        rest = [record for record in records if is_held_out(prompt(record))]
        write_json_lines(context.out / f"{name}.jsonl", kept)
        write_json_lines(context.out / f"held_out_{name}.jsonl", rest)
        counts[name] = {"training": len(kept), "held_out": len(rest), **material.counts.get(name, {})}
        if name == "prompts":
            checkable = [row for row in rest if row.get("verifier") and prompt_key(row) not in named]
            first = [row for row in checkable if derive_seed(seed, "gate", _name(row)) % 2]
            second = [row for row in checkable if not derive_seed(seed, "gate", _name(row)) % 2]
            gate, exam = gate or first, exam or second
    settings = context.stage.settings
    for name, rows, most in (("gate", gate, settings.get("gate_prompts")), ("exam", exam, settings.get("exam_prompts"))):
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
        records, found = reader(sources, chat_format=self.format, seed=self.context.seed("held out"))
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
        found: dict[bytes, Record] = {}
        for source in sources:
            records, _ = read_prompts([source], chat_format=self.format, seed=self.context.seed("held out"))
            for record in records:
                row = {"task": source.path.stem, "source": source.path.name} | record
                found.setdefault(prompt_key(row), row)
        return list(found.values())

    def _made(self, kind: str) -> list[Source]:
        folders = [folder for role, folder in self.context.inputs.items() if role.startswith("synth-")]
        files = [folder / f"{kind}.jsonl" for folder in folders]
        return [Source(path, 1.0) for path in files if path.is_file() and path.stat().st_size]


def prompt_key(row: Record) -> bytes:
    """What two prompts share if they ask the same."""
    return digest(row["prompt"])


def _name(row: Record) -> str:
    return prompt_key(row).hex()


def _evenly(rows: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    """At most so many rows, as many of each task as there are, chosen by hash."""
    if most is None or len(rows) <= most:
        return list(rows)
    tasks: dict[str, list[Record]] = {}
    for row in sorted(rows, key=lambda row: derive_seed(seed, "order", _name(row))):
        tasks.setdefault(row["task"], []).append(row)
    places = range(max(map(len, tasks.values())))
    return [found[place] for place in places for _, found in sorted(tasks.items()) if place < len(found)][:most]


def _prompt_of_dialog(dialog: Record) -> Any:
    said = dialog["messages"]
    last = max(number for number, message in enumerate(said) if message["role"] == "assistant")
    return said[:last]
