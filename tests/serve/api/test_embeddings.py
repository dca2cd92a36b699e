"""Embeddings against a forward pass, and the tokenizer's endpoints."""

import httpx
import numpy as np
import openai
import pytest
import torch

from herdlm.model.attention import DocumentAttention

TEXTS = ["The package manager", "Each server keeps a log."]


def expected(server, tokens):
    row = torch.tensor([tokens])
    with torch.inference_mode():
        hidden = server.engine.model(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
    mean = hidden[0].mean(0)
    return (mean / mean.norm()).numpy()


def test_an_embedding_is_the_mean_of_the_last_hidden_states_of_length_1(client, server):
    answer = client.embeddings.create(model="flagship", input=TEXTS)  # the client asks for base64
    assert [item.index for item in answer.data] == [0, 1] and answer.model == "flagship"
    prompts = [server.text.text_prompt(text) for text in TEXTS]
    for item, tokens in zip(answer.data, prompts, strict=True):
        np.testing.assert_allclose(item.embedding, expected(server, tokens), atol=1e-6)
        assert np.linalg.norm(item.embedding) == pytest.approx(1, abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, prompts))
    floats = client.embeddings.create(model="flagship", input=prompts[1], encoding_format="float")
    np.testing.assert_allclose(floats.data[0].embedding, answer.data[1].embedding, atol=1e-6)


def test_fewer_dimensions_are_the_first_scaled_again(client):
    whole = np.array(client.embeddings.create(model="flagship", input="x").data[0].embedding)
    short = client.embeddings.create(model="flagship", input="x", dimensions=8).data[0].embedding
    np.testing.assert_allclose(short, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="the model's embeddings have 32") as caught:
        client.embeddings.create(model="flagship", input="x", dimensions=33)
    assert caught.value.param == "dimensions"


def test_wrong_inputs_are_refused(client):
    for bad, says in (
        ([], "input"),
        ([400], "token ids outside"),
        ("word " * 300, "fills the context"),
        ([[]], "empty"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            client.embeddings.create(model="flagship", input=bad)


def test_tokens_and_texts_go_both_ways(server):
    base = server.url.removesuffix("/v1")
    text = "It's simple: don't let the disk fill up. Größe ✓"
    told = httpx.post(f"{base}/tokenize", json={"prompt": text}).json()
    assert told == {"tokens": server.text.text_prompt(text), "count": len(told["tokens"]), "max_model_len": 256}
    bare = httpx.post(
        f"{base}/tokenize", json={"prompt": text, "add_special_tokens": False, "model": "flagship"}
    ).json()
    assert bare["tokens"] == told["tokens"][1:]
    assert httpx.post(f"{base}/detokenize", json={"tokens": bare["tokens"]}).json() == {"prompt": text}
    whole = httpx.post(f"{base}/detokenize", json={"tokens": told["tokens"]}).json()["prompt"]
    assert whole == "<|begin_of_text|>" + text
    wrong = httpx.post(f"{base}/detokenize", json={"tokens": [5, 400]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "tokens")
    assert httpx.post(f"{base}/tokenize", json={"prompt": "x", "model": "y"}).status_code == 404
    messages = [{"role": "user", "content": "Größe ✓"}]
    dialog = httpx.post(f"{base}/tokenize", json={"messages": messages, "add_generation_prompt": True}).json()
    assert dialog["tokens"] == server.text.chat_prompt(messages)
    for wrong_body in (
        {},
        {"prompt": "x", "messages": messages},
        {"messages": messages, "add_generation_prompt": False},
    ):
        assert httpx.post(f"{base}/tokenize", json=wrong_body).status_code == 400
    info = httpx.get(f"{base}/tokenizer_info").json()
    assert info["bos_token"] == "<|begin_of_text|>" and info["eos_token"] == "<|eot_id|>"
    assert "start_header_id" in info["chat_template"]
