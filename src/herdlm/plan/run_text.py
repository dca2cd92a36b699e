"""A whole run, and a serving plan, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNITS = (
    ("days", "days", 1.0),
    ("GPU-hours", "gpu_hours", 1.0),
    ("megawatt-hours", "megawatt_hours", 1.0),
    ("million dollars", "dollars", 1e-6),
    ("tonnes of CO2", "tonnes_co2", 1.0),
)


def run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    """The whole run that ``herdlm.plan.run_forecast`` makes."""
    yield f"{run['tokens']:.4g} tokens, {run['steps']:,.0f} steps, {run['work_days']:,.1f} days without failures"
    for title, name, factor in UNITS:
        if name in run:
            yield f"  {title:26} {spread(run[name], factor)}"
    found = run["reliability"]
    checkpoints, operations = found["checkpoints"], found["operations"]
    yield f"  {'effective training time':26} {spread(found['effective'], 100.0)} %"
    yield f"  {'unexpected interruptions':26} {spread(found['interruptions'])}"
    lost = ", ".join(f"{name} {value['value']:,.0f}" for name, value in found["lost_hours"].items())
    yield f"  {'hours lost':26} {lost}"
    yield (
        f"  {'checkpoints':26} {checkpoints['size'] / 1e12:,.2f} TB every {checkpoints['interval']:,.0f} s (best "
        f"{checkpoints['best_interval']:,.0f} s), {checkpoints['stall']:,.1f} s of standing still each"
    )
    yield f"  {'spare hosts':26} {operations['spares']:,} (enough: {operations['spares_needed']:,})"


def serving_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The plans that ``herdlm.plan.serving.plan`` makes."""
    traffic = found["traffic"]
    yield (
        f"{traffic['requests_per_s']:g} requests/s of {traffic['prompt']:,} + {traffic['answer']:,} tokens on "
        f"{found['gpu']}; means with 80% intervals"
    )
    for plan in found["plans"]:
        if "problem" in plan:
            yield f"{plan['precision']}: {plan['problem']}"
            continue
        yield (
            f"{plan['precision']}: {plan['gpus']['value']} GPUs ({_end(plan['gpus']['low'])} to "
            f"{_end(plan['gpus']['high'])}): {plan['engines']} engines of tp {plan['tp']} x pp {plan['pp']}"
        )
        yield f"  {'first token, ms':26} {spread(plan['first_token_s'], 1000.0)}"
        yield f"  {'each further token, ms':26} {spread(plan['each_token_s'], 1000.0)}"
        tails = ", ".join(f"{name} p90 {values['p90'] * 1000:,.0f}" for name, values in plan["percentiles"].items())
        yield f"  {'simulated, ms':26} {tails}"
        yield f"  {'most answer tokens/s':26} {spread(plan['most_output_tokens_per_s'])}"
        yield (
            f"  {'sequences at a time':26} {plan['sequences_of_an_engine']:,.0f} of "
            f"{plan['most_sequences_of_an_engine']:,} that fit an engine"
        )
        million = plan["dollars_per_million_output_tokens"]
        yield f"  {'dollars':26} {plan['dollars_per_hour']:,.2f} an hour, {million:,.2f} for a million answer tokens"


def grpo_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The batch that ``herdlm.plan.grpo`` makes."""
    yield f"a batch of policy gradient takes {spread(found['seconds'])} s and {found['gpu_hours']:,.3g} GPU-hours"
    parts = ", ".join(f"{name} {seconds:,.3g} s" for name, seconds in found["parts"].items())
    yield f"  {'of which':26} {parts}"
    yield f"  {'share of sampling':26} {found['sampling_share']:.0%}, of training {found['training_share']:.0%}"


def spread(found: Mapping[str, Any], factor: float = 1.0) -> str:
    """A value with its interval."""
    return f"{_end(found['value'], factor)} ({_end(found['low'], factor)} to {_end(found['high'], factor)})"


def _end(value: float | None, factor: float = 1.0) -> str:
    if value is None:
        return "without end"
    value *= factor
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
