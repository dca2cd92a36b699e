"""Generation on several gloo processes against one process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.generate import Engine
from herdlm.generate.paged_attention import Feed
from herdlm.generate.parallel import check_layout, micro_batches
from tests.generate.parallel_ranks import CONFIG, SIZES, answers, model
from tests.parallel.processes import launch


@pytest.mark.parametrize(
    ("tp", "pp", "halves"), [(2, 1, False), (1, 2, True), (2, 2, False), (4, 1, True), (1, 3, False)]
)
def test_log_probabilities_are_those_of_one_process(tp, pp, halves):
    expected = answers(Engine(model(halves), None, **SIZES))
    found = launch("tests.generate.parallel_ranks:generate", tp * pp, tp, pp, halves)
    assert len(found) == len(expected) == 12
    for (tokens, logprobs, of_prompt), (same_tokens, same_logprobs, same_of_prompt) in zip(
        found, expected, strict=True
    ):
        assert tokens == same_tokens
        assert logprobs == pytest.approx(same_logprobs, abs=1e-5)
        assert of_prompt == pytest.approx(same_of_prompt, abs=1e-5)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 6))
def test_micro_batches_are_the_step_in_order(counts, parts):
    rng = np.random.default_rng(sum(counts))
    counts = np.array(counts)
    begins = rng.integers(0, 50, len(counts))
    positions = np.concatenate([np.arange(b, b + c) for b, c in zip(begins, counts, strict=True)])
    tables = np.arange(len(counts))[:, None] + np.zeros((1, 3), dtype=np.int64)
    tokens = np.arange(len(positions), dtype=np.int32)
    feed = Feed(tokens, positions, positions + 7, begins, counts, tables, np.zeros((2, 0), dtype=np.int64))
    cut = micro_batches(feed, parts)
    lengths = [len(part.tokens) for part in cut]
    assert len(cut) == min(parts, len(tokens))
    assert max(lengths) - min(lengths) <= 1
    owners = np.repeat(np.arange(len(counts)), counts)
    for name in ("tokens", "positions", "slots"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in cut]), getattr(feed, name))
    assert np.array_equal(np.concatenate([np.repeat(part.tables[:, 0], part.counts) for part in cut]), owners)
    for part in cut:
        expected = [np.arange(b, b + c) for b, c in zip(part.begins, part.counts, strict=True)]
        assert np.array_equal(part.positions, np.concatenate(expected))


@pytest.mark.parametrize(
    ("tp", "pp", "message"),
    [(3, 1, "heads = 8"), (8, 1, "kv_heads = 4"), (1, 4, "3 layers"), (0, 1, "tensor_parallel")],
)
def test_layouts_that_do_not_fit_are_refused(tp, pp, message):
    with pytest.raises(InputError, match=message):
        check_layout(CONFIG, tp, pp)


IN_A_PROCESS_OF_ITS_OWN = """
import json, sys
from herdlm.base.errors import HerdError
from herdlm.generate import Engine, SamplingParams
engine = Engine.load(sys.argv[1], device="cpu", tensor_parallel=2, max_batch=4)
found = engine.generate([[1, 2, 3], [4] * 20], SamplingParams(max_tokens=8, n=2))
try:
    Engine.load(sys.argv[1], device="cpu", pipeline_parallel=2)
except HerdError as error:
    second = str(error)
engine.close()
print("=" + json.dumps([second, [[c.tokens, c.logprobs] for each in found for c in each]]))
"""


def test_an_engine_starts_and_ends_its_processes(tmp_path):
    save_folder(model(True).to(torch.bfloat16), tmp_path)
    train_tokenizer(["moo"], TokenizerConfig(vocab_size=280)).save(tmp_path)
