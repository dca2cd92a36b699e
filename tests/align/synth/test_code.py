"""Code: mutants whose solutions pass their tests, and a teacher's problems, descriptions and translations."""

import ast
import json
import re
import shutil

import pytest

from herdlm.align.synth.code.inputs import new_inputs
from herdlm.align.synth.code.problems import asked, read_problems, read_snippets
from herdlm.align.synth.code.run_code import outputs
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.draw import Draw
from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.data.read import converted
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.sandbox import open_sandbox
from herdlm.verifiers.code import Code
from tests.align.synth.scripted import make, of_kind, reasons

PROBLEMS = [
    {
        "text": "Write a function to double the given number.",
        "code": "def twice(n):\r\n\treturn (n * 2);",
        "test_list": ["assert twice(2) == 4", "assert twice(5) == 10", "assert twice(9) == 18"],
    },
    {
        "text": "Write a python function to check whether a word reads the same backwards.",
        "code": "def mirrored(word):\n    return word == word[::-1]",
        "test_list": [
            "assert mirrored('anna') == True",
            "assert mirrored('ab') == False",
            "assert mirrored('x') == True",
        ],
    },
    {
        "text": "Write a function to add two numbers.",
        "code": "def plus(a, b):\n    return a - b",
        "test_list": ["assert plus(1, 2) == 3", "assert plus(4, 4) == 8", "assert plus(0, 1) == 1"],
    },
]


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return path


def run(code, tests):
    """Whether plain Python runs the tests, without the sandbox."""
    names = {}
    exec(code, names)
    for test in tests:
        exec(test, names)


@pytest.mark.parametrize("invent_inputs", [False, True])
def test_mutants_have_solutions_that_pass_and_tests_that_others_fail(problems, tmp_path, invent_inputs):
    options = CodeConfig(problems=(problems,), mutants=6, invent_inputs=invent_inputs)
    made = make("code", options, tmp_path / "work")
    prompts = {prompt["id"]: prompt for prompt in of_kind(made, "prompts")}
    dialogs = of_kind(made, "dialogs")
    ways = {dialog["lineage"]["way"] for dialog in dialogs}
    assert {"same", "each"} <= ways and ways & {"filter", "count", "select", "how_many"} and ways & {"total", "largest"}
    assert reasons(made) == ["the given solution fails its tests"]
    for dialog in dialogs:
        prompt = prompts[dialog["lineage"]["prompt"]]
        answer = dialog["messages"][1]["content"]
        code = re.fullmatch(r"```python\n(.*)\n```", answer, re.DOTALL)[1]
        run(code, prompt["tests"])
        assert Code()(answer, prompt["tests"]).passed
        entry = re.match(r"assert (\w+)", prompt["tests"][0])[1]
        assert not Code()(f"def {entry}(*a):\n    return None", prompt["tests"]).passed
        assert f"`{entry}`" in prompt["prompt"][0]["content"] and f"def {entry}(" in code
        assert all(test in prompt["prompt"][0]["content"] for test in prompt["tests"][:3])


def test_given_inputs_are_used_unless_new_ones_are_asked_for(problems, tmp_path):
    given = {"2", "5", "9", "'anna'", "'ab'", "'x'"}

    def inputs(invent):
        options = CodeConfig(problems=(problems,), mutants=6, invent_inputs=invent)
        found = set()
        for prompt in of_kind(make("code", options, tmp_path / str(invent)), "prompts"):
            for test in prompt["tests"]:
                (argument,) = ast.parse(test).body[0].test.left.args
                found |= (
                    {ast.unparse(e) for e in argument.elts}
                    if isinstance(argument, ast.List)
                    else {ast.unparse(argument)}
                )
        return found

    assert inputs(False) == given
    assert not inputs(True) & given


def test_problems_are_read_with_one_layout_and_others_left_out(problems, tmp_path):
    first, *_ = read_problems([problems])
    assert first.code == "def twice(n):\n    return n * 2"
    assert (first.entry, first.calls, asked(first)) == ("twice", ("2", "5", "9"), "double the given number")
    path = tmp_path / "odd.jsonl"
    rows = [{**PROBLEMS[0], "test_list": ["assert twice(x) == 1"]}, {**PROBLEMS[0], "code": "def"}, PROBLEMS[1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [problem.entry for problem in read_problems([path])] == ["mirrored"]


def test_new_inputs_stay_near_the_given_ones():
    calls = ["[1, 2, 3], 2", "[4, 9, 5], 1"]
    found = new_inputs(Draw(stream(0, "x")), calls)
    assert len(found) > 10 and not set(found) & set(calls)
    for call in found:
        numbers, place = ast.literal_eval(f"({call},)")
        assert 1 <= place <= 5 and all(1 <= number <= 12 for number in numbers)


def test_outputs_leave_out_errors_random_results_and_objects():
    code = (
        "import random\ndef f(n):\n    print('noise')\n    if n == 0:\n        raise SystemExit\n"
        "    return [None, random.random(), f, 'ok'][n]"
    )
    with open_sandbox(workers=1, limits=Limits(cpu_seconds=1.0)) as sandbox:
        assert outputs(sandbox, code, "f", ["0", "1", "2", "3", "nonsense("]) == [None, None, None, "'ok'", None]
        assert outputs(sandbox, "while True: pass\ndef f(n): return n", "f", ["1"]) == [None]


def test_snippets_are_functions_that_stand_alone(tmp_path):
    path = tmp_path / "snippets.py"
    path.write_text(
        "import math\nimport os\nLIMIT = 3\n\n"
        "def area(r):\n    return math.pi * r ** 2\n\n"
        "def here(x):\n    return os.getcwd() + x\n\n"
        "def limited(x):\n    return min(x, LIMIT)\n\n"
        "def silent(x):\n    x.clear()\n\n"
        "def shout(x):\n    print(x)\n    return x\n\n"
        "def squares(items):\n    return [i * i for i in items]\n"
    )
    found = list(read_snippets([path]))
    assert [snippet.entry for snippet in found] == ["area", "squares"]
    assert found[0].code.startswith("import math\n")


def fenced(code, mark="python"):
    return f"Here it is:\n\n```{mark}\n{code}\n```"


INVENTED = "Write a function `triple` that gets a number and returns three times that number, also if it is negative."
TESTS = fenced(
    "assert triple(2) == 6\nassert triple(-1) == -3\nassert triple(0) == 0\nassert other(1) == 1\nassert triple("
)


def test_errors_are_fed_back_until_the_tests_pass(tmp_path):
    seen = []

    def reply(messages, sample):
        asked = messages[-1]["content"]
        if asked.startswith("Invent"):
            return INVENTED
        if "assert statements" in asked:
            return TESTS
        seen.append(messages)
        return fenced("def triple(n):\n    return n * 3" if len(messages) > 3 else "def triple(n):\n    return n + 3")

    made = make("code", CodeConfig(invent=1, attempts=3), tmp_path, reply)
    (dialog,) = of_kind(made, "dialogs")
    (prompt,) = of_kind(made, "prompts")
    assert prompt["tests"] == ["assert triple(2) == 6", "assert triple(-1) == -3", "assert triple(0) == 0"]
    assert dialog["lineage"]["corrected"] == 2 and len(seen) == 3
    assert "an assertion failed" in seen[1][-1]["content"]
    assert len(dialog["messages"]) == 2 and "n * 3" in dialog["messages"][1]["content"]
    assert Code()(dialog["messages"][1]["content"], prompt["tests"]).passed


def test_what_never_passes_is_dropped_with_its_errors(tmp_path):
    def reply(messages, sample):
        asked = messages[-1]["content"]
        if asked.startswith("Invent"):
            if "lists" in asked or "a" not in asked:
                return "Too short."
            return INVENTED
        return TESTS if "assert statements" in asked else "I do not know."

    made = make("code", CodeConfig(invent=3, attempts=2), tmp_path, reply)
    assert of_kind(made, "dialogs") == []
    assert set(reasons(made)) <= {
        "no solution passes the tests",
        "repeats an earlier one",
        "the problem names no function",
    }
    (row,) = [
        each for each, why in zip(of_kind(made, "dropped"), reasons(made), strict=True) if why.startswith("no solution")
    ]
    assert row["errors"] == ["there is no code block"] * 2


def test_tests_that_tell_nothing_are_refused(tmp_path):
    def reply(messages, sample):
        if messages[-1]["content"].startswith("Invent"):
            return INVENTED
        return fenced("assert triple(0) == 0\nassert triple(0.0) == 0\nassert triple(0j) == 0")

    assert reasons(make("code", CodeConfig(invent=1), tmp_path, reply)) == ["too few tests"]


def test_real_code_is_described_and_written_again_with_equal_results(problems, tmp_path):
    def reply(messages, sample):
        asked = messages[-1]["content"]
        if asked.startswith("Here is a Python function"):
            name = "twice" if "twice" in asked else "mirrored"
            return f"The function {name} gets one value and returns something about it."
        if "twice" in asked:
            return fenced("def twice(n):\n    return n + n")
        return fenced("def mirrored(word):\n    return True")

    options = CodeConfig(problems=(problems,), mutants=0, explain=True, attempts=1)
    made = make("code", options, tmp_path / "work", reply)
    (dialog,) = of_kind(made, "dialogs")
    assert "return n + n" in dialog["messages"][1]["content"] and dialog["source"] == "scripted"
    assert sorted(reasons(made)) == ["no solution passes the tests", "the given solution fails its tests"]
    (prompt,) = of_kind(made, "prompts")
    assert len(prompt["tests"]) > 3


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_translations_are_parsed_and_must_pass_the_tests_on_the_way_back(problems, tmp_path):
    def reply(messages, sample):
        asked = messages[-1]["content"]
        if "to Bash" in asked:
            body = "twice() {\n  echo $(($1 * 2))\n}" if "twice" in asked else "mirrored() {\n  echo yes"
            return fenced(body, "bash")
        return fenced("def twice(n):\n    return 2 * n")

    options = CodeConfig(problems=(problems,), mutants=0, translate=("bash",))
    made = make("code", options, tmp_path / "work", reply)
    there, back = of_kind(made, "dialogs")
    assert "```bash\ntwice()" in there["messages"][1]["content"]
    assert "Bash code to Python" in back["messages"][0]["content"]
    assert sorted(reasons(made)) == ["is not Bash", "the given solution fails its tests"]
    lost = make("code", options, tmp_path / "lost", lambda m, k: fenced("twice() {\n  echo 1\n}", "bash"))
    assert of_kind(lost, "dialogs") == []
    assert reasons(lost).count("does not pass the tests back in Python") == 2


def test_a_language_without_its_program_is_refused(problems, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    options = CodeConfig(problems=(problems,), mutants=0, translate=("javascript",))
    with pytest.raises(InputError, match="code.translate: javascript needs node"):
        make("code", options, tmp_path / "work", lambda messages, sample: "")


@pytest.mark.parametrize("option", [{"explain": True}, {"translate": ("bash",)}, {"invent": 1}])
def test_a_teacher_is_needed_where_one_is_asked(problems, tmp_path, option):
    with pytest.raises(InputError, match=f"code: {next(iter(option))} needs a teacher"):
        make("code", CodeConfig(problems=(problems,), mutants=0, **option), tmp_path / "work")


def test_wrong_files_and_empty_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is nothing to make"):
        make("code", CodeConfig(), tmp_path / "work")
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "x", "code": "y"}\n')
    with pytest.raises(InputError, match="p.jsonl, line 1"):
        make("code", CodeConfig(problems=(path,)), tmp_path / "work")
    (tmp_path / "s.py").write_text("def")
    with pytest.raises(InputError, match="cannot be read as Python"):
        make("code", CodeConfig(snippets=(tmp_path / "s.py",), explain=True), tmp_path / "work", lambda m, k: "")


def test_equal_seeds_give_equal_problems_which_are_read_as_they_are(problems, tmp_path):
    options = CodeConfig(problems=(problems,), mutants=3)
    first, again, other = (make("code", options, tmp_path / "work", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    rows = of_kind(first, "prompts")
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [record for each in converted(path, "prompts") for record in each.records]
    assert [(r["prompt"], r["tests"], r["verifier"]) for r in found] == [
        (r["prompt"], r["tests"], "tests") for r in rows
    ]
