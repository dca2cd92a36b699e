"""What two models are compared on: text, prompts, a reward model, benchmark questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.align.bank.tasks import Question
from herdlm.base.artifact import require_file
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_lines import json_lines
from herdlm.tokens.documents import read_documents


@dataclass(frozen=True, slots=True)
class ComparisonData:
    """Paths of what models are compared on; any of them may be missing.

    Attributes:
        text: a token shard, documents, or a file of text; see :func:`read_texts`.
        prompts: JSON Lines; see :func:`read_prompts`.
        reward: the folder of a reward model.
        benchmarks: JSON Lines; see :func:`herdlm.evaluate.choices.read_choices`.
    """

    text: Path | None = None
    prompts: Path | None = None
    reward: Path | None = None
    benchmarks: Path | None = None

    def or_from_run(self, run: Path) -> ComparisonData:
        """Fill what is missing from a run: its validation text, held-out questions and last reward model."""
        if not (run / "recipe.json").is_file():
            return self
        stages = run / "stages"
        rewards = sorted(stages.glob("round-*-reward"), key=lambda path: int(path.name.split("-")[1]))
        text, prompts = stages / "tokens" / "web-validation", stages / "bank" / "held_out.jsonl"
        return ComparisonData(
            self.text or (text if text.is_dir() else None),
            self.prompts or (prompts if prompts.is_file() else None),
            self.reward or (rewards[-1] if rewards else None),
            self.benchmarks,
        )


def read_prompts(path: Path) -> list[Question]:
    """Read prompts from JSON Lines: ``prompt``, and ``answer`` and ``task`` if answers are to be checked.

    Raises:
        InputError: the file is missing or empty.
        DamagedError: a line is not JSON, or has no prompt.
    """
    prompts = []
    for number, row in json_lines(path):
        values = {key: row.get(key, "") for key in ("task", "prompt", "answer")}
        if not values["prompt"] or not all(isinstance(value, str) for value in values.values()):
            raise DamagedError(f"{path}, line {number} has no prompt", 'Write {"prompt": "..."} on each line')
        prompts.append(Question(values["task"] or "prompts", values["prompt"], values["answer"]))
    if not prompts:
        raise InputError(f"{path} holds no prompts", "Add at least one line")
    return prompts


def read_texts(path: Path) -> list[str]:
    """Read the texts of Parquet documents (a file or folder), of JSON Lines with ``text``, or of one plain text file.

    Raises:
        InputError: there is no text.
        DamagedError: a line has no text, or a file is not UTF-8.
    """
    if path.is_dir() or path.suffix == ".parquet":
        texts = [document.text for document in read_documents(path)]
    elif require_file(path, "file of text").suffix == ".jsonl":
        texts = [_text_of(path, number, row) for number, row in json_lines(path)]
    else:
        try:
            texts = [path.read_text(encoding="utf-8")]
        except UnicodeDecodeError as error:
            raise DamagedError(f"{path} is not UTF-8 text: {error}", "Convert it to UTF-8") from error
    if not any(text.strip() for text in texts):
        raise InputError(f"{path} holds no text", "Give a file with text")
    return texts


def _text_of(path: Path, number: int, row: dict[str, Any]) -> str:
    if not isinstance(row.get("text"), str):
        raise DamagedError(f"{path}, line {number} has no text", 'Write {"text": "..."} on each line')
    return str(row["text"])
