"""The part of ``herdlm plan`` that looks for layouts, and the trace of a step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError

SearchOption = Annotated[
    bool, typer.Option("--search", help="Look for the fastest layouts that fit; options that are given stay.")
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="With a search: say what binds the best layout.")]
TraceOption = Annotated[
    Path | None, typer.Option(help="Write the step's timeline to this file, for Chrome's tracing page or Perfetto.")
]
FIXED = ("tp", "cp", "pp", "vpp", "dp_shard", "micro_batch", "schedule", "recompute", "reshard_after_forward")
OTHERS = ("offload", "async_tp")


def best_layout(request: Any, given: dict[str, Any], machine: Any, constants: Any, stack: Any) -> tuple[Any, Any]:
    """The search's result and the prediction of its best job.

    Args:
        given: fields of the layout that the user fixed.
    """
    from herdlm.plan.layouts import Question
    from herdlm.plan.predict import needed_gib, predict
    from herdlm.plan.search import search
    from herdlm.plan.step_time import step_time

    question = Question(
        request.shape,
        request.gpus,
        request.gpu,
        request.seq_len,
        request.tokens_per_step,
        node=machine.gpus_per_node,
        precision=request.precision,
        software=request.software,
        given={name: given[name] for name in (*FIXED, *OTHERS) if name in given},
    )
    found = search(
        question,
        lambda job: step_time(job, machine, constants, stack),
        lambda job: needed_gib(job, stack),
        machine.gpu.memory_gib,
    )
    return found, predict(found.best[0].job, machine, constants, stack)


def search_part(found: Any, machine: Any, constants: Any, stack: Any, *, tokens: float | None, explained: bool) -> Any:
    """The best layouts with reasons, the front of days against dollars, and what binds, as JSON."""
    from herdlm.plan.search import cost_front, explain
    from herdlm.plan.step_time import step_time

    first = found.best[0]
    part: dict[str, Any] = {
        "best": [each.as_json(first) for each in found.best],
        "front": cost_front(found, int(tokens or first.job.tokens_per_step), machine.gpu.dollars_per_hour),
        "front_tokens": int(tokens or first.job.tokens_per_step),
        "considered": found.considered,
    }
    if explained:
        part["explain"] = explain(found, lambda job: step_time(job, machine, constants, stack), machine.gpu.memory_gib)
    return part


def search_lines(part: Any) -> Iterator[str]:
    """The same as lines of text."""
    yield f"the best of {part['considered']:,} layouts:"
    for number, each in enumerate(part["best"], 1):
        layout = each["layout"]
        sizes = " ".join(f"{name}={layout[name]}" for name in FIXED[:6])
        kept = f"{layout['schedule']}, recompute {layout['recompute']}"
        yield (
            f"{number:2}. {sizes}, {kept}: {each['step_seconds']:.3f} s ({each['slower']:+.1%}), "
            f"{each['memory_gib_per_gpu']:.1f} GiB; {each['reason']}"
        )
    yield f"{part['front_tokens']:,} tokens, from the fastest to the cheapest:"
    for each in part["front"]:
        yield f"    {each['gpus']:,} GPUs: {each['days']:,.3g} days, {each['dollars']:,.0f} dollars; {each['layout']}"
    if bound := part.get("explain"):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in bound["binds"].items())
        yield f"what binds most is {bound['most']} ({shares}); {bound['memory_used']:.0%} of the memory is used"


def write_trace(path: Path, prediction: Any) -> None:
    """Write the trace of a predicted step.

    Raises:
        InputError: the file exists.
    """
    from herdlm.plan.step_time import stage_layers
    from herdlm.plan.trace import trace

    if path.exists():
        raise InputError(f"{path} exists", "Remove it, or give another --trace")
    job, step = prediction.job, prediction.step
    text = json.dumps(trace(job, step.parts, stage_layers(job, prediction.stack)).as_json())
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(path)
