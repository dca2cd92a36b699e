"""Annotation, reward and DPO references on hand-made cases."""

import math

import pytest
import torch

from herdlm.align.bank.tasks import Question, as_prompt, is_right
from herdlm.align.config import PreferencesConfig
from herdlm.align.dpo import with_reference
from herdlm.align.preferences import annotate
from herdlm.align.reward import pair_scores, score_answers
from herdlm.model.start import reward_model_from
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.preferences import answer_logprobs
from tests.conftest import small_model
from tests.train.test_objectives import PAIRS, reference_logprob

COPY = Question("copy", "Repeat after me: a file", "a file")
PREFERENCES = PreferencesConfig(prompts=1, edited_percent=0.0, held_out_percent=1e-9)


def annotated(questions, answers, config, *, source="m"):
    """What the annotator makes of answers to questions, as the rounds' stage asks it."""
    rows = [
        as_prompt(question, annotated=True)
        | {"samples": [{"answer": each, "verdict": {"passed": is_right(question, each)}} for each in given]}
        for question, given in zip(questions, answers, strict=True)
    ]
    return annotate(rows, config, source=source, seed=0)


def test_a_pair_has_a_right_and_a_wrong_answer():
    collected = annotated([COPY], [["a file", "a log", "a file", "a log"]], PREFERENCES, source="model")
    (pair,) = collected.pairs
    assert pair["chosen"][0]["content"] == "a file"
    assert pair["rejected"][0]["content"] == "a log"
    assert pair["prompt"] == [{"role": "user", "content": COPY.prompt}]
    assert (pair["rating"], pair["chosen_source"]) == ("better", "model")
    assert collected.counts["right_share"] == 0.5


@pytest.mark.parametrize("answers", [["a file"] * 4, ["a log", "a disk"]])
def test_answers_of_one_kind_make_no_pair(answers):
    assert annotated([COPY], [answers], PREFERENCES).pairs == []


def test_an_edited_answer_ranks_above_a_wrong_one_and_becomes_data():
    config = PREFERENCES.model_copy(update={"edited_percent": 100.0})
    collected = annotated([COPY], [["a log", "a disk"]], config)
    (pair,) = collected.pairs
    assert (pair["rating"], pair["chosen"][0]["content"]) == ("edited", "a file")
    assert collected.edits[0]["messages"][1] == {"role": "assistant", "content": "a file"}


def test_measured_pairs_are_not_trained_on():
    config = PREFERENCES.model_copy(update={"held_out_percent": 49.0, "edited_percent": 50.0})
    questions = [Question("copy", f"Repeat: {i}", str(i)) for i in range(200)]
    collected = annotated(questions, [[str(i), "x"] for i in range(200)], config)
    prompts = [{p["prompt"][0]["content"] for p in part} for part in (collected.pairs, collected.held_out)]
    assert not prompts[0] & prompts[1]
    assert 60 < len(prompts[1]) < 140
    assert not {e["messages"][0]["content"] for e in collected.edits} & prompts[1]


def test_a_prompt_without_a_demonstration_is_not_corrected():
    rows = [{"prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}]
    rows[0]["samples"] = [
        {"answer": "It is 4.", "verdict": {"passed": True}},
        {"answer": "5", "verdict": {"passed": False}},
    ]
    config = PREFERENCES.model_copy(update={"edited_percent": 100.0})
    collected = annotate(rows, config, source="m", seed=0)
    assert [pair["rating"] for pair in collected.pairs] == ["better"]
    assert collected.edits == []


def test_percentages_are_of_a_hundred(monkeypatch):
    """Two draws a question: below edited_percent it is corrected, below held_out_percent it is measured with."""

    class Drawn:
        def __init__(self, *purpose):
            self.draws = iter([0.298, 0.999, 0.301, 0.999, 0.999, 0.398, 0.999, 0.401])

        def random(self):
            return next(self.draws)

        def integers(self, end):
            return 0

    monkeypatch.setattr("herdlm.align.preferences.stream", Drawn)
    config = PREFERENCES.model_copy(update={"edited_percent": 30.0, "held_out_percent": 40.0})
    questions = [Question("copy", f"Repeat: {i}", str(i)) for i in range(4)]
    collected = annotated(questions, [[str(i), "x"] for i in range(4)], config)
    prompts = [[p["prompt"][0]["content"][-1] for p in part] for part in (collected.pairs, collected.held_out)]
    assert prompts == [["0", "0", "1", "3"], ["2"]]
    assert [e["messages"][0]["content"][-1] for e in collected.edits] == ["0"]


def test_answers_that_do_not_fit_a_row_are_never_kept(tokenizer):
    model = reward_model_from(small_model(), seed=0)
    scores = score_answers(model, ChatFormat.of(tokenizer), [COPY], [["a file", "a file " * 60]], seq_len=64, title="t")
    assert math.isfinite(scores[0][0])
    assert scores[0][1] == -math.inf


def test_scores_are_read_at_the_end_of_each_answer_alone(tokenizer):
    model = reward_model_from(small_model(), seed=0)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    questions = [Question("copy", p["prompt"][0]["content"], "") for p in PAIRS]
    answers = [[p["chosen"][0]["content"], p["rejected"][0]["content"]] for p in PAIRS]
    packed = score_answers(model, ChatFormat.of(tokenizer), questions, answers, seq_len=128, title="t")
    for number, pair in enumerate(PAIRS):
        alone = score_answers(
            model, ChatFormat.of(tokenizer), [questions[number]], [answers[number]], seq_len=64, title="t"
        )[0]
        assert packed[number] == pytest.approx(alone, abs=1e-5)
        batches = PreferenceBatches(
            ChatFormat.of(tokenizer), [pair], seq_len=64, pairs_per_step=1, epochs=1, seed=0, mask_formatting=False
        )
        assert pair_scores(model, batches)[0] == pytest.approx(alone, abs=1e-5)


def test_a_new_reward_model_has_the_policys_body_and_no_opinion(tokenizer):
    policy = small_model()
    model = reward_model_from(policy, seed=0)
    for name, value in policy.model.state_dict().items():
        assert torch.equal(value, model.model.state_dict()[name]), name
    assert score_answers(model, ChatFormat.of(tokenizer), [COPY], [["a", "b"]], seq_len=64, title="t") == [[0.0, 0.0]]


def test_a_reward_model_of_a_policy_with_tied_embeddings_has_nothing_to_tie():
    model = reward_model_from(small_model(tied_embeddings=True), seed=0)
    assert not model.config.tied_embeddings
    assert "lm_head.weight" not in model.state_dict()


def test_references_are_the_starting_models_log_probabilities(tokenizer, model):
    batches = PreferenceBatches(
        ChatFormat.of(tokenizer), PAIRS, seq_len=128, pairs_per_step=2, epochs=1, seed=0, mask_formatting=True
    )
    referenced = with_reference(model, PAIRS, batches)
    with torch.no_grad():
        for pair, original in zip(referenced, PAIRS, strict=True):
            for side in ("chosen", "rejected"):
                expected = float(reference_logprob(model, tokenizer, original["prompt"], original[side], masked=True))
                assert pair[f"reference_{side}"] == pytest.approx(expected, abs=1e-4)
    again = PreferenceBatches(
        ChatFormat.of(tokenizer), referenced, seq_len=128, pairs_per_step=2, epochs=1, seed=0, mask_formatting=True
    ).batch([3, 1])
    sums, _ = answer_logprobs(model, again)
    torch.testing.assert_close(sums[again.columns["chosen"]], again.columns["reference_chosen"], rtol=1e-4, atol=1e-4)
