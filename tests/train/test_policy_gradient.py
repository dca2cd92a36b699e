"""The policy gradient's loss and gradients, against one written down answer by answer, and against TRL's."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from herdlm.align.grpo.rollout import Answer, Layout, Rollout, read_rollout, values_of
from herdlm.base.errors import DamagedError, InputError
from herdlm.evaluate.forward import token_logprobs
from herdlm.model.attention import DocumentAttention
from herdlm.train.loop import OneProcess
from herdlm.train.policy_gradient import PolicyGradient
from tests.conftest import small_model

SEQ_LEN, LONGEST = 64, 20
AUTOCAST = torch.autocast("cpu", enabled=False)


def answers(seed=0, count=14, noise=0.4):
    """Answers of several lengths with log-probabilities that differ enough from the model's for the clip to bind."""
    rng = np.random.default_rng(seed)
    model, made = small_model(seed=1), []
    for number in range(count):
        prompt, said = rng.integers(0, 400, rng.integers(3, 12)), rng.integers(0, 400, rng.integers(1, LONGEST))
        tokens = np.concatenate([prompt, said])
        own = logprobs_of(model, tokens, len(said), 1.0).detach().numpy()

        def near(own=own):
            return (own + rng.normal(0, noise, len(own))).astype(np.float32)

        made.append(Answer(tokens, len(said), number % 2, float(rng.normal()), near(), near(), near()))
    return made


def logprobs_of(model, tokens, targets, temperature):
    """Log-probabilities of the last ``targets`` tokens, from whole logits of one answer alone."""
    given = torch.as_tensor(tokens)[None]
    positions = torch.arange(given.shape[1])[None]
    attend = DocumentAttention(torch.zeros_like(given), given.device)
    logits = model.logits(model(given, positions, attend))[0, :-1] / temperature
    return logits.log_softmax(-1).gather(1, given[0, 1:, None])[-targets:, 0]


def plain_loss(model, given, mean, *, first, clip_low, clip_high, kl_weight, temperature):
    """The loss by the papers' formulas, one answer after the other."""
    sums, figures, tokens = [], [], sum(answer.targets for answer in given)
    for answer in given:
        new = logprobs_of(model, answer.tokens, answer.targets, temperature)
        old = new.detach() if first else torch.as_tensor(answer.old)
        terms = []
        for t in range(answer.targets):
            ratio = torch.exp(new[t] - old[t])
            bounded = min(max(ratio, torch.tensor(1.0 - clip_low)), torch.tensor(1.0 + clip_high))
            term = -min(ratio * answer.advantage, bounded * answer.advantage)
            away = torch.as_tensor(answer.reference)[t] - new[t]
            terms.append(term + kl_weight * (torch.exp(away) - away - 1))
            lost = ratio.item() != bounded.item() and term.item() == (-bounded * answer.advantage).item()
            figures.append((new[t].item(), lost, (torch.exp(away) - away - 1).item()))
        sums.append(sum(terms))
    if mean == "tokens":
        loss = sum(sums) / tokens
    elif mean == "answers":
        loss = sum(s / answer.targets for s, answer in zip(sums, given, strict=True)) / len(given)
    else:
        loss = sum(s / LONGEST for s in sums) / len(given)
    entropy, clipped, kl = (float(np.mean(each)) for each in zip(*figures, strict=True))
    return loss, {"entropy": -entropy, "clipped": clipped, "kl": kl}


def ours(model, given, mean, objective, *, first, rows=2):
    """The loss, logged means, and gradients of the training loop's own pass."""
    batches, _ = Layout(SEQ_LEN, rows, 0, mean, LONGEST).batches(given, first=first)
    assert len(batches) > 1 or rows > 2
    model.zero_grad()
    loss, normalizer, sums = OneProcess(model).gradients(objective, batches, AUTOCAST)
    logged = {name: float(value) / normalizer for name, value in sums.items()}
    return float(loss), logged, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("first", [True, False], ids=["first update", "later update"])
@pytest.mark.parametrize(
    ("mean", "keys"),
    [
        ("tokens", {"clip_low": 0.2, "clip_high": 0.28}),
        ("tokens", {"clip_low": 0.1, "clip_high": 0.1, "kl_weight": 0.3, "temperature": 0.7}),
        ("answers", {"clip_low": 0.2, "clip_high": 0.2, "kl_weight": 0.05}),
        ("constant", {"clip_low": 0.2, "clip_high": 0.28, "temperature": 1.3}),
    ],
)
def test_loss_figures_and_gradients_are_those_of_the_formulas(mean, keys, first):
    model, given = small_model(seed=1), answers()
    objective = PolicyGradient(**keys)
    loss, logged, gradients = ours(model, given, mean, objective, first=first)
    keys = {"kl_weight": 0.0, "temperature": 1.0} | keys
    expected, figures = plain_loss(model, given, mean, first=first, **keys)
    assert loss == pytest.approx(expected.item(), abs=2e-6)
    for name, value in figures.items():
        assert logged[name] == pytest.approx(value, abs=2e-6), name
    if not first:
        assert 0.1 < figures["clipped"] < 0.9  # the clip binds for some tokens, not for all
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert (gradients[name] - parameter.grad).abs().max() < 1e-5 * scale + 1e-8, name


def test_every_ratio_is_one_in_the_first_update():
    """So the loss is minus the mean advantage, whatever the engine's log-probabilities, and nothing is clipped."""
    given = answers()
    loss, logged, _ = ours(small_model(seed=1), given, "tokens", PolicyGradient(1e-6, 1e-6), first=True)
    weights = [answer.targets for answer in given]
    assert loss == pytest.approx(-np.average([answer.advantage for answer in given], weights=weights), abs=1e-6)
    assert logged["clipped"] == 0.0


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_the_mismatch_is_that_of_engine_and_training_at_temperature_one(temperature):
    model, given = small_model(seed=1), answers()
    _, logged, _ = ours(model, given, "answers", PolicyGradient(temperature=temperature), first=True)
    off = [logprobs_of(model, a.tokens, a.targets, 1.0).detach().numpy() - a.engine for a in given]
    assert logged["mismatch"] == pytest.approx(np.abs(np.concatenate(off)).mean(), abs=1e-5)


@pytest.mark.parametrize("mean", ["tokens", "answers", "constant"])
def test_micro_batches_do_not_change_the_gradient(mean):
    model, given = small_model(seed=1), answers()
    objective = PolicyGradient(kl_weight=0.1)
    one, _, whole = ours(model, given, mean, objective, first=False, rows=64)
    several, _, parts = ours(model, given, mean, objective, first=False, rows=1)
    assert several == pytest.approx(one, abs=1e-6)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_log_probabilities_come_back_from_the_places_of_their_answers():
    model, given = small_model(seed=1), answers()
    batches, ends = Layout(SEQ_LEN, 1, 0, "answers", LONGEST).batches(given, first=True)
    found = values_of(given, list(token_logprobs(model, batches, temperature=0.9)), ends)
    for answer, values in zip(given, found, strict=True):
        expected = logprobs_of(model, answer.tokens, answer.targets, 0.9).detach().numpy()
        assert np.abs(values - expected).max() < 1e-5


def test_a_batch_of_samples_is_the_same_read_back(tmp_path):
    made = Rollout(answers(), "abc", {"reward": 0.25, "groups": 3})
    made.write(tmp_path / "batch.safetensors")
    read = read_rollout(tmp_path / "batch.safetensors")
    assert (read.weights, read.figures) == (made.weights, made.figures)
    for one, two in zip(read.answers, made.answers, strict=True):
        assert (one.targets, one.part, one.advantage) == (two.targets, two.part, two.advantage)
        for name in ("tokens", "engine", "old", "reference"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert read_rollout(tmp_path / "other.safetensors") is None
    (tmp_path / "batch.safetensors").write_bytes(b"half a file")
    with pytest.raises(DamagedError, match="Delete it"):
        read_rollout(tmp_path / "batch.safetensors")


def test_a_divergence_needs_the_reference():
    given = [Answer(a.tokens, a.targets, 0, a.advantage, a.engine, a.old) for a in answers()]
    with pytest.raises(InputError, match="reference"):
        ours(small_model(seed=1), given, "tokens", PolicyGradient(kl_weight=0.1), first=False)


@pytest.mark.parametrize(("mean", "kind"), [("tokens", "bnpo"), ("answers", "grpo"), ("constant", "dr_grpo")])
def test_the_loss_is_trls(mean, kind):
    from trl.trainer.grpo_trainer import GRPOTrainer

    model, given = small_model(seed=1), answers()
    objective = PolicyGradient(0.2, 0.28, 0.05)
    loss, logged, _ = ours(model, given, mean, objective, first=False, rows=64)
    longest = max(answer.targets for answer in given)

    def padded(values):
        return torch.stack([torch.nn.functional.pad(torch.as_tensor(v), (0, longest - len(v))) for v in values])

    new = [logprobs_of(model, answer.tokens, answer.targets, 1.0).detach() for answer in given]
    mask = padded([torch.ones(answer.targets) for answer in given])
    inputs = {
        "prompt_ids": torch.zeros(len(given), 1, dtype=torch.int64),
        "prompt_mask": torch.ones(len(given), 1),
        "completion_ids": torch.zeros(len(given), longest, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": torch.tensor([answer.advantage for answer in given]),
        "old_per_token_logps": padded([answer.old for answer in given]),
        "ref_per_token_logps": padded([answer.reference for answer in given]),
    }
    trainer = SimpleNamespace(
        **dict(loss_type=kind, beta=0.05, epsilon_low=0.2, epsilon_high=0.28, max_completion_length=LONGEST),
        **dict(importance_sampling_level="token", top_entropy_quantile=1.0, off_policy_mask_threshold=None),
        **dict(aux_loss_enabled=False, use_vllm=False, _entropy_bonus_enabled=False, use_adaptive_entropy=False),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, **_: x, num_processes=1),
        _log_metric=lambda name, value: None,
        _get_per_token_logps_and_entropies=lambda *_, **__: (padded(new), torch.zeros(len(given), longest), None),
        _metrics={"train": defaultdict(list)},
    )
    found = GRPOTrainer._compute_loss(trainer, None, inputs)
    assert loss == pytest.approx(float(found), abs=2e-6)
    assert logged["kl"] > 0
