"""Losses and masks against straightforward references, and gradients of a batch cut in any way."""

import pytest
import torch
import torch.nn.functional as F

from herdlm.model.attention import DocumentAttention
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches, dialog_piece
from herdlm.tokens.preferences import PreferenceBatches, answer_piece
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, Reward, answer_logprobs
from tests.conftest import small_model

DIALOGS = [
    {"messages": [{"role": "user", "content": "list the files"}, {"role": "assistant", "content": "a package, a log"}]},
    {"messages": [{"role": "user", "content": "stop"}, {"role": "assistant", "content": "the service stops"}]},
    {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
            {"role": "assistant", "content": "four files"},
        ]
    },
]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"which file {i}"}],
        "chosen": [{"role": "assistant", "content": "the first file of the package"[: 9 + 3 * i]}],
        "rejected": [{"role": "assistant", "content": "it's full, sleep well"[: 6 + 2 * i]}],
    }
    for i in range(5)
]


def logits_of(model, tokens):
    """Logits of one sequence alone, [T, V]."""
    row = torch.tensor([tokens])
    hidden = model(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
    return model.logits(hidden)[0]


def reference_logprob(model, tokenizer, prompt, answer, *, masked):
    """Log-probability of an answer's words (and its turn's end unless masked), one token at a time."""
    before = ChatFormat.of(tokenizer).prompt(prompt)
    words = tokenizer.encode(answer[0]["content"].strip())
    if not masked:
        words = [*words, tokenizer.special("<|eot_id|>")]
    logprobs = F.log_softmax(logits_of(model, before + words), -1)
    return sum(logprobs[len(before) + i - 1, word] for i, word in enumerate(words))


def pair_batch(tokenizer, pairs=PAIRS, *, masked, seq_len=128):
    return PreferenceBatches(
        ChatFormat.of(tokenizer), pairs, seq_len=seq_len, pairs_per_step=8, epochs=1, seed=0, mask_formatting=masked
    ).batch(range(len(pairs)))


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(one, two):
    for name in one:
        assert (one[name] - two[name]).abs().max() <= 1e-5 * two[name].abs().max(), name


def test_sft_learns_the_assistants_words_and_turn_ends_and_nothing_else(tokenizer):
    piece = dialog_piece(ChatFormat.of(tokenizer), DIALOGS[2])
    learned = [int(t) for t, w in zip(piece.tokens[1:], piece.weights, strict=True) if w]
    end = tokenizer.special("<|eot_id|>")
    assert learned == [*tokenizer.encode("two"), end, *tokenizer.encode("four files"), end]


def test_sft_loss_and_gradients_equal_a_dialog_at_a_time(tokenizer, model):
    batches = DialogBatches(ChatFormat.of(tokenizer), DIALOGS, seq_len=128, rows_per_step=4, epochs=1, seed=0)
    batch = batches.micro_batches(0)[0]
    objective = NextToken()
    loss, _ = objective.loss(model, batch)
    ours = gradients(loss, model)
    reference = torch.zeros(())
    for dialog in DIALOGS:
        piece = dialog_piece(ChatFormat.of(tokenizer), dialog)
        logprobs = F.log_softmax(logits_of(model, piece.tokens[:-1].tolist()), -1)
        for i, weight in enumerate(piece.weights):
            reference = reference - weight * logprobs[i, piece.tokens[i + 1]]
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, gradients(reference, model))
    assert objective.normalizer(batch) == sum(dialog_piece(ChatFormat.of(tokenizer), d).weights.sum() for d in DIALOGS)


@pytest.mark.parametrize("masked", [True, False])
def test_answer_logprobs_equal_one_answer_at_a_time(tokenizer, model, masked):
    batch = pair_batch(tokenizer, masked=masked)
    sums, lengths = answer_logprobs(model, batch)
    for side in ("chosen", "rejected"):
        for number, pair in enumerate(PAIRS):
            expected = reference_logprob(model, tokenizer, pair["prompt"], pair[side], masked=masked)
            place = batch.columns[side][number]
            torch.testing.assert_close(sums[place], expected, rtol=1e-5, atol=1e-5)
            words = len(tokenizer.encode(pair[side][0]["content"].strip()))
            assert int(lengths[place]) == words + (not masked)


@pytest.mark.parametrize("nll_weight", [0.0, 0.2])
def test_dpo_loss_and_gradients_equal_the_formula_written_out(tokenizer, model, nll_weight):
    reference_model = small_model(seed=1)
    with torch.no_grad():
        columns = [
            {
                f"reference_{side}": float(
                    reference_logprob(reference_model, tokenizer, p["prompt"], p[side], masked=True)
                )
                for side in ("chosen", "rejected")
            }
            for p in PAIRS
        ]
    batch = pair_batch(tokenizer, [p | c for p, c in zip(PAIRS, columns, strict=True)], masked=True)
    loss, seen = DPO(beta=0.3, nll_weight=nll_weight).loss(model, batch)
    ours = gradients(loss, model)
    expected = torch.zeros(())
    for pair, column in zip(PAIRS, columns, strict=True):
        chosen, rejected = (
            reference_logprob(model, tokenizer, pair["prompt"], pair[s], masked=True) for s in ("chosen", "rejected")
        )
        margin = (chosen - column["reference_chosen"]) - (rejected - column["reference_rejected"])
        words = len(tokenizer.encode(pair["chosen"][0]["content"].strip()))
        expected = expected - torch.log(torch.sigmoid(0.3 * margin)) - nll_weight * chosen / words
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, gradients(expected, model))
    per_side = ("logprob", "drift", "drift_per_token")
    assert set(seen) == {"accuracy", "margin"} | {f"{side}_{n}" for side in ("chosen", "rejected") for n in per_side}


def test_reward_loss_and_gradients_equal_a_pair_at_a_time(tokenizer):
    model = small_model(head="score")
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    batch = pair_batch(tokenizer, masked=False)
    loss, seen = Reward().loss(model, batch)
    ours = gradients(loss, model)

    def score(prompt, answer):
        tokens = answer_piece(ChatFormat.of(tokenizer), prompt, answer, masked=False).tokens.tolist()
        assert tokens[-1] == tokenizer.special("<|eot_id|>")
        row = torch.tensor([tokens])
        hidden = model(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
        return model.scores(hidden)[0, -1]

    scores = [(score(p["prompt"], p["chosen"]), score(p["prompt"], p["rejected"])) for p in PAIRS]
    expected = -sum(torch.log(torch.sigmoid(c - r)) for c, r in scores)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, gradients(expected, model))
    assert seen["accuracy"] == sum(float(c > r) for c, r in scores)


def test_packing_narrower_changes_nothing(tokenizer, model):
    wide, narrow = (pair_batch(tokenizer, masked=True, seq_len=n) for n in (200, 64))
    assert len(narrow.tokens) > len(wide.tokens)
    for side in ("chosen", "rejected"):
        one, two = (answer_logprobs(model, b)[0][b.columns[side]] for b in (wide, narrow))
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
