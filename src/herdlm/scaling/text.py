"""Results of scaling fits and forecasts as lines of text."""

from __future__ import annotations

from typing import Any

from herdlm.plan.cost import short


def fit_lines(result: dict[str, Any]) -> list[str]:
    """The content of ``herdlm scaling fit --json`` for a terminal."""
    low, high = result["flops_range"]
    out = [f"{result['points']} points from {low:.3g} to {high:.3g} FLOPs; intervals hold {result['level']:.0%}"]
    if iso := result["isoflop"]:
        out += ["", f"isoFLOP parabolas ({sum(b['used'] for b in iso['budgets'])} budgets)"]
        for name in ("tokens", "params"):
            law = iso[name]
            out.append(
                f"  {name:7} = {law['coefficient']:.4g} x C^{law['exponent']:.4f}   "
                f"exponent {_span(law['interval']['exponent'])}"
            )
    if fit := result["parametric"]:
        out += ["", "E + A / N^alpha + B / D^beta"]
        for name in ("E", "A", "B", "alpha", "beta", "tokens_exponent"):
            out.append(f"  {name:15} {fit[name]:<10.4g} {_span(fit['interval'][name])}")
    if apart := result["disagreement"]:
        out += ["", "optimal tokens           parabolas   parametric   ratio"]
        for row in apart["optimum"]:
            one, two = (row[f"{name}_tokens"]["value"] for name in ("isoflop", "parametric"))
            out.append(f"  at {row['flops']:<10.3g} FLOPs  {short(one):>12} {short(two):>12}   {row['ratio']:.2f}")
    if rows := result["decides"][:5]:
        out += [
            "",
            "what decides: optimal tokens far ahead change by this factor without",
            f"  {'':48} parabolas  surface",
        ]
        for row in rows:
            shifts = (row.get(name, {}).get("times") for name in ("isoflop", "parametric"))
            text = "  ".join(f"{shift:>8.2f}" if shift is not None else f"{'-':>8}" for shift in shifts)
            out.append(f"  {row['without']:48} {text}")
    return out + _warnings(result["warnings"])


def forecast_lines(result: dict[str, Any]) -> list[str]:
    """The content of ``herdlm scaling forecast --json`` for a terminal."""
    out = [f"{result['flops']:.3g} FLOPs; intervals hold {result['level']:.0%}"]
    warnings: list[str] = []
    if best := result.get("optimum"):
        out += ["", f"compute-optimal run (chosen: {best['chosen']}; intervals cover both fits)"]
        out += [f"  {name:7} {_amount(name, best[name])}" for name in ("params", "tokens", "loss")]
        for method, of_method in best["methods"].items():
            parts = ", ".join(f"{name} {_value(name, of_method[name]['value'])}" for name in of_method)
            out.append(f"  {method}: {parts}")
        if flat := best["flat"]:
            low, high = flat["tokens"]
            out.append(f"  {short(low)} to {short(high)} tokens cost at most {flat['loss_rises_by']:.1%} of the loss")
        if held := best["held_out"]:
            errors = [f"{m} {_share(held[m]['minima_error'])}" for m in ("parametric", "isoflop") if m in held]
            out.append(
                f"  {held['models']} models with most compute held out: error of the lowest loss {', '.join(errors)}"
            )
            if "parametric" in held:
                out[-1] += f"; of all their losses {_share(held['parametric']['loss_error'])}"
        warnings += best["warnings"]
    for row in result["benchmarks"]:
        accuracy, nll = row["accuracy"], row["nll"]
        out += ["", f"{row['task']} ({row['models']} models)"]
        out.append(f"  nll      {nll['value']:.4g}  {_span((nll['low'], nll['high']))}")
        out.append(f"  accuracy {accuracy['value']:.1%}  {accuracy['low']:.1%} to {accuracy['high']:.1%}")
        if held := row["held_out"]:
            out.append(f"  error on {len(held['models'])} models held out: {100 * held['accuracy_error']:.1f} points")
        warnings += row["warnings"]
    return out + _warnings(warnings)


def _amount(name: str, figure: dict[str, Any]) -> str:
    sides = [_value(name, figure[side]) for side in ("value", "low", "high")]
    return f"{sides[0]}  ({sides[1]} to {sides[2]})"


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "unbounded"
    return f"{value:.4g}" if name == "loss" else short(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _span(bounds: Any) -> str:
    low, high = ("unbounded" if bound is None else f"{bound:.4g}" for bound in bounds)
    return f"({low} to {high})"


def _warnings(told: list[str]) -> list[str]:
    return ["", "warnings", *(f"  - {line}" for line in told)] if told else []
