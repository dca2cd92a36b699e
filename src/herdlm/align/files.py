"""The files of a job as records: what is trained on, and what is measured on and was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.job import Run
from herdlm.base.errors import InputError
from herdlm.data.formats.form import Kind, Record
from herdlm.data.read import Converted, converted, read_records
from herdlm.data.source import Source
from herdlm.data.useless import digest


@dataclass(frozen=True, slots=True)
class Data:
    """Records of one kind, and counts for the manifest.

    Attributes:
        held_out: records to measure on; empty if no files were given.
    """

    records: list[Any]
    held_out: list[Any]
    counts: dict[str, Any]


def read_data(run: Run, kind: Kind, held_out_kind: Kind | None = None) -> Data:
    """The records of a job's files that its model can be trained on, and those it can be measured on.

    Args:
        held_out_kind: of the records to measure on; None: the same.

    Raises:
        InputError: a row cannot be read, or none is left.
    """
    records, counts = _read(run, kind, run.job.data)
    run.say(f"Data: {counts.used:,} {kind} from {counts.rows:,} rows")
    for line in counts.lines():
        run.say(f"  {line}")
    counted: dict[str, Any] = {"data": counts.as_json()}
    if not run.job.held_out:
        return Data(records, [], counted)
    measured, held_counts = _read(run, held_out_kind or kind, run.job.held_out)
    trained = {_key(record) for record in records}
    kept = [record for record in measured if _key(record) not in trained]
    seen = len(measured) - len(kept)
    if len(kept) < 2:
        raise InputError(
            f"{len(kept)} held-out rows are left, and {seen} are also in the data that is trained on; an interval "
            "needs two or more",
            "Hold out rows that the data does not have",
        )
    run.say(f"Held out: {len(kept):,}" + (f"; {seen:,} more are also trained on, and not measured" if seen else ""))
    return Data(records, kept, counted | {"held_out_data": held_counts.as_json() | {"also_trained_on": seen}})


def kind_of(sources: Sequence[Source], rename: dict[str, str]) -> Kind:
    """The kind of the first row of files that can be read."""
    for source in sources:
        for found in converted(source.path, None, rename):
            if isinstance(found, Converted):
                return found.kind
            raise found
    raise InputError("the files hold no rows", "Give files with rows")


def _read(run: Run, kind: Kind, sources: Sequence[Source]) -> tuple[list[Record], Any]:
    return read_records(
        kind, sources, chat_format=run.format, seq_len=run.config.seq_len, rename=run.job.rename, seed=run.job.seed
    )


def _key(record: Record) -> bytes:
    """What two records share if one must not measure training on the other: a dialog, or a prompt."""
    return digest(record["messages"] if "messages" in record else record["prompt"])
