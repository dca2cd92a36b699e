"""Scores the rows of files with a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from herdlm.align.preference_figures import auc
from herdlm.align.result import estimate_json
from herdlm.align.reward import answered, pair_scores, sequence_scores
from herdlm.align.reward_figures import reward_figures, scored
from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.data.counts import Counts
from herdlm.data.formats.form import Kind, Record
from herdlm.data.read import converted, sieved
from herdlm.data.row import RowError
from herdlm.data.useless import Sieve
from herdlm.generate.load import pick_device
from herdlm.model.start import open_start
from herdlm.model.transformer import Transformer
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    kind: Kind
    record: Record
    length: int


def score(
    model: Path,
    files: Sequence[Path],
    out: Path | None = None,
    *,
    template: str | None = None,
    rename: dict[str, str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Score each row of files, and write the scores as JSON Lines.

    A line has ``where`` (file and line) and, for a pair, ``chosen`` and ``rejected``; for a dialog or a thumb,
    ``score``, and ``label`` where there is one. Rows that teach nothing or are too long are left out and counted.

    Returns:
        Counts of rows; :func:`herdlm.align.reward_figures.reward_figures` of pairs; the AUC of thumbs.

    Raises:
        InputError: the model gives no scores, a row cannot be read or scored, or ``out`` exists.
    """
    if out is not None and out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    start = open_start(model)
    if start.head != "score":
        raise InputError(f"{model} writes text and gives no scores", "Give a reward model: see herdlm reward")
    format = ChatFormat.load(start.tokenizer, template)
    rows, counts = _rows(files, format, start.shape.max_seq_len, rename or {})
    reader = _Reader(start.load(pick_device(device)), format, max(row.length for row in rows), quiet)
    pairs = [row for row in rows if row.kind == "preferences"]
    others = [row for row in rows if row.kind != "preferences"]
    lines: dict[str, list[dict[str, Any]]] = {}
    counted: dict[str, Any] = {"data": counts.as_json()}
    if pairs:
        found, counted["pairs"] = reader.pairs([row.record for row in pairs])
        for row, (chosen, rejected) in zip(pairs, found, strict=True):
            lines.setdefault(row.where, []).append({"where": row.where, "chosen": chosen, "rejected": rejected})
    if others:
        values = reader.answers([row.record for row in others])
        for row, value in zip(others, values, strict=True):
            label = {"label": row.record["label"]} if row.kind == "thumbs" else {}
            lines.setdefault(row.where, []).append({"where": row.where, "score": value, **label})
        rated = [
            (value, row.record["label"]) for row, value in zip(others, values, strict=True) if row.kind == "thumbs"
        ]
        up, down = ([value for value, label in rated if label is kind] for kind in (True, False))
        if up and down:
            counted["thumbs"] = {"up": len(up), "down": len(down), "auc": estimate_json(auc(up, down))}
    if out is not None:
        write_json_lines(out, [line for some in lines.values() for line in some])
    return counted


@dataclass(frozen=True, slots=True)
class _Reader:
    model: Transformer
    format: ChatFormat
    seq_len: int
    quiet: bool

    def pairs(self, records: Sequence[Any]) -> tuple[list[tuple[float, float]], dict[str, Any]]:
        batches = PreferenceBatches(
            self.format, records, seq_len=self.seq_len, pairs_per_step=1, epochs=0, seed=0, mask_formatting=False
        )
        found = pair_scores(self.model, batches, title="score", quiet=self.quiet)
        return found, reward_figures(scored(records, batches, found))

    def answers(self, records: Sequence[Any]) -> list[float]:
        dialogs = [
            answered(self.format, r.get("messages") or [*r["prompt"], *r.get("completion", ())], r.get("tools"))
            for r in records
        ]
        return sequence_scores(self.model, dialogs, title="score", quiet=self.quiet)


def _rows(files: Sequence[Path], format: ChatFormat, longest: int, rename: dict[str, str]) -> tuple[list[_Row], Counts]:
    sieve, counts, rows = Sieve(chat_format=format, seq_len=longest), Counts(), list[_Row]()
    for path in files:
        for found in converted(path, None, rename):
            if isinstance(found, RowError):
                raise found
            if found.kind in ("prompts", "text"):
                raise found.row.error("", "it has no answer to score", "Give dialogs, pairs or thumbs")
            kept = [
                _Row(found.row.where(), found.kind, record, length)
                for record, reason, length in sieved(found, sieve, counts)
                if reason is None
            ]
            # A dialog that was divided by its answers is scored once, at the last of them.
            rows += kept[-1:] if found.kind == "dialogs" and len(found.records) == 1 else kept
    if not rows:
        raise InputError(
            f"no row can be scored: {'; '.join(counts.lines()) or 'the files hold none'}",
            "Look at them with herdlm data check",
        )
    counts.used = len(rows)
    return rows, counts
