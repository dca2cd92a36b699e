"""What makes a scaling fit misleading: bias of parabolas, budgets sampled off their minimum, too little data."""

from __future__ import annotations

from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.scaling.intervals import rounded
from herdlm.scaling.isoflop import IsoflopFit, fit_isoflop
from herdlm.scaling.points import Points
from herdlm.scaling.surface import Surface, SurfaceFit

FEW_BUDGETS, FEW_POINTS = 4, 5
OFF_CENTER = 0.35  # of half the range of a budget's points
NARROW = 1.5  # decades of compute


def bias_of_parabolas(points: Points, surface: Surface) -> dict[str, Any] | None:
    """What parabolas would get wrong on these models if the loss were exactly ``surface``, without any noise.

    A surface is no parabola in ln(tokens) unless alpha equals beta, and sampling off the minimum shifts its bottom. So
    the method is applied to losses of the surface at the same points, and compared with the surface's own optimum.
    """
    try:
        found = fit_isoflop(
            points.with_loss(surface.loss(points.params, points.tokens)), draws=0, seed=0, keep_all=True
        )
    except InputError:
        return None
    flops = float(points.flops.max())
    rows = []
    for times in (1, 1000):
        true = surface.optimum(flops * times, points.flops_factor)[1][0]
        rows.append(
            {"flops": rounded(flops * times), "tokens": rounded(float(found.tokens(flops * times)[0] / true - 1))}
        )
    slope = float(found.tokens.exponent[0] - surface.tokens_slope()[0])
    return {"tokens_exponent": rounded(slope), "optimum": rows}


def warnings_of(
    points: Points, isoflop: IsoflopFit | None, surface: SurfaceFit | None, result: dict[str, Any]
) -> list[str]:
    """What a reader must know, as sentences."""
    told = list(points.warnings)
    told += [f"Not fitted, {method}: {why}." for method, why in result["not_fitted"].items()]
    if isoflop is not None:
        told += _of_budgets(points, isoflop)
        told += _of_bias(result["isoflop"]["bias"])
    if surface is not None:
        told += _of_surface(points, surface, result["parametric"])
    if (decades := float(np.ptp(np.log10(points.flops)))) < NARROW:
        told.append(f"The points span {decades:.1f} decades of compute: an extrapolation rests on little.")
    if (apart := result["disagreement"]) and apart["significant"]:
        last = apart["optimum"][-1]
        told.append(
            f"The fits disagree by more than their noise: exponents of tokens differ by "
            f"{apart['tokens_exponent']['value']:+.3f}, and at {last['flops']:.2g} FLOPs the parabolas ask for "
            f"{last['ratio']:.2g} times the tokens."
        )
    return told


def _of_budgets(points: Points, fit: IsoflopFit) -> list[str]:
    told = [f"The budget of {p.flops:.3g} FLOPs is not used: {p.why}." for p in fit.parabolas if not p.usable]
    used = fit.usable
    if len(used) < FEW_BUDGETS:
        told.append(f"The power law goes through {len(used)} budgets: its interval relies on the noise within them.")
    if thin := [p for p in used if len(p.members) < FEW_POINTS]:
        told.append(f"{len(thin)} of {len(used)} parabolas go through fewer than {FEW_POINTS} points.")
    shifts = []
    for p in used:
        x = np.log(points.tokens[p.members])
        shifts.append((p.center - (x.max() + x.min()) / 2) / max(np.ptp(x) / 2, 1e-9))
    if off := [p for p, shift in zip(used, shifts, strict=True) if abs(shift) > OFF_CENTER]:
        side = "more" if np.mean(shifts) > 0 else "fewer"
        told.append(
            f"{len(off)} of {len(used)} budgets were not sampled around their minimum, which lies at {side} tokens: "
            "parabolas are biased then. Add sizes on that side."
        )
    if len(used) > 2 and abs(drift := float(np.polyfit(np.arange(len(used)), shifts, 1)[0])) * len(used) > 1:
        told.append(
            f"The sampled sizes drift against the minimum from budget to budget ({drift:+.2f} of the half range each), "
            "which biases the exponent."
        )
    return told


def _of_bias(bias: dict[str, Any] | None) -> list[str]:
    if bias is None or abs(bias["optimum"][-1]["tokens"]) < 0.05:
        return []
    near, far = bias["optimum"]
    return [
        f"If the parametric fit were true, parabolas on these points would be off by {bias['tokens_exponent']:+.3f} in "
        f"the exponent and {near['tokens']:+.0%} in tokens at {near['flops']:.2g} FLOPs, {far['tokens']:+.0%} at "
        f"{far['flops']:.2g}."
    ]


def _of_surface(points: Points, fit: SurfaceFit, result: dict[str, Any]) -> list[str]:
    told = []
    errors = result["standard_error"]
    loose = [n for n in ("alpha", "beta") if errors[n] is None or errors[n] > 0.3 * result[n]]
    if loose:
        told.append(f"The points hardly decide {' and '.join(loose)} of the parametric fit: see the intervals.")
    if errors["E"] is None or result["E"] < 2 * errors["E"]:
        told.append("The points do not decide E, the loss that no compute removes: long extrapolations are open.")
    if result["left_out"]:
        told.append(
            f"The parametric fit leaves out {len(result['left_out'])} of {len(points)} points that lie far off it "
            "(left_out); --keep-all uses them."
        )
    if len(points) < 4 * len(errors):
        told.append(f"{len(points)} points for 5 parameters: intervals are rough.")
    biased = abs(float(np.median(fit.residuals[fit.kept]))) > 0.5 * result["residual_sd"] > 1e-5
    if biased:
        told.append("The parametric fit is off on one side of the points: the surface may have another form here.")
    return told
