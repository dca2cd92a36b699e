"""A model that is asked, with a memory of its answers on disk, so that a killed run asks nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.artifact import hash_json
from herdlm.evaluate.requests import Answer, AnswerRequest, EvaluatedModel


class Teacher:
    """Asks a model and keeps its answers in a file, by a hash of request and model.

    Args:
        opened: gives the model; called when the model is first needed, and cheap to call again.
        path: the file.
    """

    def __init__(self, opened: Callable[[], EvaluatedModel], path: Path) -> None:
        self._opened = opened
        self._path = path
        self._kept = _read(path)

    @property
    def model(self) -> EvaluatedModel:
        """The model itself, for what is not kept."""
        return self._opened()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def ask(self, requests: Sequence[AnswerRequest]) -> list[list[Answer]]:
        """The answers to each request, in order; each is kept as soon as it is known."""
        keys = [self._key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._kept}
        if missing:
            names = list(missing)
            with self._path.open("a", encoding="utf-8") as file:
                for number, answers in self.model.answer(list(missing.values())):
                    self._kept[names[number]] = answers
                    row = {"key": names[number], "answers": [asdict(answer) for answer in answers]}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
        return [self._kept[key] for key in keys]

    def _key(self, request: AnswerRequest) -> str:
        return hash_json({"model": self.model.fingerprint, "request": asdict(request)})


def _read(path: Path) -> dict[str, list[Answer]]:
    """The kept answers. What a kill left of the last line is cut off."""
    kept: dict[str, list[Answer]] = {}
    if not path.is_file():
        return kept
    whole = 0
    with path.open("rb") as file:
        for line in file:
            row = _row(line)
            if row is None:
                break
            whole += len(line)
            kept[row["key"]] = [Answer(**answer) for answer in row["answers"]]
    with path.open("rb+") as file:
        file.truncate(whole)
    return kept


def _row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row
