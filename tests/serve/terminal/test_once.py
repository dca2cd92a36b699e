"""Single answers, and the model behind all of them."""

import json

import pytest

from herdlm.base.errors import InputError
from herdlm.generate import Engine
from herdlm.serve.api.answers import ChatAnswer
from herdlm.serve.terminal.once import generate_once
from herdlm.serve.workers.model_text import LoadedModel, ModelText, engine_context
from herdlm.serve.workers.protocol import SampleOutput
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from tests.conftest import TEXT
from tests.serve.conftest import write_model


def test_a_text_is_continued_and_a_chat_answered(folder, server):
    text = generate_once(folder, "The package", max_tokens=8, temperature=0)
    served = server.client.completions.create(model="flagship", prompt="The package", max_tokens=8, temperature=0)
    assert [completion.text for completion in text] == [served.choices[0].text]
    answers = generate_once(folder, "Hello", chat=True, system="Be brief.", max_tokens=4, seed=4, n=2)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    chat = server.client.chat.completions.create(model="flagship", messages=messages, max_tokens=4, seed=4, n=2)
    assert [answer.text for answer in answers] == [choice.message.content for choice in chat.choices]
    assert [len(answer.logprobs) for answer in answers] == [4, 4]


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(InputError, match="the context is 256 tokens"):
        generate_once(folder, "The package", max_tokens=256)
    with pytest.raises(InputError, match="--chat"):
        generate_once(folder, "The package", system="Be brief.")


def test_a_run_answers_with_its_flagship(tmp_path, folder):
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (run / "models" / "flagship").symlink_to(folder)
    (run / "recipe.json").write_text(json.dumps({"herd": {"flagship": "flagship"}}))
    assert LoadedModel.load(run).name == "flagship"
    assert generate_once(run, "The", max_tokens=4) == generate_once(folder, "The", max_tokens=4)


def test_the_space_of_the_dialog_format_is_no_part_of_an_answer(tmp_path):
    tokenizer = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400, leading_space=True))
    model = LoadedModel.load(write_model(tmp_path / "m", tokenizer))
    assert model.answer_text(" Yes") == "Yes"
    answer = ChatAnswer(model, logprobs=False)
    events = [SampleOutput(0, 0, [5], [-1.0], [], text, None, 0) for text in (" Yes", " and no")]
    told = [choice["delta"]["content"] for event in events for choice in answer.chunks(0, event)]
    assert told == ["Yes", " and no"]


def test_the_context_is_what_the_cache_holds_where_that_is_less(folder):
    model = ModelText.read(folder)
    assert model.context == 256
    model.context = engine_context(Engine.load(folder, cache_tokens=64))
    assert model.context == 64
    assert model.room([1] * 60, None) == 4


def test_end_tokens_come_from_the_dialog_format_and_the_generation_settings(tmp_path, tokenizer):
    folder = write_model(tmp_path / "m", tokenizer)
    own = LoadedModel.load(folder).stop_tokens
    assert own == tuple(tokenizer.special(name) for name in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 398]}')
    assert set(LoadedModel.load(folder).stop_tokens) == {*own, 7, 398}
    (folder / "generation_config.json").write_text('{"eos_token_id": 5000}')
    with pytest.raises(InputError, match="eos_token_id 5000"):
        LoadedModel.load(folder)
