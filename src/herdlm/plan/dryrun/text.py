"""Reports of a dry run as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from herdlm.plan.dryrun.report import CATEGORIES, RankReport

GIB = 2**30


def lines(reports: Sequence[RankReport], gpu_bytes: float) -> list[str]:
    """A table of ranks, and the rank with the highest peak in detail."""
    first = reports[0]
    shown = [name for name in CATEGORIES if any(report.highest.get(name) for report in reports)]
    out = [
        f"{first.objective}: one step of {first.micro_batches} micro-batches on {first.ranks:,} GPUs of "
        f"{gpu_bytes / GIB:.1f} GiB; memory at the peak in GiB",
        " ".join(
            [f"{'rank':>6} {'pp':>3} {'layers':>14} {'parameters':>13} {'peak':>7}", *(f"{n:>13}" for n in shown)]
        ),
    ]
    for report in reports:
        layers = sum(end - begin for begin, end in report.layers.values())
        stages = f"{layers} in {len(report.layers)}"
        cells = (f"{report.at_peak.get(name, 0) / GIB:13.3f}" for name in shown)
        out.append(
            f"{report.rank:6} {report.place['pp']:3} {stages:>14} {report.parameters:13,} {report.peak / GIB:7.2f} "
            + " ".join(cells)
        )
    heaviest = max(reports, key=lambda report: report.peak)
    out += ["", f"rank {heaviest.rank}", *_details(heaviest)]
    return out


def _details(report: RankReport) -> list[str]:
    flight = list(report.activations_in_flight.items())
    picked = [flight[i] for i in sorted({0, len(flight) // 2, len(flight) - 1})] if flight else []
    out = [
        "  activations by passes in flight (GiB): " + ", ".join(f"{count}: {size / GIB:.2f}" for count, size in picked)
    ]
    out += [f"  {'collective':16} {'group':16} {'ranks':>6} {'type':9} {'count':>7} {'GiB':>10}"]
    out += [
        f"  {each.kind:16} {each.group:16} {each.ranks:6} {each.dtype:9} {each.count:7,} {each.bytes / GIB:10.3f}"
        for each in report.collectives
    ]
    out += [f"  {'operation':20} {'count':>8} {'TFLOP':>12}"]
    out += [f"  {each.operation:20} {each.count:8,} {each.flops / 1e12:12.2f}" for each in report.flops]
    return [*out, f"  {report.total_flops / 1e12:,.1f} TFLOP in all; the dry run took {report.seconds:.1f} s"]
