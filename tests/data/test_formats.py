"""Each form of rows becomes the canonical record that a person would write."""

import json

import pytest

from herdlm.base.errors import InputError
from herdlm.data.formats.detect import convert, known_form
from herdlm.data.read import parse_rename, read_dialogs, read_preferences, read_prompts
from herdlm.data.row import make_row
from herdlm.data.source import Source


def made(value, kind=None, rename=None):
    row = make_row("a.jsonl", "line 7", value, rename or {})
    form = known_form(row)
    return convert(row, form, kind or next(iter(form.makes)))


def m(*said):
    """Messages from "s:", "u:", "a:" and "t:" texts."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in said]


HI = m("u:hi", "a:yo")
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
PAIR = {"prompt": m("u:q"), "chosen": m("a:good"), "rejected": m("a:bad")}
TOOL = {"name": "add", "parameters": {"type": "object"}}
SHARE = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]

DIALOGS = {
    "messages": ({"messages": HI, "id": 3}, HI),
    "developer is system": ({"messages": [{"role": "developer", "content": "x"}, *HI]}, m("s:x") + HI),
    "capital roles": ({"messages": [{"role": "User", "content": "hi"}, {"role": "Assistant", "content": "yo"}]}, HI),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"text": "i"}]}, HI[1]]}, HI),
    "messages as JSON": ({"messages": json.dumps(HI)}, HI),
    "prompt, completion": ({"prompt": "hi", "completion": "yo"}, HI),
    "both as messages": ({"prompt": HI[:1], "completion": HI[1:]}, HI),
    "prompt in completion": ({"prompt": HI[:1], "completion": HI}, HI),
    "prompt text in completion": (
        {"prompt": "one two three four", "completion": "one two three four five"},
        m("u:one two three four", "a:five"),
    ),
    "HH text": (
        {"prompt": "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: go\n\nAssistant:", "completion": "ok"},
        [*HI, *m("u:go", "a:ok")],
    ),
    "sharegpt": ({"conversations": SHARE, "system": "x"}, m("s:x") + HI),
    "role keys in conversations": ({"conversations": HI}, HI),
    "conversation of inputs": ({"conversation": [{"input": "hi", "output": "yo"}]}, HI),
    "list of texts": ({"conversations": ["hi", "yo", "a", "b"]}, [*HI, *m("u:a", "a:b")]),
    "UltraChat": ({"id": "0", "data": ["hi", "yo"]}, HI),
    "alpaca": ({"instruction": "Add.", "input": "1 2", "output": "3"}, m("u:Add.\n\n1 2", "a:3")),
    "alpaca without input": ({"instruction": "hi", "input": "", "output": "yo"}, HI),
    "alpaca with history": (
        {"instruction": "go", "output": "ok", "system": "x", "history": [["hi", "yo"]]},
        [*m("s:x"), *HI, *m("u:go", "a:ok")],
    ),
    "dolly": (
        {"instruction": "Who?", "context": "It was me.", "response": "You."},
        m("u:Who?\n\nIt was me.", "a:You."),
    ),
    "alpaca prompt text": (
        {"prompt": "Below is an instruction that asks.\n\n### Instruction:\nhi\n\n### Response:\n", "response": "yo"},
        HI,
    ),
    "query": ({"query": "hi", "response": "yo"}, HI),
    "input": ({"input": "hi", "output": "yo"}, HI),
    "orca": ({"system_prompt": "x", "question": "hi", "response": "yo"}, m("s:x") + HI),
    "magpie": ({"instruction": "hi", "response": "yo", "conversations": SHARE}, HI),
    "answer that is JSON": ({"prompt": "hi", "completion": '[{"name": "f"}]'}, [HI[0], *m('a:[{"name": "f"}]')]),
    "Guanaco": ({"text": "### Human: hi### Assistant: yo"}, HI),
    "ultrachat_200k": ({"prompt": "hi", "prompt_id": "f", "messages": HI}, HI),
}


@pytest.mark.parametrize("name", DIALOGS)
def test_dialogs(name):
    value, messages = DIALOGS[name]
    assert made(value) == [{"messages": messages}]


@pytest.mark.parametrize(
    ("call", "read"),
    [
        (
            {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
            [{"id": "c1", **CALL}],
        ),
        ({"tool_calls": [{"name": "add", "arguments": {"a": 1}}]}, [CALL]),
        ({"function_call": {"name": "add", "arguments": '{"a": 1}'}}, [CALL]),
        (
            {"tool_calls": [{"function": {"name": "add", "arguments": ""}}]},
            [{"type": "function", "function": {"name": "add", "arguments": {}}}],
        ),
    ],
)
def test_calls_of_tools(call, read):
    given = [
        *HI[:1],
        {"role": "assistant", "content": None, **call},
        {"role": "function", "name": "add", "content": "2"},
    ]
    (record,) = made({"messages": given, "functions": [TOOL]})
    assert record["messages"][1] == {"role": "assistant", "content": "", "tool_calls": read}
    assert record["messages"][2] == {"role": "tool", "name": "add", "content": "2"}
    assert record["tools"] == [{"type": "function", "function": TOOL}]


def test_calls_in_sharegpt():
    call = {"from": "function_call", "value": json.dumps({"name": "add", "arguments": {"a": 1}})}
    (record,) = made(
        {
            "conversations": [SHARE[0], call, {"from": "observation", "value": "2"}, SHARE[1]],
            "tools": json.dumps([TOOL]),
        }
    )
    assert record["tools"] == [{"type": "function", "function": TOOL}]
    assert record["messages"] == [HI[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}, *m("t:2"), HI[1]]


def test_calls_in_glaive_and_xlam():
    intro = "SYSTEM: You help. Use them if required -\n" + json.dumps(TOOL, indent=4) + "\n"
    chat = (
        'USER: hi\n\n\nASSISTANT: <functioncall> {"name": "add", "arguments": \'{"a": 1}\'} <|endoftext|>\n\n\n'
        "FUNCTION RESPONSE: 2\n\n\nASSISTANT: yo <|endoftext|>"
    )
    (record,) = made({"system": intro, "chat": chat})
    assert record["tools"] == [{"type": "function", "function": TOOL}]
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert record["messages"] == [*m("s:You help. Use them if required -", "u:hi"), call, *m("t:2", "a:yo")]
    answers = json.dumps([{"name": "add", "arguments": {"a": 1}}])
    (record,) = made({"query": "hi", "answers": answers, "tools": json.dumps([TOOL])})
    assert record["messages"] == [HI[0], call]


@pytest.mark.parametrize(
    ("key", "value", "weight"),
    [
        ("weight", 0, 0),
        ("weight", 1, None),
        ("train", False, 0),
        ("loss_weight", 0.5, 0.5),
        ("mask", True, 0),
        ("mask", False, None),
        ("loss", False, 0),
        ("weight", 2, 2),
    ],
)
def test_weights_of_messages(key, value, weight):
    ((record),) = made({"messages": [HI[0], {**HI[1], key: value}]})
    assert record["messages"][1].get("weight") == weight


PAIRS = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": PAIR,
    "UltraFeedback": {"prompt": "q", "chosen": m("u:q", "a:good"), "rejected": m("u:q", "a:bad"), "messages": []},
    "implicit": {"chosen": m("u:q", "a:good"), "rejected": m("u:q", "a:bad")},
    "HH": {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    "HH with prompt": {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "good", "rejected": "bad"},
    "OpenAI": {"input": {"messages": m("u:q")}, "preferred_output": m("a:good"), "non_preferred_output": m("a:bad")},
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "Alpaca": {"instruction": "q", "input": "", "output": "good", "chosen": "good", "rejected": "bad"},
    "two outputs": {"instruction": "q", "input": "", "output": ["good", "bad"]},
    "question": {"question": "q", "chosen": "good", "rejected": "bad", "system": ""},
    "SafeRLHF": {"prompt": "q", "response_0": "bad", "response_1": "good", "better_response_id": 1},
    "HelpSteer2": {"prompt": "q", "response_1": "good", "response_2": "bad", "preference_strength": -2},
    "SHP": {"history": "q", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1},
    "arena": {"conversation_a": m("u:q", "a:bad"), "conversation_b": m("u:q", "a:good"), "winner": "model_b"},
    "ranks": {"prompt": "q", "answers": [{"answer": "bad", "rank": 4.0}, {"answer": "good", "rank": 1.0}]},
    "scores": {"question": "q", "answers": [{"text": "good", "pm_score": 7}, {"text": "bad", "pm_score": 0}]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    assert made(PAIRS[name]) == [PAIR]


def test_the_turns_that_both_sides_begin_with_belong_to_the_prompt():
    before = m("s:x", "u:q", "a:what?", "u:this")
    (record,) = made({"prompt": "q", "chosen": before + m("a:good"), "rejected": before + m("a:bad")})
    assert record == {**PAIR, "prompt": before}
    (record,) = made({"chosen": before + m("a:good"), "rejected": before[:2] + m("a:no", "u:this", "a:bad")})
    assert record["prompt"] == before[:2]
    assert record["chosen"] == [*before[2:], *m("a:good")]


def test_thumbs():
    up = {"prompt": m("u:q"), "completion": m("a:good"), "label": True}
    assert made({"prompt": "q", "completion": "good", "label": 1}) == [up]
    assert made({"prompt": m("u:q"), "completion": m("a:good"), "label": "True"}) == [up]
    assert made({"messages": m("u:q", "a:good"), "label": True}) == [up]
    assert made(
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}], "kto_tag": False}
    ) == [{**up, "label": False}]


GSM = {"question": "How many?", "answer": "Two and 1,000: 2+1000=<<2+1000=1002>>1002.\n#### 1,002"}
SVAMP = {
    "Question": "He has number0 boxes of number1 , and number2 more . How many ?",
    "Numbers": "3.0 4.0 2.5",
    "Equation": "+ * number0 number1 number2",
    "Answer": "14.5",
}
MBPP = {
    "text": "Write f.",
    "code": "def f():\r\n  pass",
    "test_list": ["assert f() is None"],
    "test_setup_code": "x = 1",
}


def test_checkable_prompts():
    assert made(GSM) == [{"prompt": m("u:How many?"), "answer": "1002", "verifier": "number"}]
    question = "u:He has 3 boxes of 4, and 2.5 more. How many?"
    assert made(SVAMP) == [{"prompt": m(question), "answer": "14.5", "verifier": "number"}]
    (program,) = made(MBPP)
    assert program["prompt"] == m("u:Write f.\n\nYour code should pass these tests:\n\nassert f() is None")
    assert (program["tests"], program["verifier"]) == (["x = 1", "assert f() is None"], "tests")
    given = {"prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": None}], "key": 1}
    assert made(given) == [
        {
            "prompt": m("u:Say it."),
            "instruction_id_list": given["instruction_id_list"],
            "kwargs": [{}],
            "verifier": "ifeval",
        }
    ]
    assert made({"prompt": "2+2?", "ground_truth": 4}) == [{"prompt": m("u:2+2?"), "answer": "4", "verifier": "number"}]
    assert made({"prompt": m("u:Capital?"), "reward_model": {"ground_truth": "Bern"}, "data_source": "x"}) == [
        {"prompt": m("u:Capital?"), "answer": "Bern", "verifier": "text"}
    ]
    (human_eval,) = made({"prompt": "def f():", "test": "def check(f): ...", "entry_point": "f"})
    assert human_eval["tests"] == ["def check(f): ...", "check(f)"]


def test_worked_dialogs():
    (gsm,) = made(GSM, "dialogs")
    assert gsm["messages"][1]["content"] == "Two and 1,000: 2+1000=1002.\nThe answer is 1002."
    (svamp,) = made(SVAMP, "dialogs")
    assert svamp["messages"][1]["content"] == "3 * 4 = 12\n12 + 2.5 = 14.5\nThe answer is 14.5."
    usual = {
        "Body": "Two and three.",
        "Question": "Half of them?",
        "Equation": "( ( 2.0 + 3.0 ) / 2.0 )",
        "Answer": 2.5,
    }
    (infix,) = made(usual, "dialogs")
    assert infix["messages"] == m("u:Two and three. Half of them?", "a:2 + 3 = 5\n5 / 2 = 2.5\nThe answer is 2.5.")
    assert made(SVAMP | {"Answer": "9"}, "dialogs") == []
    assert made(SVAMP | {"Equation": "/ number0 - number1 number1"}, "dialogs") == []
    (program,) = made(MBPP, "dialogs")
    assert program["messages"][1]["content"] == "```python\ndef f():\n  pass\n```"


@pytest.mark.parametrize("equation", ["__import__('os').getcwd()", "2 ** 9", "+ 1", "+ 1 2 3", "", "(" * 150, "3 + x"])
def test_an_equation_is_nothing_but_arithmetic(equation):
    with pytest.raises(InputError, match="line 7, key equation"):
        made({"Question": "How many?", "Numbers": "1", "Equation": equation, "Answer": "3"}, "dialogs")


def reply(text, rank=None, role="assistant", replies=(), **more):
    return {"text": text, "role": role, "rank": rank, "replies": list(replies), **more}


def test_trees_of_open_assistant():
    deeper = reply("more?", role="prompter", replies=[reply("worse", 1), reply("better", 0)])
    root = reply(
        "q",
        role="prompter",
        replies=[
            reply("third", 2),
            reply("first", 0, replies=[deeper]),
            reply("second", 1),
            reply("gone", 3, deleted=True),
        ],
    )
    tree = {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}
    assert made(tree, "dialogs") == [{"messages": m("u:q", "a:first", "u:more?", "a:better")}]
    pairs = {(p["prompt"][-1]["content"], p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in made(tree)}
    assert pairs == {
        ("q", "first", "second"),
        ("q", "first", "third"),
        ("q", "second", "third"),
        ("more?", "better", "worse"),
    }


def test_self_instruct_seeds_give_a_dialog_for_each_instance():
    value = {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "0"}]}
    assert made(value) == [{"messages": m("u:Add.\n\n1 2", "a:3")}, {"messages": m("u:Add.", "a:0")}]


def test_prompts_of_every_kind():
    assert made({"messages": m("u:a", "a:b", "u:c", "a:d")}, "prompts") == [{"prompt": m("u:a", "a:b", "u:c")}]
    assert made(PAIR, "prompts") == [{"prompt": m("u:q")}]
    assert made({"turns": ["one", "two"]}) == [{"prompt": m("u:one")}]
    (record,) = made({"question": [m("u:q")], "function": [TOOL], "id": "x"})
    assert record == {"prompt": m("u:q"), "tools": [{"type": "function", "function": TOOL}]}


ERRORS = {
    "messages[1].role: role 'robot' is unknown": {"messages": [HI[0], {"role": "robot", "content": "x"}]},
    "messages[0].role: there is no role": {"messages": [{"content": "x"}]},
    "conversations[0].from: role 'alien' is unknown": {"conversations": [{"from": "alien", "value": "x"}]},
    "messages[0].content: there is no content": {"messages": [{"role": "user", "content": None}]},
    "messages[0].content: it is a number, not text": {"messages": [{"role": "user", "content": 3}]},
    "messages[0].content[0]: a part of the content is of type 'image_url'": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    },
    "key images: the row has more than text": {"messages": HI, "images": ["a.png"]},
    "messages[1].weight: a weight is -1": {"messages": [HI[0], {**HI[1], "weight": -1}]},
    "messages[1].train_detail: weights of parts": {"messages": [HI[0], {**HI[1], "train_detail": []}]},
    "messages[0].tool_calls[0].arguments: its text is not JSON": {
        "messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]
    },
    "key messages[0]: it is text, not a message": {"messages": ["a", {"role": "user"}]},
    "key chosen: the pair has no prompt": {"chosen": "good", "rejected": "bad"},
    "key label is neither 0 nor 1": {"prompt": "q", "completion": "a", "label": 7},
    "keys seen: messages_, id. The nearest known form is messages": {"messages_": HI, "id": 1},
    "questions with choices": {"question": "q", "choices": ["a", "b"], "answer": 0},
    "each row is one message of a tree": {"message_id": "a", "parent_id": None, "text": "x", "role": "prompter"},
    "keys seen: none": {},
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors_name_file_line_key_and_remedy(words):
    with pytest.raises(InputError) as caught:
        made(ERRORS[words])
    assert str(caught.value).startswith("a.jsonl, line 7")
    assert words in str(caught.value)
    assert caught.value.remedy


def test_documents_and_other_kinds_are_refused_by_name(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "prose"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: its form is documents, .* herdlm tokenize"):
        read_dialogs([Source(path)])
    path.write_text(json.dumps(PAIR))
    with pytest.raises(InputError, match="which gives preferences, not dialogs"):
        read_dialogs([Source(path)])
    assert read_preferences([Source(path)])[0] == [PAIR]
    assert read_prompts([Source(path)])[0] == [{"prompt": m("u:q")}]


def test_columns_are_renamed_before_the_form_is_found():
    rename = parse_rename(["prompt=frage,completion=antwort"])
    assert made({"frage": "hi", "antwort": "yo", "prompt": "old"}, rename=rename) == [{"messages": HI}]
    assert made({"Prompt": "hi", "Completion": "yo"}) == [{"messages": HI}]
    with pytest.raises(InputError, match="not of the form NAME=COLUMN"):
        parse_rename(["prompt"])
