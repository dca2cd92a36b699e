"""Calibrates a classifier: turns its margins into probabilities, language by language.

Platt's method (Platt 1999) fits ``p = 1 / (1 + exp(-(slope * margin + offset)))`` by maximum likelihood to texts that
the classifier was not trained on, with smoothed targets, so that few labels do not lead to certainty. It keeps the
order within a language and needs only two parameters, which suits languages with a hundred labels. Isotonic regression
needs thousands, and makes ties, at which a share could not be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section

ALL = "*"  # the calibration of languages without their own
MIN_OF_EACH_KIND = 10
NEWTON_STEPS = 100

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Platt(Section):
    """The two parameters of a calibration, and the texts they were fitted to."""

    slope: float
    offset: float
    texts: int
    good: int

    def __call__(self, margins: Floats) -> Floats:
        """Return probabilities (N,) of margins (N,)."""
        return _sigmoid(self.slope * margins + self.offset)


class Calibration(Section):
    """One :class:`Platt` for all languages, named ``ALL``, and one for each language with enough labels.

    ``why_not`` gives the reason why each other language in the calibration set uses the one for all.
    """

    by_language: dict[str, Platt]
    why_not: dict[str, Literal["too_few_texts", "too_few_of_a_kind", "slope_not_positive"]]

    def __call__(self, margins: Floats, languages: Sequence[str]) -> Floats:
        """Return probabilities (N,) of margins (N,) of texts in ``languages``."""
        chosen = [self.by_language.get(language, self.by_language[ALL]) for language in languages]
        slopes = np.fromiter((platt.slope for platt in chosen), np.float64, len(chosen))
        offsets = np.fromiter((platt.offset for platt in chosen), np.float64, len(chosen))
        return _sigmoid(slopes * margins + offsets)


def calibrate(margins: Floats, is_good: Bools, languages: Sequence[str], min_texts: int) -> Calibration:
    """Fit to margins (N,) and labels (N,) of texts in ``languages``. A calibration of its own takes ``min_texts``.

    Raises:
        InputError: There are fewer than ``MIN_OF_EACH_KIND`` good or bad texts, or margins do not rise with the labels.
    """
    names = np.array(languages)
    good, bad = int(is_good.sum()), int((~is_good).sum())
    if min(good, bad) < MIN_OF_EACH_KIND:
        raise InputError(
            f"the calibration labels have {good} good and {bad} other texts; {MIN_OF_EACH_KIND} of each are needed",
            "Label more documents, or raise calibration_share",
        )
    whole = fit_platt(margins, is_good)
    if whole.slope <= 0:
        raise InputError(
            "the classifier's margins do not rise with the held-out labels: it learned nothing",
            "Check the labels, or label more documents",
        )
    found, why_not = {ALL: whole}, {}
    for language in sorted(set(languages)):
        rows = names == language
        kinds = min(int(is_good[rows].sum()), int((~is_good[rows]).sum()))
        if rows.sum() < min_texts:
            why_not[language] = "too_few_texts"
        elif kinds < MIN_OF_EACH_KIND:
            why_not[language] = "too_few_of_a_kind"
        elif (platt := fit_platt(margins[rows], is_good[rows])).slope <= 0:
            why_not[language] = "slope_not_positive"
        else:
            found[language] = platt
    return Calibration.model_validate({"by_language": found, "why_not": why_not})


def fit_platt(margins: Floats, is_good: Bools) -> Platt:
    """Return the most likely slope and offset, by Newton's method with step halving."""
    good, bad = int(is_good.sum()), int((~is_good).sum())
    targets = np.where(is_good, (good + 1) / (good + 2), 1 / (bad + 2))
    scale = max(float(np.abs(margins).max(initial=0)), 1e-12)
    design = np.stack([margins / scale, np.ones(len(margins))], axis=1)
    found = np.array([0.0, np.log((good + 1) / (bad + 1))])
    loss = _loss(design @ found, targets)
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(design @ found)
        gradient = design.T @ (p - targets)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (trial := _loss(design @ (found - step), targets)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        improved = loss - trial
        if improved <= 0:
            break
        found, loss = found - step, trial
        if improved < 1e-12 * max(loss, 1):
            break
    return Platt(slope=float(found[0] / scale), offset=float(found[1]), texts=len(margins), good=good)


def _loss(logits: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _sigmoid(logits: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -logits))
