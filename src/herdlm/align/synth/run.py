"""Runs the generators of a recipe, one after the other, into a folder each."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from herdlm.align.synth.config import SynthConfig, paths_of
from herdlm.align.synth.registry import Generator, generators_of
from herdlm.align.synth.setting import REPEATED, Made, Setting
from herdlm.align.synth.teacher import Teacher
from herdlm.base.artifact import hash_json, sync_folder, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed
from herdlm.base.standalone import input_folder, standalone
from herdlm.evaluate.requests import EvaluatedModel

KINDS = ("dialogs", "prompts", "pairs", "dropped")
SUMMARY = "counts.json"


@dataclass
class Counts:
    """What a generator made: how many of each kind, why others were dropped, and seconds."""

    made: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The counts, the most frequent reason first."""
        return {kind: self.made[kind] for kind in KINDS} | {"reasons": dict(self.reasons.most_common())}


def synthesize(
    config: SynthConfig,
    out: Path,
    *,
    open_teacher: Callable[[], EvaluatedModel] | None = None,
    isolation: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Make the data of a recipe as an artifact; returns the counts of each generator.

    A killed call resumes: generators that had finished are not run again, and the teacher is not asked again what it
    has answered. A generator whose options changed runs anew.

    Args:
        open_teacher: opens the teacher, once a generator asks it.

    Raises:
        InputError: ``out`` exists, the recipe names no generator, or a generator lacks what it needs.
    """
    found = generators_of(config)
    if not found:
        raise InputError(f"recipe {config.name} names no generator", "Add a table such as [constraints]")
    inputs = {str(number): input_folder(path) for number, path in enumerate(paths_of(config))}
    settings = config.model_dump(mode="json", exclude_none=True)
    counts: dict[str, Any] = {}
    with standalone(
        out,
        kind="synthetic data",
        name=config.name,
        settings=settings,
        inputs=inputs,
        seed=config.seed,
        counts=counts,
        free=tuple(settings),
    ) as (made, work, _):
        content = {role: entry.content for role, entry in inputs.items()}
        run_generators(
            found,
            config,
            made,
            work,
            counts=counts,
            content=content,
            open_teacher=open_teacher,
            isolation=isolation,
            quiet=quiet,
        )
    return counts


def run_generators(
    found: list[Generator],
    config: SynthConfig,
    made: Path,
    work: Path,
    *,
    counts: dict[str, Any],
    content: dict[str, str],
    open_teacher: Callable[[], EvaluatedModel] | None = None,
    isolation: str = "auto",
    quiet: bool = False,
) -> None:
    """Run generators into ``made``, a folder each; what is finished is kept in ``work`` until all are.

    Args:
        counts: filled in, by generator.
        content: content hashes of what the recipe reads: another content runs a generator again.
    """
    with ExitStack() as stack:
        opened = cache(lambda: stack.enter_context(closing(open_teacher()))) if open_teacher else None
        for generator in found:
            folder, finished = work / generator.name, work / generator.name / "finished"
            mark = hash_json(
                {
                    "options": generator.options.model_dump(mode="json"),
                    "seed": config.seed,
                    "teacher": config.teacher,
                    "content": content,
                    "code": generator.code,
                }
            )
            if not (finished / "mark").is_file() or (finished / "mark").read_text("utf-8") != mark:
                folder.mkdir(exist_ok=True)
                teacher = Teacher(opened, folder / "answers.jsonl") if opened else None
                seed = derive_seed(config.seed, "synth", generator.name)
                setting = Setting(generator.name, seed, folder, teacher, config.documents, isolation)
                with closing(setting):
                    _run(generator, setting, finished, mark, quiet=quiet)
            (made / generator.name).mkdir()
            for path in sorted(finished.iterdir()):
                if path.name == SUMMARY:
                    counts[generator.name] = json.loads(path.read_text("utf-8"))
                elif path.name != "mark":
                    shutil.copyfile(path, made / generator.name / path.name)


def _run(generator: Generator, setting: Setting, finished: Path, mark: str, *, quiet: bool) -> None:
    """Write what one generator makes into a folder that appears whole."""
    working = setting.work / "working"
    for old in (working, finished):
        shutil.rmtree(old, ignore_errors=True)
    working.mkdir()
    counts, seen = Counts(), set[str]()
    with ExitStack() as stack:
        files = {kind: stack.enter_context((working / f"{kind}.jsonl").open("w", encoding="utf-8")) for kind in KINDS}
        progress = stack.enter_context(Progress(generator.name, None, "records", quiet=quiet))
        for made in _without_repeats(generator.make(setting, generator.options), seen):
            _check(generator, made)
            counts.made[made.kind] += 1
            record = made.record
            if made.kind == "dropped":
                counts.reasons[made.reason] += 1
                record = {**record, "reason": made.reason}
            files[made.kind].write(json.dumps(record, ensure_ascii=False) + "\n")
            progress.advance(1)
    for kind in KINDS:
        if not counts.made[kind]:
            (working / f"{kind}.jsonl").unlink()
    write_text_durably(working / SUMMARY, json.dumps(counts.as_json()) + "\n")
    write_text_durably(working / "mark", mark)
    working.rename(finished)
    sync_folder(setting.work)


def _without_repeats(made: Iterator[Made], seen: set[str]) -> Iterator[Made]:
    """What is made, where a record that is equal to an earlier one, but for its lineage, is dropped."""
    for each in made:
        key = hash_json({"kind": each.kind, **{k: v for k, v in each.record.items() if k not in ("lineage", "id")}})
        if each.kind != "dropped" and key in seen:
            yield Made("dropped", each.record, REPEATED)
            continue
        seen.add(key)
        yield each


def _check(generator: Generator, made: Made) -> None:
    """Refuse what no verifier has seen. This is an error in a generator, of ours or the user's."""
    if made.kind == "prompts":
        missing = None if made.record.get("verifier") else "verifier"
    elif made.kind == "dropped":
        missing = None if made.reason else "reason"
    else:
        missing = None if made.record.get("lineage", {}).get("verdict") else "lineage.verdict"
    if missing:
        raise InputError(
            f"generator {generator.name} made {made.kind} without {missing}", "Let its verifier see what it makes"
        )


def read_made(folder: Path, kind: str) -> list[dict[str, Any]]:
    """All records of a kind in a folder that :func:`synthesize` wrote, generator by generator."""
    return [row for path in sorted(folder.glob(f"*/{kind}.jsonl")) for row in read_json_lines(path)]
