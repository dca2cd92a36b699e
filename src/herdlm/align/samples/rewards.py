"""Scores samples with a reward model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from herdlm.align.reward import answered, scores_of_fitting
from herdlm.align.samples.rows import Sample, SampledRow
from herdlm.align.samples.sample import with_system
from herdlm.base.artifact import hash_json
from herdlm.base.errors import InputError
from herdlm.base.ledger import Ledger
from herdlm.base.progress import Progress
from herdlm.base.standalone import input_folder
from herdlm.generate.load import pick_device
from herdlm.model.start import open_start
from herdlm.tokens.chat_format import ChatFormat

TOGETHER = 16  # prompts whose answers are scored, and kept, together


def reward(
    rows: Sequence[SampledRow], model: Path, ledger: Ledger, *, device: str = "auto", quiet: bool = False
) -> int:
    """Put a ``reward`` into each sample; None for one too long for the model, of which the count is returned.

    Raises:
        InputError: the model gives no scores, or its chat template refuses a dialog.
    """
    start = open_start(model)
    if start.head != "score":
        raise InputError(f"{model} writes text and gives no scores", "Give a reward model: see herdlm reward")
    format, content = ChatFormat.load(start.tokenizer), input_folder(start.adapter or start.folder).content
    loaded, long = start.load(pick_device(device)), 0
    with Progress("reward", len(rows), "prompts", quiet=quiet) as progress:
        for begin in range(0, len(rows), TOGETHER):
            part = rows[begin : begin + TOGETHER]
            dialogs = [[tuple(_dialog(format, row, sample)) for sample in row["samples"]] for row in part]
            distinct = list(dict.fromkeys(dialog for own in dialogs for dialog in own))
            key = hash_json([content, distinct])
            if key not in ledger.found:
                found = scores_of_fitting(loaded, distinct, seq_len=start.shape.max_seq_len, title="reward", quiet=True)
                ledger.add(key, [value if math.isfinite(value) else None for value in found])
            scores = dict(zip(distinct, ledger.found[key], strict=True))
            for row, own in zip(part, dialogs, strict=True):
                for sample, dialog in zip(row["samples"], own, strict=True):
                    sample["reward"] = scores[dialog]
                    long += scores[dialog] is None
            progress.advance(len(part))
    return long


def _dialog(format: ChatFormat, row: SampledRow, sample: Sample) -> list[int]:
    messages, _ = with_system(row["prompt"], sample.get("system", ""))
    return answered(format, [*messages, {"role": "assistant", "content": sample["answer"]}], row.get("tools"))
