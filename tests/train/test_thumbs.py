"""KTO's batches and loss against the formula written out, and the signs of a collapse."""

import pytest
import torch

from herdlm.align.dpo import with_reference
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.thumbs import ThumbBatches, mismatches, thumbs_of
from herdlm.train.config import TrainConfig
from herdlm.train.forward import batch_logprobs
from herdlm.train.log import CHOSEN_FALL, COLLAPSE_WINDOW, CollapseDetector
from herdlm.train.loop import train
from herdlm.train.preferences import DPO, KTO
from tests.conftest import small_model
from tests.train.test_objectives import PAIRS, assert_same_gradients, gradients, reference_logprob

THUMBS = thumbs_of(PAIRS)


def batches(tokenizer, thumbs=THUMBS, **changes):
    keys = dict(seq_len=128, thumbs_per_step=4, epochs=1, seed=3, mask_formatting=True)
    return ThumbBatches(ChatFormat.of(tokenizer), thumbs, **(keys | changes))


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [("abc", [2, 0, 1]), ("aabb", [3, 3, 1, 1]), ("aba", [1, 0, 1]), ("abbba", [3, 0, 0, 0, 3])],
)
def test_an_answer_is_matched_with_the_nearest_earlier_prompt_that_differs(prompts, expected):
    assert mismatches(prompts) == expected


def test_thumbs_on_one_prompt_alone_are_refused(tokenizer):
    with pytest.raises(InputError, match="different prompts"):
        batches(tokenizer, [thumb | {"prompt": THUMBS[0]["prompt"]} for thumb in THUMBS])


@pytest.mark.parametrize("micro", [None, 1, 3])
def test_ktos_loss_and_gradients_equal_the_formula_written_out(tokenizer, micro):
    model, before = small_model(seed=1), small_model()  # in this order the KL is above 0
    thumbs = with_reference(before, THUMBS, batches(tokenizer))
    data = batches(tokenizer, thumbs, rows_per_micro_batch=micro)
    numbers = data.plan[0]
    objective = KTO(0.1, desirable_weight=1.5, undesirable_weight=0.5)
    prepared = objective.prepare(data.micro_batches(0), lambda given: [batch_logprobs(model, b) for b in given])
    loss = sum(objective.loss(model, batch)[0] for batch in prepared)
    ours = gradients(loss, model)

    def ratio(prompt, answer):
        with torch.no_grad():
            reference = reference_logprob(before, tokenizer, prompt, answer, masked=True)
        return reference_logprob(model, tokenizer, prompt, answer, masked=True) - reference

    others = mismatches([thumb["prompt"] for thumb in THUMBS])
    with torch.no_grad():
        kl = torch.stack([ratio(THUMBS[i]["prompt"], THUMBS[others[i]]["completion"]) for i in numbers]).mean()
    kl = kl.clamp(min=0)
    assert kl > 0
    expected = torch.zeros(())
    for i in numbers:
        value = ratio(THUMBS[i]["prompt"], THUMBS[i]["completion"])
        if THUMBS[i]["label"]:
            expected = expected + 1.5 * (1 - torch.sigmoid(0.1 * (value - kl)))
        else:
            expected = expected + 0.5 * (1 - torch.sigmoid(0.1 * (kl - value)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, gradients(expected, model))
    assert all(
        torch.equal(batch.columns["kl"], prepared[0].columns["kl"][:1].expand(len(batch.columns["kl"])))
        for batch in prepared
    )


def test_a_mismatched_answer_that_is_too_long_for_the_row_is_cut(tokenizer):
    longest = max(len(piece.tokens) - 1 for piece in batches(tokenizer).pieces)
    long_prompt = {"prompt": [{"role": "user", "content": "a" * (2 * longest)}], "completion": THUMBS[0]["completion"]}
    thumbs = [
        {**THUMBS[0], "completion": [{"role": "assistant", "content": "package " * 9}]},
        {**long_prompt, "label": True},
    ]
    own = max(len(piece.tokens) - 1 for piece in batches(tokenizer, thumbs).pieces)
    data = batches(tokenizer, thumbs, seq_len=own)
    assert max(len(piece.tokens) - 1 for piece in data.mismatched) <= own
    assert all(piece.weights.any() for piece in data.mismatched)


def test_the_first_step_of_kto_has_neither_kl_nor_drift(tokenizer, tmp_path):
    model = small_model()
    thumbs = with_reference(model, THUMBS, batches(tokenizer))
    train(
        model,
        KTO(),
        batches(tokenizer, thumbs),
        TrainConfig(peak_lr=1e-2, precision="float32"),
        work=tmp_path,
        quiet=True,
    )
    first, *_, last = read_events(tmp_path / "events.jsonl", "step")
    assert first["loss"] == pytest.approx(0.5)
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert first["desirable_drift_per_token"] == pytest.approx(0, abs=1e-5)
    assert last["loss"] != pytest.approx(0.5, abs=1e-4)


def test_a_loss_without_its_reference_is_refused_by_name(tokenizer):
    model = small_model()
    pairs = PreferenceBatches(
        ChatFormat.of(tokenizer), PAIRS, seq_len=128, pairs_per_step=8, epochs=1, seed=0, mask_formatting=True
    )
    with pytest.raises(InputError, match="'norm' needs the reference .*reference_chosen"):
        DPO(kind="norm").loss(model, pairs.batch([0, 1]))
    DPO(kind="simpo", gamma=0.5).loss(model, pairs.batch([0, 1]))
    with pytest.raises(InputError, match="no loss 'hinge'"):
        DPO(kind="hinge")
    with pytest.raises(InputError, match="gamma has no meaning"):
        DPO(gamma=1.0)


def feed(detector, values, name="chosen_drift_per_token"):
    return [step for step, value in enumerate(values, 1) if detector.see(step, {name: value})]


def test_chosen_answers_that_lose_probability_are_told_once():
    falling = [0.0] * 5 + [-2 * CHOSEN_FALL] * 3 * COLLAPSE_WINDOW
    (at,) = feed(CollapseDetector(), falling)
    assert 5 + COLLAPSE_WINDOW // 2 <= at <= 5 + COLLAPSE_WINDOW
    assert feed(CollapseDetector(), [-0.5 * CHOSEN_FALL] * 100) == []
    assert feed(CollapseDetector(), [-3 * CHOSEN_FALL] * (COLLAPSE_WINDOW - 1)) == []


def test_without_a_reference_the_first_steps_are_compared_with():
    assert feed(CollapseDetector(), [-2.0] * 100, "chosen_logprob") == []
    assert len(feed(CollapseDetector(), [-2.0] * COLLAPSE_WINDOW + [-2.5] * COLLAPSE_WINDOW, "chosen_logprob")) == 1


def test_a_run_that_collapses_says_so_in_the_log_and_at_its_end(tokenizer, tmp_path):
    pairs = [pair | {"reference_chosen": 0.0, "reference_rejected": -5.0} for pair in PAIRS]
    data = PreferenceBatches(
        ChatFormat.of(tokenizer), pairs, seq_len=128, pairs_per_step=1, epochs=6, seed=0, mask_formatting=True
    )
    with pytest.warns(RuntimeWarning, match="lost .* nats a token"):
        result = train(
            small_model(),
            DPO(nll_weight=0.0),
            data,
            TrainConfig(peak_lr=1e-5, precision="float32"),
            work=tmp_path,
            quiet=True,
        )
    (event,) = read_events(tmp_path / "events.jsonl", "collapse")
    assert event["step"] == COLLAPSE_WINDOW
    assert result.warnings == (event["what"],)
