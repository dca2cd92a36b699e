"""A dry run against formulas that are written down here, against herdlm.plan.cost, and against itself over ranks."""

import pytest

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, sizes_for
from herdlm.plan.cost import values_per_rank
from herdlm.plan.dryrun.step import dry_run
from tests.plan.dryrun_cases import SHAPE, job_of

D, F, C, H, K, V, LAYERS = 64, 96, 8, 8, 4, 512, 6
LAYER = D * C * (2 * H + 2 * K) + 3 * D * F  # weights of a layer's matrices
ROWS, T = 8, 64


def products(report):
    return sum(each.flops for each in report.flops if not each.operation.startswith("attention"))


def attention(report):
    return sum(each.flops for each in report.flops if each.operation.startswith("attention"))


def traffic(report, kind, group):
    """(count, bytes) of a kind of collective in a group."""
    found = [(each.count, each.bytes) for each in report.collectives if (each.kind, each.group) == (kind, group)]
    return tuple(map(sum, zip(*found, strict=True))) if found else (0, 0)


def test_flops_of_one_process_are_six_for_each_weight_and_token():
    report = dry_run(job_of(), ranks=1)
    assert products(report) == 6 * (LAYERS * LAYER + V * D) * ROWS * T
    pairs = ROWS * T * (T + 1) // 2
    assert attention(report) == 14 * LAYERS * H * C * pairs


def test_recomputing_layers_costs_a_forward_pass():
    whole = dry_run(job_of(), ranks=1)
    again = dry_run(job_of(activation_checkpointing="layer"), ranks=1)
    # The last product of a layer is not needed again.
    assert products(again) - products(whole) == 2 * LAYERS * (LAYER - D * F) * ROWS * T
    assert again.highest["activations"] < whole.highest["activations"] / 2


def test_state_is_that_of_the_cost_table():
    model = ModelConfig(**SHAPE)
    for layout, ranks in ((dict(tp=2, dp_shard=2), 4), (dict(dp_replicate=2, dp_shard=2, pp=2), 8), (dict(tp=4), 4)):
        parallel = ParallelConfig(**layout)
        held = values_per_rank(model, parallel, sizes_for(parallel, ranks, model))
        reports = [dry_run(job_of(rows=(8,), **layout), ranks=ranks, rank=rank) for rank in (0, ranks - 1)]
        assert max(report.parameters for report in reports) == held
        heaviest = max(reports, key=lambda report: report.parameters)
        assert heaviest.highest["weights"] == 4 * held
        assert heaviest.highest["gradients"] == 4 * held
        # AdamW keeps two moments and, of every parameter, the number of its step.
        assert 8 * held <= heaviest.highest["optimizer"] <= 8 * held + 4 * 64


def test_collectives_of_tensor_and_data_parallelism():
    report = dry_run(job_of(rows=(4,), tp=2, dp_shard=2), ranks=4)
    activation = 2 * T * D * 4  # of this rank's two rows, FP32
    # A layer gathers before its two groups of matrices, forward and backward, and in the backward pass of what follows
    # them; once more each for the embedding and the last norm.
    assert traffic(report, "reduce-scatter", "tp") == (4 * LAYERS + 2, (4 * LAYERS + 2) * activation)
    assert traffic(report, "all-gather", "tp") == (6 * LAYERS + 2, (6 * LAYERS + 2) * activation)
    norms = (2 * LAYERS + 1) * D
    weights = (LAYERS * LAYER + 2 * V * D) // 2 + norms  # on a rank of tensor parallelism
    assert traffic(report, "all-gather", "dp_shard x cp") == (LAYERS + 1, 4 * weights)
    assert traffic(report, "reduce-scatter", "dp_shard x cp") == (LAYERS + 1, 4 * weights)


def test_flops_and_transfers_are_conserved_over_ranks():
    """Whatever the layout, all ranks together do the work of one; what one stage sends, the next receives."""
    one = dry_run(job_of(rows=(8,)), ranks=1)
    layout = dict(tp=2, dp_shard=2, pp=2, rows_per_micro_batch=2)
    ranks = [dry_run(job_of(rows=(8,), **layout), ranks=8, rank=rank) for rank in range(8)]
    head = 2 * V * D * ROWS * T  # with a sharded vocabulary, logits are computed again
    assert sum(map(products, ranks)) == products(one) + head
    assert sum(map(attention, ranks)) == attention(one)
    for direction in ("pp forward", "pp backward"):
        sent = [traffic(report, "send", direction) for report in ranks]
        received = [traffic(report, "receive", direction) for report in ranks]
        assert sum(size for _, size in sent) == sum(size for _, size in received) == 2 * 4 * T * D * 2 * 4 // 2 * 2 // 2
    assert sum(report.parameters for report in ranks) == one.parameters + (2 * LAYERS + 1) * D


def test_a_pipeline_keeps_as_many_passes_as_stages_follow():
    layout = dict(pp=3, rows_per_micro_batch=1)
    reports = [dry_run(job_of(rows=(6,), **layout), ranks=3, rank=rank) for rank in range(3)]
    assert [max(report.activations_in_flight) for report in reports] == [3, 2, 1]
    first = reports[0].activations_in_flight
    # While a pass ends, the gradient that the next one waits for may have a place already.
    assert 0 <= (first[3] - first[2]) - (first[2] - first[1]) <= 4 * T * D < first[2] - first[1]


@pytest.mark.parametrize("objective", ["dpo", "reward"])
def test_other_objectives(objective):
    """The loss of pairs costs what next tokens cost, except for a reward model's head."""
    report = dry_run(job_of(objective, rows=(8,), tp=2, dp_shard=2, gpu=True), ranks=4, rank=3)
    matrices = 6 * LAYERS * LAYER * 4 * T // 2
    head = 8 * V * D * 4 * T // 2 if objective == "dpo" else 6 * D * 8  # every answer on every rank
    assert products(report) == matrices + head
    assert report.peak > sum(report.at_peak[name] for name in ("weights", "optimizer"))


def test_context_parallelism_gathers_keys_and_values():
    report = dry_run(job_of(rows=(2,), cp=2, dp_shard=2), ranks=4, rank=1)
    keys = T * 2 * K * C * 4  # keys and values of a row, FP32
    assert traffic(report, "all-gather", "cp") == (LAYERS, LAYERS * keys)
    assert traffic(report, "reduce-scatter", "cp") == (LAYERS, LAYERS * keys)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="kv_heads 4 is not a multiple of parallel.tp 8"):
        dry_run(job_of(tp=8), ranks=8)
    with pytest.raises(InputError, match="layers 6 is too few for 8 stages"):
        dry_run(job_of(pp=8), ranks=8)
    with pytest.raises(InputError, match="there are 3 processes"):
        dry_run(job_of(tp=2, dp_shard=1), ranks=3)
    with pytest.raises(InputError, match="FP8"):
        dry_run(job_of(precision="fp8"), ranks=1)
