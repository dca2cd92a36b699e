"""A dry run against the same step with values, on gloo processes."""

import pytest

from herdlm.plan.dryrun.step import dry_run
from tests.parallel.processes import launch
from tests.plan.dryrun_cases import job_of, with_values


def compare(given, real):
    ranks = len(real)
    for rank, found in enumerate(real):
        report = dry_run(job_of(**given), ranks=ranks, rank=rank)
        mine = [[c.kind, c.group, c.ranks, c.dtype, c.count, c.bytes] for c in report.collectives]
        assert mine == found["collectives"], rank
        assert {each.operation: each.flops for each in report.flops} == found["flops"], rank
        assert report.peak == pytest.approx(found["peak"], rel=0.03), (rank, report.at_peak, found["at_peak"])
        for category in ("weights", "gradients", "optimizer"):
            assert report.at_peak.get(category, 0) == found["at_peak"].get(category, 0), (rank, category)


def test_one_process():
    given = dict(rows=(4, 4), seq_len=512)
    compare(given, with_values(given))


@pytest.mark.parametrize(
    "given",
    [
        dict(rows=(8,), tp=2, pp=2, rows_per_micro_batch=2),
        dict(objective="dpo", rows=(4, 4), pp=2, dp_shard=2, precision="bfloat16"),
    ],
    ids=["tp2 pp2", "pp2 dp2, dpo"],
)
def test_four_processes(given):
    compare(given, launch("tests.plan.dryrun_cases:with_values", 4, given))
