"""A prediction as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The lines that ``herdlm plan`` prints of what it prints as JSON."""
    rate, intervals = found["tokens_per_s_per_gpu"], found["intervals"]
    layout = ", ".join(f"{name}={found['layout'][name]}" for name in LAYOUT)
    yield f"{found['parameters']:,} parameters on {found['gpus']:,} {found['gpu']}: {layout}"
    if found["searched"]:
        yield f"chosen, because it was left open: {', '.join(found['searched'])}"
    yield f"tokens/s per GPU  {rate['value']:,.1f}  (80%: {rate['low']:,.1f} to {rate['high']:,.1f})"
    for count, value in found["tflops_per_gpu"].items():
        low, high = intervals["tflops_per_gpu"][count]
        mfu = found["mfu"][count]
        yield f"TFLOP/s per GPU   {value:,.0f}  (80%: {low:,.0f} to {high:,.0f}), MFU {mfu:.1%}, counted {count}"
    low, high = intervals["memory_gib_per_gpu"]
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    yield f"memory per GPU    {found['memory_gib_per_gpu']:,.1f} GiB  (80%: {low:,.1f} to {high:,.1f}), {fits}"
    low, high = intervals["step_seconds"]
    yield f"step              {found['step_seconds']:,.3f} s  (80%: {low:,.3f} to {high:,.3f}), of which"
    for name, seconds in found["parts"].items():
        if seconds > 0:
            yield f"  {name:14}  {seconds:,.3f} s  {seconds / found['step_seconds']:.1%}"


LAYOUT = ("tp", "cp", "pp", "vpp", "dp_replicate", "dp_shard", "micro_batch", "schedule", "recompute", "precision")
