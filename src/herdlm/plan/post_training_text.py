"""The costs of post-training as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from herdlm.plan.cost import FP32, short
from herdlm.plan.memory import GIGABYTE


def lines(described: dict[str, Any]) -> list[str]:
    """The description that ``herdlm.run.post_training_cost`` makes, as lines of text."""
    gpu, assumed, rounds = described["gpu"], described["assumed"], described["rounds"]
    out = [
        f"post-training, {len(rounds)} rounds on nodes of {gpu['gpus']} {gpu['kind']} with {gpu['gigabytes']:g} GB",
        f"  assumed: prompts of {assumed['prompt_tokens']:,} tokens, answers of {assumed['answer_tokens']:,}; "
        "times by the models of herdlm plan",
        "  counted at most: every prompt gives a dialog and a pair; of the files, rows of JSON Lines",
        "",
        *_files(described["files"]),
    ]
    out += ["", "before the rounds", *_stages(described["before"])]
    last = rounds[-1]
    out += ["", f"round {last['round']}, stage by stage", *_stages(last)]
    out += ["", "in all"]
    out += [_total(f"round {part['round']}", part["total"]) for part in rounds]
    if described["teaching"]:
        out.append(_total("teaching", described["teaching"]["total"]))
    out.append(_total("everything", described["total"]))
    if described["problems"]:
        out.append("  times leave out what does not fit")
    if described["teaching"]:
        out += ["", "teaching the small model", *_stages(described["teaching"])]
    return out


def _files(files: list[dict[str, Any]]) -> Iterator[str]:
    missing = sum(not file["exists"] for file in files)
    yield f"files that it expects: {len(files)}, of which {missing} are missing"
    for file in files:
        rows = f"{file['rows']:,} rows" if file["rows"] is not None else "exists"
        yield f"  {rows if file['exists'] else 'missing':>14}  {file['key']:24} {file['path']}"


def _stages(part: dict[str, Any]) -> Iterator[str]:
    for stage in part["stages"]:
        yield f"  {stage['stage']}: {stage['does']}"
        if stage["reads"]:
            yield f"      needs   {', '.join(dict.fromkeys(stage['reads']))}"
        for title, text in (
            ("amount", _amount(stage)),
            ("FLOPs", _flops(stage["flops"])),
            ("on", _place(stage)),
            ("memory", _memory(stage["memory"])),
            ("time", "" if stage["seconds"] is None else f"about {duration(stage['seconds'])}"),
            ("note", "; ".join(stage["notes"])),
            ("problem", stage["problem"]),
        ):
            if text:
                yield f"      {title:7} {text}"


def _amount(stage: dict[str, Any]) -> str:
    found = []
    if stage["samples"]:
        found.append(f"{stage['prompts']:,} prompts x {stage['samples']} answers")
    if stage["drawn_tokens"]:
        found.append(f"{short(stage['drawn_tokens'])} tokens drawn, {short(stage['drawn_at_most'])} at the limit")
    if stage["dialogs"] is not None:
        found.append(f"{stage['dialogs']:,} dialogs")
    if stage["pairs"]:
        found.append(f"{stage['pairs']:,} pairs")
    if stage["layout"]:
        found.append(f"{stage['steps']:,} steps, {short(stage['trained_tokens'])} tokens")
    return "; ".join(found)


def _flops(flops: dict[str, int]) -> str:
    parts = ", ".join(f"{kind} {count:.2e}" for kind, count in flops.items())
    return f"{sum(flops.values()):.3e}: {parts}" if len(flops) > 1 else parts


def _place(stage: dict[str, Any]) -> str:
    if stage["layout"]:
        sizes = " ".join(f"{key} {size}" for key, size in stage["layout"].items())
        return f"{stage['devices']:,} processes, {sizes}"
    if stage["engine"] is None:
        return ""
    tp, pp = stage["engine"]["tensor_parallel"], stage["engine"]["pipeline_parallel"]
    count, sequences = stage["engine"]["count"], stage["engine"]["sequences"]
    precision = "FP32" if stage["engine"]["bytes_per_value"] == FP32 else "BF16"
    return f"{count:,} engines in {precision}, tensor_parallel {tp} pipeline_parallel {pp}, {sequences} sequences each"


def _memory(memory: dict[str, int]) -> str:
    if not memory:
        return ""
    unit, size = ("GB", GIGABYTE) if memory["sum"] >= GIGABYTE // 10 else ("MB", GIGABYTE // 1000)
    parts = ", ".join(f"{name} {count / size:.1f}" for name, count in memory.items() if name != "sum")
    return f"{memory['sum'] / size:.1f} {unit} of a GPU: {parts}"


def _total(name: str, total: dict[str, Any]) -> str:
    return (
        f"  {name:12} {short(total['drawn_tokens']):>9} tokens drawn, {short(total['trained_tokens']):>9} trained, "
        f"{total['flops_sum']:.3e} FLOPs, {total['gpu_seconds'] / 3600:,.0f} GPU-hours, {duration(total['seconds'])}"
    )


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"
