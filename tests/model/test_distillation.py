"""A student's loss against its teacher, in value and gradient, against Kullback-Leibler divergences written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.model import losses
from herdlm.model.config import ModelConfig
from herdlm.model.distillation import Distillation, distilled, linear_distilled
from herdlm.model.losses import linear_logprobs
from herdlm.model.transformer import build, initialize
from tests.model.conftest import VOCABULARY

TOKENS, DIM = 37, 24


def inputs(top_k, temperature, seed=0):
    """Hidden states, head, targets, and a teacher's whole logits with its columns, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, head = random(TOKENS, DIM).requires_grad_(), random(VOCABULARY, DIM).mul(0.5).requires_grad_()
    teacher = 3 * random(TOKENS, VOCABULARY)
    targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    logprobs, ids = F.log_softmax(teacher / temperature, -1).topk(top_k)
    return hidden, head, targets, ids, logprobs, teacher


def written_out(logits, targets, ids, teacher, loss):
    """(loss, target's log-probability, KL) of each row, by torch's own functions and one row after another."""
    rows = []
    for row, target, top, other in zip(logits, targets, ids, teacher, strict=True):
        p, q = ((scores / loss.temperature).softmax(-1) for scores in (other, row))
        rest = [v for v in range(len(row)) if v not in set(top.tolist())]
        p, q = (torch.cat((c[top], c[rest].sum(0, keepdim=True))) if rest else c[top] for c in (p, q))
        crossed = -(p * q.log()).sum()
        nll = F.cross_entropy(row[None], target[None])
        value = (1 - loss.weight) * nll + loss.weight * loss.temperature**2 * crossed
        rows.append(torch.stack((value, -nll, F.kl_div(q.log(), p, reduction="sum"))))
    return torch.stack(rows).unbind(1)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("way", ["kept", "chunked"])
@pytest.mark.parametrize("top_k", [1, 8, VOCABULARY - 1, VOCABULARY])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.3, 1.0), (0.6, 2.5)])
def test_loss_and_gradients_equal_the_divergence_written_out(way, top_k, weight, temperature):
    hidden, head, targets, ids, logprobs, teacher = inputs(top_k, temperature)
    loss = Distillation(weight, temperature)
    each = torch.randn(TOKENS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, target, divergence = linear_distilled(hidden, head, targets, ids, logprobs, loss=loss, way=way)
    assert not target.requires_grad and not divergence.requires_grad
    expected = written_out(F.linear(hidden, head), targets, ids, teacher, loss)
    for mine, true in zip((-value, target, divergence), expected, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((value * each).sum(), (hidden, head))
    true = torch.autograd.grad(-(expected[0] * each).sum(), (hidden, head))
    for one, two in zip(mine, true, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


def test_the_whole_vocabulary_is_the_plain_divergence():
    hidden, head, targets, ids, logprobs, teacher = inputs(VOCABULARY, 1.0)
    _, _, divergence = linear_distilled(hidden, head, targets, ids, logprobs, loss=Distillation(1.0))
    plain = F.kl_div(F.linear(hidden, head).log_softmax(-1), teacher.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(divergence, plain, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, VOCABULARY - 1), st.integers(0, 2**31))
def test_fewer_tokens_never_raise_the_divergence_and_a_student_that_equals_its_teacher_has_none(top_k, seed):
    hidden, head, targets, ids, logprobs, _ = inputs(VOCABULARY, 1.0, seed)

    def divergence(k, head=head, logprobs=logprobs, ids=ids):
        return linear_distilled(hidden, head, targets, ids[:, :k], logprobs[:, :k], loss=Distillation(1.0))[2]

    assert (divergence(top_k) <= divergence(top_k + 1) + 1e-12).all()
    own, places = F.linear(hidden, head).log_softmax(-1).topk(top_k)
    same = linear_distilled(hidden, head, targets, places, own.detach(), loss=Distillation(1.0))
    assert same[2].abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(same[0].sum(), hidden)
    assert gradient.abs().max() < 1e-12


def test_without_weight_for_the_teacher_it_is_the_next_token_loss():
    hidden, head, targets, ids, logprobs, _ = inputs(8, 1.0)
    value, target, _ = linear_distilled(hidden, head, targets, ids, logprobs, loss=Distillation(0.0))
    plain = linear_logprobs(hidden, head, targets)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(target, plain.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["kept", "chunked"])
def test_a_teacher_that_is_certain_and_a_student_that_is_too_have_finite_losses_and_gradients(way):
    head = torch.eye(4)
    hidden = torch.tensor([[0.0, 0.0, 800.0, 0.0], [0.0, 0.0, 800.0, 0.0]], requires_grad=True)
    ids, logprobs = torch.tensor([[2, 1], [0, 2]]), torch.tensor([[0.0, -torch.inf], [-0.1, -4.0]])
    targets = torch.tensor([2, 2])
    value, _, divergence = linear_distilled(hidden, head, targets, ids, logprobs, loss=Distillation(0.5), way=way)
    assert divergence[0] == 0
    assert float(divergence[1]) == pytest.approx(800 * (math.exp(-0.1) + 1 - math.exp(-0.1) - math.exp(-4)), rel=1e-2)
    (gradient,) = torch.autograd.grad(value.sum(), hidden)
    assert gradient.isfinite().all()


def test_float32_and_bfloat16_are_near_the_truth():
    hidden, head, targets, ids, logprobs, _ = inputs(8, 1.0)
    loss = Distillation(0.5)

    def results(hidden, head, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value, _, _ = linear_distilled(hidden, head, targets, ids, logprobs, loss=loss)
        return value.detach(), *torch.autograd.grad(value.sum(), (hidden, head))

    exact = results(hidden, head, False)
    single = [tensor.detach().float().requires_grad_() for tensor in (hidden, head)]
    for autocast, tolerance in ((False, 1e-6), (True, 2e-2)):
        for mine, true in zip(results(*single, autocast), exact, strict=True):
            assert mine.dtype == torch.float32
            assert (mine - true).norm() < tolerance * true.norm()


@pytest.mark.parametrize("top_k", [8, VOCABULARY])
def test_a_head_that_is_more_than_a_matrix_gives_the_same(top_k):
    shape = ModelConfig(vocab_size=VOCABULARY, dim=DIM, layers=1, heads=4, kv_heads=2, ffn_dim=32, max_seq_len=64)
    model = build(shape, dtype=torch.float64)
    initialize(model, 0, std=0.5)
    hidden, _, targets, ids, logprobs, _ = inputs(top_k, 2.0)
    loss, found = Distillation(0.5, 2.0), []
    for hooked in (False, True):
        if hooked:
            model.lm_head.register_forward_hook(lambda *_: None)
        value, *others = distilled(model, hidden, targets, ids, logprobs, loss=loss)
        found.append([value, *others, *torch.autograd.grad(value.sum(), (hidden, model.lm_head.weight))])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Sees how many numbers the largest tensor of a computation has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_whole_logits_never_exist_in_chunks(monkeypatch):
    monkeypatch.setitem(losses.CHUNK, "cpu", 5 * VOCABULARY)
    hidden, head, targets, ids, logprobs, _ = inputs(8, 2.0)
    with LargestTensor() as largest:
        value, _, _ = linear_distilled(hidden, head, targets, ids, logprobs, loss=Distillation(0.5, 2.0), way="chunked")
        value.sum().backward()
    assert largest.numbers == head.numel() < TOKENS * VOCABULARY
