"""Log-probabilities from hidden states and head against plain logits and cross-entropy, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from herdlm.model import losses
from herdlm.model.config import ModelConfig
from herdlm.model.losses import Way, linear_logprobs, target_logprobs
from herdlm.model.transformer import Transformer, build, initialize
from tests.model.conftest import VOCABULARY

TOKENS, DIM = 37, 24


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, targets, and a different weight for every target."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(TOKENS, DIM, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCABULARY, DIM, generator=generator).mul(0.5).to(dtype).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    return hidden, head, targets, torch.randn(TOKENS, generator=generator).to(torch.promote_types(dtype, torch.float32))


def plain(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, head)
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")


def results(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype, autocast: bool
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, head, targets, weights = inputs(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logprobs = function(hidden, head, targets)
    gradients = torch.autograd.grad((logprobs * weights).sum(), (hidden, head))
    return logprobs.detach(), gradients[0], gradients[1]


def ours(way: Way) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda hidden, head, targets: linear_logprobs(hidden, head, targets, way=way)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("way", ["kept", "chunked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_logprobs_and_gradients_equal_cross_entropy(way: Way, dtype: torch.dtype, tolerance: float) -> None:
    for mine, expected in zip(results(ours(way), dtype, False), results(plain, dtype, False), strict=True):
        assert mine.dtype == expected.dtype
        torch.testing.assert_close(mine, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("way", ["kept", "chunked"])
def test_bfloat16_is_as_near_the_truth_as_the_plain_loss(way: Way) -> None:
    exact = results(plain, torch.float64, False)
    usual, mine = results(plain, torch.float32, True), results(ours(way), torch.float32, True)
    torch.testing.assert_close(mine[0], usual[0], atol=1e-5, rtol=1e-6)  # the same bfloat16 logits
    for ours_, theirs, truth in zip(mine, usual, exact, strict=True):
        assert ours_.dtype == torch.float32
        error, expected = ((t - truth).norm() / truth.norm() for t in (ours_, theirs))
        assert error < 1.2 * expected + 1e-6 and error < 0.01


@pytest.mark.parametrize("way", ["kept", "chunked"])
def test_a_target_that_is_all_but_impossible_has_a_finite_logprob(way: Way) -> None:
    head = torch.eye(4)
    hidden = torch.tensor([[1000.0, 0.0, -1000.0, 0.0]]).requires_grad_()
    logprobs = linear_logprobs(hidden, head, torch.tensor([2]), way=way)
    assert logprobs.item() == -2000
    logprobs.sum().backward()
    assert hidden.grad is not None and hidden.grad.tolist() == [[-1, 0, 1, 0]]


@pytest.mark.parametrize("way", ["kept", "chunked"])
@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_what_needs_no_gradient_gets_none(way: Way, frozen: str) -> None:
    hidden, head, targets, _ = inputs()
    (hidden if frozen == "hidden" else head).requires_grad_(False)
    linear_logprobs(hidden, head, targets, way=way).sum().backward()
    left = head if frozen == "hidden" else hidden
    assert left.grad is not None and left.grad.any()
    assert (hidden if frozen == "hidden" else head).grad is None


def test_no_targets_at_all() -> None:
    hidden, head, targets, _ = inputs()
    for way in ("kept", "chunked"):
        logprobs = linear_logprobs(hidden[:0], head, targets[:0], way=way)
        assert logprobs.shape == (0,)
        assert not torch.autograd.grad(logprobs.sum(), head)[0].any()


class Largest(TorchDispatchMode):
    """Watches the size of what operations make."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("learning", [True, False])
def test_full_logits_never_exist_in_chunks(learning: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.CHUNK, "cpu", 5 * VOCABULARY)
    hidden, head, targets, _ = inputs()
    with Largest() as kept, torch.set_grad_enabled(learning):
        logprobs = linear_logprobs(hidden, head, targets, way="kept")
        if learning:
            logprobs.sum().backward()
    with Largest() as chunked, torch.set_grad_enabled(learning):
        logprobs = linear_logprobs(hidden, head, targets, way="chunked")
        if learning:
            logprobs.sum().backward()
    assert kept.elements == (TOKENS * VOCABULARY if learning else DIM * VOCABULARY)
    assert chunked.elements == DIM * VOCABULARY  # a chunk of logits is smaller than the head


@pytest.mark.parametrize("room", [0, -1])
def test_the_choice_follows_the_size(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.KEPT_BYTES, "cpu", TOKENS * VOCABULARY * 4 + room)
    monkeypatch.setitem(losses.CHUNK, "cpu", 1)
    hidden, head, targets, _ = inputs()
    with Largest() as seen:
        linear_logprobs(hidden, head, targets)
    assert (seen.elements == TOKENS * VOCABULARY) == (room == 0)


def test_saved_for_the_backward_pass_is_one_tensor_of_the_product_s_type() -> None:
    hidden, head, targets, _ = inputs()
    saved: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
        torch.autocast("cpu", torch.bfloat16),
    ):
        linear_logprobs(hidden, head, targets, way="kept")
    large = [t for t in saved if t.numel() == TOKENS * VOCABULARY]
    assert [t.dtype for t in large] == [torch.bfloat16]


SMALL = ModelConfig(vocab_size=VOCABULARY, dim=DIM, layers=1, heads=2, kv_heads=1, ffn_dim=32, tied_embeddings=True)


def model() -> Transformer:
    made = build(SMALL)
    initialize(made, 0, std=0.3)
    return made


def test_a_tied_head_gathers_both_gradients() -> None:
    made, (hidden, _, targets, _) = model(), inputs()
    weight = made.lm_head.weight
    tokens = torch.arange(5)
    (target_logprobs(made, hidden, targets).sum() + made.model.embed_tokens(tokens).sum()).backward()
    mine = weight.grad
    weight.grad = None
    (plain(hidden, weight, targets).sum() + made.model.embed_tokens(tokens).sum()).backward()
    assert mine is not None
    torch.testing.assert_close(mine, weight.grad, atol=1e-5, rtol=1e-5)


class Doubled(nn.Linear):
    """A head that is more than a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize("kind", ["another module", "a hook"])
def test_a_head_that_is_more_than_a_matrix_is_called(kind: str) -> None:
    made, (hidden, _, targets, _) = model(), inputs()
    weight = made.lm_head.weight
    if kind == "a hook":
        made.lm_head.register_forward_hook(lambda module, arguments, out: out * 2)
    else:
        made.lm_head = Doubled(DIM, VOCABULARY, bias=False)
        made.lm_head.weight = weight
    torch.testing.assert_close(target_logprobs(made, hidden, targets), plain(hidden * 2, weight, targets))
