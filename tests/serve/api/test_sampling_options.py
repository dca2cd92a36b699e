"""Options of sampling over HTTP against the engine asked directly, and log-probabilities against a forward pass."""

import json

import pytest
import torch
from pydantic import BaseModel

from herdlm.generate import SamplingParams
from herdlm.generate.sampling.grammar import Grammar
from herdlm.model.attention import DocumentAttention
from herdlm.serve.api.answers import Usage

TEXT = {"model": "flagship", "prompt": "The package manager"}
ASK = {"model": "flagship", "messages": [{"role": "user", "content": "Which package does the file belong to?"}]}


@pytest.fixture
def directly(server, engine_apart):
    def generate(**params):
        params = SamplingParams(max_tokens=16, stop_tokens=server.text.stop_tokens, **params)
        (completions,) = engine_apart.generate([server.text.text_prompt(TEXT["prompt"])], params)
        return [completion.text for completion in completions]

    return generate


@pytest.mark.parametrize(
    "options",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": 1.0, "temperature": 0.7},
        {"repetition_penalty": 1.8},
        {"min_p": 0.2},
        {"top_k": 5, "top_p": 0.9},
        {"min_tokens": 9},
        {"n": 3},
        {"n": 2, "best_of": 5},
    ],
)
def test_options_mean_what_they_mean_to_the_engine(client, directly, options):
    theirs = {k: v for k, v in options.items() if k in ("repetition_penalty", "min_p", "top_k", "min_tokens")}
    ours = {k: v for k, v in options.items() if k not in theirs}
    answer = client.completions.create(**TEXT, max_tokens=16, seed=11, **ours, extra_body=theirs)
    told = [choice.text for choice in answer.choices]
    assert told == directly(seed=11, **options)
    assert told != directly(seed=11, n=len(told)) or options == {"n": 3} or "min_tokens" in options


@pytest.mark.parametrize("options", [{"top_p": 1e-305}, {"temperature": 1e-305}, {"temperature": 1e-40, "top_p": 0.5}])
def test_numbers_next_to_nothing_are_greedy(client, options):
    greedy = client.completions.create(**TEXT, max_tokens=8, temperature=0).choices[0].text
    assert client.completions.create(**TEXT, max_tokens=8, seed=1, **options).choices[0].text == greedy


def test_a_biased_token_is_forced_or_ruled_out(client, server):
    (first,) = server.text.tokenizer.encode("a")
    forced = client.completions.create(**TEXT, max_tokens=5, temperature=0, logit_bias={str(first): 100})
    assert forced.choices[0].text == "aaaaa"
    free = client.completions.create(**TEXT, max_tokens=1, temperature=0).choices[0].text
    likeliest = int(forward(server, server.text.text_prompt(TEXT["prompt"]))[-1].argmax())
    barred = client.completions.create(**TEXT, max_tokens=1, temperature=0, logit_bias={str(likeliest): -100})
    assert barred.choices[0].text != free


def forward(server, tokens):
    model, row = server.engine.model, torch.tensor([tokens])
    with torch.inference_mode():
        hidden = model(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
        return model.logits(hidden)[0].log_softmax(-1)


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_an_echoed_prompt_has_the_log_probabilities_of_a_forward_pass(client, server, max_tokens):
    prompt = server.text.text_prompt(TEXT["prompt"])
    answer = client.completions.create(
        model="flagship", prompt=[prompt], max_tokens=max_tokens, echo=True, logprobs=2, temperature=0
    )
    (choice,) = answer.choices
    told = choice.logprobs
    assert choice.text.startswith(TEXT["prompt"]) and len(told.tokens) == len(prompt) + max_tokens
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    expected = forward(server, prompt)
    chosen = [float(expected[i, token]) for i, token in enumerate(prompt[1:])]
    assert told.token_logprobs[1 : len(prompt)] == pytest.approx(chosen, abs=1e-5)
    for i, alternatives in enumerate(told.top_logprobs[1 : len(prompt)]):
        assert sorted(alternatives.values()) == pytest.approx(sorted(expected[i].topk(2).values.tolist()), abs=1e-5)
    for token, begin in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith(("bytes:", "<|")):
            assert choice.text[begin : begin + len(token)] == token
    assert answer.usage.completion_tokens == max_tokens
    if not max_tokens:
        assert (choice.text, choice.finish_reason) == (TEXT["prompt"], "length")


def test_an_echo_without_log_probabilities_can_be_streamed(client):
    whole = client.completions.create(**TEXT, max_tokens=5, echo=True, seed=1, n=2)
    texts = ["", ""]
    for chunk in client.completions.create(**TEXT, max_tokens=5, echo=True, seed=1, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]
    alone = list(client.completions.create(**TEXT, max_tokens=0, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in alone) == TEXT["prompt"]
    assert alone[-1].choices[0].finish_reason == "length"


def test_alternatives_of_a_chat_are_the_likeliest_and_stream_alike(client, server):
    options = {"max_tokens": 6, "seed": 4, "logprobs": True, "top_logprobs": 3}
    answer = client.chat.completions.create(**ASK, **options)
    told = answer.choices[0].logprobs.content
    prompt = server.text.chat_prompt(ASK["messages"])
    (first,) = forward(server, prompt)[-1:]
    assert [entry.logprob for entry in told[0].top_logprobs] == pytest.approx(first.topk(3).values.tolist(), abs=1e-5)
    expected = [server.text.token_bytes(id) for id in first.topk(3).indices.tolist()]
    assert [bytes(entry.bytes) for entry in told[0].top_logprobs] == expected
    assert all(len(entry.top_logprobs) == 3 for entry in told)
    chunks = client.chat.completions.create(**ASK, **options, stream=True)
    streamed = [entry for chunk in chunks if (found := chunk.choices[0].logprobs) for entry in found.content]
    assert streamed == told


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "size": {"enum": [1, 2, 3]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}


def test_an_answer_obeys_a_json_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "file", "schema": SCHEMA, "strict": True}}
    for seed in range(4):
        answer = client.chat.completions.create(**ASK, seed=seed, response_format=form, max_tokens=150)
        found = json.loads(answer.choices[0].message.content)
        assert answer.choices[0].finish_reason == "stop"
        assert set(found) == {"name", "size"} and found["size"] in (1, 2, 3) and len(found["name"]) <= 5
    streamed = client.chat.completions.create(**ASK, seed=0, response_format=form, max_tokens=150, stream=True)
    json.loads("".join(chunk.choices[0].delta.content or "" for chunk in streamed))


def test_the_clients_own_parsing_of_a_schema_works(client):
    class File(BaseModel):
        kind: bool
        many: bool

    answer = client.chat.completions.parse(**ASK, response_format=File, max_tokens=100, seed=1)
    assert isinstance(answer.choices[0].message.parsed, File)


def test_a_json_object_is_what_the_grammar_draws(client, server, engine_apart):
    answer = client.chat.completions.create(**ASK, seed=2, response_format={"type": "json_object"}, max_tokens=40)
    params = SamplingParams(max_tokens=40, seed=2, grammar=Grammar.json_object(), stop_tokens=server.text.stop_tokens)
    (expected,) = engine_apart.generate([server.text.chat_prompt(ASK["messages"])], params)
    assert answer.choices[0].message.content == expected[0].text
    assert answer.choices[0].message.content.startswith("{")


def test_a_schema_that_cannot_be_enforced_is_refused(client):
    import openai

    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    with pytest.raises(openai.BadRequestError, match="JSON schema"):
        client.chat.completions.create(**ASK, response_format=bad)


def test_a_repeated_prompt_is_told_to_come_from_the_cache(client, server):
    prompt = server.text.tokenizer.encode(
        "A user may list the files of a package, remove it, or ask which one it is. " * 3
    )
    first, second = (client.completions.create(model="flagship", prompt=prompt, max_tokens=1).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens == (len(prompt) - 1) // 16 * 16 > 0
    chunks = list(
        client.completions.create(
            model="flagship", prompt=prompt, max_tokens=1, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == second.prompt_tokens_details.cached_tokens
    assert Usage(3, 4, 2).to_json()["total_tokens"] == 7
