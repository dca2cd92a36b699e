"""Length and repetition of sampled answers."""

import pytest

from herdlm.align.config import DpoConfig
from herdlm.align.dpo import objective_of
from herdlm.align.sampled_answers import collapse_signs, measure_answers
from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.train.preferences import DPO, KTO

KEYS = dict(seq_len=8, pairs_per_step=2, train={"peak_lr": 1e-5})


def test_repetition_counts_four_words_that_came_before_in_the_same_answer():
    found = measure_answers(["a b c d a b c d e", "one two three", " "], [9, 3, 0])
    # Six 4-grams, of which "a b c d" comes twice; the other answers have none.
    assert found.repeated_share == pytest.approx(1 / 6)
    assert found.mean_tokens == 4.0
    assert found.empty_share == pytest.approx(1 / 3)
    apart = measure_answers(["a b c d", "a b c d"], [4, 4])
    assert apart.repeated_share == 0.0


def test_answers_that_change_in_kind_are_told():
    before = measure_answers(["the first file of the package"], [10])
    assert collapse_signs(before, before) == []
    longer = measure_answers(["stop now or go " * 9], [40])
    assert collapse_signs(before, longer) == [
        "answers have 40 tokens on average, 10 before",
        "88% of 4-grams repeat, 0% before",
    ]
    assert collapse_signs(longer, before) == ["answers have 10 tokens on average, 40 before"]
    assert "empty" in collapse_signs(before, measure_answers([""], [10]))[0]
    with pytest.raises(ValueError, match="cannot be measured"):
        measure_answers(["a"], [])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, DPO(0.1, 0.2, "sigmoid", 0.0)),
        ({"loss": "norm"}, DPO(5.0, 0.2, "norm", 0.0)),
        ({"loss": "simpo"}, DPO(2.0, 0.2, "simpo", 1.0)),
        ({"loss": "simpo", "beta": 10.0, "gamma": 3.0, "nll_weight": 0.0}, DPO(10.0, 0.0, "simpo", 3.0)),
        ({"loss": "apo"}, DPO(0.05, 0.2, "apo", 0.0)),
        ({"loss": "kto", "desirable_weight": 1.3}, KTO(0.1, 1.3, 1.0)),
    ],
)
def test_each_loss_has_its_own_defaults(keys, expected):
    config = parse(DpoConfig, KEYS | keys, "test")
    assert objective_of(config) == expected
    assert objective_of(DpoConfig.model_validate(config.model_dump(mode="json"))) == expected


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"gamma": 1.0}, "gamma"),
        ({"loss": "kto", "nll_weight": 0.1}, "nll_weight"),
        ({"desirable_weight": 2.0}, "desirable"),
    ],
)
def test_a_key_that_a_loss_would_ignore_is_refused(keys, named):
    with pytest.raises(InputError, match=f"{named}.* no meaning with loss"):
        parse(DpoConfig, KEYS | keys, "test")
