"""Errors of the time model on publications that its constants have not seen, beside those of a constant MFU."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import pstdev

from herdlm.plan.constants import Constants
from herdlm.plan.fit_constants import fit_constants, predict_row
from herdlm.plan.hardware import Catalog
from herdlm.plan.published import Published
from herdlm.plan.step_time import idle

COVERED = 0.8  # share of unseen rows that an interval should hold

Predict = Callable[[Published], float]


@dataclass(frozen=True, slots=True)
class Unseen:
    """Errors, as the log of predicted over measured tokens per second, of rows that a fit has not seen."""

    ours: dict[str, float]
    baseline: dict[str, float]


def leave_out_publications(rows: Sequence[Published], catalog: Catalog, start: Constants) -> Unseen:
    """Predict each publication's rows from a fit on the others."""
    return _leave_out(rows, catalog, start, [row.publication for row in rows])


def leave_out_rows(rows: Sequence[Published], catalog: Catalog, start: Constants) -> Unseen:
    """Predict each row from a fit on all others: the error on a stack that the fit has seen."""
    return _leave_out(rows, catalog, start, [row.id for row in rows])


def _leave_out(rows: Sequence[Published], catalog: Catalog, start: Constants, groups: list[str]) -> Unseen:
    ours, baseline = {}, {}
    for group in dict.fromkeys(groups):
        seen = [row for row, of in zip(rows, groups, strict=True) if of != group]
        constants = fit_constants(seen, catalog, start)
        constant = constant_mfu(seen, catalog)
        for row, of in zip(rows, groups, strict=True):
            if of == group:
                assert row.measured
                ours[row.id] = math.log(predict_row(row, catalog, constants) / row.measured)
                baseline[row.id] = math.log(constant(row) / row.measured)
    return Unseen(ours, baseline)


def constant_mfu(rows: Sequence[Published], catalog: Catalog) -> Predict:
    """The baseline: one MFU for each precision, with recomputation, the bubble, and a factor for each stack."""
    by_precision: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        assert row.measured
        by_precision[row.jobs[0].layout.precision].append(math.log(row.measured / at_peak(row, catalog)))
    everything = [each for values in by_precision.values() for each in values]
    level = {precision: _median(values) for precision, values in by_precision.items()}
    by_stack: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        assert row.measured
        expected = math.log(at_peak(row, catalog)) + level[row.jobs[0].layout.precision]
        by_stack[row.stack.name].append(math.log(row.measured) - expected)
    factor = {stack: _median(values) for stack, values in by_stack.items()}

    def predict(row: Published) -> float:
        mfu = level.get(row.jobs[0].layout.precision, _median(everything))
        return at_peak(row, catalog) * math.exp(mfu + factor.get(row.stack.name, 0.0))

    return predict


def at_peak(row: Published, catalog: Catalog) -> float:
    """Tokens per second of a GPU at its peak rate, less the bubble and full recomputation."""
    found = []
    for job in row.jobs:
        flops = job.shape.flops_per_token(job.seq_len)["causal"] * (4 / 3 if job.layout.recompute == "full" else 1)
        share = job.micro_batches / (job.micro_batches + idle(job, job.micro_batches))
        found.append(catalog.machine(job.gpu).gpu.peak(job.layout.precision) / flops * share)
    return max(found)


def half_width(errors: Sequence[float]) -> float:
    """The half-width that would have held ``COVERED`` of ``errors``, with one error more than the largest in the count.

    This is split conformal prediction: an exchangeable new error is inside with at least that probability.
    """
    ordered = sorted(map(abs, errors))
    return ordered[min(math.ceil(COVERED * (len(ordered) + 1)), len(ordered)) - 1]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of ``values`` lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def with_intervals(constants: Constants, by_publication: Unseen) -> Constants:
    """The constants with the half-widths of their intervals.

    That of stacks in the fit is conformal, from publications left out. Of others it also has to hold how much stacks'
    factors differ (1.28 standard deviations hold 80% of a normal distribution).
    """
    seen = half_width(list(by_publication.ours.values()))
    factors = [math.log(factor) for factor in constants.stacks.values()]
    return replace(constants, interval={"seen": seen, "other": math.hypot(seen, 1.28 * pstdev(factors))})
