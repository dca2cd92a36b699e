"""The engine against generation that recomputes everything with the trainer's attention, one prompt at a time."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from herdlm.base.errors import HerdError, InputError
from herdlm.base.progress import Progress
from herdlm.generate import Completion, Engine, SamplingParams
from herdlm.generate.sampling.sampling import Draw, draw_tokens, sample_key, uniforms
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.losses import target_logprobs
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.tokenizer import END_OF_TURN, Tokenizer, TokenizerConfig, train_tokenizer

pytestmark = pytest.mark.usefixtures("forms")

SHAPES = {
    "grouped": {"vocab_size": 97, "dim": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn_dim": 48},
    "one key head, tied": {
        "vocab_size": 61,
        "dim": 24,
        "layers": 3,
        "heads": 3,
        "kv_heads": 1,
        "ffn_dim": 40,
        "tied_embeddings": True,
    },
    "ungrouped, scaled RoPE": {
        "vocab_size": 50,
        "dim": 16,
        "layers": 1,
        "heads": 2,
        "kv_heads": 2,
        "ffn_dim": 32,
        "rope_scaling": RopeScaling(original_max_position_embeddings=32),
    },
}


@cache
def model(shape: str = "grouped", head: str = "lm") -> Transformer:
    config = ModelConfig(max_seq_len=128, head=head, **SHAPES[shape])
    built = build(config)
    initialize(built, seed=1, std=0.3)
    return built


def prompts(count: int, vocabulary: int, shared: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(5)
    beginning = rng.integers(0, vocabulary, size=shared).tolist()
    return [beginning + rng.integers(0, vocabulary, size=rng.integers(1, 30)).tolist() for _ in range(count)]


@torch.no_grad()
def naive(transformer: Transformer, prompt: list[int], params: SamplingParams, index: int = 0) -> Completion:
    """Generation with no cache, no pages and no batch."""
    tokens, logprobs = list(prompt), []
    while len(tokens) < min(len(prompt) + params.max_tokens, transformer.config.max_seq_len):
        row = torch.tensor([tokens])
        hidden = transformer(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
        step = len(tokens) - len(prompt)
        how = Draw(
            np.array([params.temperature], dtype=np.float32),
            np.array([params.top_p], dtype=np.float32),
            np.array([params.top_k]),
            np.array([params.min_p], dtype=np.float32),
            uniforms(np.array([sample_key(params.seed, index)], dtype=np.uint64), np.array([step])),
        )
        token, logprob = draw_tokens(transformer.logits(hidden[0, -1:]).float(), how)
        logprobs.append(float(logprob))
        if int(token) in params.stop_tokens:
            return Completion(tokens[len(prompt) :], "", logprobs, "stop")
        tokens.append(int(token))
    return Completion(tokens[len(prompt) :], "", logprobs, "length")


def assert_same(got: Completion, expected: Completion) -> None:
    assert got.tokens == expected.tokens
    assert got.finish_reason == expected.finish_reason
    assert got.logprobs == pytest.approx(expected.logprobs, abs=2e-5)


CACHES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "one row": {"max_batch": 1},
    "pages run out": {"page_size": 3, "cache_tokens": 80, "max_batch": 6},
    "chunks": {"page_size": 4, "max_batch": 5, "step_tokens": 7},
    "page of one": {"page_size": 1, "max_batch": 16},
}
PARAMS = {
    "greedy": SamplingParams(max_tokens=12, temperature=0),
    "sampled": SamplingParams(max_tokens=12, n=3, seed=11),
    "filtered": SamplingParams(max_tokens=10, n=2, temperature=0.8, top_p=0.9, top_k=20, seed=2, stop_tokens=(3, 7, 9)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", CACHES)
def test_equals_generation_without_a_cache(shape, sizes):
    transformer = model(shape)
    asked = prompts(9, transformer.config.vocab_size, shared=9)
    engine = Engine(transformer, None, **CACHES[sizes])
    each = [list(PARAMS.values())[i % 3] for i in range(len(asked))]
    answers = engine.generate(asked, each)
    for prompt, params, completions in zip(asked, each, answers, strict=True):
        assert len(completions) == params.n
        for index, completion in enumerate(completions):
            assert_same(completion, naive(transformer, prompt, params, index))
    if sizes == "pages run out":
        assert engine.scheduler.preemptions > 0
    assert engine.scheduler.reused_tokens > 0 or engine.pool.page_size > 9
    engine.pool.check()
    assert engine.pool.available == engine.pool.count
    assert not engine.busy


def test_logprobs_equal_the_trainers():
    transformer = model()
    asked = prompts(8, 97)
    answers = Engine(transformer, None, page_size=4).generate(asked, SamplingParams(max_tokens=20, n=2, top_p=0.9))
    for prompt, completions in zip(asked, answers, strict=True):
        for completion in completions:
            row = torch.tensor([prompt + completion.tokens])
            with torch.no_grad():
                documents = DocumentAttention(torch.zeros_like(row))
                hidden = transformer(row, torch.arange(row.shape[1])[None], documents)[0]
                begin = len(prompt) - 1
                expected = target_logprobs(transformer, hidden[begin:-1], row[0, begin + 1 :])
            assert (torch.tensor(completion.logprobs) - expected).abs().max() < 1e-5


def test_an_answer_is_the_same_alone_in_a_crowd_and_in_any_order():
    asked = prompts(40, 97, shared=20)
    each = [SamplingParams(max_tokens=15, n=1 + i % 4, seed=i, temperature=(0.7, 1.0)[i % 2]) for i in range(40)]
    together = Engine(model(), None, max_batch=32, page_size=8).generate(asked, each)
    backwards = Engine(model(), None, max_batch=7, page_size=5).generate(asked[::-1], each[::-1])[::-1]
    for i in range(40):
        alone = Engine(model(), None).generate([asked[i]], each[i])[0]
        tokens = [completion.tokens for completion in alone]
        assert tokens == [c.tokens for c in together[i]] == [c.tokens for c in backwards[i]]


def test_samples_differ_between_themselves_and_between_seeds():
    ask = prompts(1, 97)
    answers = [Engine(model(), None).generate(ask, SamplingParams(max_tokens=8, n=6, seed=s))[0] for s in (0, 0, 1)]
    assert answers[0] == answers[1]
    assert len({tuple(c.tokens) for a in (answers[0], answers[2]) for c in a}) == 12


def test_a_prefix_is_computed_once_until_it_is_forgotten():
    engine, ask, params = Engine(model(), None, page_size=4), [list(range(30))], SamplingParams(max_tokens=2)
    first = engine.generate(ask, params)[0][0]
    assert engine.scheduler.reused_tokens == 0
    assert_same(engine.generate(ask, params)[0][0], first)
    assert engine.scheduler.reused_tokens == 28
    engine.forget_prefixes()
    engine.generate(ask, params)
    assert engine.scheduler.reused_tokens == 28


def test_aborting_frees_everything_and_harms_no_other():
    asked, params = prompts(6, 97, shared=10), SamplingParams(max_tokens=10, n=3, seed=4)
    engine = Engine(model(), None, page_size=4, max_batch=9)
    ids = [engine.submit(prompt, params, stream=False) for prompt in asked]
    done: dict[int, list[Completion]] = {id: [] for id in ids}
    for step in range(1000):
        if step in (0, 3):  # one that waits, one that runs
            assert engine.abort(ids[5 if step == 0 else 0])
        if not engine.busy:
            break
        for event in engine.step():
            assert event.completion is not None
            done[event.request_id].append(event.completion)
    assert not engine.abort(ids[0])
    assert not done[ids[0]]
    assert not done[ids[5]]
    expected = Engine(model(), None).generate(asked, params)
    for i in range(1, 5):
        assert sorted(c.tokens for c in done[ids[i]]) == sorted(c.tokens for c in expected[i])
    assert engine.pool.available == engine.pool.count
    engine.pool.check()


def test_after_a_failed_step_nothing_is_left_and_nothing_is_trusted(monkeypatch):
    engine, ask, params = Engine(model(), None, page_size=4), [list(range(30))], SamplingParams(max_tokens=4)
    expected = Engine(model(), None).generate(ask, params)
    monkeypatch.setattr(engine, "model", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.generate(ask, params)
    monkeypatch.undo()
    assert not engine.busy
    assert engine.generate(ask, params)[0][0].tokens == expected[0][0].tokens
    assert engine.scheduler.reused_tokens == 0


def test_generation_ends_at_the_models_length():
    completion = Engine(model(), None).generate([[1] * 120], SamplingParams(max_tokens=50))[0][0]
    assert len(completion.tokens) == 8
    assert completion.finish_reason == "length"


def test_progress_counts_samples_and_logprobs_can_be_left_out():
    progress = Progress("generate", 15, quiet=True)
    answers = Engine(model(), None).generate(
        prompts(5, 97), SamplingParams(max_tokens=3, n=3, logprobs=False), progress=progress
    )
    assert progress.done == 15
    assert all(completion.logprobs == [] for completions in answers for completion in completions)


def test_no_prompts_no_answers():
    assert Engine(model(), None).generate([], SamplingParams()) == []


def test_bfloat16_runs_and_stays_near_float32():
    asked, params = prompts(4, 97), SamplingParams(max_tokens=1, temperature=0)
    half = build(model().config, dtype=torch.bfloat16)
    half.load_state_dict(model().state_dict())
    engine = Engine(half, None)
    assert engine.cache.dtype == torch.bfloat16
    exact = Engine(model(), None).generate(asked, params)
    for got, expected in zip(engine.generate(asked, params), exact, strict=True):
        assert got[0].logprobs[0] == pytest.approx(expected[0].logprobs[0], abs=0.3)


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], {}, "no tokens"),
        ([1, 97], {}, "outside 0 to 96"),
        ([-1], {}, "outside 0 to 96"),
        ([1] * 128, {}, "max_seq_len"),
        ([1] * 60, {}, "cache_tokens"),
        ([1], {"stop": ("x",)}, "tokenizer"),
    ],
)
def test_requests_that_cannot_be_served_are_refused(prompt, params, message):
    engine = Engine(model(), None, cache_tokens=80)
    with pytest.raises(InputError, match=message):
        engine.generate([[1, 2], prompt], SamplingParams(max_tokens=30, **params))
    assert not engine.busy


def test_the_cache_limit_is_exact():
    engine = Engine(model(), None, cache_tokens=32, page_size=4)
    completion = engine.generate([[1] * 20], SamplingParams(max_tokens=13))[0][0]  # the last token is never cached
    assert len(completion.tokens) == 13
    with pytest.raises(InputError):
        engine.generate([[1] * 20], SamplingParams(max_tokens=14))


@pytest.mark.parametrize("wrong", [{"page_size": 0}, {"max_batch": 0}, {"step_tokens": -1}, {"cache_tokens": 3}])
def test_engine_sizes_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Engine(model(), None, **wrong)


def test_reward_models_and_a_foreign_tokenizer_are_refused():
    with pytest.raises(InputError, match="reward model"):
        Engine(model(head="score"), None)
    with pytest.raises(InputError, match="280 entries"):
        Engine(model(), tokenizer())


def test_generate_does_not_mix_with_submitted_requests():
    engine = Engine(model(), None)
    engine.submit([1], SamplingParams(max_tokens=2))
    with pytest.raises(HerdError, match="busy"):
        engine.generate([[1]], SamplingParams())
    with pytest.raises(HerdError, match="running"):
        engine.forget_prefixes()
    with pytest.raises(InputError, match="2 prompts but 1"):
        Engine(model(), None).generate([[1], [2]], [SamplingParams()])


# Text: a model that recites, so that what it writes is known.


@cache
def tokenizer() -> Tokenizer:
    text = ["the cow says moo and the calf says moo too " * 20]
    return train_tokenizer(text, TokenizerConfig(vocab_size=280))


class Reciter(torch.nn.Module):
    """Writes ``script`` after a prompt of one token, whatever was drawn."""

    def __init__(self, script: list[int]) -> None:
        super().__init__()
        self.config = model().config.model_copy(update={"vocab_size": 304})
        self.model = SimpleNamespace(embed_tokens=torch.nn.Embedding(304, 1))
        self.script = torch.tensor(script)

    def forward(self, tokens: Tensor, positions: Tensor, attend: object) -> Tensor:
        return torch.nn.functional.one_hot(self.script[positions], 304).float()

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden * 50


def recite(script: list[int], **params: Any) -> tuple[list[str], Completion]:
    engine = Engine(Reciter(script), tokenizer(), page_size=2)  # type: ignore[arg-type]
    request = engine.submit([0], SamplingParams(temperature=0, **params))
    shown, tokens, logprobs = [], [], []
    while True:
        for event in engine.step():
            assert (event.request_id, event.sample) == (request, 0)
            shown.append(event.text)
            tokens += event.tokens
            logprobs += event.logprobs
            if event.completion:
                assert tokens == event.completion.tokens
                assert logprobs == event.completion.logprobs
                assert "".join(shown) == event.completion.text
                assert not engine.busy
                return shown, event.completion


def test_a_stop_token_is_left_out_but_its_logprob_is_kept():
    words, stop = tokenizer().encode("the cow says"), tokenizer().special(END_OF_TURN)
    shown, completion = recite([*words, stop, 1, 1], stop_tokens=(1, stop))
    assert completion.tokens == words
    assert completion.text == "the cow says"
    assert completion.finish_reason == "stop"
    assert len(completion.logprobs) == len(words) + 1
    assert len(shown) == len(words) + 1


def test_a_stop_string_ends_the_text_but_its_tokens_are_kept():
    words = tokenizer().encode("the cow says moo too")
    _, completion = recite([*words, 1, 1], stop=("says moo",))
    assert completion.text == "the cow "
    assert completion.finish_reason == "stop"
    assert completion.tokens == words[: len(completion.tokens)]
    assert tokenizer().decode(completion.tokens).startswith("the cow says moo")
    assert len(completion.logprobs) == len(completion.tokens)


def test_characters_split_between_tokens_stream_whole():
    words = tokenizer().encode("a🐄b")
    assert len(words) == 6
    shown, completion = recite(words, max_tokens=6)
    assert shown == ["a", "", "", "", "🐄", "b"]
    assert completion.finish_reason == "length"


def test_a_character_cut_by_the_length_is_replaced_as_decode_does():
    words = tokenizer().encode("a🐄b")
    for length in range(1, 7):
        _, completion = recite(words, max_tokens=length)
        assert completion.text == tokenizer().decode(words[:length])


def test_ids_beyond_the_tokenizer_have_no_text():
    script = [*tokenizer().encode("the"), 303, *tokenizer().encode(" cow")]
    assert recite(script, max_tokens=len(script))[1].text == "the cow"


def test_unstreamed_text_and_stop_strings_in_generate():
    words = tokenizer().encode("the cow says moo too")
    engine = Engine(Reciter([*words, 1, 1]), tokenizer())  # type: ignore[arg-type]
    plain, stopped = engine.generate(
        [[0], [0]],
        [SamplingParams(temperature=0, max_tokens=len(words)), SamplingParams(temperature=0, stop=(" moo",))],
    )
    assert plain[0].text == "the cow says moo too"
    assert stopped[0].text == "the cow says"
    assert stopped[0].finish_reason == "stop"
