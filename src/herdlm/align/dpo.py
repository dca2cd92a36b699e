"""Prepares preference optimization: its objective, and the reference's log-probabilities, computed once as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from herdlm.align.config import DpoConfig
from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.model.losses import sums_by_document
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import is_first
from herdlm.tokens.batch import Batch
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import Preference, PreferenceBatches
from herdlm.tokens.thumbs import Thumb, ThumbBatches
from herdlm.train.fp8 import use_fp8
from herdlm.train.objectives import Objective
from herdlm.train.preferences import DPO, KTO, answer_logprobs

ITEMS_AT_ONCE = 64

Item = TypeVar("Item", Preference, Thumb)
References = dict[str, list[float]]
"""Columns of log-probabilities under the reference, a value for each item."""


def objective_of(config: DpoConfig) -> Objective:
    """The objective that ``config`` describes, with its loss's own values for keys that are not given."""
    if config.loss == "kto":
        return KTO(config.beta_used, config.desirable_weight, config.undesirable_weight)
    return DPO(config.beta_used, config.nll_weight_used, config.loss, config.gamma_used)


def open_batches(
    format: ChatFormat,
    items: Sequence[Any],
    config: DpoConfig,
    *,
    seed: int,
    steps: int | None = None,
    rows_per_micro_batch: int | None = None,
) -> PreferenceBatches | ThumbBatches:
    """Batches of thumbs for KTO, else of pairs."""
    shared: dict[str, Any] = dict(
        seq_len=config.seq_len,
        epochs=config.epochs,
        seed=seed,
        mask_formatting=config.mask_formatting,
        steps=steps,
        rows_per_micro_batch=rows_per_micro_batch,
    )
    if config.loss == "kto":
        return ThumbBatches(format, items, thumbs_per_step=config.pairs_per_step, **shared)
    return PreferenceBatches(format, items, pairs_per_step=config.pairs_per_step, **shared)


def references(
    model: Transformer | ParallelModel,
    batches: PreferenceBatches | ThumbBatches,
    precision: str = "float32",
    *,
    quiet: bool = False,
) -> References:
    """The columns that a loss with a reference needs, computed with ``model`` as the training computes them.

    ``precision`` must be the training's. Then policy and reference are equal at its first step. With LoRA, the
    reference is the model before the adapters. Every process of a laid-out model calls this.

    Raises:
        InputError: the model's weights are narrower than FP32, in which it is not trained.
    """
    found: References = {}
    count = len(batches.items)
    with Progress("dpo: reference", count, "items", quiet=quiet or not is_first()) as progress:
        for first in range(0, count, ITEMS_AT_ONCE):
            for numbers in batches.split(range(first, min(first + ITEMS_AT_ONCE, count))):
                for name, column in _columns(model, batches.batch(numbers), precision).items():
                    found.setdefault(name, []).extend(column.tolist())
                progress.advance(len(numbers))
    return found


def _columns(model: Transformer | ParallelModel, batch: Batch, precision: str) -> dict[str, Tensor]:
    sums, _ = answer_sums(model, batch, precision)
    if batch.probe is None:
        return {f"reference_{side}": sums[batch.columns[side]] for side in ("chosen", "rejected")}
    mismatched, _ = answer_sums(model, batch.probe, precision)
    return {
        "reference": sums[batch.columns["answer"]],
        "reference_mismatched": mismatched[batch.probe.columns["answer"]],
    }


def with_reference(
    model: Transformer | ParallelModel,
    items: Sequence[Item],
    batches: PreferenceBatches | ThumbBatches,
    precision: str = "float32",
) -> list[Item]:
    """The pairs or thumbs of ``batches`` with the columns of :func:`references`."""
    return with_columns(items, references(model, batches, precision))


def with_columns(items: Sequence[Item], columns: References) -> list[Item]:
    """The items, each with its values of ``columns``."""
    added: list[Any] = [
        {**item, **{name: values[number] for name, values in columns.items()}} for number, item in enumerate(items)
    ]
    return added


def prepare(
    model: Transformer | ParallelModel,
    format: ChatFormat,
    items: Sequence[Any],
    config: DpoConfig,
    *,
    seed: int,
    steps: int | None = None,
    rows_per_micro_batch: int | None = None,
    remember: Callable[[Callable[[], References]], References] = lambda compute: compute(),
    quiet: bool = False,
) -> PreferenceBatches | ThumbBatches:
    """Batches of pairs (of thumbs with KTO) with the reference's columns, where the loss has a reference.

    Args:
        remember: keeps what computing the columns gave, so that a run that resumes reads the same.
    """
    batches = open_batches(format, items, config, seed=seed, steps=steps, rows_per_micro_batch=rows_per_micro_batch)
    if config.loss != "simpo":
        columns = remember(lambda: references(model, batches, config.train.precision, quiet=quiet))
        items = with_columns(items, columns)
        batches.items = items
    return batches


def answer_sums(model: Transformer | ParallelModel, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
    """The log-probability and the length of each document's targets, on the CPU, as the training computes them."""
    weight = next(iter(model.parameters()))
    if weight.dtype.itemsize < torch.float32.itemsize:
        raise InputError(
            "the reference has weights narrower than FP32, in which no model is trained",
            "Load it with herdlm.model.hf.load_for_training",
        )
    if precision == "fp8" and isinstance(model, Transformer):
        use_fp8(model)
    with torch.no_grad(), torch.autocast(weight.device.type, torch.bfloat16, enabled=precision != "float32"):
        if isinstance(model, Transformer):
            sums, lengths = answer_logprobs(model, batch.to(weight.device))
            return sums.cpu(), lengths.cpu()
        values, here = model.logprobs([batch])[0].flatten(), batch.target_places()
        documents = batch.documents.flatten()[here]
        return (
            sums_by_document(values[here], documents, batch.document_count),
            sums_by_document(torch.ones_like(values[here]), documents, batch.document_count),
        )
