"""Scores of continuations against a plain forward pass, with shared beginnings, small pages and small steps."""

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.score import score
from herdlm.model.attention import DocumentAttention
from tests.conftest import small_model


@pytest.fixture(scope="module")
def model():
    return small_model().double()


def plain_scores(model, context, continuation):
    tokens = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        attend = DocumentAttention(torch.zeros_like(tokens))
        logits = model.logits(model(tokens, torch.arange(tokens.shape[1])[None], attend))[0]
    logprobs = logits.log_softmax(-1)[len(context) - 1 : -1]
    found = logprobs.gather(1, torch.tensor(continuation)[:, None])[:, 0]
    return found, bool((logprobs.argmax(-1) == torch.tensor(continuation)).all())


@pytest.mark.parametrize(
    "options",
    [{"page_size": 4}, {"page_size": 16, "step_tokens": 8, "max_batch": 4}, {"page_size": 2, "cache_tokens": 64}],
)
def test_scores_equal_a_plain_forward_pass(model, options):
    generator = torch.Generator().manual_seed(1)

    def draw(count):
        return torch.randint(1, model.config.vocab_size, (count,), generator=generator).tolist()

    shared = draw(19)
    pairs = [(shared[:length], draw(count)) for length in (1, 7, 8, 19) for count in (1, 2, 9)]
    pairs += [(draw(5), draw(3)), pairs[4]]
    pairs += [(shared[:12], draw(count)) for count in (3, 1, 1, 2)]  # a longer one first
    engine = Engine(model, None, **options)
    for context in (shared[:7], shared[:8]):  # continuations that the model itself prefers
        pairs.append((context, engine.generate([context], SamplingParams(max_tokens=3, temperature=0))[0][0].tokens))
    scores = score(engine, pairs)
    assert engine.scheduler.reused_tokens > 0
    for (context, continuation), scored in zip(pairs, scores, strict=True):
        logprobs, greedy = plain_scores(model, context, continuation)
        torch.testing.assert_close(torch.tensor(scored.logprobs).double(), logprobs, atol=1e-5, rtol=1e-5)
        assert scored.greedy == greedy
    assert scores[-1].greedy
    assert scores[-2].greedy


def test_choices_of_a_question_compute_each_token_once(model, monkeypatch):
    context, choices = [3, 4, 5, 6, 7], ([1], [2], [8, 9], [10, 11, 12], [8, 13])
    computed = []
    forward = Engine._forward
    monkeypatch.setattr(
        Engine, "_forward", lambda self, batch: (computed.append(len(batch.tokens)), forward(self, batch))[1]
    )
    engine = Engine(model, None, page_size=1)
    scores = score(engine, [(context, choice) for choice in choices])
    assert sum(computed) == len(context) + 1 + 2 + 1  # 8, then 10 and 11, then 8 again, whose logits are needed twice
    for choice, scored in zip(choices, scores, strict=True):
        logprobs, _ = plain_scores(model, context, choice)
        torch.testing.assert_close(torch.tensor(scored.logprobs).double(), logprobs, atol=1e-5, rtol=1e-5)


def test_the_last_token_stands_behind_the_context_of_the_model(model):
    tokens = [(7 * i) % model.config.vocab_size for i in range(model.config.max_seq_len + 1)]
    engine = Engine(model, None)
    for length in (1, 20):
        context, continuation = tokens[:-length], tokens[-length:]
        logprobs, _ = plain_scores(model, context, continuation)
        (scored,) = score(engine, [(context, continuation)])
        torch.testing.assert_close(torch.tensor(scored.logprobs).double(), logprobs, atol=1e-5, rtol=1e-5)


def test_a_token_to_compare_that_is_none_is_refused(model):
    engine = Engine(model, None)
    with pytest.raises(InputError, match="compared names the token 400"):
        engine.generate([[1, 2]], SamplingParams(forced=3, compared=(400,)))


def test_a_forced_token_is_drawn_beside_free_ones(model):
    engine = Engine(model, None)
    free = SamplingParams(max_tokens=4, temperature=0)
    forced = SamplingParams(max_tokens=4, temperature=0, forced=3)
    alone = engine.generate([[1, 2]], free)[0][0]
    together = engine.generate([[1, 2], [1, 2]], [free, forced])
    assert together[0][0].tokens == alone.tokens
    after = engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3, temperature=0))[0][0]
    assert together[1][0].tokens == [3, *after.tokens]


def test_an_empty_side_and_a_long_pair_are_refused(model):
    engine = Engine(model, None)
    with pytest.raises(InputError, match="no tokens"):
        score(engine, [([], [1])])
    with pytest.raises(InputError, match="max_seq_len"):
        score(engine, [([1] * model.config.max_seq_len, [1, 2])])
