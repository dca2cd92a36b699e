"""Each option of a request: against a reading by hand, and the same in any crowd, cut into chunks, and put back."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.generate import Completion, Engine, Event, SamplingParams
from herdlm.generate.sampling.grammar import Grammar
from herdlm.generate.sampling.sampling import sample_key, uniforms
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

VOCABULARY = 290  # the tokenizer's 280 and padding


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cow says moo and the calf says moo too " * 20], TokenizerConfig(vocab_size=280))


@cache
def model() -> Transformer:
    config = ModelConfig(max_seq_len=96, vocab_size=VOCABULARY, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48)
    built = build(config, dtype=torch.float64)
    initialize(built, seed=3, std=0.25)
    return built


def engine(**sizes: Any) -> Engine:
    return Engine(model(), tokenizer(), **sizes)


def prompts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(8)
    shared = rng.integers(0, 280, size=11).tolist()
    return [shared + rng.integers(0, 280, size=rng.integers(1, 20)).tolist() for _ in range(count)]


@torch.no_grad()
def logits_after(tokens: list[int]) -> list[list[float]]:
    row = torch.tensor([tokens])
    hidden = model()(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
    return model().logits(hidden[0]).float().tolist()


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def by_hand(prompt: list[int], params: SamplingParams, index: int) -> tuple[list[int], list[float]]:
    """The definitions of SamplingParams, one number at a time."""
    answer: list[int] = []
    logprobs = []
    key = np.array([sample_key(params.seed, index)], dtype=np.uint64)
    while len(answer) < params.max_tokens:
        own = logits_after(prompt + answer)[-1]
        logits = list(own)
        for token in set(prompt + answer):
            penalty = params.repetition_penalty
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        for token in set(answer):
            logits[token] -= params.presence_penalty + params.frequency_penalty * answer.count(token)
        for token, bias in params.logit_bias:
            logits[token] += bias
        if len(answer) < params.min_tokens:
            for token in params.stop_tokens:
                logits[token] = -math.inf
        if params.temperature == 0:
            token = max(range(VOCABULARY), key=lambda i: (logits[i], -i))
        else:
            logits = [logit / params.temperature for logit in logits]
            ranked = sorted(range(VOCABULARY), key=lambda i: (-logits[i], i))
            ranked = ranked[: params.top_k or VOCABULARY]
            weights = [math.exp(logits[i]) for i in ranked]
            whole, before, kept = sum(weights), 0.0, []
            for i, weight in zip(ranked, weights, strict=True):
                if before / whole < params.top_p and weight >= params.min_p * weights[0]:
                    kept.append((i, weight))
                before += weight
            if params.top_k == 0 and params.top_p == 1:
                kept.sort()  # where nothing asks for an order, tokens lie in order of their ids
            point = float(uniforms(key, np.array([len(answer)]))[0]) * sum(weight for _, weight in kept)
            token, reached = kept[-1][0], 0.0
            for i, weight in kept:
                reached += weight
                if reached > point:
                    token = i
                    break
        logprobs.append(log_softmax(own)[token])
        if token in params.stop_tokens:
            break
        answer.append(token)
    return answer, logprobs


STOPS = tuple(range(0, 280, 9))
OPTIONS: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.7, "temperature": 0},
    "repetition, sampled": {"repetition_penalty": 0.6, "temperature": 0.8},
    "presence": {"presence_penalty": 1.5, "temperature": 0},
    "frequency": {"frequency_penalty": 0.8, "temperature": 0},
    "negative penalties": {"frequency_penalty": -0.6, "presence_penalty": -0.4, "temperature": 0.7},
    "bias": {"logit_bias": ((5, 4.0), (17, -100.0), (203, 3.5))},
    "min_tokens": {"min_tokens": 6, "stop_tokens": STOPS},
    "min_p": {"min_p": 0.2, "temperature": 0.8},
    "min_p with top_p and top_k": {"min_p": 0.1, "top_p": 0.8, "top_k": 30},
    "together": {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "logit_bias": ((9, 2.0),),
        "min_tokens": 4,
        "stop_tokens": STOPS,
        "min_p": 0.02,
        "top_p": 0.95,
        "temperature": 1.1,
    },
}


def test_options_do_what_their_definitions_say_beside_each_other_in_one_batch():
    asked = prompts(len(OPTIONS))
    each = [SamplingParams(max_tokens=12, n=2, seed=i, **how) for i, how in enumerate(OPTIONS.values())]
    answers = engine(max_batch=64, page_size=4).generate(asked, each)
    for name, prompt, params, completions in zip(OPTIONS, asked, each, answers, strict=True):
        for index, completion in enumerate(completions):
            tokens, logprobs = by_hand(prompt, params, index)
            assert completion.tokens == tokens, name
            assert completion.logprobs == pytest.approx(logprobs, abs=2e-5), name


EVERYTHING = SamplingParams(
    max_tokens=20,
    min_tokens=4,
    temperature=1.2,
    top_p=0.97,
    top_k=60,
    min_p=0.001,
    repetition_penalty=1.1,
    presence_penalty=0.3,
    frequency_penalty=0.2,
    logit_bias=((40, 1.5), (41, -3.0)),
    n=2,
    best_of=4,
    seed=21,
    stop_tokens=STOPS,
    stop=("zq", "moo"),
    top_logprobs=3,
    prompt_logprobs=True,
)
ALL_OPTIONS = {
    **{name: SamplingParams(max_tokens=16, n=2, seed=4, **how) for name, how in OPTIONS.items()},
    "everything": EVERYTHING,
    "everything with a grammar": replace(EVERYTHING, grammar=Grammar.regex(r"([a-m]{1,3}[0-9]|[^a-z]{2}){1,9}")),
    "JSON": SamplingParams(max_tokens=30, n=3, seed=2, temperature=1.5, grammar=Grammar.json_object(), top_logprobs=2),
}


@cache
def alone(name: str) -> list[Completion]:
    return engine().generate([prompts(40)[0]], ALL_OPTIONS[name])[0]


def assert_same(got: list[Completion], expected: list[Completion]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.text == other.text
        assert one.finish_reason == other.finish_reason
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-6)
        assert one.prompt_logprobs == pytest.approx(other.prompt_logprobs, abs=1e-6)
        for these, those in (
            (one.top_logprobs, other.top_logprobs),
            (one.prompt_top_logprobs, other.prompt_top_logprobs),
        ):
            assert [[t for t, _ in row] for row in these] == [[t for t, _ in row] for row in those]


@pytest.mark.parametrize("name", ALL_OPTIONS)
@pytest.mark.parametrize(
    "sizes",
    [{"max_batch": 64}, {"max_batch": 40, "step_tokens": 40, "page_size": 4}, {"cache_tokens": 160, "page_size": 4}],
    ids=["crowd", "chunks", "put back"],
)
def test_an_answer_is_the_same_whatever_else_is_in_the_batch(name, sizes, monkeypatch):
    asked = prompts(40)[:33]
    others = list(ALL_OPTIONS.values())
    each = [replace(others[i % len(others)], seed=i) for i in range(33)]
    place = 20  # not the first in the queue, which is never put back
    asked[place], each[place] = prompts(40)[0], ALL_OPTIONS[name]
    crowd, put_back = engine(**sizes), set()
    put_back_last = crowd.scheduler._preempt

    def noting(rows):
        put_back.add(crowd.scheduler.sequences.requests(rows[-1:])[0].id)
        return put_back_last(rows)

    monkeypatch.setattr(crowd.scheduler, "_preempt", noting)
    answers = crowd.generate(asked, each)
    assert (place + 1 in put_back) is ("cache_tokens" in sizes)
    assert_same(answers[place], alone(name))
    crowd.pool.check()
    assert crowd.pool.available == crowd.pool.count


@pytest.mark.parametrize("name", [name for name in ALL_OPTIONS if not name.startswith("everything")])
def test_streams_tell_what_the_completion_holds(name):
    busy = engine(max_batch=8)
    busy.submit(prompts(40)[0], ALL_OPTIONS[name])
    streams: dict[int, list[Event]] = {}
    while busy.busy:
        for event in busy.step():
            streams.setdefault(event.sample, []).append(event)
    finished = []
    for _, events in sorted(streams.items()):
        completion = events[-1].completion
        assert completion is not None
        assert [token for event in events for token in event.tokens] == completion.tokens
        assert [logprob for event in events for logprob in event.logprobs] == completion.logprobs
        assert [top for event in events for top in event.top_logprobs] == completion.top_logprobs
        assert "".join(event.text for event in events) == completion.text
        finished.append(completion)
    assert_same(finished, alone(name))


def test_alternatives_are_the_top_of_the_models_own_softmax():
    prompt = prompts(1)[0]
    params = SamplingParams(max_tokens=8, n=2, temperature=0.5, top_k=4, top_logprobs=5, repetition_penalty=1.5)
    for completion in engine().generate([prompt], params)[0]:
        logits = logits_after(prompt + completion.tokens)[len(prompt) - 1 : -1]
        assert len(completion.top_logprobs) == len(completion.logprobs) == len(logits)
        for events, row in zip(completion.top_logprobs, logits, strict=True):
            expected = log_softmax(row)
            best = sorted(range(VOCABULARY), key=lambda i: -expected[i])[:5]
            assert [token for token, _ in events] == best
            assert [logprob for _, logprob in events] == pytest.approx([expected[i] for i in best], abs=2e-5)


@pytest.mark.parametrize("sizes", [{}, {"max_batch": 2, "step_tokens": 5, "page_size": 4}], ids=["whole", "chunks"])
def test_prompt_logprobs_are_right_also_when_the_prompt_is_in_the_cache(sizes):
    machine, prompt = engine(**sizes), prompts(1)[0] + list(range(20))
    machine.generate([prompt], SamplingParams(max_tokens=2))  # leaves the prompt in the cache
    params = SamplingParams(max_tokens=2, n=5, prompt_logprobs=True, top_logprobs=2)
    answers = machine.generate([prompt, prompt], [params, replace(params, prompt_logprobs=False)])
    logits = logits_after(prompt)
    expected = [log_softmax(row) for row in logits]
    for completion in answers[0]:
        assert completion.prompt_logprobs == pytest.approx(
            [expected[i][prompt[i + 1]] for i in range(len(prompt) - 1)], abs=2e-5
        )
        assert [len(top) for top in completion.prompt_top_logprobs] == [2] * (len(prompt) - 1)
        assert completion.prompt_top_logprobs[3][0][0] == max(range(VOCABULARY), key=lambda i: logits[3][i])
    assert all(c.prompt_logprobs == [] == c.prompt_top_logprobs for c in answers[1])
    assert engine().generate([[1]], params)[0][0].prompt_logprobs == []


def test_best_of_gives_those_with_the_highest_logprob_per_token():
    prompt, stops = prompts(1)[0], tuple(range(0, 280, 5))
    drawn = SamplingParams(max_tokens=15, n=8, stop_tokens=stops, seed=3)
    every = engine().generate([prompt], drawn)[0]
    expected = sorted(every, key=lambda c: -sum(c.logprobs) / len(c.logprobs))[:3]
    assert len({len(c.logprobs) for c in every}) > 1
    for logprobs in (True, False):
        best = engine(max_batch=3).generate([prompt], replace(drawn, n=3, best_of=8, logprobs=logprobs))[0]
        assert [c.tokens for c in best] == [c.tokens for c in expected]
        assert all(bool(c.logprobs) is logprobs for c in best)
    same = engine().generate([prompt], replace(drawn, best_of=8))[0]
    assert [c.tokens for c in same] == [c.tokens for c in every]
    with pytest.raises(InputError, match="streamed"):
        engine().submit(prompt, replace(drawn, n=3, best_of=8))


def test_aborting_the_rest_of_a_best_of_tells_nothing_and_frees_all():
    busy, stops = engine(max_batch=8), tuple(range(0, 280, 5))
    params = SamplingParams(max_tokens=30, n=1, best_of=8, stop_tokens=stops)
    request = busy.submit(prompts(1)[0], params, stream=False)
    for _ in range(8):
        assert busy.step() == []
    assert busy.abort(request)
    assert not busy.busy
    assert busy.pool.available == busy.pool.count


def test_min_tokens_holds_against_stop_strings_too():
    prompt, params = prompts(1)[0], SamplingParams(max_tokens=90, seed=1, stop=("e", "o", "a", "t", " ", "\n"))
    soon = engine().generate([prompt], params)[0][0]
    late = engine().generate([prompt], replace(params, min_tokens=len(soon.tokens) + 1))[0][0]
    assert soon.finish_reason == late.finish_reason == "stop"
    assert len(soon.tokens) < len(late.tokens)
    assert late.tokens[: len(soon.tokens)] == soon.tokens


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"logit_bias": ((VOCABULARY, 1.0),)}, "logit_bias"),
        ({"top_logprobs": VOCABULARY + 1}, "top_logprobs"),
        ({"min_tokens": 1, "stop_tokens": tuple(range(VOCABULARY))}, "min_tokens"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        engine().generate([[1]], SamplingParams(max_tokens=4, **params))


def test_a_grammar_needs_a_tokenizer():
    with pytest.raises(InputError, match="tokenizer"):
        Engine(model(), None).generate([[1]], SamplingParams(grammar=Grammar.json_object()))
