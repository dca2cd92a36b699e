"""A budget as lines of text, and as a page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from herdlm.plan.cost import short
from herdlm.report.charts import Rule, Series, chart, share_bar
from herdlm.report.frame import Section, framed
from herdlm.report.markup import Child, Html, table, tag
from herdlm.report.scales import covering
from herdlm.scaling.fit import Laws


def budget_lines(result: dict[str, Any]) -> list[str]:
    """The content of ``herdlm scaling budget --json`` for a terminal."""
    out = [f"{result['gpus']:,} {result['gpu']} for {result['days']:g} days; intervals hold {result['level']:.0%}", ""]
    for name, value in _rows(result):
        out.append(f"{name:16} {value}")
    if result["warnings"]:
        out += ["", "warnings", *(f"  - {line}" for line in result["warnings"])]
    return out


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    model, step, layout = result["model"], result["step"], result["step"]["layout"]
    rows = [
        ("compute", f"{_span(result['flops'], '{:.3g}')} FLOPs (6 N D)"),
        (
            "model",
            f"{short(model['parameters'])} parameters: {model['layers']} layers, hidden {model['hidden']:,}, "
            f"feed-forward {model['ffn']:,}, {model['heads']} heads, {model['kv_heads']} for keys and values",
        ),
        ("tokens", _span(result["tokens"], "short")),
        ("sized by", result["optimum"]["source"]),
        (
            "layout",
            f"TP {layout['tp']}, CP {layout['cp']}, PP {layout['pp']} x {layout['vpp']}, DP {layout['dp_shard']} x "
            f"{layout['dp_replicate']}, recompute {layout['recompute']}",
        ),
        ("step", f"{step['step_seconds']:.3g} s of {step['tokens_per_step']:,} tokens"),
        (
            "speed",
            f"{_span(step['tokens_per_s_per_gpu'], '{:,.0f}')} tokens/s per GPU, MFU {step['mfu']['6n']:.1%} by 6N",
        ),
        ("memory", f"{step['memory_gib_per_gpu']:.1f} GiB per GPU"),
        ("loss", "not forecast" if result["loss"] is None else _span(result["loss"], "{:.4g}")),
    ]
    rows += [(score["task"], _span(score["accuracy"], "{:.1%}")) for score in result["scores"]]
    price, risk = result["price"], result["risk"]
    return [
        *rows,
        ("price", f"{_span(price['dollars'], '{:,.0f}')} dollars, {_span(price['gpu_hours'], '{:,.0f}')} GPU-hours"),
        ("interruptions", f"{_span(risk['interruptions'], '{:.0f}')}, {risk['operations']['spares']} spare hosts"),
        ("effective time", _span(risk["effective"], "{:.1%}")),
    ]


def _span(figure: dict[str, Any], how: str) -> str:
    value, low, high = (_one(figure[side], how) for side in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _one(value: float | None, how: str) -> str:
    if value is None:
        return "unbounded"
    return short(value) if how == "short" else how.format(value)


def render_budget(result: dict[str, Any], laws: Laws | None) -> str:
    """Render a budget. Equal data give equal bytes."""
    step = result["step"]
    sections: list[Section] = [
        ("plan", "The run", [table("What the days give", ("What", "Figure"), _rows(result), text_columns=(0, 1))]),
        ("step", "Where a step's time goes", [_parts(step)]),
    ]
    if laws is not None and laws.surface is not None:
        sections.append(("loss", "Loss by model size at this compute", _sizes(result, laws)))
    sections.append(("risk", "Interruptions", [_risk(result["risk"])]))
    sections.append(("warnings", "Warnings", [tag("ul", [tag("li", line) for line in result["warnings"]])]))
    return framed(
        f"{result['gpus']:,} {result['gpu']} for {result['days']:g} days",
        tag("p", f"{short(result['model']['parameters'])} parameters on {short(result['tokens']['value'])} tokens."),
        sections,
        f"Intervals hold {result['level']:.0%}.",
        kind="herdlm budget",
    )


def _parts(step: dict[str, Any]) -> Html:
    rows = sorted(((n, v) for n, v in step["parts"].items() if v > 0), key=lambda row: -row[1])
    whole = step["step_seconds"]
    return table(
        f"A step of {whole:.3g} s",
        ("Part", "Seconds", "Share", "As a bar"),
        ((name, f"{value:.3g}", f"{value / whole:.1%}", share_bar(value / whole)) for name, value in rows),
        text_columns=(0, 3),
    )


def _sizes(result: dict[str, Any], laws: Laws) -> Sequence[Child]:
    """Loss against parameters at equal compute: the chosen model lies on its flat bottom."""
    assert laws.surface is not None
    best, chosen = laws.surface.best, float(result["model"]["parameters"])
    compute = result["flops"]["value"] / 6
    params = chosen * np.exp(np.linspace(-2, 2, 41))
    line = [(float(n), float(best.loss(n, compute / n)[0])) for n in params]
    return [
        chart(
            [
                Series("at this compute", line, 1),
                Series("chosen", [(chosen, result["loss"]["value"])], 2, line=False, mark="square"),
            ],
            title="Loss against parameters at equal compute",
            alt="A curve with a flat bottom, and the chosen model on it.",
            x="parameters",
            y="loss",
            x_scale=covering([n for n, _ in line], log=True),
            rules=[Rule("y", result["loss"]["value"], "", (result["loss"]["low"], result["loss"]["high"]))],
        )
    ]


def _risk(risk: dict[str, Any]) -> Html:
    rows = [(name.replace("_", " "), _span(value, "{:.0f}")) for name, value in risk["by_component"].items()]
    return table("Interruptions by component", ("Component", "Expected"), rows)
