"""Models behind addresses: our own server says what the model's folder says; bad servers are told as what they are."""

import json
import sys

import pytest
import torch

from herdlm.base.errors import HerdError, InputError
from herdlm.base.openai_api import OpenAIServer
from herdlm.cli.app import main
from herdlm.evaluate.engines import EngineOptions, OneEngine
from herdlm.evaluate.local import LocalModel
from herdlm.evaluate.remote import RemoteModel, RemoteOptions
from herdlm.evaluate.requests import AnswerRequest, Question, ScoreRequest
from herdlm.verifiers.load import load_verifier
from tests.curate.grade.badly_behaved import Reply, says, server
from tests.serve.conftest import running, write_model

FAST = RemoteOptions(first_wait=0.01, tries=3, timeout=20)
CHAT = Question(messages=({"role": "system", "content": "Moo."}, {"role": "user", "content": "How is the cow?"}))
PLAIN = [
    ("The package", " manager"),
    ("The package ", "manager keeps é🐄 and 牛 alive"),  # a space that goes to the continuation, bytes of characters
    ("Question: is the 牛🐄", " 🐄é of the server\n\nwell?"),
    ("", "Each server keeps a log"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    return write_model(tmp_path_factory.mktemp("models") / "flagship", tokenizer)


@pytest.fixture(scope="module")
def local(folder):
    """The model of the folder in float64, as the server has it."""
    engine = OneEngine(folder, EngineOptions())
    engine.engine = type(engine.engine).load(folder, dtype=torch.float64)
    return LocalModel(folder, EngineOptions(), engine)


@pytest.fixture(scope="module")
def remote(folder):
    with running(folder) as own:
        model = RemoteModel(own.url, FAST)
        yield model
        model.close()


def test_a_server_describes_its_model(remote, local):
    assert (remote.name, remote.chats, remote.context) == ("flagship", True, local.context)
    assert remote.fingerprint == f"server {remote.address}, model flagship"
    assert remote.count("The package manager") == local.count("The package manager")


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_likelihoods_are_those_of_the_folder(remote, local, kind):
    if kind == "plain":
        requests = [ScoreRequest(Question(context), continuation) for context, continuation in PLAIN]
    else:
        requests = [ScoreRequest(CHAT, continuation) for _, continuation in PLAIN]
    for found, expected in zip(remote.score(requests), local.score(requests), strict=True):
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert (found.greedy, found.cut) == (expected.greedy, 0)
    (answer,) = dict(local.answer([AnswerRequest(CHAT, 4)]))[0]
    (likeliest,) = remote.score([ScoreRequest(CHAT, answer.text)])
    assert likeliest.greedy == local.score([ScoreRequest(CHAT, answer.text)])[0].greedy


def test_texts_longer_than_the_context_are_scored_token_by_token(remote, local):
    text = "the cow keeps the package manager of each server. " * 60
    found, expected = remote.score_text(text), local.score_text(text)
    assert len(found) == len(expected) > local.context
    assert found[: local.context - 2] == pytest.approx(expected[: local.context - 2], abs=1e-4)
    short = "the cow keeps the package"
    assert remote.score_text(short) == pytest.approx(local.score_text(short), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_those_of_the_folder(remote, local, temperature):
    requests = [
        AnswerRequest(question, 24, ("e",) if i % 2 else (), temperature, 0.95, 1 + i % 3, seed=i)
        for i, question in enumerate([CHAT, Question("The package"), Question("Each server keeps"), CHAT] * 3)
    ]
    found, expected = dict(remote.answer(requests)), dict(local.answer(requests))
    assert found.keys() == expected.keys() == set(range(12))
    for number, answers in expected.items():
        assert [answer.text for answer in found[number]] == [answer.text for answer in answers]
        assert [answer.finish for answer in found[number]] == [answer.finish for answer in answers]


def test_what_does_not_fit_into_the_context_is_cut_as_for_the_folder(remote, local):
    long = "the cow keeps the package manager of each server. " * 12
    for question in (Question("The package"), Question(long), Question(messages=({"role": "user", "content": long},))):
        for most in (60, 1000):
            request = AnswerRequest(question, most)
            (found,) = dict(remote.answer([request]))[0]
            (expected,) = dict(local.answer([request]))[0]
            assert (found.text, found.finish) == (expected.text, "length")
    (found,) = remote.score([ScoreRequest(Question(long * 3), " sleeps")])
    (expected,) = local.score([ScoreRequest(Question(long * 3), " sleeps")])
    assert found.cut == expected.cut + 2  # a server computes the last token, too, and is asked for one behind it
    assert found.logprobs == pytest.approx(expected.logprobs, abs=0.5)


def models(*names):
    return Reply({"data": [{"id": name} for name in names]})


def bad(answer, *names):
    """A server of models that answers dialogs, and requests as a function says."""

    def reply(request):
        if request.path.endswith("/models"):
            return models(*(names or ("m",)))
        if request.body.get("max_tokens") == 1 and "messages" in request.body:
            return says("Hello")
        return answer(request)

    return server(reply)


def test_one_of_several_models_is_named_behind_the_address():
    with bad(lambda request: says("x"), "a", "b") as at:
        with pytest.raises(InputError, match=r"2 models: a, b.*#NAME"):
            RemoteModel(at.address, FAST)
        with pytest.raises(InputError, match="no model 'c'"):
            RemoteModel(f"{at.address}#c", FAST)
        assert RemoteModel(f"{at.address}#b", FAST).name == "b"
        assert RemoteModel(f"{at.address.removesuffix('/v1')}#b", FAST).address == at.address


def test_refusals_that_pass_are_tried_again_and_others_are_told_with_the_address():
    def answer(request):
        return Reply({}, 429, {"Retry-After": "0"}) if request.number < 5 else says("fine")

    with bad(answer) as at:
        model = RemoteModel(at.address, RemoteOptions(first_wait=0.01, tries=6))
        assert dict(model.answer([AnswerRequest(CHAT, 9)]))[0][0].text == "fine"
    with bad(lambda request: Reply({}, 503)) as at:
        model = RemoteModel(at.address, FAST)
        with pytest.raises(HerdError, match=f"{at.address}: HTTP 503"):
            list(model.answer([AnswerRequest(CHAT, 9)] * 4))
    with bad(lambda request: Reply({"x": "y" * 50}, cut=True)) as at:
        model = RemoteModel(at.address, FAST)
        with pytest.raises(HerdError, match="cut off|IncompleteRead"):
            list(model.answer([AnswerRequest(CHAT, 9)]))
    with bad(lambda request: Reply({"error": {"message": "no such key"}}, 401)) as at:
        model = RemoteModel(at.address, FAST)
        with pytest.raises(InputError, match=f"{at.address}: HTTP 401: no such key"):
            list(model.answer([AnswerRequest(CHAT, 9)]))
    with pytest.raises(HerdError, match=f"{at.address}: .*refused"):
        RemoteModel(at.address, FAST)


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": {"message": "Only no echo is supported"}}, 400),
        Reply({"error": {"message": "Not found"}}, 404),
        Reply({"choices": [{"text": "a", "logprobs": None}], "usage": {"prompt_tokens": 3}}),
        Reply(
            {
                "choices": [{"text": "a", "logprobs": {"content": [{"token": "a", "logprob": -1.0}]}}],
                "usage": {"prompt_tokens": 3},
            }
        ),
        Reply(
            {
                "choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}}],
                "usage": {"prompt_tokens": 3},
            }
        ),
    ],
)
def test_a_server_without_log_probabilities_of_prompts_is_refused_with_a_remedy(reply):
    with bad(lambda request: reply) as at:
        model = RemoteModel(at.address, FAST)
        with pytest.raises(InputError, match="likelihoods cannot be asked of m: .*vLLM") as caught:
            model.score([ScoreRequest(Question("a b"), " c")])
        assert at.address in str(caught.value)


def test_offsets_may_count_the_begin_token_and_their_lack_is_made_up_by_token_texts():
    """As vLLM counts, whose echo names the begin token, and as servers reply that have no offsets."""

    def answer(request):
        if request.path.endswith("/tokenize"):  # llama.cpp's, which looks for another key
            return Reply({"tokens": []})
        tokens, logprobs = ["<s>", "The", " cow", " says", " moo", "!"], [None, -1.0, -2.0, -3.0, -4.0, -0.5]
        echo = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": [None, *({"x": -3.0},) * 5]}
        if request.body["prompt"].startswith("The"):
            echo["text_offset"] = [0, 3, 6, 10, 15, 19]
        return Reply({"choices": [{"text": "", "logprobs": echo}], "usage": {"prompt_tokens": 5}})

    with bad(answer) as at:
        model = RemoteModel(at.address, FAST)
        (found,) = model.score([ScoreRequest(Question("The cow"), " says moo")])
        assert (found.logprobs, found.greedy) == ([-3.0, -4.0], False)
        (found,) = model.score([ScoreRequest(Question("The cow sa"), "ys moo")])
        assert found.logprobs == [-3.0, -4.0]  # the token in which the continuation begins counts
        (found,) = model.score([ScoreRequest(Question("The"), " cow says moo")])
        assert (found.logprobs, found.greedy) == ([-2.0, -3.0, -4.0], False)
        with pytest.raises(InputError, match="does not say where"):
            model.score([ScoreRequest(Question("The cow and the"), " calf")])
        with pytest.raises(InputError, match="--plain"):
            model.score([ScoreRequest(CHAT, "moo")])


def test_a_server_that_gives_one_sample_at_a_time_is_asked_again_with_other_seeds():
    with bad(lambda request: says(str(request.body["seed"]))) as at:
        model = RemoteModel(at.address, FAST)
        answers = dict(model.answer([AnswerRequest(CHAT, 9, temperature=1.0, samples=3, seed=40)]))[0]
        assert [answer.text for answer in answers] == ["40", "41", "42"]
        assert [request.body["n"] for request in at.requests[2:]] == [3, 2, 1]


def test_no_more_requests_than_allowed_are_pending():
    def answer(request):
        reply = says("x")
        reply.delay = 0.1
        return reply

    with bad(answer) as at:
        model = RemoteModel(at.address, RemoteOptions(concurrency=3))
        assert len(list(model.answer([AnswerRequest(CHAT, 9)] * 12))) == 12
        assert at.most_at_once == 3


def test_what_newer_servers_call_the_limit_is_learned():
    def answer(request):
        if "max_tokens" in request.body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return Reply({"error": {"message": message}}, 400)
        return says(str(request.body["max_completion_tokens"]))

    with bad(answer) as at:
        model = RemoteModel(at.address, FAST)
        assert dict(model.answer([AnswerRequest(CHAT, 9)]))[0][0].text == "9"


def test_calls_that_the_server_takes_out_of_the_text_are_judged_under_the_functions_own_names():
    described = {
        "name": "farm.milk",
        "description": "",
        "parameters": {"type": "dict", "properties": {"cow": {"type": "string"}}, "required": ["cow"]},
    }

    def answer(request):
        (tool,) = request.body["tools"]
        if "." in tool["function"]["name"]:
            return Reply({"error": {"message": "tools.0.function.name: invalid"}}, 400)
        call = {"function": {"name": tool["function"]["name"], "arguments": '{"cow": "Bess"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    with bad(answer) as at:
        model = RemoteModel(at.address, FAST)
        question = Question(messages=CHAT.messages, tools=({"type": "function", "function": described},))
        (found,) = dict(model.answer([AnswerRequest(question, 9)]))[0]
    assert found.calls == [{"name": "farm.milk", "arguments": {"cow": "Bess"}}]
    assert (found.text, found.finish) == ("", "stop")
    reference = {"function": [described], "ground_truth": [{"farm.milk": {"cow": ["Bess"]}}]}
    assert load_verifier("call")(found.whole, reference).passed


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("http://127.0.0.1:9/v1", ["--workers", "2"], "--workers and --cluster run model folders"),
        ("runs/tiny", ["--concurrency", "2"], "--concurrency and API keys are for servers"),
        ("http://127.0.0.1:9/v1", ["--api-key-file", "/nowhere/key"], "/nowhere/key cannot be read"),
    ],
)
def test_options_that_have_no_effect_or_no_file_are_refused(model, options, message, monkeypatch, capsys):
    arguments = ["herdlm", "evaluate", model, "--tasks", "arc_easy", "--out", "nowhere", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_key_goes_unencrypted_to_this_machine_only_unless_it_is_allowed(monkeypatch, tmp_path, capsys):
    with pytest.raises(InputError, match=r"unencrypted to http://example.com/v1.*--key-over-http"):
        RemoteModel("http://example.com/v1#m", RemoteOptions(key="secret"))
    OpenAIServer("http://example.com/v1", key="secret", key_over_http=True)
    OpenAIServer("https://example.com/v1", key="secret", key_over_http=False)
    monkeypatch.delenv("HERDLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "from environment")
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "task.toml").write_text(
        'title = "T"\nabout = ""\nkind = "answer"\n[items]\nfiles = ["i.jsonl"]\nsource = ""\n[prompt]\n'
        'text = "{{ q }}"\n[judge.acc]\nverifier = "exact"\nreference = "a"\n'
    )
    (tmp_path / "i.jsonl").write_text(json.dumps({"q": "Well?", "a": "fine"}) + "\n")
    with bad(lambda request: Reply({"choices": [{"text": "fine"}]})) as at:
        for number, more in enumerate(([], ["--api-key-file", str(tmp_path / "key")])):
            out = tmp_path / f"out{number}"
            options = ["--tasks", str(tmp_path / "task.toml"), "--data", str(tmp_path), "--out", str(out), "--json"]
            monkeypatch.setattr(sys, "argv", ["herdlm", "evaluate", at.address, *options, *more])
            with pytest.raises(SystemExit) as left:
                main()
            assert not left.value.code
            summary = json.loads(capsys.readouterr().out)
            assert summary["model"] == "m"
            assert summary["tasks"]["task"]["acc"]["value"] == 1.0
        keys = {request.headers.get("Authorization") for request in at.requests}
    assert keys == {"Bearer from environment", "Bearer from-file"}
