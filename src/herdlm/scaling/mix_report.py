"""The result of a mix search as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def lines(result: dict[str, Any]) -> list[str]:
    """The ranking, the forecasts by domain, and their confirmation on a larger model."""
    target, domains = result["target"], list(result["weights"])
    domains += [domain for domain in result["held_out_rows"] if domain not in domains]
    names = ", ".join(f"{name} ({size:,.0f})" for name, size in result["models"].items())
    out = [
        f"{len(result['candidates'])} mixes, each tried on {names}, {result['steps']:,} steps = "
        f"{result['tokens']:,} tokens" + (f", {result['seeds']} seeds" if result["seeds"] > 1 else ""),
        f"forecast for {target['name']} ({target['size']:,.0f} {result['axis'].replace('_', ' ')}) after as many "
        "tokens, in nats per token:",
        "",
    ]
    weights = {domain: result["weights"].get(domain, 0.0) for domain in domains}
    head = ["", "mix", "score", "against default", "", *(f"{domain} x{weights[domain]:g}" for domain in domains)]
    rows = [head]
    for place, row in enumerate(result["candidates"], 1):
        against = row["against_default"]
        change = "" if against["verdict"] == "default" else f"{against['value']:+.4f}"
        rows.append(
            [
                f"{place}",
                row["name"],
                _interval(row["score"]),
                f"{change} {_range(against)}" if change else "",
                against["verdict"],
                *(_interval(row["domains"][domain]["forecast"]) for domain in domains),
            ]
        )
    out += [*_table(rows), ""]
    for row in result["candidates"]:
        shares = ", ".join(f"{name} {share:.4g}" for name, share in _relative(row["mix"]).items())
        epochs = ", ".join(f"{name} {count:.3g}" for name, count in row["epochs"].items())
        out.append(f"{row['name']}: {shares}; epochs of the whole run: {epochs}")
        if any(abs(share - row["asked"].get(name, 0.0)) > 1e-6 for name, share in _relative(row["mix"]).items()):
            asked = ", ".join(f"{name} {share:.4g}" for name, share in row["asked"].items())
            out.append(f"  changed by pretrain.max_epochs; asked for {asked}")
    out += [
        "",
        "Intervals are 95%, over other held-out text" + (" and other seeds" if result["seeds"] > 1 else "") + ".",
    ]
    tests = [row["domains"][domain]["backtest"] for row in result["candidates"] for domain in domains]
    if None not in tests:
        out.append(
            "The largest of the models, forecast by the others: off by "
            f"{_percent(sum(map(abs, tests)) / len(tests))} on average, {_percent(max(map(abs, tests)))} at most."
        )
    else:
        out.append("With two sizes the forecast cannot be tested: give a third model.")
    return out + (_confirmed(result["confirm"]) if "confirm" in result else [])


def _confirmed(confirm: dict[str, Any]) -> list[str]:
    rows = [["domain", "mix", "forecast", "measured", "error"]]
    for domain, by_name in confirm["domains"].items():
        for name, of in by_name.items():
            rows.append(
                [domain, name, _interval(of["forecast"]), _interval(of["measured"]), _percent(of["error"], "+")]
            )
    difference = confirm["difference"]
    outcome = {
        "held": "the ranking held",
        "did not hold": "the ranking did NOT hold",
        "not decided": "the larger model's losses on the held-out text do not differ significantly",
    }[confirm["ranking"]]
    return [
        "",
        f"Trained on {confirm['model']} ({confirm['size']:,.0f}):",
        "",
        *_table(rows),
        "",
        f"{confirm['best']} less default: forecast {difference['forecast']['value']:+.4f} "
        f"{_range(difference['forecast'])}, measured {difference['measured']['value']:+.4f} "
        f"{_range(difference['measured'])}: {outcome}.",
        f"Largest error of a forecast: {_percent(confirm['largest_error'])}.",
    ]


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.4f} {_range(estimate)}"


def _range(estimate: dict[str, float]) -> str:
    return f"[{estimate['low']:.4f}, {estimate['high']:.4f}]"


def _percent(share: float, sign: str = "") -> str:
    return f"{100 * share:{sign}.2f}%"


def _relative(shares: dict[str, float]) -> dict[str, float]:
    whole = sum(shares.values())
    return {name: share / whole for name, share in shares.items()}


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
