"""Dialogs by chat templates of published families, against transformers' ``apply_chat_template``."""

from __future__ import annotations

import json
import random
import string

import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.chat_format import ChatFormat, generation_settings
from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.tokens.folders import CHATML, FAMILIES, TEXT, write_family

WORDS = ["cow", "the moo", "Zürich", "日本", "😀", "12345", "a  b", "x\n\ny", "\tt", "{}", "'s", "…", " lead", "end "]


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = write_family(request.param, tmp_path_factory.mktemp(request.param), inline=request.param < "n")
    return request.param, ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)


def dialogs(count, seed):
    """Random dialogs that alternate, since some templates want it."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 6)))

    for _ in range(count):
        turns = [{"role": "system", "content": text()}] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 3)):
            turns += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
        yield turns


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_dialogs_have_the_ids_that_transformers_gives(family, count):
    name, format, theirs = family
    for dialog in dialogs(count, seed=f"{name} {count}"):
        assert format.render(dialog).tokens == theirs.apply_chat_template(dialog, return_dict=False)
        prompt = theirs.apply_chat_template(dialog[:-1], add_generation_prompt=True, return_dict=False)
        assert format.prompt(dialog[:-1]) == prompt
        begun = theirs.apply_chat_template(dialog, continue_final_message=True, return_dict=False)
        assert format.prompt(dialog, continue_final_message=True) == begun


def test_the_targets_are_what_the_assistant_writes_with_its_end(family):
    name, format, theirs = family
    for dialog in dialogs(40, seed=f"{name} targets"):
        rendered = format.render(dialog)
        groups, before = [], False
        for token, weight in zip(rendered.tokens, rendered.weights, strict=True):
            if weight and not before:
                groups.append([])
            if weight:
                groups[-1].append(token)
            before = weight > 0
        said = [message["content"] for message in dialog if message["role"] == "assistant"]
        assert len(groups) == len(said)
        for tokens, content in zip(groups, said, strict=True):
            assert theirs.decode(tokens[:-1]).strip() == content.strip()
            assert tokens[-1] in format.stop_tokens
        # A prompt followed by the targets is the dialog so far: what is trained is what is served.
        last = format.prompt(dialog[:-1])
        assert rendered.tokens[: len(last) + len(groups[-1])] == last + groups[-1]


def test_text_that_looks_like_a_special_token_stays_text(family):
    _, format, theirs = family
    special = format.tokenizer.special_tokens
    known = set(special.values())
    plain = format.prompt([{"role": "user", "content": "moo"}])
    for name in special:
        asked = format.prompt([{"role": "user", "content": f"moo {name} moo"}])
        assert sum(id in known for id in asked) == sum(id in known for id in plain), name
        assert name in theirs.decode(asked)


def test_a_special_part_becomes_its_token(family):
    _, format, _ = family
    name = next(iter(format.tokenizer.special_tokens))
    parts = [{"type": "text", "text": f"moo {name}"}, {"type": "special", "text": name}]
    asked = format.prompt([{"role": "user", "content": parts}])
    plain = format.prompt([{"role": "user", "content": "moo"}])
    id = format.tokenizer.special(name)
    assert asked.count(id) == plain.count(id) + 1


def test_special_parts_stay_special_beside_what_is_written_for_a_template_without_tools(tmp_path):
    format = ChatFormat.load(write_family("smollm2", tmp_path))
    tools = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    part = {"type": "special", "text": "<|endoftext|>"}
    dialog = [
        {"role": "system", "content": [{"type": "text", "text": "moo"}, part]},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [part], "tool_calls": tools},
    ]
    assert format.render(dialog, tools=tools).tokens.count(format.tokenizer.special("<|endoftext|>")) == 2


def test_decoding_and_the_bytes_of_tokens_agree_with_transformers(family):
    _, format, theirs = family
    tokenizer = format.tokenizer
    for text in TEXT[:4]:
        ids = tokenizer.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        joined = b"".join(tokenizer.token_bytes(id) for id in ids).decode()
        assert (joined.removeprefix(" ") if tokenizer.strips_space else joined) == theirs.decode(ids) == text
    assert list(tokenizer.begin) + ids == theirs.encode(text)
    for id in range(tokenizer.vocab_size):
        assert isinstance(tokenizer.token_bytes(id), bytes)


def test_messages_weigh_as_they_say(family):
    _, format, _ = family
    dialog = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "cow", "weight": 0},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "moo", "weight": 0.5},
    ]
    rendered = format.render(dialog)
    assert set(rendered.weights) == {0.0, 0.5}
    assert format.render(dialog, first=4).weights == [0.0] * len(rendered.tokens)
    assert "cow" not in format.tokenizer.decode(
        [t for t, w in zip(rendered.tokens, rendered.weights, strict=True) if w]
    )


def test_the_mask_by_marks_equals_transformers(tmp_path):
    from transformers import AutoTokenizer

    train_tokenizer(TEXT, TokenizerConfig(vocab_size=320)).save(tmp_path)
    format, theirs = ChatFormat.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    tools = [
        {"type": "function", "function": {"name": n, "description": "d", "parameters": {"type": "object"}}}
        for n in ("f", "brave_search", "code_interpreter")
    ]
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": [1, "ü"]}}}],
    }
    search = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "brave_search", "arguments": {"query": 'a "b"'}}}],
    }
    code = {"role": "assistant", "content": "print(1)", "code": True}
    draw = random.Random(0)
    for dialog in dialogs(150, seed="own"):
        for message in (call, search, code):
            if draw.random() < 0.4:
                dialog += [message, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "moo"}]
        given = tools if draw.random() < 0.5 else None
        expected = theirs.apply_chat_template(dialog, tools=given, return_dict=True, return_assistant_tokens_mask=True)
        rendered = format.render(dialog, tools=given)
        assert rendered.tokens == expected["input_ids"]
        assert [int(weight > 0) for weight in rendered.weights] == expected["assistant_masks"]


def test_tools_of_a_template_that_takes_them(tmp_path):
    from transformers import AutoTokenizer

    folder = write_family("llama-3.1", tmp_path)
    format, theirs = ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    call = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    dialog = [
        {"role": "user", "content": "moo"},
        {"role": "assistant", "tool_calls": call, "content": None},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ]
    assert format.render(dialog, tools=tools).tokens == theirs.apply_chat_template(
        dialog, tools=tools, return_dict=False
    )
    as_text = [{**dialog[1], "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]}]
    assert (
        format.render([dialog[0], *as_text, *dialog[2:]], tools=tools).tokens
        == format.render(dialog, tools=tools).tokens
    )


def test_tools_of_a_template_that_knows_none_are_described_in_text(tmp_path):
    format = ChatFormat.load(write_family("smollm2", tmp_path))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    text = format.tokenizer.decode(format.prompt([{"role": "user", "content": "moo"}], tools=tools), keep_special=True)
    assert '"name": "weather"' in text and "<|im_start|>system" in text and "helpful AI assistant" not in text


def test_a_template_that_rewrites_the_past_is_refused_by_name(tmp_path):
    folder = write_family("smollm2", tmp_path)
    forgetful = CHATML.replace("message['content'] + ", "(message['content'] if loop.last else '') + ")
    (folder / "chat_template.jinja").write_text(forgetful)
    format = ChatFormat.load(folder)
    two = [{"role": r, "content": "moo"} for r in ("user", "assistant", "user", "assistant")]
    with pytest.raises(InputError, match="rewrites what stands before message 1"):
        format.render(two)
    assert format.prompt(two[:3])


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{% if %}", DamagedError, "not valid Jinja"),
        ("{{ raise_exception('only users here') }}", InputError, "only users here"),
        ("{{ messages[7].content.x.y }}", InputError, "refuses the dialog"),
        ("{{ messages.__class__.__mro__ }}", InputError, "refuses the dialog"),
        ("{{ messages.append(1) }}", InputError, "refuses the dialog"),
        ("{% for i in range(10000000) %}x{% endfor %}", InputError, "refuses the dialog"),
    ],
)
def test_a_template_that_fails_is_one_line(tmp_path, template, error, message):
    folder = write_family("smollm2", tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(error, match=message):
        ChatFormat.load(folder).prompt([{"role": "user", "content": "a"}])


def test_a_folder_without_template_uses_the_one_of_its_tokens_or_says_so(tmp_path):
    folder = write_family("smollm2", tmp_path / "a")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    dialog = [{"role": "user", "content": "moo"}]
    assert ChatFormat.load(folder).prompt(dialog)
    other = write_family("mistral", tmp_path / "b")
    (other / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        ChatFormat.load(other).prompt(dialog)
    assert ChatFormat.load(other, template=CHATML).prompt(dialog)


def test_the_stop_tokens_are_those_of_the_folder_and_of_the_template(tmp_path):
    folder = write_family("llama-3", tmp_path)  # whose settings name <|end_of_text|>, as the first releases did
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 381, "temperature": 0.6}))
    format = ChatFormat.load(folder)
    assert format.tokenizer.special("<|eot_id|>") in format.stop_tokens and 381 in format.stop_tokens
    settings = generation_settings(folder)
    assert settings["temperature"] == 0.6 and set(settings["eos_token_id"]) == set(format.stop_tokens)
    assert settings["bos_token_id"] == format.tokenizer.bos and isinstance(settings["pad_token_id"], int)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": "x"}))
    with pytest.raises(InputError, match="eos_token_id 'x' is not the number of a token"):
        ChatFormat.load(folder)


def test_added_tokens_are_stored_as_text(tmp_path):
    from transformers import AutoTokenizer

    folder = write_family("llama-3.1", tmp_path / "a")
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.add_tokens(["<tool call>", "中文"])
    theirs.add_special_tokens({"additional_special_tokens": ["<think>"]})
    theirs.save_pretrained(tmp_path / "b")
    tokenizer = Tokenizer.load(tmp_path / "b")
    ids = tokenizer.encode("moo<tool call>中文 <think>")
    assert ids == theirs.encode("moo<tool call>中文 <think>", add_special_tokens=False, split_special_tokens=True)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == "moo<tool call>中文 <think>"
    assert tokenizer.token_bytes(tokenizer.special("<think>")) == b""


def test_a_lone_surrogate_is_refused(tmp_path):
    format = ChatFormat.load(write_family("smollm2", tmp_path))
    with pytest.raises(InputError, match="lone surrogate"):
        format.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "ok \ud83d"}])
    with pytest.raises(InputError, match="lone surrogate"):
        format.tokenizer.encode("ok \ud83d")


def test_any_text_survives_the_template():
    """Noncharacters, which carry marks inside, and names of special tokens come out as they went in."""
    from hypothesis import given
    from hypothesis import strategies as st

    format = ChatFormat.of(train_tokenizer(TEXT, TokenizerConfig(vocab_size=320)))
    odd = st.sampled_from(
        ["<|eot_id|>", "\ufdd0", "\ufdd1", "\ufdd2", "3\ufdd3", "\ufdd4", "\ufdd5", "\ufdef", " ", "{{ 1 }}"]
    )
    letters = st.text(alphabet=string.printable, max_size=4)

    @given(st.lists(st.one_of(odd, letters), max_size=8).map("".join))
    def check(text):
        rendered = format.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": text}])
        said = [t for t, w in zip(rendered.tokens, rendered.weights, strict=True) if w]
        assert format.tokenizer.decode(said[:-1]) == text.strip()
        assert [t for t in said if format.tokenizer.is_special(t)] == [format.tokenizer.special("<|eot_id|>")]

    check()
