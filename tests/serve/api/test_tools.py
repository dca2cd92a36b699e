"""Tool calls in Llama 3.1's form: found in texts however they are cut, told in prompts, drawn by grammar, streamed."""

import json

import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from herdlm.model.hf import save_folder
from herdlm.serve.api.chat import ChatBody
from herdlm.serve.api.tool_calls import CallPiece, CallScanner
from herdlm.serve.api.tools import to_dialog
from herdlm.tokens.chat_format import ChatFormat
from tests.conftest import small_model
from tests.serve.conftest import running

NAMES = frozenset({"get_weather", "add", "brave_search", "code_interpreter"})
WEATHER = '{"name": "get_weather", "parameters": {"city": "Zürich \\"old\\" {town}", "days": [1, {"a": 2}]}}'
ADD = '{"type": "function", "name": "add", "arguments": {"a": 1, "b": {}}}'


def scan(text, *, parallel=True, code=False, cuts=()):
    """(text, calls) found in ``text``, given in pieces."""
    scanner = CallScanner(NAMES, parallel)
    if code:
        scanner.begin_code()
    ends = [*sorted(cuts), len(text)]
    pieces = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    found = [part for i, piece in enumerate(pieces) for part in scanner.feed(piece, final=i == len(pieces) - 1)]
    content, calls = "", []
    for part in found:
        if isinstance(part, str):
            content += part
        elif part.name is not None:
            assert part.index == len(calls) and part.id.startswith("call_")
            calls.append([part.name, part.arguments])
        else:
            assert part.index == len(calls) - 1
            calls[-1][1] += part.arguments
    assert scanner.calls == len(calls)
    return content, [(name, json.loads(arguments)) for name, arguments in calls]


W = ("get_weather", {"city": 'Zürich "old" {town}', "days": [1, {"a": 2}]})
A = ("add", {"a": 1, "b": {}})
TEXTS = [
    ("The weather is fine.", ("The weather is fine.", [])),
    (WEATHER, ("", [W])),
    (f"  \n{WEATHER}\n", ("", [W])),
    (f"{WEATHER}; {ADD}", ("", [W, A])),
    (f"[{WEATHER}, {ADD}]", ("", [W, A])),
    (f"{ADD}\n{WEATHER}", ("", [A, W])),
    ('{"name": "add"}', ("", [("add", {})])),
    (f"{ADD} and that is it", ("", [A])),
    (f'{ADD};{{"name": "unknown", "parameters": {{}}}}', ("", [A])),
    ('{"name": "unknown", "parameters": {}}', ('{"name": "unknown", "parameters": {}}', [])),
    ('{"weather": "fine"}', ('{"weather": "fine"}', [])),
    ("{", ("{", [])),
    ("", ("", [])),
    (f"Let me see: {ADD}", (f"Let me see: {ADD}", [])),
    ("[1, 2, 3] are numbers", ("[1, 2, 3] are numbers", [])),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_calls_at_the_beginning_of_an_answer_are_found(text, expected):
    assert scan(text) == expected


@given(st.sampled_from(TEXTS), st.lists(st.integers(0, 120), max_size=8))
def test_it_does_not_matter_where_the_text_is_cut(case, cuts):
    text, expected = case
    assert scan(text, cuts=[cut for cut in cuts if cut < len(text)]) == expected


def test_without_parallel_calls_the_first_is_told():
    assert scan(f"{WEATHER}; {ADD}", parallel=False) == ("", [W])


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('brave_search.call(query="who won, and (why)?")', ("brave_search", {"query": "who won, and (why)?"})),
        ('brave_search.call(query="x", count=3)', ("brave_search", {"query": "x", "count": 3})),
        ("print(1 + 1)", ("code_interpreter", {"code": "print(1 + 1)"})),
        ('other.call(query="x")', ("code_interpreter", {"code": 'other.call(query="x")'})),
        (ADD, A),
    ],
)
def test_behind_the_python_tag_stand_built_in_calls_code_or_json(text, call):
    assert scan(text, code=True) == ("", [call])
    assert scan(text, code=True, cuts=range(len(text))) == ("", [call])


def test_a_call_that_is_cut_off_is_told_as_far_as_it_came():
    scanner = CallScanner(NAMES, True)
    found = scanner.feed('{"name": "add", "parameters": {"a": 1', final=True)
    assert [(part.name, part.arguments) for part in found if isinstance(part, CallPiece)] == [
        ("add", ""),
        (None, '{"a": 1'),
    ]


def tool(name, **properties):
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


SHORT = {"type": "string", "maxLength": 4}
TOOLS = [tool("get_weather", city=SHORT), tool("add", a={"enum": [1, 2]}, b={"type": "boolean"})]
ASK = {"model": "flagship", "messages": [{"role": "user", "content": "Hi"}]}


def dialog(messages, tools=(), **more):
    chat = ChatBody.model_validate({"model": "x", "messages": messages, "tools": list(tools), **more})
    return to_dialog(chat.messages, chat.offered)


def turn(role, content, end="<|eot_id|>"):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}{end}"


def test_tools_are_told_in_the_system_message(tokenizer):
    def prompt(*given, **more):
        messages, tools = dialog(*given, **more)
        text = tokenizer.decode(ChatFormat.of(tokenizer).prompt(messages, tools=tools), keep_special=True)
        return text.removeprefix("<|begin_of_text|>").removesuffix("<|start_header_id|>assistant<|end_header_id|>\n\n")

    user, system = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}
    described = "\n\n".join(json.dumps(each, indent=4) for each in TOOLS)
    told = prompt([user], TOOLS)
    assert told.endswith(turn("system", "").removesuffix("<|eot_id|>") + told.split("\n\n", 1)[1])
    assert f"{described}<|eot_id|>{turn('user', 'Hi')}" in told
    assert '{"name": NAME, "parameters": {ARGUMENT: VALUE}}' in told
    assert "Environment" not in told
    assert prompt([system, user], TOOLS) == told.replace("<|eot_id|>", "\n\nBe brief.<|eot_id|>", 1)
    assert prompt([user], TOOLS, tool_choice="none") == turn("user", "Hi")
    built_in = [tool("code_interpreter", code=SHORT), tool("brave_search", query=SHORT)]
    assert prompt([user], built_in) == turn("system", "Environment: ipython\nTools: brave_search") + turn("user", "Hi")


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def test_calls_and_results_go_back_as_the_model_writes_and_reads_them(tokenizer):
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call("c1", "add", {"a": 1}), call("c2", "add", {})]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "text", "text": "3"}], "tool_call_id": "c2"},
        {"role": "assistant", "tool_calls": [call("c3", "code_interpreter", {"code": "print(1)"})]},
        {"role": "tool", "content": "1", "tool_call_id": "c3"},
        {"role": "assistant", "tool_calls": [call("c4", "brave_search", {"query": 'a "b"'})]},
    ]
    text = tokenizer.decode(ChatFormat.of(tokenizer).render(dialog(messages)[0]).tokens, keep_special=True)
    calls = '{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {}}'
    search = '<|python_tag|>brave_search.call(query="a \\"b\\"")'
    assert text == "<|begin_of_text|>" + turn("user", "Hi") + turn("assistant", calls) + turn("ipython", "2") + turn(
        "ipython", "3"
    ) + turn("assistant", "<|python_tag|>print(1)", "<|eom_id|>") + turn("ipython", "1") + turn(
        "assistant", search, "<|eom_id|>"
    )


def test_the_tokens_of_code_are_the_models_own_to_learn(tokenizer):
    rendered = ChatFormat.of(tokenizer).render([{"role": "assistant", "content": "print(1)", "code": True}])
    own = [token for token, answer in zip(rendered.tokens, rendered.weights, strict=True) if answer]
    assert tokenizer.decode(own, keep_special=True) == "<|python_tag|>print(1)<|eom_id|>"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_call_that_must_be_made_is_made_and_obeys_its_schema(folder_for_tools, choice):
    client = folder_for_tools.client
    for seed in range(3):
        options = {"tools": TOOLS, "tool_choice": choice, "seed": seed, "max_tokens": 120}
        options |= {"parallel_tool_calls": False}
        answer = client.chat.completions.create(**ASK, **options).choices[0]
        (made,) = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and answer.message.content is None
        assert made.type == "function" and made.id.startswith("call_")
        arguments = json.loads(made.function.arguments)
        if made.function.name == "add":
            assert arguments["a"] in (1, 2) and arguments["b"] in (True, False)
        else:
            assert choice == "required" and len(arguments["city"]) <= 4
        assert streamed(client, **options) == [(made.function.name, made.function.arguments)]


def streamed(client, **options):
    """Calls put together from a stream's deltas as OpenAI's guide does."""
    calls, reason = {}, None
    for chunk in client.chat.completions.create(**ASK, **options, stream=True):
        (choice,) = chunk.choices
        reason = choice.finish_reason or reason
        assert not choice.delta.content
        for delta in choice.delta.tool_calls or []:
            if delta.id:
                calls[delta.index] = [delta.function.name, delta.function.arguments]
            else:
                calls[delta.index][1] += delta.function.arguments
    assert reason == "tool_calls"
    return [tuple(each) for each in calls.values()]


@pytest.fixture(scope="module")
def folder_for_tools(tmp_path_factory, tokenizer):
    """A model with room for tools in its context that has learned one answer to one question: a call."""
    folder = tmp_path_factory.mktemp("tools") / "flagship"
    model = small_model(max_seq_len=2048, dim=64, ffn_dim=128)
    format = ChatFormat.of(tokenizer)
    (messages, bare), (_, interpreter) = dialog(ASK["messages"], BARE), dialog(ASK["messages"], CODE)
    prompt = format.prompt(messages, tools=bare)
    answer = [*tokenizer.encode(f"{LEARNED[0]}; {LEARNED[1]}"), tokenizer.special("<|eot_id|>")]
    code = format.prompt(messages, tools=interpreter)
    coded = format.render([{"role": "assistant", "content": "print(7)", "code": True}]).tokens[-9:]
    coded = coded[coded.index(tokenizer.special("<|python_tag|>")) :]
    learn(model, [prompt + answer, code + coded], [len(prompt), len(code)])
    save_folder(model, folder)
    tokenizer.save(folder)
    with running(folder) as server:
        yield server


LEARNED = ['{"name": "get_weather", "parameters": {"city": "Bern"}}', '{"name": "add", "parameters": {"a": 1}}']
BARE = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "add")]
CODE = [tool("code_interpreter", code=SHORT)]


def learn(model, rows, begins):
    from herdlm.model.attention import DocumentAttention

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        for row, begin in zip(rows, begins, strict=True):
            tokens = torch.tensor([row])
            hidden = model(tokens, torch.arange(len(row))[None], DocumentAttention(torch.zeros_like(tokens)))
            logits = model.logits(hidden)[0, begin - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, begin:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss < 0.1, "the model did not learn its line"


def test_a_model_that_calls_by_itself_is_understood_whole_and_streamed(folder_for_tools):
    client = folder_for_tools.client
    answer = client.chat.completions.create(**ASK, tools=BARE, temperature=0).choices[0]
    made = [(each.function.name, json.loads(each.function.arguments)) for each in answer.message.tool_calls]
    assert made == [("get_weather", {"city": "Bern"}), ("add", {"a": 1})]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    assert [(name, json.loads(arguments)) for name, arguments in streamed(client, tools=BARE, temperature=0)] == made
    first = client.chat.completions.create(**ASK, tools=BARE, temperature=0, parallel_tool_calls=False)
    assert len(first.choices[0].message.tool_calls) == 1
    plain = client.chat.completions.create(**ASK, tools=BARE, tool_choice="none", max_tokens=5)
    assert plain.choices[0].message.tool_calls is None
    cut = client.chat.completions.create(**ASK, tools=BARE, temperature=0, max_tokens=12).choices[0]
    assert cut.finish_reason == "length"


def test_code_behind_the_python_tag_is_a_call_of_the_interpreter(folder_for_tools):
    answer = folder_for_tools.client.chat.completions.create(**ASK, tools=CODE, temperature=0).choices[0]
    (made,) = answer.message.tool_calls
    assert (made.function.name, json.loads(made.function.arguments)) == ("code_interpreter", {"code": "print(7)"})
    assert streamed(folder_for_tools.client, tools=CODE, temperature=0) == [
        ("code_interpreter", '{"code": "print(7)"}')
    ]
    message = answer.message
    again = folder_for_tools.client.chat.completions.create(
        model="flagship",
        max_tokens=3,
        tools=CODE,
        messages=[*ASK["messages"], message, {"role": "tool", "tool_call_id": made.id, "content": "7"}],
    )
    assert again.usage.completion_tokens <= 3


def strict(tool):
    return {"type": "function", "function": tool["function"] | {"strict": True}}


def test_strict_functions_obey_their_schema_where_the_model_is_free_to_call(folder_for_tools):
    client, (brace,) = folder_for_tools.client, folder_for_tools.text.tokenizer.encode("{")
    options = {"tools": [strict(TOOLS[1])], "max_tokens": 150, "tool_choice": "auto"}
    for seed in range(3):
        answer = client.chat.completions.create(**ASK, **options, seed=seed, logit_bias={str(brace): 60}).choices[0]
        assert answer.message.content is None and answer.message.tool_calls
        for made in answer.message.tool_calls[: -1 if answer.finish_reason == "length" else None]:
            arguments = json.loads(made.function.arguments)
            assert made.function.name == "add" and set(arguments) == {"a", "b"}
        text = client.chat.completions.create(**ASK, **options, seed=seed, logit_bias={str(brace): -100}).choices[0]
        assert text.message.tool_calls is None and text.message.content
    first = client.chat.completions.create(
        **ASK, **options | {"parallel_tool_calls": False}, logit_bias={str(brace): 60}, seed=1
    )
    assert first.choices[0].finish_reason == "tool_calls" and len(first.choices[0].message.tool_calls) == 1


def test_a_schema_of_a_function_that_cannot_be_enforced_is_refused(folder_for_tools):
    bad = strict({"function": {"name": "f", "parameters": {"type": "no such type"}}})
    for choice in ("auto", "required"):
        with pytest.raises(openai.BadRequestError, match="cannot be used"):
            folder_for_tools.client.chat.completions.create(**ASK, tools=[bad], tool_choice=choice)
