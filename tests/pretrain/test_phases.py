"""Ramps, mix phases and stages over tokens seen: what each step reads is a function of its number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.pretrain.batches import open_batches
from herdlm.pretrain.config import PretrainConfig, timeline, tokens_in
from herdlm.tokens.shards import ShardWriter

WEB, BOTH = ({"source": "web", "share": 1.0},), ({"source": "web", "share": 0.7}, {"source": "skills", "share": 0.3})


def pretraining(**keys) -> PretrainConfig:
    train = {"peak_lr": 1e-3, "anneal_steps": keys.pop("anneal_steps", 0)}
    base = {"seq_len": 8, "rows_per_step": 4, "steps": 30, "mix": WEB, "anneal_mix": BOTH, "train": train}
    return PretrainConfig.model_validate(base | keys)


@st.composite
def courses(draw):
    begins = st.lists(st.integers(1, 900), max_size=3, unique=True).map(sorted)
    seq_lens = st.sampled_from([4, 8, 16])
    ramp = [
        {"from_tokens": begin, "seq_len": (seq := draw(seq_lens)), "tokens_per_step": seq * draw(st.integers(1, 5))}
        for begin in draw(begins)
    ]
    phases = [{"from_tokens": begin, "mix": draw(st.sampled_from([WEB, BOTH]))} for begin in draw(begins)]
    long = [
        {"seq_len": 16 * 2**number, "tokens": draw(st.integers(1, 300)), "tokens_per_step": 64}
        for number in range(1, draw(st.integers(0, 2)) + 1)
    ]
    return dict(ramp=ramp, mix_phases=phases, long_context=long, steps=400, anneal_steps=draw(st.integers(0, 9)))


@given(courses())
@settings(max_examples=100, deadline=None)
def test_phases_cover_the_steps_and_change_when_the_tokens_are_seen(keys):
    config = pretraining(**keys)
    phases = timeline(config)
    assert [s.first_step for s in phases] == [0, *(s.end_step for s in phases[:-1])]
    assert phases[-1].end_step == config.steps
    token = 0
    for phase in phases:
        assert phase.first_token == token
        for _ in range(phase.steps):
            if phase.kind == "main":  # the definition, step by step
                begun = [part for part in config.ramp if part.from_tokens <= token]
                size = (begun[-1].seq_len, begun[-1].tokens_per_step) if begun else (8, 32)
                assert (phase.seq_len, phase.tokens_per_step) == size
                mixes = [phase.mix for phase in config.mix_phases if phase.from_tokens <= token]
                assert phase.mix == (mixes[-1] if mixes else config.mix)
            token += phase.tokens_per_step
    assert tokens_in(config) == token
    for stage, phase in zip(config.long_context, [s for s in phases if s.kind == "long-context"], strict=True):
        assert phase.steps * phase.tokens_per_step - 64 < stage.tokens <= phase.steps * phase.tokens_per_step


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two sources of documents whose tokens are all different."""
    folder = tmp_path_factory.mktemp("tokens")
    for name, first, count in (("web", 1, 40), ("skills", 20_000, 25)):
        writer = ShardWriter(folder / name, vocab_size=60_000, tokenizer="t", with_targets=name == "skills")
        for length in range(2, count):
            tokens = list(range(first, first + min(length, 8 if name == "web" else 5)))
            first += len(tokens)
            targets = [False] + [True] * (len(tokens) - 1)
            writer.add(tokens, text_bytes=9, **({"targets": targets} if name == "skills" else {}))
        writer.close()
    return folder


@given(courses(), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_step_reads_the_same_rows_however_it_is_reached(shards, keys, seed):
    config = pretraining(**keys)
    walked, jumping = (open_batches(config, shards, seed=seed, pad=0) for _ in range(2))
    assert walked.steps == config.steps
    steps = np.random.default_rng(seed).permutation(config.steps)[:12]
    whole = {step: walked.micro_batches(step)[0] for step in range(config.steps)}
    for step in steps:
        (batch,) = jumping.micro_batches(int(step))
        assert torch.equal(batch.tokens, whole[step].tokens)
        rows = jumping.rows_of(int(step))
        halves = [jumping.rows(int(step), 0, rows // 2), jumping.rows(int(step), rows // 2, rows - rows // 2)]
        assert torch.equal(torch.cat([half.tokens for half in halves]), batch.tokens)
    for phase in timeline(config):
        assert whole[phase.first_step].tokens.shape == (phase.rows_per_step, phase.seq_len)


def test_a_source_is_read_on_where_the_mix_changes(shards):
    """The rows of web that the phases read are the rows of web alone, in order: none twice, none left out."""
    config = pretraining(
        mix_phases=[
            {"from_tokens": 200, "mix": BOTH},
            {"from_tokens": 500, "mix": [{"source": "skills", "share": 1}]},
            {"from_tokens": 640, "mix": BOTH},
        ]
    )
    alone = open_batches(pretraining(), shards, seed=1, pad=0)
    mixed = open_batches(config, shards, seed=1, pad=0)
    rows = [row for step in range(30) for row in mixed.micro_batches(step)[0].tokens if int(row.max()) < 20_000]
    plain = [row for step in range(30) for row in alone.micro_batches(step)[0].tokens]
    assert 50 < len(rows) < len(plain)
    assert all(torch.equal(a, b) for a, b in zip(rows, plain, strict=False))


def test_micro_batches_cut_a_step_whatever_its_size(shards):
    config = pretraining(rows_per_micro_batch=3, ramp=[{"from_tokens": 100, "seq_len": 4, "tokens_per_step": 28}])
    batches = open_batches(config, shards, seed=1, pad=0)
    assert [len(part.tokens) for part in batches.micro_batches(0)] == [3, 1]
    assert [tuple(part.tokens.shape) for part in batches.micro_batches(4)] == [(3, 4), (3, 4), (1, 4)]
    with pytest.raises(IndexError):
        batches.micro_batches(30)
