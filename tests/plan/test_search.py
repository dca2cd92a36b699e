"""The search for layouts: never what does not divide or fit, and never worse for having more."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.parallel.config import ParallelConfig, Sizes, find_problem
from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.job import Shape
from herdlm.plan.layouts import Question, jobs
from herdlm.plan.search import explain, front, search
from herdlm.plan.search_report import LayoutSearch, lines
from herdlm.plan.stacks import stack_named
from herdlm.plan.training_memory import StepMemory
from tests.conftest import small_model

MACHINE = read_hardware().machine("h100")
SHAPES = st.builds(
    lambda layers, heads, group, ffn, vocab: Shape(
        layers=layers, hidden=128 * heads * group, ffn=256 * ffn, heads=heads * group, kv_heads=heads, vocab=vocab
    ),
    st.integers(2, 10),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([1, 4]),
    st.integers(4, 20),
    st.sampled_from([32_000, 50_257, 128_256]),
)


def searcher(question):
    return LayoutSearch(question, MACHINE, read_constants(), stack_named(None))


def found(question, gib):
    """What a search finds in so much memory; None if nothing fits."""
    looked = searcher(question)

    def memory(job):
        return StepMemory.of(job).most()["sum"] / 2**30

    try:
        return search(question, looked.seconds, memory, gib, 5)
    except InputError:
        return None


def question(shape, gpus, rows, seq_len=4096):
    return Question(shape, gpus, "h100", seq_len, rows * seq_len)


@settings(max_examples=12, deadline=None)
@given(SHAPES, st.integers(1, 8), st.sampled_from([2, 4, 6]), st.floats(0.5, 40))
def test_what_is_found_divides_and_fits(shape, gpus, rows, gib):
    result = found(question(shape, gpus, rows), gib)
    if result is None:
        return
    config = small_model().config.model_copy(
        update={
            "layers": shape.layers, "dim": shape.hidden, "heads": shape.heads, "kv_heads": shape.kv_heads,
            "ffn_dim": shape.ffn, "vocab_size": shape.vocab, "head_dim": shape.head_size,
        }
    )  # fmt: skip
    recompute = {"none": "none", "selective": "selective", "full": "layer"}
    for each in [*result.best, *result.by_gpus]:
        layout = each.job.layout
        assert StepMemory.of(each.job).most()["sum"] <= gib * 2**30
        assert layout.gpus == each.job.gpus <= gpus and layout.tp <= MACHINE.gpus_per_node
        assert rows % (layout.dp * layout.micro_batch) == 0
        keys = ParallelConfig(
            tp=layout.tp,
            cp=layout.cp,
            pp=layout.pp,
            dp_replicate=layout.dp_replicate,
            dp_shard=layout.dp_shard,
            pipeline_schedule=layout.schedule,
            stages_per_rank=layout.vpp,
            reshard_after_forward=layout.reshard_after_forward,
            activation_checkpointing=recompute[layout.recompute],
        )
        sizes = Sizes(layout.tp, layout.cp, layout.pp, layout.dp_replicate, layout.dp_shard)
        assert find_problem(keys, sizes, layout.gpus, config, 4096) is None
    order = [each.seconds for each in result.best]
    assert order == sorted(order)


@settings(max_examples=8, deadline=None)
@given(SHAPES, st.integers(1, 8), st.floats(0.5, 20), st.floats(1, 4))
def test_more_memory_is_never_slower(shape, gpus, gib, factor):
    asked = question(shape, gpus, 8)
    less, more = found(asked, gib), found(asked, gib * factor)
    if less is not None:
        assert more is not None and more.best[0].seconds <= less.best[0].seconds
        assert less.without_limit.seconds <= more.best[0].seconds


@settings(max_examples=8, deadline=None)
@given(SHAPES, st.integers(1, 8), st.integers(1, 8))
def test_more_gpus_are_never_slower(shape, gpus, more):
    few, many = found(question(shape, gpus, 8), 20), found(question(shape, gpus + more, 8), 20)
    if few is not None:
        assert many is not None and many.best[0].rate >= few.best[0].rate


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_short_count_of_memory_is_a_lower_bound(data):
    shape = data.draw(SHAPES)
    every = list(jobs(question(shape, data.draw(st.integers(1, 16)), data.draw(st.sampled_from([4, 16])))))
    step = StepMemory.of(data.draw(st.sampled_from(every)))
    assert step.least() <= step.most()["sum"]
    assert step.most()["sum"] == max(each["sum"] for each in step.ranks())


def test_given_sizes_stay():
    shape = Shape(layers=8, hidden=2048, ffn=8192, heads=16, kv_heads=8, vocab=128_256)
    fixed = {"tp": 2, "pp": 2, "vpp": 2, "recompute": "full", "micro_batch": 1}
    every = list(jobs(replace(question(shape, 16, 32), given=fixed)))
    assert every
    for job in every:
        assert {name: getattr(job.layout, name) for name in fixed} == fixed and job.layout.schedule == "interleaved"


def test_nothing_that_divides_or_fits_is_an_error():
    shape = Shape(layers=8, hidden=2048, ffn=8192, heads=16, kv_heads=8, vocab=128_256)
    looked = searcher(replace(question(shape, 8, 8), given={"tp": 3}))
    with pytest.raises(InputError, match="no layout divides 16 heads"):
        looked.run(3)
    with pytest.raises(InputError, match="fits 1 GiB"):
        search(question(shape, 1, 8), looked.seconds, searcher(question(shape, 1, 8)).memory, 1.0)


def test_what_binds_and_the_front():
    shape = Shape(layers=32, hidden=4096, ffn=14_336, heads=32, kv_heads=8, vocab=128_256)
    looked = searcher(question(shape, 16, 64, 8192))
    result = looked.run(4)
    binds = explain(result, looked.seconds, 80)["binds"]
    assert all(0 <= share < 1 for share in binds.values()) and binds.keys() == {"memory", "bubble", "traffic", "batch"}
    times = [each.seconds for each in result.by_gpus]
    costs = [each.seconds * each.job.gpus for each in result.by_gpus]
    assert times == sorted(times) and costs == sorted(costs, reverse=True)
    assert front([*result.best, *result.by_gpus])[0].seconds == result.best[0].seconds
    text = "\n".join(lines(looked.report(result, 10**12), explained=True))
    assert "what binds the best layout" in text and "dollars" in text and "loses" in text
