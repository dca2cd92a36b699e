"""Shapes, layouts and jobs: counts against the model's own, and what does not fit together."""

import pytest

from herdlm.base.errors import InputError
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.memory import PUBLISHED
from herdlm.plan.models import shape_named

SMALL = Shape(4, 64, 128, 4, 2, 100)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_counts_as_the_model_does(name):
    config = PUBLISHED[name]
    shape = Shape.of(config)
    assert shape.parameters == config.parameters
    counts = shape.flops_per_token(8192)
    assert counts["causal"] == config.flops_per_token(8192)
    assert counts["full"] == config.full_attention_flops_per_token(8192)
    assert counts["6n"] == 6 * config.parameters


def test_a_plain_feed_forward_has_two_matrices_and_a_tied_head_counts_once():
    plain = Shape(4, 64, 256, 4, 4, 100, mlp="plain", tied=True)
    assert plain.layer_parameters == 4 * 64 * 64 + 2 * 64 * 256 + 2 * 64
    assert plain.parameters == 4 * plain.layer_parameters + 64 + 100 * 64


@pytest.mark.parametrize(
    "name", ["llama3.1-405b", "Llama-3.1-405B", "405b", "llama3-405b", "meta-llama-3.1-405b-instruct"]
)
def test_published_models_have_their_usual_names(name):
    assert shape_named(name).parameters == 405_853_388_800


@pytest.mark.parametrize("name", ["llama4", "405", "", "gpt-405b"])
def test_an_unknown_model_is_refused_with_those_known(name):
    with pytest.raises(InputError, match=r"llama3\.1-70b"):
        shape_named(name)


@pytest.mark.parametrize(
    "layout, gpus, seq_len, tokens",
    [
        (Layout(tp=2), 3, 64, 640),  # not the layout's GPUs
        (Layout(dp_shard=2), 2, 64, 64 * 3),  # rows that the ranks do not divide
        (Layout(micro_batch=3), 1, 64, 64 * 4),
        (Layout(tp=8), 8, 64, 64 * 8),  # four heads
        (Layout(pp=8), 8, 64, 64 * 8),  # four layers
        (Layout(), 1, 64, 65),
    ],
)
def test_what_does_not_fit_together_is_refused(layout, gpus, seq_len, tokens):
    with pytest.raises(InputError):
        Job(SMALL, layout, gpus, "h100", seq_len, tokens)


def test_the_first_and_the_last_stage_may_have_no_layer():
    assert Job(SMALL, Layout(pp=6), 6, "h100", 64, 64 * 6).micro_batches == 6
    with pytest.raises(InputError):
        Layout(vpp=2, schedule="interleaved")
    with pytest.raises(InputError):
        Layout(pp=2, vpp=2)
