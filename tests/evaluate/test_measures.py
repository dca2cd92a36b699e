"""Intervals, bits per byte and divergence against references."""

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from herdlm.evaluate import divergence as divergences
from herdlm.evaluate.divergence import divergence
from herdlm.evaluate.intervals import paired_difference, pass_rate
from herdlm.evaluate.perplexity import text_loss, validation_batches
from herdlm.model.attention import DocumentAttention
from herdlm.tokens.shards import ShardWriter
from tests.conftest import TEXT, small_model


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),  # statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (81, 263, 0.25526, 0.36621), (10, 10, 0.72247, 1.0)],
)
def test_wilsons_interval(right, n, low, high):
    estimate = pass_rate([True] * right + [False] * (n - right))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)
    assert estimate.value == right / n


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=200))
def test_paired_difference_is_the_difference_of_rates(pairs):
    before, after = zip(*pairs, strict=True)
    estimate = paired_difference(before, after)
    assert estimate.value == pytest.approx(sum(after) / len(pairs) - sum(before) / len(pairs))
    assert estimate.low <= estimate.value <= estimate.high
    flipped = paired_difference(after, before)
    assert flipped.value == pytest.approx(-estimate.value)


def test_pairing_narrows_the_interval_of_equal_answers_but_never_to_nothing():
    same = [True, False] * 500
    estimate = paired_difference(same, same)
    assert (estimate.value, estimate.low) == (0.0, -estimate.high)
    assert 0.001 < estimate.high < 0.003
    assert paired_difference(same[:20], same[:20]).high > 0.05


def test_paired_interval_by_hand():
    # 10 gained, 4 lost of 100: center 6/102, half 1.96 * sqrt(15 - 36/102) / 102.
    before = [False] * 10 + [True] * 4 + [True] * 86
    after = [True] * 10 + [False] * 4 + [True] * 86
    estimate = paired_difference(before, after)
    assert estimate.value == pytest.approx(0.06)
    half = 1.959964 * math.sqrt(15 - 36 / 102) / 102
    assert (estimate.low, estimate.high) == pytest.approx((6 / 102 - half, 6 / 102 + half))


@pytest.fixture
def shard(tmp_path, tokenizer):
    writer = ShardWriter(tmp_path, vocab_size=400, tokenizer=tokenizer.content())
    texts = [TEXT, TEXT[100:400], TEXT[50:200]]
    for text in texts:
        writer.add([1, *tokenizer.encode(text), 2], text_bytes=len(text.encode()))
    writer.close()
    return tmp_path, texts


def test_bits_per_byte_of_a_uniform_model_are_log2_of_the_vocabulary_per_token(shard, tokenizer):
    model = small_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    folder, texts = shard
    loss = text_loss(model, folder, seq_len=16, pad=0)
    tokens = sum(len(tokenizer.encode(t)) + 1 for t in texts)
    assert loss.nats_per_token == pytest.approx(math.log(400), rel=1e-5)
    size = sum(len(t.encode()) for t in texts)
    assert loss.bits_per_byte == pytest.approx(math.log2(400) * tokens / size, rel=1e-3)


def test_text_loss_is_the_mean_over_the_shards_targets(shard):
    model = small_model()
    loss = text_loss(model, shard[0], seq_len=16, pad=0)
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in validation_batches(shard[0], 16, 0):
            for row in range(len(batch.tokens)):
                one = (batch.tokens[row : row + 1], batch.positions[row : row + 1])
                hidden = model(*one, DocumentAttention(batch.documents[row : row + 1]))
                losses = F.cross_entropy(model.logits(hidden)[0], batch.targets[row], reduction="none")
                total += float(losses[batch.weights[row] > 0].sum())
                count += int((batch.weights[row] > 0).sum())
    assert loss.tokens == count
    assert loss.nats_per_token == pytest.approx(total / count, rel=1e-5)


def test_divergence_is_zero_to_itself_and_kl_to_another(shard):
    batches = validation_batches(shard[0], 16, 0)
    one, other = small_model(0), small_model(1)
    same = divergence(one, one, batches)
    assert same.kl == pytest.approx(0.0, abs=1e-7)
    assert same.top1_agreement == 1.0
    different = divergence(one, other, batches)
    expected, kl = 0.0, []
    with torch.no_grad():
        for batch in batches:
            here = batch.weights > 0
            p, q = (
                F.log_softmax(m.logits(m(batch.tokens, batch.positions, DocumentAttention(batch.documents))), -1)[here]
                for m in (one, other)
            )
            expected += float(F.kl_div(q, p, log_target=True, reduction="sum"))
            kl.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
    assert different.kl == pytest.approx(expected / different.tokens, rel=1e-4)
    assert different.top1_agreement < 0.9
    each = torch.cat(kl)
    assert different.tokens == len(each)
    assert different.kl_p50 == pytest.approx(float(each.quantile(0.5)), rel=1e-3)
    assert different.kl_p99 == pytest.approx(float(each.quantile(0.99)), rel=1e-3)
    assert different.kl_max == pytest.approx(float(each.max()), rel=1e-3)
    assert different.original_nats == pytest.approx(
        text_loss(one, shard[0], seq_len=16, pad=0).nats_per_token, rel=1e-5
    )
    assert different.changed_nats == pytest.approx(
        text_loss(other, shard[0], seq_len=16, pad=0).nats_per_token, rel=1e-5
    )


def test_divergence_does_not_depend_on_how_many_logits_are_kept_at_once(shard, monkeypatch):
    batches = validation_batches(shard[0], 16, 0)
    one, other = small_model(0), small_model(1)
    whole = divergence(one, other, batches)
    monkeypatch.setattr(divergences, "LOGITS_AT_ONCE", 3 * 400)
    assert asdict(divergence(one, other, batches)) == pytest.approx(asdict(whole), rel=1e-4)


def test_validation_rows_can_be_fewer(shard):
    whole, some = validation_batches(shard[0], 16, 0, 1), validation_batches(shard[0], 16, 0, 1, rows=3)
    assert len(some) == 3 < len(whole)
    for a, b in zip(some, whole, strict=False):
        assert torch.equal(a.tokens, b.tokens)
