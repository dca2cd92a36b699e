"""Generation on several gloo processes against one process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.cpu.fused import UnfusedFeedForward
from herdlm.generate.embedding import embedding
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.gpu import fp8_feed_forward
from herdlm.generate.load import load_model
from herdlm.generate.paged_attention import StepInput
from herdlm.generate.parallel import check_layout, micro_batches
from herdlm.model.hf import save_folder
from herdlm.model.transformer import FeedForward, build, initialize
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from tests.generate.parallel_ranks import CONFIG, DOCUMENTS, SIZES, answers, fp8_linear, model, outlying
from tests.parallel.processes import launch


@pytest.mark.parametrize(
    ("tp", "pp", "halves"),
    [
        (2, 2, True),
        (1, 3, False),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in [(2, 1, False), (1, 2, True), (4, 1, True)]),
    ],
)
def test_log_probabilities_are_those_of_one_process(tp, pp, halves):
    expected = answers(Engine(model(halves), None, **SIZES))
    assert_same(launch("tests.generate.parallel_ranks:generate", tp * pp, tp, pp, halves), expected)


EVERYTHING = Fp8Config(attention=True, skip_first_layers=0, skip_last_layers=0)


@pytest.mark.parametrize(
    ("tp", "pp", "config"),
    [
        (2, 1, EVERYTHING.model_copy(update={"granularity": "tensor"})),
        (2, 2, Fp8Config()),
        pytest.param(2, 1, EVERYTHING, marks=pytest.mark.slow),
        pytest.param(4, 1, EVERYTHING, marks=pytest.mark.slow),
        pytest.param(1, 3, EVERYTHING, marks=pytest.mark.slow),
    ],
    ids=["tp2, a scale per tensor", "tp2 pp2, the feed-forward of the middle layer", "tp2", "tp4", "pp3"],
)
def test_a_model_in_fp8_is_divided_like_any_other(tp, pp, config, tmp_path):
    save_folder(model(halves=True), tmp_path / "whole")
    quantize_folder(tmp_path / "whole", tmp_path / "fp8", config)
    # In float32, sums in another order may differ in the last bit and so, at times, in what FP8 rounds them to.
    expected = answers(Engine(load_model(tmp_path / "fp8", "cpu", torch.float64), None, **SIZES))
    assert_same(launch("tests.generate.parallel_ranks:generate_fp8", tp * pp, tp, pp, str(tmp_path / "fp8")), expected)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("granularity", ["row", "tensor"])
def test_ranks_agree_on_the_scale_of_a_token_they_hold_parts_of(granularity, ranks):
    x = outlying(96)
    expected = fp8_linear(granularity)(x[:3] if granularity == "tensor" else x)
    by_columns, by_rows = (
        torch.tensor(found) for found in launch("tests.generate.parallel_ranks:multiply_fp8", ranks, granularity)
    )
    torch.testing.assert_close(by_rows, expected.chunk(ranks, dim=1)[0], equal_nan=True, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(by_columns, expected, equal_nan=True, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("divided", [True, False])
def test_the_fast_feed_forward_of_gpus_is_for_whole_tokens_alone(divided, monkeypatch):
    monkeypatch.setattr(fp8_feed_forward, "runs_kernels", lambda device: True)
    whole = FeedForward(CONFIG)
    gate, up, down = (
        Fp8Linear(32, 48, "row", 1200.0),
        Fp8Linear(32, 48, "row", 1200.0),
        Fp8Linear(48, 32, "row", 1200.0),
    )
    down.group = object() if divided else None
    whole.gate_proj, whole.up_proj, whole.down_proj = gate, up, down
    made = fp8_feed_forward.fp8_feed_forward(UnfusedFeedForward(whole, torch.bfloat16), torch.bfloat16)
    assert type(made) is (UnfusedFeedForward if divided else fp8_feed_forward.Fp8FeedForward)


def test_embeddings_are_those_of_one_process():
    found = launch("tests.generate.parallel_ranks:embed", 4, 2, 2)
    one = Engine(model(halves=False), None, **SIZES).model
    for vector, tokens in zip(found, DOCUMENTS, strict=True):
        assert vector == pytest.approx(embedding(one, tokens), abs=1e-6)


def assert_same(found, expected):
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
    step = StepInput(tokens, positions, positions + 7, begins, counts, tables, np.zeros((2, 0), dtype=np.int64))
    cut = micro_batches(step, parts)
    lengths = [len(part.tokens) for part in cut]
    assert len(cut) == min(parts, len(tokens))
    assert max(lengths) - min(lengths) <= 1
    owners = np.repeat(np.arange(len(counts)), counts)
    for name in ("tokens", "positions", "slots"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in cut]), getattr(step, name))
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


PROMPTS = [[1, 2, 3], [4] * 20]
PROGRAM = """
import json, os, signal, subprocess, sys
started = []
class Seen(subprocess.Popen):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        started.append(self)
subprocess.Popen = Seen
from herdlm.base.errors import HerdError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.gpu import fp8_feed_forward
def ask():
    found = engine.generate(json.loads(sys.argv[3]), SamplingParams(max_tokens=8, n=2))
    return [[c.tokens, c.logprobs] for each in found for c in each]
told = []
def told_by(call):
    try:
        call()
    except HerdError as error:
        told.append(str(error))
    except RuntimeError as error:
        told.append("lost")
engine = Engine.load(sys.argv[1], device="cpu", tensor_parallel=2, max_batch=4)
found = ask()
told_by(lambda: Engine.load(sys.argv[1], device="cpu", pipeline_parallel=2))
if sys.argv[2] == "close":
    engine.close()
    told.append(started[0].wait(60))
else:
    started[0].send_signal(signal.SIGKILL)
    told_by(ask)
assert not engine.busy
told_by(ask)
print("=" + json.dumps([told, found]))
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_an_engine_starts_its_processes_and_neither_hangs_without_the_other(tmp_path, end):
    saved = build(CONFIG.model_copy(update={"vocab_size": 280}))
    initialize(saved, seed=2, std=0.15)
    folder = tmp_path / "whole"
    save_folder(saved, folder)
    train_tokenizer(["the cow says moo and the calf says moo too " * 20], TokenizerConfig(vocab_size=280)).save(folder)
    if end == "close":
        quantize_folder(folder, tmp_path / "fp8", EVERYTHING)
        folder = tmp_path / "fp8"
    command = [sys.executable, "-c", PROGRAM, str(folder), end, json.dumps(PROMPTS)]
    # The output ends when all processes that hold it have.
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told, found = json.loads(done.stdout.partition("=")[2])
    assert "has a parallel model already" in told[0]
    assert told[1] == (0 if end == "close" else "lost")
    assert "Load the model again" in told[2] or "failed or the model was closed" in told[2]
    # One process reads the same tokens: of its own it might draw others, as sums in another order differ in their last
    # bits, which FP8, and BF16 where the processor computes in it, make larger. Another model's are off by 1 and more.
    drawn = [(p, *one) for p, one in zip([PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], found, strict=True)]
    scored = Engine.load(folder, device="cpu", max_batch=4).generate(
        [prompt + tokens for prompt, tokens, _ in drawn], SamplingParams(max_tokens=1, prompt_logprobs=True)
    )
    for (_, tokens, logprobs), (one,) in zip(drawn, scored, strict=True):
        assert len(tokens) == len(logprobs) == 8
        assert logprobs == pytest.approx(one.prompt_logprobs[-8:], abs=1e-4 if end == "kill" else 0.3)


def test_a_process_whose_first_is_gone_before_they_met_ends(tmp_path):
    """Its connection cannot tell it: there is none yet."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        order = {
            "folder": str(tmp_path),
            "rank": 1,
            "tp": 2,
            "pp": 1,
            "port": silent.getsockname()[1],
            "device": "cpu",
            "dtype": "auto",
            "parent": 0,
        }
        command = [sys.executable, "-m", "herdlm.generate.processes", json.dumps(order)]
        assert subprocess.run(command, timeout=120, check=False).returncode == 1
