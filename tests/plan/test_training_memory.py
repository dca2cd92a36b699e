"""Memory of a step: against a step of the real code without values, against the allocator, and by its own rules."""

import pytest

from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes
from herdlm.plan.dryrun.batches import FullRows
from herdlm.plan.dryrun.step import StepJob, dry_run
from herdlm.plan.in_flight import moments
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.training_memory import CATEGORIES, StepMemory, layout_from, memory_gib_per_gpu
from herdlm.train.config import TrainConfig
from herdlm.train.objectives import NextToken
from tests.parallel.processes import launch

MODEL = ModelConfig(vocab_size=4096, dim=512, layers=4, heads=8, kv_heads=4, ffn_dim=1536, max_seq_len=2048)
SEQ_LEN = 2048
SMALL = dict(vocab_size=2048, dim=256, layers=4, heads=8, kv_heads=4, ffn_dim=768, max_seq_len=1024)
LAYOUTS = {
    "shards": (dict(dp_shard=2), 1),
    "several micro-batches": (dict(dp_shard=2), 3),
    "checkpointed": (dict(tp=4, dp_shard=2, activation_checkpointing="layer"), 1),
    "selective": (dict(tp=4, dp_shard=2, activation_checkpointing="selective"), 1),
    "all but data": (dict(tp=2, pp=2, dp_shard=2), 4),
    "interleaved": (dict(pp=2, dp_shard=2, stages_per_rank=2, pipeline_schedule="interleaved"), 4),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_rank_holds_what_the_real_code_holds_on_tensors_without_values(name):
    keys, micro = LAYOUTS[name]
    parallel = ParallelConfig(**keys)
    sizes = Sizes(parallel.tp, 1, parallel.pp, 1, parallel.dp_shard)
    step = StepMemory(MODEL, layout_from(parallel, sizes), 1, SEQ_LEN, micro)
    last = parallel.pp - 1
    job = StepJob(
        name="next",
        model=MODEL,
        parallel=parallel,
        objective=NextToken(),
        batches=FullRows((sizes.dp,) * micro, SEQ_LEN),
        train=TrainConfig(peak_lr=1e-3, precision="bfloat16"),
    )
    dry = dry_run(job, ranks=sizes.tp * sizes.pp * sizes.dp, rank=last * sizes.tp)
    ours = step.rank(last)
    assert ours["sum"] == pytest.approx(dry.peak, rel=0.02)
    for category in ("weights", "optimizer"):
        assert ours[category] == pytest.approx(dry.at_peak[category], rel=0.001)
    for category in ("gathered", "accumulated"):
        assert ours[category] == pytest.approx(dry.at_peak.get(category, 0), rel=0.001)
    working = ("activations", "logits", "temporary", "messages", "reduction", "batch")
    known = sum(dry.at_peak.get(name, 0) for name in ("activations", "temporary", "communication"))
    assert sum(ours[name] for name in working) == pytest.approx(known, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "layout", "rows", "precision"),
    [
        (2, dict(dp_shard=2), 4, "float32"),
        (2, dict(dp_shard=2), 4, "bfloat16"),
        (2, dict(dp_shard=2, reshard_after_forward=True), 4, "bfloat16"),
        (4, dict(tp=2, dp_shard=2), 4, "bfloat16"),
        (4, dict(tp=2, dp_shard=2, activation_checkpointing="selective"), 4, "bfloat16"),
    ],
)
def test_a_rank_of_a_real_run_allocates_as_much(world, layout, rows, precision):
    case = {"model": SMALL, "layout": layout, "seq_len": 512, "rows": [rows], "precision": precision}
    measured = launch("tests.plan.memory_runs:measure", world, case)[0]
    parallel = ParallelConfig(**layout)
    sizes = Sizes(parallel.tp, 1, 1, 1, parallel.dp_shard)
    model = ModelConfig(**SMALL)
    step = StepMemory(model, layout_from(parallel, sizes), rows // sizes.dp, 512, 1, precision, device="cpu")
    found = step.most()
    assert found["weights"] + found["optimizer"] == pytest.approx(measured["state"], rel=0.001)
    assert found["sum"] == pytest.approx(measured["peak"] + measured["state"], rel=0.05)


def job(**keys):
    layout = Layout(**{"tp": 8, "pp": 16, "vpp": 4, "dp_shard": 128, "schedule": "interleaved", **keys})
    shape = Shape(layers=126, hidden=16_384, ffn=53_248, heads=128, kv_heads=8, vocab=128_256)
    return Job(shape, layout, layout.gpus, "h100", 8192, 16_777_216)


def test_the_405b_needs_checkpointing_in_80_gib():
    none, full = (memory_gib_per_gpu(job(recompute=policy)) for policy in ("none", "full"))
    assert full["sum"] < 80 < none["sum"]
    state = 405_853_388_800 / (8 * 16 * 128) * 12 / 2**30
    assert full["weights"] + full["optimizer"] == pytest.approx(state, rel=0.1)
    whole = 8 * 3_187_703_808 / 8 / 2**30  # eight layers, cut by eight
    assert full["gathered"] == pytest.approx(2 * whole, rel=0.01)
    # Of the four chunks of layers one is summed up at the peak: the others' gradients are reduced before or after it.
    assert full["accumulated"] == pytest.approx(4 * whole / 4, rel=0.01)


def test_categories_add_up_and_offload_and_sharding_change_their_own():
    plain = StepMemory.of(job(recompute="full")).most()
    assert plain["sum"] == sum(plain[name] for name in CATEGORIES)
    without = StepMemory.of(job(recompute="full", offload="optimizer")).most()
    assert without["optimizer"] == 0 and without["weights"] == plain["weights"]
    moved = StepMemory.of(job(recompute="full", offload="activations")).most()
    assert moved["activations"] < plain["activations"]
    replicated = StepMemory.of(job(recompute="full", sharding="zero1")).most()
    assert replicated["weights"] > plain["weights"] and replicated["gathered"] == 0


@pytest.mark.parametrize(("schedule", "vpp"), [("1f1b", 1), ("interleaved", 3), ("zero-bubble", 1)])
def test_a_long_step_holds_no_more_than_its_first_rounds(schedule, vpp):
    for rank in range(4):
        seen = {
            tuple(
                getattr(moments(4, vpp, micro, schedule, rank), name).sum(1).max() for name in ("in_flight", "deferred")
            )
            for micro in (12, 16, 40)
        }
        assert len(seen) == 1


def test_gpipe_keeps_every_micro_batch():
    assert moments(4, 1, 40, "gpipe", 3).in_flight.max() == 40
    assert moments(4, 1, 40, "1f1b", 0).in_flight.max() == 4
