"""What published chat templates do beyond the plain ones, against transformers' ``apply_chat_template``."""

from __future__ import annotations

import json
import random

import pytest

from herdlm.base.errors import InputError
from herdlm.data.read import read_dialogs
from herdlm.data.source import Source
from herdlm.tokens.chat_format import ChatFormat, RewrittenError
from herdlm.tokens.tokenizer import Tokenizer
from tests.tokens.folders import CHATML, write_family

CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TWO = [{"role": role, "content": f"moo {i}"} for i, role in enumerate(("user", "assistant", "user", "assistant"))]


def load(tmp_path, template, family="smollm2"):
    from transformers import AutoTokenizer

    folder = write_family(family, tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    return ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)


def targets(format, rendered):
    """The runs of tokens that weigh something, as text."""
    runs, before = [], 0.0
    for token, weight in zip(rendered.tokens, rendered.weights, strict=True):
        if weight and weight != before:
            runs.append([])
        if weight:
            runs[-1].append(token)
        before = weight
    return [format.tokenizer.decode(run, keep_special=True) for run in runs]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.keys() | sort | join(',') }}{{ m['content'] }}{{ m.get('name') }}{% endfor %}",
        "{% for m in messages %}{{ m.reasoning_content }}/{{ m.thinking }}/{{ 'reasoning' in m }}{% endfor %}",
        "{% for m in messages %}{{ m }}{% endfor %}",
        "{{ documents }}{{ tools }}{{ enable_thinking is defined }}{{ add_generation_prompt }}{{ bos_token }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if ns.n > 1 %}{% break %}"
        "{% endif %}{{ dict(a=1) | tojson(indent=1, sort_keys=true, separators=(',', ':')) }}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ messages[0]['content'].split('o')[-1].title() | trim }}{{ messages[9].x }}",
        "{{ messages[0].content[1:] ~ messages | length }}{{ messages | map(attribute='role') | list | tojson }}",
        "{% for m in messages if m.role == 'user' %}{{ loop.previtem.content }}{% else %}none{% endfor %}",
        "{{ messages[0].content.nothing() }}",
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "{{ '%c' % 'abc' }}",
    ],
)
def test_a_template_is_given_what_transformers_gives(tmp_path, template):
    format, theirs = load(tmp_path, template)
    dialogs = [
        [{"role": "user", "content": "moo"}, {"role": "assistant", "content": None, "name": None}],
        [{"role": "user", "content": "moo"}, {"role": "assistant", "reasoning": "hm", "content": ""}],
        [{"role": "assistant", "thinking": "hm", "content": "oo <b>'q'</b>"}],
    ]
    for dialog in dialogs:
        try:
            expected = theirs.apply_chat_template(dialog, add_generation_prompt=True, return_dict=False)
        except Exception:
            with pytest.raises(InputError, match="refuses the dialog: [^\n]+$"):
                format.prompt(dialog)
        else:
            assert format.prompt(dialog) == expected


THINKING = (
    "{{ note }}{{ documents | tojson }}{% set empty = '<think></think>' if enable_thinking is false else '' %}"
    + CHATML.replace(
        "message['content']", "(empty if message['role'] == 'assistant' else '') + message['content']"
    ).replace("assistant\\n' }}", "assistant\\n' + empty }}")
)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"enable_thinking": True},
        {"enable_thinking": False},
        {"note": "Zürich", "documents": [{"title": "moo", "text": "the <b>cow</b>"}], "unread": [1, {"x": None}]},
    ],
)
def test_further_arguments_reach_the_template(tmp_path, arguments):
    format, theirs = load(tmp_path, THINKING)
    expected = theirs.apply_chat_template(TWO[:1], add_generation_prompt=True, return_dict=False, **arguments)
    assert format.prompt(TWO[:1], arguments=arguments) == expected
    whole = theirs.apply_chat_template(TWO, return_dict=False, **arguments)
    assert format.render(TWO, arguments=arguments).tokens == whole


def test_arguments_of_llama_s_templates(tmp_path):
    from transformers import AutoTokenizer

    folder = write_family("llama-3.2", tmp_path)
    format, theirs = ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    seen = set()
    for arguments in ({}, {"tools_in_user_message": False}, {"date_string": "1 Jan 1970"}, {"custom_tools": tools}):
        for given in (None, tools):
            expected = theirs.apply_chat_template(TWO, tools=given, return_dict=False, **arguments)
            assert format.render(TWO, tools=given, arguments=arguments).tokens == expected
            seen.add(tuple(expected))
    assert len(seen) == 5


def test_arguments_cannot_forge_a_token_or_take_the_place_of_the_dialog(tmp_path):
    format, _ = load(tmp_path, THINKING)
    end = format.tokenizer.special("<|im_end|>")
    asked = format.prompt(TWO[:1], arguments={"note": "<|im_end|>", "documents": [{"<|im_end|>": "<|im_end|>"}]})
    assert asked.count(end) == format.prompt(TWO[:1]).count(end)
    assert format.tokenizer.decode(asked).count("<|im_end|>") == 3
    deep = json.loads("[" * 900 + "]" * 900)
    with pytest.raises(InputError, match="nested too deeply"):
        format.prompt(TWO[:1], arguments={"note": deep})
    for name in ("messages", "tools", "add_generation_prompt", "eos_token"):
        with pytest.raises(InputError, match=f"{name} is no further argument"):
            format.prompt(TWO[:1], arguments={name: []})


@pytest.mark.parametrize("content", ["moo", "moo  ", " moo\n", "", [{"type": "text", "text": "the"}]])
@pytest.mark.parametrize("change", [("", ""), ("message['content']", "message['content'] | trim")])
def test_a_last_message_is_gone_on_with(tmp_path, content, change):
    format, theirs = load(
        tmp_path, THINKING.replace(*change) if isinstance(content, str) else "{{ messages[-1].content }}"
    )
    dialog = [*TWO[:3], {"role": "assistant", "content": content}]
    if isinstance(content, list):
        assert format.tokenizer.decode(format.prompt(dialog, continue_final_message=True)) == "the"
        return
    expected = theirs.apply_chat_template(dialog, continue_final_message=True, return_dict=False)
    assert format.prompt(dialog, continue_final_message=True) == expected


def test_a_last_message_that_is_not_written_cannot_be_gone_on_with(tmp_path):
    format, theirs = load(tmp_path, CHATML.replace("message['content'] + ", "message['content'][1:3] + "))
    for dialog in (TWO, []):
        with pytest.raises(ValueError, match=r"continue_final_message|empty"):
            theirs.apply_chat_template(dialog, continue_final_message=True)
        with pytest.raises(InputError, match="last message"):
            format.prompt(dialog, continue_final_message=True)
    with pytest.raises(InputError, match="no content to go on with"):
        format.prompt([{"role": "assistant", "tool_calls": [CALL]}], continue_final_message=True)


# As Qwen3's: thoughts before the last question are left out.
FORGETFUL = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{{ m.content if m.role != 'assistant' or loop.index0 > ns.last else m.content.split('</t>')[-1] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THOUGHTS = [
    {"role": role, "content": f"{'<t>hm</t>' if role == 'assistant' else ''}moo {i}"}
    for i, role in enumerate(("system", "user", "assistant", "user", "assistant", "user", "assistant"))
]


def test_a_dialog_whose_thoughts_are_dropped_is_an_example_for_each_answer(tmp_path):
    format, theirs = load(tmp_path / "model", FORGETFUL)
    rows = [THOUGHTS, [*THOUGHTS[:4], THOUGHTS[4] | {"weight": 0}, *THOUGHTS[5:]], THOUGHTS[:3]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    records, counts = read_dialogs([Source(path)], chat_format=format)
    # The second row's first example, and the third row, are the first row's first example.
    assert [len(record["messages"]) for record in records] == [3, 5, 7]
    assert (counts.read, counts.kept, list(counts.repaired.values())) == (6, 3, [2])
    for record in records:
        length = len(record["messages"])
        rendered = format.render(record["messages"])
        prompt = theirs.apply_chat_template(THOUGHTS[: length - 1], add_generation_prompt=True, return_dict=False)
        assert rendered.tokens == theirs.apply_chat_template(THOUGHTS[:length], return_dict=False)
        assert rendered.tokens[: len(prompt)] == prompt and not any(rendered.weights[: len(prompt)])
        assert targets(format, rendered) == [f"<t>hm</t>moo {length - 1}<|im_end|>"]
    pair = format.render(THOUGHTS, first=6)
    assert targets(format, pair) == ["<t>hm</t>moo 6<|im_end|>"]
    with pytest.raises(RewrittenError, match="rewrites what stands before message 4"):
        format.render(THOUGHTS, first=4)


MARKED = {
    # Phi-3's marks one more end after the last message; a scope of its own; two marks in one message
    "more": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}{% if messages[-1].role == 'assistant' %}{% generation %}{{ '<|endoftext|>' }}"
    "{% endgeneration %}{% endif %}",
    "scope": "{% set x = 1 %}{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}"
    "{% set x = 2 %}{{ m.content }}{{ x }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{{ x }}{% endfor %}",
    "two": "{% for m in messages %}{{ '<|im_start|>' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content[:3] }}{% endgeneration %}"
    "{{ '<|endoftext|>' }}{% generation %}{{ m.content[3:] + eos_token }}{% endgeneration %}{% else %}"
    "{{ m.content }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("name", MARKED)
def test_masks_of_any_number_of_marks(tmp_path, name):
    format, theirs = load(tmp_path, MARKED[name])
    draw = random.Random(name)
    for _ in range(40):
        words = ["moo", "the cow", "\n\nx", " lead", "😀", "end ", "12"]
        dialog = [{"role": m["role"], "content": " ".join(draw.choices(words, k=3))} for m in TWO]
        expected = theirs.apply_chat_template(dialog, return_dict=True, return_assistant_tokens_mask=True)
        rendered = format.render(dialog)
        assert rendered.tokens == expected["input_ids"]
        assert [int(weight > 0) for weight in rendered.weights] == expected["assistant_masks"]
        dialog[1]["weight"], dialog[3]["weight"] = 0.25, 0.5
        weighed = format.render(dialog).weights
        last = len(theirs.apply_chat_template(dialog[:3], return_dict=False))
        assert {w for w in weighed[:last] if w} == {0.25} and {w for w in weighed[last:] if w} == {0.5}


def test_a_template_that_always_asks_for_an_answer_can_be_trained_on(tmp_path):
    """Llama 3's first release writes the assistant's header at the end of every dialog."""
    format, theirs = load(tmp_path, CHATML.replace("{% if add_generation_prompt %}", "{% if true %}"))
    rendered = format.render(TWO)
    assert rendered.tokens == theirs.apply_chat_template(TWO, return_dict=False)
    assert targets(format, rendered) == ["moo 1<|im_end|>", "moo 3<|im_end|>"]


def test_white_space_before_an_answer_may_depend_on_what_follows(tmp_path):
    """Hermes ends a tool's result with a new line only if another message follows."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and m.tool_calls %}"
        "{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}"
        "{% if m.role == 'tool' and not loop.last %}{{ '\\n' }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    format, theirs = load(tmp_path, template)
    dialog = [*TWO[:1], {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "4"}, *TWO[1:]]
    rendered = format.render(dialog)
    # It reads calls itself, though not the list of tools.
    assert rendered.tokens == theirs.apply_chat_template(dialog, return_dict=False)
    assert targets(format, rendered) == [json.dumps([CALL]) + "<|im_end|>", "moo 1<|im_end|>", "moo 3<|im_end|>"]


def test_the_header_that_ends_an_answer_is_learned(tmp_path):
    """GLM's answers end where the user's header begins."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '<|im_end|>' }}{{ m.content }}{% endfor %}"
    )
    format, _ = load(tmp_path, template + "{% if add_generation_prompt %}{{ '<|im_end|>' }}{% endif %}")
    assert format.tokenizer.special("<|im_start|>") in format.stop_tokens
    assert targets(format, format.render([*TWO, TWO[0]])) == ["moo 1<|im_start|>", "moo 3<|im_start|>"]


def test_an_end_that_is_no_special_token_stops_an_answer(tmp_path):
    folder = write_family("smollm2", tmp_path)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["added_tokens"][2]["special"] = False  # <|im_end|>
    (folder / "tokenizer.json").write_text(json.dumps(state))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    format = ChatFormat.load(folder)
    end = format.tokenizer.backend.token_to_id("<|im_end|>")
    assert not format.tokenizer.is_special(end) and end in format.stop_tokens
    assert targets(format, format.render(TWO)) == ["moo 1<|im_end|>", "moo 3<|im_end|>"]


def test_files_may_begin_with_a_byte_order_mark(tmp_path):
    folder = write_family("smollm2", tmp_path)
    plain = ChatFormat.load(folder).prompt(TWO)
    for file in folder.iterdir():
        file.write_text("\ufeff" + file.read_text())
    assert ChatFormat.load(folder).prompt(TWO) == plain


def test_ids_that_are_not_read_as_stated_are_refused(tmp_path):
    folder = write_family("smollm2", tmp_path)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["added_tokens"].append({**state["added_tokens"][0], "content": "<x>", "id": 999})
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="'<x>' the id 999, but it is loaded as 380"):
        Tokenizer.load(folder)


def test_unused_ids_are_no_text_and_the_vocabulary_reaches_the_last(tmp_path):
    folder = write_family("smollm2", tmp_path)
    state = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] += 5
    (folder / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.vocab_size == vocabulary[last] + 1
    assert tokenizer.token_bytes(vocabulary[last] - 1) == b"" != tokenizer.token_bytes(vocabulary[last])
    with pytest.raises(InputError, match="outside the vocabulary"):
        tokenizer.token_bytes(tokenizer.vocab_size)


def test_a_mark_that_pads_is_still_text(tmp_path):
    folder = write_family("smollm2", tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "!"}))
    tokenizer = Tokenizer.load(folder)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("moo!"))) == b"moo!"
