"""Quality control of files: what stayed, what was dropped and why, the funnel and a data card, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from herdlm.align.quality.against import item_texts
from herdlm.align.quality.card import UNKNOWN, as_markdown, card
from herdlm.align.quality.config import QualityConfig
from herdlm.align.quality.control import Controlled, control
from herdlm.align.quality.embed import Embedder
from herdlm.align.quality.rows import Kind, read_examples
from herdlm.base.artifact import hash_file, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.base.standalone import input_folder, standalone
from herdlm.data.row import Rename
from herdlm.tokens.chat import text_of

DROPPED, FUNNEL, CARD, READABLE = "dropped.jsonl", "funnel.json", "card.json", "card.md"
STORE = "embeddings"


def clean(
    files: Sequence[Path],
    out: Path,
    config: QualityConfig,
    *,
    model: Path | None = None,
    against: Sequence[Path] = (),
    seeds: Sequence[Path] = (),
    licenses: Mapping[str, str] | None = None,
    kind: Kind | None = None,
    rename: Rename | None = None,
    device: str = "cpu",
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write ``out`` with ``dialogs.jsonl`` or ``prompts.jsonl``, and return the funnel. Embeddings survive a kill.

    Args:
        model: makes the embeddings; None: steps that need them are passed over.
        against: files of evaluations whose items must not be in the data.
        seeds: files of prompts with ``task``, for the topics of rows without one.
        licenses: by file.

    Raises:
        InputError: a file cannot be read, or ``out`` exists.
    """
    named = {"file": files, "against": against, "seeds": seeds, "model": [model] if model else []}
    inputs = {f"{role}-{n}": input_folder(path) for role, paths in named.items() for n, path in enumerate(paths, 1)}
    settings = config.model_dump(mode="json")
    with standalone(out, kind="quality", name="quality", settings=settings, inputs=inputs, seed=seed) as (
        made,
        work,
        counts,
    ):
        found, rows, per_file = read_examples(files, kind, rename=rename, licenses=licenses)
        embed = Embedder(model, store=work / STORE, device=device, quiet=quiet) if model else None
        controlled = control(
            rows, config, embed=embed, against=item_texts(against), seeds=_labeled(seeds), seed=seed, quiet=quiet
        )
        about = {
            str(file): {
                "rows": per_file[str(file)],
                "license": (licenses or {}).get(str(file), UNKNOWN),
                "content": hash_file(file),
            }
            for file in files
        }
        publish(made, controlled, found, name=out.name, inputs=about, settings=settings)
        counts.update(controlled.funnel)
    return controlled.funnel


def _labeled(seeds: Sequence[Path]) -> list[tuple[str, str]]:
    """Prompts with their tasks."""
    rows = read_examples(seeds, "prompts")[1] if seeds else []
    found = [(text_of(row["prompt"][-1]), row["task"]) for row in rows if row.get("task")]
    if seeds and not found:
        raise InputError(f"no row of {', '.join(map(str, seeds))} has a task", "Name rows' tasks, or leave it out")
    return found


def publish(
    folder: Path,
    controlled: Controlled,
    kind: Kind,
    *,
    name: str,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Write what stayed, what was dropped, the funnel and the card into an empty folder."""
    write_json_lines(folder / f"{kind}.jsonl", controlled.kept)
    write_json_lines(folder / DROPPED, controlled.dropped)
    about = card(controlled.kept, controlled.funnel, name=name, kind=kind, inputs=inputs, settings=settings)
    for file, value in ((FUNNEL, controlled.funnel), (CARD, about)):
        write_text_durably(folder / file, json.dumps(value, indent=1, ensure_ascii=False))
    write_text_durably(folder / READABLE, as_markdown(about))
