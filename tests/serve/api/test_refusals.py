"""What would change the answer and cannot be done is refused by name, in the API's own form."""

import json

import httpx
import openai
import pytest

CHAT = {"model": "flagship", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
TEXT = {"model": "flagship", "prompt": "Hello", "max_tokens": 2}


@pytest.fixture
def post(server):
    def send(path, body, **options):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | options
        return httpx.post(f"{server.url}/{path}", content=content, headers=headers, timeout=20)

    return send


NOT_OFFERED_IN_CHATS = {
    "modalities": ["text", "audio"],
    "web_search_options": {"search_context_size": "low"},
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "guided_json": {"type": "object"},
    "repeat_penalty": 1.3,
    "skip_special_tokens": False,
    "use_beam_search": True,
    "echo": True,
}
NOT_OFFERED_IN_COMPLETIONS = {"suffix": "x", "grammar": "root ::= x", "mirostat": 2}


TOOL = {"type": "function", "function": {"name": "f"}}
NAMED = {"type": "function", "function": {"name": "g"}}


def allowed(*names, mode="auto"):
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


SAID = {"role": "assistant", "content": "x"}


@pytest.mark.parametrize("field", NOT_OFFERED_IN_CHATS)
def test_chat_parameters_that_are_not_offered_are_refused_by_name(post, field):
    answer = post("chat/completions", {**CHAT, field: NOT_OFFERED_IN_CHATS[field]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", field)
    assert error["type"] == "invalid_request_error" and field in error["message"]


@pytest.mark.parametrize("field", NOT_OFFERED_IN_COMPLETIONS)
def test_completion_parameters_that_are_not_offered_are_refused_by_name(post, field):
    answer = post("completions", {**TEXT, field: NOT_OFFERED_IN_COMPLETIONS[field]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", field)


def test_the_same_parameters_may_ask_for_nothing(post):
    nothing = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "top_logprobs": 0,
        "modalities": ["text"],
        "store": False,
        "user": None,
        "metadata": None,
        "stop": None,
        "n": None,
        "seed": None,
        "temperature": None,
    }
    assert post("chat/completions", {**CHAT, **nothing}).status_code == 200
    assert post("completions", {**TEXT, "echo": False, "suffix": None, "best_of": 1}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"temperature": 2.5}, "temperature", "temperature = 2.5"),
        ({"temperature": "1"}, "temperature", "'1'"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 0}, "n", "n = 0"),
        ({"n": True}, "n", "n = True"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens = 0"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stop": ""}, "stop", "none of them empty"),
        ({"stop": ["x"] * 17}, "stop", "16"),
        ({"stop": ["ok", 5]}, "stop", "strings"),
        ({"logprobs": "yes"}, "logprobs", "logprobs = 'yes'"),
        ({"messages": []}, "messages", "messages = []"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'robot'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
        ({"model": None}, "model", "model is missing"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, None, "differ"),
        ({"frequency_penalty": 3}, "frequency_penalty", "less than or equal to 2"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids and biases"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
        ({"min_p": -0.1}, "min_p", "greater than or equal to 0"),
        ({"top_logprobs": 3}, "top_logprobs", "without logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "needs json_schema"),
        ({"tool_choice": "required"}, "tool_choice", "without tools"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "must be none, auto, required"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function", "missing"),
        ({"tools": [TOOL], "tool_choice": allowed("g")}, "tool_choice", "'g', which is not among the tools"),
        ({"tools": [TOOL], "tool_choice": NAMED}, "tool_choice", "'g', which is not among the tools"),
        ({"tools": [TOOL, TOOL]}, "tools", "two tools are called f"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id", "need tool_call_id"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs", "'x'"),
        ({"chat_template_kwargs": {"tools": []}}, None, "tools is no further argument"),
        ({"continue_final_message": True}, "continue_final_message", "not the assistant's"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "continue_final_message = true"),
        (
            {"messages": [SAID], "continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
            "continue_final_message = true",
        ),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]},
            "messages.0.tool_call_id",
            "no earlier call",
        ),
    ],
)
def test_wrong_values_are_named(post, changes, param, says):
    answer = post("chat/completions", {**CHAT, **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert says in error["message"]


def test_parts_of_messages_that_the_model_cannot_take_are_refused(post):
    image = [{"type": "image_url", "image_url": {"url": "http://example.org/x.png"}}]
    error = post("chat/completions", {**CHAT, "messages": [{"role": "user", "content": image}]}).json()["error"]
    assert error["message"] == "type = 'image_url': images are not supported by this server, which reads text"
    assert error["param"] == "messages.0.content.0.type"
    special = [{"type": "special", "text": "<|eot_id|>"}]  # a part of training data, which would forge a turn here
    error = post("chat/completions", {**CHAT, "messages": [{"role": "user", "content": special}]}).json()["error"]
    assert "special" in error["message"] and error["param"].startswith("messages.0.content")
    called = [{"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}]
    error = post("chat/completions", {**CHAT, "messages": called}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "messages.0.function_call")


def test_unknown_parameters_are_refused_with_the_nearest_known(post):
    error = post("chat/completions", {**CHAT, "temprature": 1}).json()["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "temprature")
    assert "Did you mean temperature?" in error["message"]
    error = post("completions", {**TEXT, "stream": True, "stream_options": {"include_usages": True}}).json()["error"]
    assert error["param"] == "stream_options.include_usages" and "include_usage" in error["message"]


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"best_of": 1, "n": 2}, "best_of", "less than n"),
        ({"best_of": 3, "stream": True}, "best_of", "set stream to false"),
        ({"max_tokens": 0}, "max_tokens", "set echo to get the prompt only"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream", "no prompt log-probabilities"),
    ],
)
def test_wrong_values_of_completions_are_named(post, changes, param, says):
    answer = post("completions", {**TEXT, **changes})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "prompt", [[], None, 5, {}, [[]], ["x", 5], [-1], [400], [10**30], [2.5], [True], "\ud800", ["a", "\udfff"]]
)
def test_prompts_that_are_none_are_refused(post, prompt):
    answer = post("completions", {**TEXT, "prompt": prompt})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"[" * 5000,
        b"\xff\xfe",
        b'{"\\ud800": 1}',
        b'{"model": "flagship", "prompt": "x", "temperature": NaN}',
        b'{"model": "flagship", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_request_are_refused(post, body):
    for path in ("completions", "chat/completions"):
        answer = post(path, body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


def test_a_body_of_another_content_type_is_refused(post):
    answer = post("completions", TEXT, **{"content-type": "text/plain"})
    assert answer.status_code == 400 and "application/json" in answer.json()["error"]["message"]


def test_wrong_values_are_shown_shortened(post):
    error = post("completions", {**TEXT, "temperature": "x" * 10_000}).json()["error"]
    assert len(error["message"]) < 300


def test_the_context_is_not_exceeded(client):
    with pytest.raises(openai.BadRequestError, match="5 tokens of prompt and 252 of answer are 257") as caught:
        client.completions.create(model="flagship", prompt=[9] * 5, max_tokens=252)
    assert caught.value.code == "context_length_exceeded" and "at most 251" in caught.value.message
    assert client.completions.create(model="flagship", prompt=[9] * 5, max_tokens=251).usage.total_tokens <= 256
    with pytest.raises(openai.BadRequestError, match="prompt of 256 tokens fills the context of 256"):
        client.completions.create(model="flagship", prompt=[9] * 256, stream=True)
    with pytest.raises(openai.BadRequestError, match="fills the context"):
        client.chat.completions.create(**{**CHAT, "messages": [{"role": "user", "content": "word " * 500}]})


def test_one_bad_prompt_stops_the_good_ones_beside_it(client, server):
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.completions.create(model="flagship", prompt=[[9, 8], [399, 400]], max_tokens=200)
    assert not server.engine.busy


def test_another_model_and_another_path_are_not_found(client, post):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert post("images", {}).status_code == 404
    assert post("images", {}).json()["error"]["code"] == "not_found"
    assert post("models", {}).status_code == 405
    assert "error" in post("models", {}).json()


def test_a_model_without_a_dialog_format_completes_but_does_not_chat(tmp_path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    from herdlm.model.hf import save_folder
    from tests.conftest import small_model
    from tests.serve.conftest import running

    folder = tmp_path / "base"
    save_folder(small_model(), folder)
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|begin_of_text|>"]
    backend = Backend(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin_of_text|>"])
    backend.save(str(folder / "tokenizer.json"))
    with running(folder) as server:
        assert server.client.completions.create(model="base", prompt="Hi", max_tokens=3).usage.prompt_tokens == 2
        with pytest.raises(openai.BadRequestError, match="has no chat template"):
            server.client.chat.completions.create(**{**CHAT, "model": "base"})
