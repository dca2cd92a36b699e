"""Tools: calls and results, recomputed here; requests that no tool fits; definitions of the user's own."""

import json

import jsonschema
import pytest

from herdlm.align.synth.config import ToolsConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.tools import functions
from herdlm.align.synth.tools.bank import TOOLS
from herdlm.align.synth.tools.chains import CHAINS
from herdlm.align.synth.tools.dialogs import begin
from herdlm.align.synth.tools.draws import DRAWS
from herdlm.align.synth.tools.generate import _checked
from herdlm.align.synth.tools.run_calls import run_calls
from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.data.read import converted
from herdlm.sandbox.sandbox import open_sandbox
from herdlm.verifiers.call import FunctionCall
from tests.align.synth.scripted import make, of_kind, reasons


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make("tools", ToolsConfig(count=300), tmp_path_factory.mktemp("work"))


def real_name(name):
    return next(tool.function for tool in TOOLS if name in tool.names)


def test_results_are_what_the_functions_give(made):
    dialogs = of_kind(made, "dialogs")
    assert len(dialogs) == 300 and reasons(made) == []
    for dialog in dialogs:
        messages = dialog["messages"]
        pending = []
        for message in messages[1:]:
            if message["role"] == "tool":
                call = pending.pop(0)["function"]
                assert message["name"] == call["name"]
                result = getattr(functions, real_name(call["name"]))(**call["arguments"])
                assert json.loads(message["content"]) == result
            else:
                assert not pending
                pending = list(message.get("tool_calls", []))
        assert not pending and messages[-1]["role"] == "assistant" and messages[-1]["content"].strip()


def test_arguments_fit_the_definitions_that_are_offered(made):
    for dialog in of_kind(made, "dialogs"):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in dialog["tools"]}
        assert len(offered) == len(dialog["tools"]) <= 7
        for message in dialog["messages"]:
            for call in message.get("tool_calls", []):
                jsonschema.validate(call["function"]["arguments"], offered[call["function"]["name"]])


def test_ways_have_their_shares_and_their_forms(made):
    dialogs = of_kind(made, "dialogs")
    ways = [dialog["lineage"]["way"] for dialog in dialogs]
    assert {way: ways.count(way) for way in set(ways)} == {"single": 120, "parallel": 60, "steps": 75, "none": 45}
    for dialog in dialogs:
        calls = [len(m["tool_calls"]) for m in dialog["messages"] if m.get("tool_calls")]
        way = dialog["lineage"]["way"]
        assert (way == "none") == (not calls)
        assert way != "single" or calls == [1]
        assert way != "parallel" or (len(calls) == 1 and calls[0] >= 2)
        assert way != "steps" or len(calls) == 2


def test_prompts_are_kept_by_their_dialogs_and_by_no_others(made):
    prompts = of_kind(made, "prompts")
    turns = {}
    for dialog in of_kind(made, "dialogs"):
        for number, message in enumerate(dialog["messages"]):
            if message["role"] == "assistant":
                calls = [call["function"] for call in message.get("tool_calls", [])]
                turns[json.dumps(dialog["messages"][:number])] = calls, message["content"]
    for prompt in prompts:
        calls, content = turns[json.dumps(prompt["prompt"])]
        answer = json.dumps(calls) if calls else content
        assert FunctionCall()(answer, prompt["reference"]).passed
        wrong = json.dumps([{"name": prompt["tools"][0]["function"]["name"], "arguments": {"x": 1}}])
        assert not FunctionCall()(wrong, prompt["reference"]).passed
    assert len({prompt["id"] for prompt in prompts}) == len(prompts) == 300 + 75


def test_tools_of_the_same_topic_are_not_offered_where_none_fits(made):
    topics = {name: tool.topic for tool in TOOLS for name in tool.names}
    requests = {}
    for dialog in of_kind(made, "dialogs"):
        if dialog["lineage"]["way"] == "single":
            call = dialog["messages"][1]["tool_calls"][0]["function"]["name"]
            requests[dialog["messages"][0]["content"]] = topics[call]
    for dialog in of_kind(made, "dialogs"):
        if dialog["lineage"]["way"] == "none" and (topic := requests.get(dialog["messages"][0]["content"])):
            assert topic not in {topics[tool["function"]["name"]] for tool in dialog["tools"]}


def test_the_bank_is_complete():
    assert {tool.function for tool in TOOLS} == set(DRAWS)
    names = [name for tool in TOOLS for name in tool.names]
    assert len(names) == len(set(names))
    assert {function for needed in CHAINS.values() for function in needed} <= set(DRAWS)


EXPECTED = [
    ("calculate", {"expression": "2 + 3 * 4"}, 14),
    ("calculate", {"expression": "-(7 - 9) ** 3 / 4"}, 2),
    ("day_of_week", {"date": "2024-02-29"}, "Thursday"),
    ("days_between", {"start": "2024-02-28", "end": "2024-03-01"}, 2),
    ("add_days", {"date": "2023-12-31", "days": 1}, "2024-01-01"),
    ("is_leap_year", {"year": 1900}, False),
    ("convert_length", {"value": 1, "from_unit": "miles", "to_unit": "meters"}, 1609.34),
    ("convert_length", {"value": 1, "from_unit": "meters", "to_unit": "kilometers"}, 0.001),
    ("convert_temperature", {"value": 212, "to_unit": "celsius"}, 100),
    ("convert_duration", {"value": 2, "from_unit": "weeks", "to_unit": "hours"}, 336),
    ("split_bill", {"total": 100, "people": 4, "tip_percent": 20}, 30),
    ("compound_interest", {"principal": 100, "rate": 10, "years": 2}, 121),
    ("sort_words", {"words": ["pear", "Oslo", "apple"], "descending": True}, ["pear", "Oslo", "apple"]),
    ("shift_letters", {"text": "xyz A!", "shift": 3}, "abc D!"),
    ("to_morse", {"text": "SOS 1"}, "... --- ... .----"),
    ("count_letter", {"text": "Banana", "letter": "A"}, 3),
    ("circle_area", {"radius": 2}, 12.57),
    ("get_element", {"name": "gold"}, {"symbol": "Au", "atomic_number": 79}),
]


def test_functions_give_known_values_in_the_sandbox_and_name_errors():
    calls = [(name, arguments) for name, arguments, _ in EXPECTED]
    wrong = [("calculate", {"expression": "__import__('os')"}), ("get_price", {"product": "moon"}), ("nothing", {})]
    with open_sandbox(workers=1) as sandbox:
        results = run_calls(sandbox, [*calls, *wrong])
    assert results[: len(calls)] == [{"result": value} for _, _, value in EXPECTED]
    assert [each["error"].partition(":")[0] for each in results[len(calls) :]] == ["ValueError", "KeyError", "KeyError"]


def test_a_dialog_whose_call_fails_or_whose_answer_tells_another_result_is_dropped():
    work = begin(Draw(stream(0, "x")), "single", 3)
    work.go_on([{"error": "KeyError"}])
    (found,) = _checked(work)
    assert (found.kind, found.reason) == ("dropped", "a call fails")
    work = begin(Draw(stream(0, "y")), "single", 3)
    work.go_on([{"result": 987654}])
    work.messages[-1]["content"] = "It is 5."
    (found,) = _checked(work)
    assert found.reason == "the answer does not tell the result"


def test_equal_seeds_give_equal_dialogs(tmp_path):
    options = ToolsConfig(count=20)
    first, again, other = (make("tools", options, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


DEFINITIONS = [
    {
        "name": "book_table",
        "description": "Book a table in a restaurant.",
        "parameters": {
            "type": "object",
            "properties": {"people": {"type": "integer"}, "time": {"type": "string"}},
            "required": ["people", "time"],
        },
        "examples": [
            {"request": "A table for 4 at 19:00, please.", "arguments": {"people": 4, "time": "19:00"}},
            {"request": "A table for two at 18:00.", "arguments": {"people": "two", "time": "18:00"}},
        ],
    },
    {
        "type": "function",
        "function": {
            "name": "play_song",
            "description": "Play a song.",
            "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
        },
    },
]


def test_examples_of_own_definitions_become_dialogs(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(DEFINITIONS))
    made = make("tools", ToolsConfig(count=0, definitions=(path,)), tmp_path / "work")
    (dialog,) = of_kind(made, "dialogs")
    (call,) = dialog["messages"][1]["tool_calls"]
    assert call["function"] == {"name": "book_table", "arguments": {"people": 4, "time": "19:00"}}
    assert (dialog["source"], dialog["lineage"]["from"]) == ("user", "mine.json")
    assert "examples" not in json.dumps(dialog["tools"])
    assert reasons(made) == ["arguments do not fit the definition"]


def test_a_teacher_invents_requests_and_its_calls_must_agree(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{**DEFINITIONS[0], "examples": []}, DEFINITIONS[1]]))

    def reply(messages, sample):
        asked = messages[-1]["content"]
        if asked.startswith("Here is the description"):
            if "book_table" in asked:
                return "1. Reserve for 3 people at 20:00\n2. Reserve for 5 people at noon\nToo short"
            return "- Play the song Yesterday"
        if "20:00" in asked:
            return '{"name": "book_table", "arguments": {"people": 3, "time": "20:00"}}'
        if "noon" in asked:
            return json.dumps({"name": "book_table", "arguments": {"people": 5, "time": str(sample)}})
        return "I play it now." if sample == 0 else 'play_song(title="Yesterday")'

    options = ToolsConfig(count=0, definitions=(path,), votes=3)
    made = make("tools", options, tmp_path / "work", reply)
    calls = [d["messages"][1]["tool_calls"][0]["function"] for d in of_kind(made, "dialogs")]
    assert calls == [
        {"name": "book_table", "arguments": {"people": 3, "time": "20:00"}},
        {"name": "play_song", "arguments": {"title": "Yesterday"}},
    ]
    assert reasons(made) == ["the calls do not agree"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "cannot be read as JSON"),
        ('[{"description": "x"}]', "definition 1 has no name"),
        ('[{"name": "f"}]', "parameters of f are missing"),
        ('[{"name": "f", "parameters": {}, "examples": [{"arguments": {}}]}]', "an example has no request"),
        ('[{"name": "f", "parameters": {}, "examples": [{"request": "x"}]}]', "an example has no arguments"),
        ('[{"name": "f", "parameters": {}}, {"name": "f", "parameters": {}}]', "defines a function twice"),
        ('[{"name": "f", "parameters": {}}]', "without examples needs a teacher"),
    ],
)
def test_wrong_definitions_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        make("tools", ToolsConfig(count=0, definitions=(path,)), tmp_path / "work")


def test_shares_that_are_all_zero_are_refused(tmp_path):
    with pytest.raises(InputError, match="all shares are 0"):
        make("tools", ToolsConfig(single=0, parallel=0, steps=0, none=0), tmp_path)


def test_dialogs_are_read_as_they_are(made, tmp_path):
    path, rows = tmp_path / "d.jsonl", of_kind(made, "dialogs")[:40]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [record for each in converted(path, "dialogs") for record in each.records]
    assert [record["messages"] for record in found] == [row["messages"] for row in rows]
    assert [record["tools"] for record in found] == [row["tools"] for row in rows]
