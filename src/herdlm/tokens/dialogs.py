"""Batches of dialogs for fine-tuning: whole dialogs packed into rows, in an order shuffled each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from herdlm.base.seeds import stream
from herdlm.tokens.batch import Batch, Piece, assemble
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_whole
from herdlm.tokens.pieces import check_lengths, check_targets, content_of_pieces


class Dialog(TypedDict, total=False):
    """A dialog in the OpenAI form, with its tools, the kind of task and the source of the answer, if known."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    task: str
    source: str


def dialog_piece(format: ChatFormat, dialog: Dialog) -> Piece:
    """A dialog whose targets are the assistant's words and ends of turn (SFT; report, section 4.1.3)."""
    rendered = format.render(dialog["messages"], tools=dialog.get("tools"))
    return Piece(np.asarray(rendered.tokens), np.asarray(rendered.weights[1:], np.float32))


def fits(
    format: ChatFormat, messages: Sequence[Message], seq_len: int, tools: Sequence[dict[str, Any]] | None = None
) -> bool:
    """Whether a row holds the whole dialog, with its last token as an input."""
    return len(format.render(messages, tools=tools).tokens) <= seq_len


class DialogBatches:
    """Batches for supervised fine-tuning: ``rows_per_step`` packed rows, for ``epochs`` epochs over the dialogs.

    ``steps`` sets the number of optimizer steps instead, so that runs over different data can be compared.
    ``rows_per_micro_batch`` is the most rows of a micro-batch; None: those of the step.
    """

    def __init__(
        self,
        format: ChatFormat,
        dialogs: Sequence[Dialog],
        *,
        seq_len: int,
        rows_per_step: int,
        epochs: float | None,
        seed: int,
        steps: int | None = None,
        rows_per_micro_batch: int | None = None,
    ) -> None:
        assert epochs is not None or steps is not None
        self.rows_per_micro_batch = rows_per_micro_batch or rows_per_step
        self.pieces = [dialog_piece(format, dialog) for dialog in dialogs]
        check_lengths(self.pieces, seq_len)
        check_targets(self.pieces)
        self.content = content_of_pieces(self.pieces, seq_len, rows_per_step, seed)
        self.pad, self.seq_len = format.pad, seq_len
        rows: list[list[int]] = []
        epoch = 0
        while len(rows) < steps * rows_per_step if steps is not None else epoch < (epochs or 0):
            order = stream(seed, "dialogs", epoch).permutation(len(self.pieces))
            if steps is None and epochs is not None:
                order = order[: round(len(order) * min(epochs - epoch, 1.0))]
            packed = pack_whole([len(self.pieces[i].tokens) - 1 for i in order], seq_len)
            rows += [[int(order[i]) for i in row] for row in packed]
            epoch += 1
        self.plan = [rows[i : i + rows_per_step] for i in range(0, len(rows), rows_per_step)][:steps]

    @property
    def steps(self) -> int:
        """Optimizer steps in all epochs."""
        return len(self.plan)

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of one step, in micro-batches."""
        rows, at_once = self.plan[step], self.rows_per_micro_batch
        parts = (rows[i : i + at_once] for i in range(0, len(rows), at_once))
        return [assemble([[self.pieces[i] for i in row] for row in part], self.seq_len, self.pad) for part in parts]
