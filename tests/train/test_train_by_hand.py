"""Steps of :func:`train` against AdamW, clipping, schedule, decay groups and averaging written out by hand.

Nothing of ``herdlm.train`` computes what is expected: the model gives logits, autograd differentiates a cross-entropy
written here, and everything after the gradient is arithmetic on plain tensors. All of it runs in float64, where a
difference of one part in a thousand million is not rounding.
"""

import math

import pytest
import torch

from herdlm.base.events import read_events
from herdlm.model.attention import DocumentAttention
from herdlm.tokens.batch import Batch
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.conftest import small_model

PEAK, FLOOR, DECAY = 0.02, 0.2, 0.3
BETA1, BETA2, EPS = 0.8, 0.95, 1e-3  # an eps that shows wherever it stands
MAX_NORM = 1.05  # the norms of these gradients lie on both sides of it
COMMON = dict(
    peak_lr=PEAK,
    floor=FLOOR,
    betas=(BETA1, BETA2),
    eps=EPS,
    weight_decay=DECAY,
    max_grad_norm=MAX_NORM,
    precision="float32",  # which means: no autocast
    validate_every_steps=1,
)


def half_cosine(done):
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


# For each schedule its keys and, written out, the share of the peak rate in every step.
SCHEDULES = {
    "cosine": (
        dict(decay="cosine", warmup_steps=2, anneal_steps=2),
        [1 / 2, 1, 1, half_cosine(1 / 3), half_cosine(2 / 3), FLOOR * 2 / 3, FLOOR * 1 / 3],
    ),
    "warmup-stable-decay": (
        dict(decay="warmup-stable-decay", warmup_steps=2, decay_steps=2, anneal_steps=1),
        [1 / 2, 1, 1, 1, 1, (1 + FLOOR) / 2, FLOOR * 1 / 2],
    ),
    "linear": (
        dict(decay="linear", warmup_steps=3, decay_steps=2),
        [1 / 3, 2 / 3, 1, 1, (1 + FLOOR) / 2, FLOOR, FLOOR],
    ),
    "constant": (dict(decay="constant", anneal_steps=3), [1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
    "the first part of a longer run": (
        dict(decay="cosine", warmup_steps=2, anneal_steps=2, horizon_steps=14),
        [1 / 2, 1, *(half_cosine(n / 10) for n in range(5))],
    ),
}


class MadeUp:
    """Seven steps of two micro-batches that differ in shape and in the weight of their targets."""

    steps = 7

    def micro_batches(self, step):
        random = torch.Generator().manual_seed(100 + step)
        return [self._batch(random, rows, length) for rows, length in ((1, 12), (3, 5))]

    def _batch(self, random, rows, length):
        tokens, targets = (torch.randint(0, 23, (rows, length), generator=random) for _ in range(2))
        weights = torch.tensor([0.0, 0.5, 1.0, 2.0])[torch.randint(0, 4, (rows, length), generator=random)]
        documents = torch.arange(rows)[:, None].expand(rows, length).contiguous()
        positions = torch.arange(length).expand(rows, length).contiguous()
        return Batch(tokens, targets, weights, documents, positions)


def tiny():
    return small_model(vocab_size=23, dim=8, layers=1, heads=2, kv_heads=1, ffn_dim=12, max_seq_len=16).double()


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def loss_and_gradients(weights, micro_batches):
    """The mean over a step's weighted targets, one target at a time, and its gradient."""
    model = tiny()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    total, weighed = torch.zeros((), dtype=torch.float64), 0.0
    for batch in micro_batches:
        logits = model.logits(model(batch.tokens, batch.positions, DocumentAttention(batch.documents)))
        for row in range(logits.shape[0]):
            for at in range(logits.shape[1]):
                weight = float(batch.weights[row, at])
                chance = logits[row, at].exp()[batch.targets[row, at]] / logits[row, at].exp().sum()
                total = total - weight * torch.log(chance)
                weighed += weight
    loss = total / weighed
    loss.backward()
    return float(loss.detach()), {name: parameter.grad for name, parameter in model.named_parameters()}


def by_hand(weights, shares):
    """The weights after each step, and each step's loss, gradient norm and rate."""
    mean, square = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    after, told = [], []
    for step, share in enumerate(shares):
        rate = PEAK * share
        loss, gradients = loss_and_gradients(weights, MadeUp().micro_batches(step))
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
        scale = min(1.0, MAX_NORM / (norm + 1e-6))  # 1e-6 is torch's guard against a norm of zero
        weights = dict(weights)
        for name, gradient in gradients.items():
            clipped = gradient * scale
            mean[name] = BETA1 * mean[name] + (1 - BETA1) * clipped
            square[name] = BETA2 * square[name] + (1 - BETA2) * clipped**2
            unbiased_mean = mean[name] / (1 - BETA1 ** (step + 1))
            unbiased_square = square[name] / (1 - BETA2 ** (step + 1))
            decay = 0.0 if "norm" in name else DECAY
            weights[name] = weights[name] * (1 - rate * decay) - rate * unbiased_mean / (unbiased_square.sqrt() + EPS)
        after.append(weights)
        told.append((loss, norm, rate))
    return after, told


def assert_equal(ours, expected, where, rtol=1e-9, atol=1e-11):
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{where}, {n}: {m}"
        )


def trained(tmp_path, **keys):
    """Train the tiny model; gives the weights it began with, those after each step, and those it ended with."""
    model, after = tiny(), []
    begun = values(model)

    def watch():
        after.append(values(model))
        return {}

    config = TrainConfig(**COMMON | keys)
    result = train(model, NextToken(), MadeUp(), config, work=tmp_path, quiet=True, validate=watch)
    return begun, after, values(model), result


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_is_the_one_written_out_by_hand(name, tmp_path):
    keys, shares = SCHEDULES[name]
    begun, after, ended, _ = trained(tmp_path, **keys)
    expected, told = by_hand(begun, shares)
    assert len(after) == len(expected) == MadeUp.steps
    for step, (ours, theirs) in enumerate(zip(after, expected, strict=True), 1):
        assert_equal(ours, theirs, f"after step {step}")
    assert_equal(ended, expected[-1], "at the end")
    logged = list(read_events(tmp_path / "events.jsonl", "step"))
    for event, (loss, norm, rate) in zip(logged, told, strict=True):
        assert (event["loss"], event["grad_norm"], event["lr"]) == pytest.approx((loss, norm, rate), rel=1e-9)
    norms = [norm for _, norm, _ in told]
    assert sum(norm < MAX_NORM / 1.03 for norm in norms) >= 2, "too few steps are left as they are"
    assert sum(norm > MAX_NORM * 1.03 for norm in norms) >= 2, "too few steps are clipped"


@pytest.mark.parametrize(
    ("last", "count", "averaged"),
    [
        (0.6, 3, [3, 5, 7]),  # from 7 * 0.4 = 2.8 to 7 in steps of 2.1
        (0.3, 2, [5, 7]),
        (0.6, 1, [7]),
        (0.3, 5, [5, 6, 7]),  # more than there are steps: each once
    ],
)
def test_the_weights_at_the_end_are_the_mean_of_those_after_the_last_steps(last, count, averaged, tmp_path):
    keys, shares = SCHEDULES["cosine"]
    begun, _, ended, result = trained(tmp_path, **keys, average_last=last, average_count=count)
    expected, told = by_hand(begun, shares)
    mean = {name: sum(expected[step - 1][name] for step in averaged) / len(averaged) for name in begun}
    assert_equal(ended, mean, "averaged", rtol=1e-6, atol=1e-7)  # the mean is kept in float32
    assert result.averaged == len(averaged)
    assert result.last_loss == pytest.approx(told[-1][0], rel=1e-9)
    assert (result.steps, result.tokens) == (7, 7 * (12 + 15))
