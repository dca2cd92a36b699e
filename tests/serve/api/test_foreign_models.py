"""Models with tokenizers that herdlm did not train, served: added tokens, chat templates of other families."""

from __future__ import annotations

import json

import pytest
import torch

from herdlm.model.hf import save_folder
from herdlm.tokens.chat_format import ChatFormat, generation_settings
from herdlm.tokens.tokenizer import Tokenizer
from tests.conftest import small_model
from tests.serve.conftest import running
from tests.tokens.folders import FAMILIES, write_family


@torch.no_grad()
def write_foreign(name, folder, added=()):
    """A random model with the tokenizer of a family, and tokens added to it as ``add_tokens`` does."""
    write_family(name, folder)
    if added:
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(folder)
        theirs.add_tokens(list(added))
        theirs.save_pretrained(folder)
    size = Tokenizer.load(folder).vocab_size
    model = small_model(vocab_size=size, max_seq_len=1024)
    model.lm_head.weight *= 8
    save_folder(model, folder, generation=generation_settings(folder))
    return folder


def test_added_tokens_neither_end_a_worker_nor_a_stream(tmp_path):
    folder = write_foreign("llama-3.1", tmp_path / "added", ("<tool call>", "中文"))
    id = Tokenizer.load(folder).backend.token_to_id("中文")
    with running(folder) as server:
        ask = {"model": "added", "messages": [{"role": "user", "content": "moo"}], "seed": 1}
        form = {"type": "json_object"}
        answer = server.client.chat.completions.create(**ask, response_format=form, max_tokens=120).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.message.content), dict)
        bias = {str(id): 100}
        text = {"model": "added", "prompt": "moo", "max_tokens": 3, "temperature": 0, "logit_bias": bias}
        pieces = [chunk.choices[0].text for chunk in server.client.completions.create(**text, stream=True)]
        assert "".join(pieces) == server.client.completions.create(**text).choices[0].text == "中文" * 3


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_chat_is_prompted_as_the_folders_template_says(tmp_path, name):
    from transformers import AutoTokenizer

    folder = write_foreign(name, tmp_path / name)
    theirs = AutoTokenizer.from_pretrained(folder)
    dialog = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "moo"}]
    expected = theirs.apply_chat_template(dialog, add_generation_prompt=True, return_dict=False)
    with running(folder) as server:
        seen = []
        service = server.service.models.default.text
        kept, service.format.prompt = service.format.prompt, lambda *a, **k: seen.append(kept(*a, **k)) or seen[-1]
        options = {"model": name, "messages": dialog, "max_tokens": 12, "temperature": 0, "logprobs": True}
        answer = server.client.chat.completions.create(**options)
        streamed = server.client.chat.completions.create(**options, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert seen[0] == expected and answer.usage.prompt_tokens == len(expected)
    assert text == answer.choices[0].message.content
    format = ChatFormat.load(folder)
    (drawn,) = server.engine.generate([expected], _greedy(format))[0]
    words = [token for token in drawn.tokens if token not in format.stop_tokens]
    decoded = theirs.decode(words, skip_special_tokens=True)
    if "\ufffd" not in text + decoded:  # of bytes that are no text, a random model's, each decoder makes its own marks
        assert text.strip() == decoded.strip()


def _greedy(format):
    from herdlm.generate import SamplingParams

    return SamplingParams(max_tokens=12, temperature=0, stop_tokens=format.stop_tokens)
