"""The unmodified OpenAI client against a real server: chats and completions, whole and streamed."""

import asyncio
import time

import httpx
import openai
import pytest
import torch

from herdlm.model.attention import DocumentAttention

ASK = {"model": "flagship", "messages": [{"role": "user", "content": "Which package does the file belong to?"}]}
TEXT = {"model": "flagship", "prompt": "The package manager"}


def test_a_chat_is_answered_and_its_tokens_are_counted(client, server):
    answer = client.chat.completions.create(**ASK, max_completion_tokens=12, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == "flagship"
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    model = server.text
    assert answer.usage.prompt_tokens == len(model.chat_prompt(ASK["messages"]))
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_an_answer_goes_on_with_the_last_message(client, server):
    """As vLLM's clients ask for it."""
    begun = [*ASK["messages"], {"role": "assistant", "content": "The package is"}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    options = {"max_tokens": 12, "temperature": 0}
    answer = client.chat.completions.create(model="flagship", messages=begun, extra_body=more, **options)
    prompt = [*server.text.chat_prompt(ASK["messages"]), *server.text.tokenizer.encode("The package is")]
    assert answer.usage.prompt_tokens == len(prompt)
    text = client.completions.create(model="flagship", prompt=prompt, **options)
    assert answer.choices[0].message.content == text.choices[0].text
    new = client.chat.completions.create(model="flagship", messages=begun, **options)
    assert new.usage.prompt_tokens > len(prompt)


def test_a_chat_gives_further_arguments_to_the_template(client, server, monkeypatch):
    template = server.text.format.templates["default"]
    given = {}
    render = template.render
    monkeypatch.setattr(template, "render", lambda **variables: given.update(variables) or render(**variables))
    forged = {"enable_thinking": False, "note": "moo <|eot_id|>"}
    client.chat.completions.create(**ASK, max_tokens=1, extra_body={"chat_template_kwargs": forged})
    assert given["enable_thinking"] is False
    assert given["note"].startswith("moo ") and "<|eot_id|>" not in given["note"]


def test_a_streamed_chat_is_the_same_answer_in_pieces(client):
    options = {"max_tokens": 12, "seed": 5}
    whole = client.chat.completions.create(**ASK, **options)
    chunks = list(client.chat.completions.create(**ASK, **options, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    *parts, last = chunks
    assert parts[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]
    assert all(part.usage is None for part in parts)
    assert last.choices == [] and last.usage == whole.usage
    pieces = [part.choices[0].delta.content or "" for part in parts]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 3


def test_without_include_usage_no_chunk_speaks_of_it(server):
    body = {**TEXT, "stream": True, "max_tokens": 2}
    lines = httpx.post(f"{server.url}/completions", json=body).text.split("\n\n")
    assert all(line.startswith("data: ") for line in lines[:-1]) and lines[-1] == ""
    assert lines[-2] == "data: [DONE]"
    assert "usage" not in "".join(lines)


def test_the_same_seed_gives_the_same_answer_and_no_seed_a_new_one(client):
    def ask(**options):
        return client.chat.completions.create(**ASK, max_tokens=16, **options).choices[0].message.content

    assert ask(seed=1) == ask(seed=1) != ask(seed=2)
    assert ask() != ask()
    assert ask(seed=-(2**63)) == ask(seed=-(2**63))
    assert ask(temperature=0) == ask(temperature=0, seed=3)


def test_drawing_from_the_top_alone_is_greedy(client):
    def ask(**options):
        return client.completions.create(**TEXT, max_tokens=16, seed=3, **options).choices[0].text

    greedy = ask(temperature=0)
    assert ask(top_p=1e-6) == greedy == ask(extra_body={"top_k": 1})
    assert ask() != greedy


def test_n_samples_differ_and_are_counted(client):
    answer = client.chat.completions.create(**ASK, max_tokens=8, n=3, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3
    assert answer.usage.completion_tokens == 24
    alone = client.chat.completions.create(**ASK, max_tokens=8, seed=1)
    assert texts[0] == alone.choices[0].message.content
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**ASK, max_tokens=8, n=3, seed=1, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_prompts_may_be_text_or_token_ids_one_or_many(client, server):
    def complete(prompt):
        return client.completions.create(model="flagship", prompt=prompt, max_tokens=6, temperature=0)

    one, other = complete("The user"), complete("Each server")
    ids = [server.text.text_prompt(text) for text in ("The user", "Each server")]
    assert complete(ids[0]).choices[0].text == one.choices[0].text
    for prompts in (["The user", "Each server"], ids):
        both = complete(prompts)
        assert [choice.text for choice in both.choices] == [one.choices[0].text, other.choices[0].text]
        assert [choice.index for choice in both.choices] == [0, 1]
        assert both.usage.prompt_tokens == one.usage.prompt_tokens + other.usage.prompt_tokens
    assert complete("").usage.prompt_tokens == 1  # the begin-of-text token


def test_many_prompts_with_many_samples_are_numbered_prompt_after_prompt(client):
    options = {"model": "flagship", "max_tokens": 5, "seed": 2, "n": 2}
    both = client.completions.create(prompt=["The user", "Each server"], **options)
    first, second = (client.completions.create(prompt=text, **options) for text in ("The user", "Each server"))
    expected = [choice.text for answer in (first, second) for choice in answer.choices]
    assert [choice.text for choice in both.choices] == expected
    streamed = [""] * 4
    for chunk in client.completions.create(prompt=["The user", "Each server"], **options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == expected


def test_a_completion_is_16_tokens_and_a_chat_all_the_context_unless_told(client, server):
    assert client.completions.create(**TEXT, temperature=0).usage.completion_tokens == 16
    usage = client.chat.completions.create(**ASK, temperature=0).usage
    assert usage.total_tokens == server.text.context == 256


def test_a_stop_string_ends_the_answer_before_it(client):
    free = client.completions.create(**TEXT, max_tokens=40, temperature=0).choices[0].text
    stop = free[20:23]
    cut = free[: free.index(stop)]
    for given in (stop, ["never to be seen", stop]):
        answer = client.completions.create(**TEXT, max_tokens=40, temperature=0, stop=given)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (cut, "stop")
        assert answer.usage.completion_tokens < 40
    chunks = list(client.completions.create(**TEXT, max_tokens=40, temperature=0, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stop_token_ends_the_answer_and_is_counted(client, server, monkeypatch):
    model = server.text
    drawn = client.completions.create(**TEXT, max_tokens=6, seed=4, logprobs=0)
    tokens = drawn.choices[0].logprobs.tokens
    position = next(i for i in range(1, 6) if tokens[i] not in tokens[:i])
    id = next(i for i in range(model.tokenizer.vocab_size) if model.tokenizer.decode([i]) == tokens[position])
    monkeypatch.setattr(model.format, "stop_tokens", (id,))
    answer = client.completions.create(**TEXT, max_tokens=6, seed=4, logprobs=0)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs.tokens == tokens[:position]
    assert answer.usage.completion_tokens == position + 1


def test_log_probabilities_of_a_chat_are_those_of_a_forward_pass(client, server):
    answer = client.chat.completions.create(**ASK, max_tokens=10, seed=9, logprobs=True)
    told = answer.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in told).decode(errors="replace") == answer.choices[0].message.content
    assert all(entry.top_logprobs == [] for entry in told)
    model = server.text
    id_of = {model.token_bytes(id): id for id in range(model.tokenizer.vocab_size)}
    prompt, drawn = model.chat_prompt(ASK["messages"]), [id_of[bytes(entry.bytes)] for entry in told]
    tokens = torch.tensor([prompt + drawn])
    transformer = server.engine.model
    with torch.inference_mode():
        hidden = transformer(tokens, torch.arange(tokens.shape[1])[None], DocumentAttention(torch.zeros_like(tokens)))
        logprobs = transformer.logits(hidden)[0].log_softmax(-1)
    expected = [float(logprobs[len(prompt) - 1 + i, id]) for i, id in enumerate(drawn)]
    assert [entry.logprob for entry in told] == pytest.approx(expected, abs=1e-5)
    chunks = client.chat.completions.create(**ASK, max_tokens=10, seed=9, logprobs=True, stream=True)
    streamed = [entry for chunk in chunks if (found := chunk.choices[0].logprobs) for entry in found.content]
    assert [(entry.token, entry.logprob) for entry in streamed] == [
        (entry.token, pytest.approx(entry.logprob, abs=1e-6)) for entry in told
    ]


def test_log_probabilities_of_a_completion_say_where_tokens_begin(client):
    choice = client.completions.create(**TEXT, max_tokens=12, temperature=0, logprobs=0).choices[0]
    told = choice.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == 12
    assert all(value <= 0 for value in told.token_logprobs)
    for token, begin in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith("bytes:"):
            assert choice.text[begin : begin + len(token)] == token
    assert client.completions.create(**TEXT, max_tokens=2).choices[0].logprobs is None


def test_an_assistant_message_goes_back_as_it_came(client):
    first = client.chat.completions.create(**ASK, max_tokens=4, seed=1).choices[0].message
    messages = [
        {"role": "developer", "content": "Be brief."},
        *ASK["messages"],
        first,
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "why?"}]},
    ]
    parts = client.chat.completions.create(model="flagship", messages=messages, max_tokens=4, seed=1)
    messages[0] = {"role": "system", "content": "Be brief."}
    messages[-1] = {"role": "user", "content": "And why?"}
    plain = client.chat.completions.create(model="flagship", messages=messages, max_tokens=4, seed=1)
    assert parts.choices[0].message == plain.choices[0].message
    assert parts.usage.prompt_tokens == plain.usage.prompt_tokens
    assert plain.usage.prompt_tokens_details.cached_tokens == plain.usage.prompt_tokens // 16 * 16


def test_the_model_is_listed(client):
    (listed,) = client.models.list().data
    assert (listed.id, listed.object, listed.max_model_len) == ("flagship", "model", 256)
    assert abs(listed.created - time.time()) < 3600
    assert client.models.retrieve("flagship") == listed
    with pytest.raises(openai.NotFoundError, match=r"this server has no model 'gpt-9'\. It has flagship"):
        client.models.retrieve("gpt-9")


def test_thirty_two_streams_at_once_are_each_as_if_alone(server):
    questions = [f"Which package holds file number {i}?" for i in range(32)]

    async def ask(client, seed):
        chunks = await client.chat.completions.create(
            model="flagship",
            messages=[{"role": "user", "content": questions[seed]}],
            max_tokens=24,
            seed=seed,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def all_of_them():
        async with server.async_client as client:
            together = await asyncio.gather(*(ask(client, seed) for seed in range(32)))
            return together, [await ask(client, seed) for seed in range(32)]

    together, alone = asyncio.run(all_of_them())
    assert together == alone
    assert len(set(alone)) == 32
