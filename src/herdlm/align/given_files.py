"""The files that a recipe's post-training is given: where each is named, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from herdlm.align.config import AlignConfig
from herdlm.align.synth.config import paths_of
from herdlm.base.errors import InputError
from herdlm.data.source import parse_source

KINDS = ("dialogs", "preferences", "prompts", "gate", "exam")  # keys of align.data
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file or folder that a key names; ``weight`` is how often each of its rows is used."""

    key: str
    path: Path
    weight: float = 1.0

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self.path.exists()

    def rows(self) -> int | None:
        """The lines of a file of JSON Lines; None for other files and those that are missing."""
        if self.path.suffix != ".jsonl" or not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def given_files(align: AlignConfig) -> list[GivenFile]:
    """The files and folders that ``align.data``, ``align.synth`` and ``align.gate`` name, in the recipe's order."""
    found = []
    for kind in KINDS if align.data else ():
        for name in getattr(align.data, kind):
            source = parse_source(name)
            found.append(GivenFile(f"align.data.{kind}", source.path, source.weight))
    found += [GivenFile("align.synth", path) for path in (paths_of(align.synth) if align.synth else ())]
    found += [GivenFile("align.gate.data", Path(name)) for name in (align.gate.data if align.gate else ())]
    return found


def check_there(files: Iterable[GivenFile]) -> None:
    """Check that all files are there.

    Raises:
        InputError: some are not; names each with its key.
    """
    missing: Sequence[GivenFile] = [file for file in files if not file.exists]
    if missing:
        named = "; ".join(f"{file.key}: {file.path}" for file in missing)
        raise InputError(f"files that the recipe names do not exist: {named}", "Add them, or name others")
