"""herdlm synth: recipes, files and counts; equal bytes, resuming, a teacher asked once, errors."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from herdlm.align.synth import records, run
from herdlm.align.synth.config import SynthConfig, localize, paths_of
from herdlm.align.synth.recipe import read_synth_recipe
from herdlm.align.synth.registry import GENERATORS, generators_of
from herdlm.align.synth.run import read_made, synthesize
from herdlm.align.synth.setting import Made, Setting
from herdlm.align.synth.teacher import Teacher
from herdlm.base.artifact import read_manifest, verify
from herdlm.base.errors import InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.cli.app import app
from herdlm.evaluate.requests import AnswerRequest, Question
from tests.align.synth.scripted import Scripted
from tests.run.conftest import ROOT

RECIPE = """
seed = 4
[constraints]
count = 12
without = ["language:response_language"]
[word_problems]
count = 8
[tools]
count = 8
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.jsonl"))
        if path.name != "events.jsonl"
    }


def test_the_command_makes_a_folder_for_each_generator_and_counts(recipe, tmp_path):
    result = CliRunner().invoke(app, ["synth", str(recipe), "--out", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "word_problems: 8 dialogs, 8 prompts" in result.output
    manifest = read_manifest(tmp_path / "out")
    verify(tmp_path / "out", manifest)
    assert manifest.counts["tools"]["dialogs"] == 8
    assert set(manifest.counts) == {"constraints", "word_problems", "tools"}
    assert manifest.counts["constraints"] | {"reasons": {}} == {
        "dialogs": len(read_json_lines(tmp_path / "out/constraints/dialogs.jsonl")),
        "prompts": 12,
        "pairs": 0,
        "dropped": 0,
        "reasons": {},
    }
    assert sorted(path.name for path in (tmp_path / "out/tools").iterdir()) == ["dialogs.jsonl", "prompts.jsonl"]
    assert len(read_made(tmp_path / "out", "prompts")) == 12 + 8 + len(
        read_json_lines(tmp_path / "out/tools/prompts.jsonl")
    )
    assert not (tmp_path / ".out.working").exists()
    again = CliRunner().invoke(app, ["synth", str(recipe), "--out", str(tmp_path / "out")])
    assert isinstance(again.exception, InputError)


def test_equal_recipes_give_equal_bytes_and_generators_do_not_depend_on_each_other(recipe, tmp_path):
    synthesize(read_synth_recipe(recipe), tmp_path / "a", quiet=True)
    synthesize(read_synth_recipe(recipe), tmp_path / "b", quiet=True)
    alone = read_synth_recipe(recipe, ["constraints=false", "tools=false"])
    synthesize(alone, tmp_path / "c", quiet=True)
    synthesize(read_synth_recipe(recipe, ["seed=5"]), tmp_path / "d", quiet=True)
    a, b, c, d = (contents(tmp_path / name) for name in "abcd")
    assert a == b and len(a) == 6
    assert c == {name: content for name, content in a.items() if name.startswith("word_problems/")}
    assert not set(a.values()) & set(d.values())


def test_lineage_leads_to_the_prompt(recipe, tmp_path):
    synthesize(read_synth_recipe(recipe), tmp_path / "out", quiet=True)
    prompts = {row["id"]: row for row in read_made(tmp_path / "out", "prompts")}
    for row in read_made(tmp_path / "out", "dialogs"):
        prompt = prompts[row["lineage"]["prompt"]]
        assert row["messages"][: len(prompt["prompt"])] == prompt["prompt"]
        assert row["lineage"]["verdict"] and row["lineage"]["from"] == prompt["source"]
        assert row["task"] == prompt["task"] and prompt["verifier"]


KILLED = """
seed = 1
teacher = "http://127.0.0.1:9/v1"
[constraints]
count = 30
open = 0.0
program_share = 0.0
teacher_samples = 2
without = ["language:response_language"]
[word_problems]
count = 5
"""


def killed(most, notes, *arguments):
    program = [sys.executable, "-m", "tests.align.synth.killed_synth", str(most), str(notes), *map(str, arguments)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_killed_run_resumes_and_asks_nothing_twice(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(KILLED)
    whole = killed(0, tmp_path / "whole", "synth", recipe, "--out", tmp_path / "a", "--quiet")
    assert whole.returncode == 0, whole.stderr
    asked = (tmp_path / "whole").read_text().splitlines()
    for most in (2, 9, 14, 3):
        died = killed(most, tmp_path / "notes", "synth", recipe, "--out", tmp_path / "b", "--quiet")
        assert died.returncode == -9, died.stderr
        assert not (tmp_path / "b").exists()
    ended = killed(0, tmp_path / "notes", "synth", recipe, "--out", tmp_path / "b", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    notes = (tmp_path / "notes").read_text().splitlines()
    assert len(set(notes)) == len(notes) and sorted(notes) == sorted(asked)
    rows = read_made(tmp_path / "a", "dialogs")
    assert {row["source"] for row in rows} >= {"edited", "program"}


def test_a_finished_generator_is_not_run_again_unless_its_options_change(recipe, tmp_path, monkeypatch):
    ran, real, broken = [], run._run, {"name": "tools"}

    def counted(generator, setting, *rest, **named):
        ran.append(generator.name)
        if generator.name == broken["name"]:
            raise InputError("stop", "here")
        return real(generator, setting, *rest, **named)

    monkeypatch.setattr(run, "_run", counted)
    with pytest.raises(InputError, match="stop"):
        synthesize(read_synth_recipe(recipe), tmp_path / "out", quiet=True)
    assert ran == ["constraints", "word_problems", "tools"]
    broken["name"] = ""
    ran.clear()
    synthesize(read_synth_recipe(recipe, ["word_problems.count=9"]), tmp_path / "out", quiet=True)
    assert ran == ["word_problems", "tools"]
    assert len(read_json_lines(tmp_path / "out/word_problems/prompts.jsonl")) == 9


def ask(teacher, *texts, **options):
    questions = [Question(messages=({"role": "user", "content": text},)) for text in texts]
    return [
        [answer.text for answer in answers]
        for answers in teacher.ask([AnswerRequest(question, 9, **options) for question in questions])
    ]


def test_a_teacher_keeps_its_answers_by_question_draw_and_model(tmp_path):
    model = Scripted(lambda messages, sample: f"{messages[0]['content']}{sample}")
    path = tmp_path / "answers.jsonl"
    assert ask(Teacher(lambda: model, path), "a", "b", "a", samples=2) == [["a0", "a1"], ["b0", "b1"], ["a0", "a1"]]
    assert len(model.asked) == 2
    assert ask(Teacher(lambda: model, path), "b", "c", samples=2) == [["b0", "b1"], ["c0", "c1"]]
    assert len(model.asked) == 3
    ask(Teacher(lambda: model, path), "a", samples=2, seed=1)
    ask(Teacher(lambda: model, path), "a", samples=2, temperature=0.5)
    assert len(model.asked) == 5
    other = Scripted(lambda messages, sample: "x", fingerprint="other")
    assert ask(Teacher(lambda: other, path), "a", samples=2) == [["x", "x"]]


@pytest.mark.parametrize("torn", [b'{"key": "x", "ans', b"\xff\xfe", b'{"key": "x"', b"[]"])
def test_what_a_kill_left_of_the_last_answer_is_cut_off(tmp_path, torn):
    model = Scripted(lambda messages, sample: messages[0]["content"])
    path = tmp_path / "answers.jsonl"
    ask(Teacher(lambda: model, path), "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert ask(Teacher(lambda: model, path), "a", "b", "c") == [["a"], ["b"], ["c"]]
    assert len(model.asked) == 3
    assert len(read_json_lines(path)) == 3 and path.read_bytes().startswith(whole)


OWN = """
from herdlm.align.synth import records
from herdlm.align.synth.setting import Made, dropped

def greetings(setting, options):
    for number in range(options.options["count"]):
        dialog = [records.user(f"Greet person {number % 3}.")]
        yield records.prompt(dialog, task="greetings", source="mine", verifier="regex", answer="Hi")
    yield dropped({"x": 1}, "is no greeting")

def unverified(setting, options):
    yield Made(options.options["kind"], options.options["record"])
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_generators.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_generators"
    sys.modules.pop("own_generators", None)


def test_a_generator_of_the_users_own_runs_and_repeats_are_dropped(own_module, tmp_path):
    own = {"greetings": {"make": f"{own_module}:greetings", "options": {"count": 5}}}
    counts = synthesize(SynthConfig(own=own), tmp_path / "out", quiet=True)
    reasons = {"repeats an earlier one": 2, "is no greeting": 1}
    assert counts["greetings"] == {"dialogs": 0, "prompts": 3, "pairs": 0, "dropped": 3, "reasons": reasons}
    rows = read_json_lines(tmp_path / "out/greetings/dropped.jsonl")
    assert [row["reason"] for row in rows] == ["repeats an earlier one"] * 2 + ["is no greeting"]


@pytest.mark.parametrize(
    ("kind", "record", "missing"),
    [
        ("prompts", {"prompt": []}, "prompts without verifier"),
        ("dialogs", {"messages": []}, "dialogs without lineage.verdict"),
        ("pairs", {"lineage": {"verdict": ""}}, "pairs without lineage.verdict"),
        ("dropped", {}, "dropped without reason"),
    ],
)
def test_what_no_verifier_has_seen_is_refused(own_module, tmp_path, kind, record, missing):
    own = {"bad": {"make": f"{own_module}:unverified", "options": {"kind": kind, "record": record}}}
    with pytest.raises(InputError, match=f"generator bad made {missing}"):
        synthesize(SynthConfig(own=own), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_each_generator_has_a_section_and_each_section_a_generator():
    sections = set(SynthConfig.model_fields) - {"name", "seed", "teacher", "documents", "own"}
    assert sections == set(GENERATORS)
    config = SynthConfig(**{name: {} for name in GENERATORS})
    assert [generator.name for generator in generators_of(config)] == list(GENERATORS)
    listed = CliRunner().invoke(app, ["synth", "--list"])
    assert listed.exit_code == 0
    for name in GENERATORS:
        assert f"{name}: " in listed.output
    assert "most_steps: most steps of a problem; by default 3" in listed.output


def test_paths_are_relative_to_the_recipe_and_inputs_of_the_artifact(tmp_path):
    tables = {"teacher": "model", "documents": ["a.txt"], "word_problems": {"problems": ["p.csv"]}, "code": {}}
    localize(tables, tmp_path)
    assert tables["teacher"] == str(tmp_path / "model")
    config = SynthConfig(**tables)
    assert set(paths_of(config)) == {tmp_path / "model", tmp_path / "a.txt", tmp_path / "p.csv"}
    remote = {"teacher": "http://host/v1#m"}
    localize(remote, tmp_path)
    assert remote == {"teacher": "http://host/v1#m"} and list(paths_of(SynthConfig(**remote))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1", "names no generator"),
        ("[constraint]\ncount = 1", "unknown key constraint. Did you mean constraints?"),
        ("[tools]\ncont = 1", "unknown key tools.cont. Did you mean tools.count?"),
        ("[word_problems]\nmost_steps = 9", "key word_problems.most_steps = 9"),
        ("[own.tools]\nmake = 'a:b'", "own.tools: a generator cannot have this name"),
        ("[own.x]\nmake = 'no_such_module:b'", "there is no module no_such_module"),
        ("documents = ['nowhere']\n[tools]\ncount = 1", "nowhere does not exist"),
        ("[constraints]\nteacher_samples = 1\ncount = 1", "constraints: teacher_samples needs a teacher"),
    ],
)
def test_wrong_recipes_are_refused_with_what_to_do(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        synthesize(read_synth_recipe(path), tmp_path / "out", quiet=True)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_settings_seeds_sandbox_and_documents(tmp_path):
    setting = Setting("x", 7, tmp_path)
    assert setting.random("a", 1).random() == Setting("y", 7, tmp_path).random("a", 1).random()
    assert setting.random("a", 1).random() != setting.random("a", 2).random()
    assert [setting.is_new(text) for text in ("One, two!", "one TWO", "one two three")] == [True, False, True]
    with pytest.raises(InputError, match="x: tales needs documents"):
        setting.need_documents("tales")
    assert setting.sandbox.run("print(2)").stdout == "2\n"
    setting.close()


def test_ids_of_prompts_depend_on_messages_and_tools():
    one = [records.user("a")]
    assert records.prompt_id(one) == records.prompt_id(list(one)) != records.prompt_id([records.user("b")])
    assert records.prompt_id(one, [{"name": "f"}]) != records.prompt_id(one)
    made = records.pair(
        one, "x", "y", rating="edited", chosen_source="edited", rejected_source="m", task="t", origin="o", verdict="v"
    )
    assert made.record["lineage"]["prompt"] == records.prompt_id(one)
    assert isinstance(made, Made) and json.dumps(made.record)


def test_the_recipes_of_the_docs_run(tmp_path, monkeypatch):
    text = (ROOT / "docs/synth.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = Scripted(lambda messages, sample: "Hello Ada!")
    own = {"greetings": {"make": "my_module:greetings", "options": {"count": 10}}}
    counts = synthesize(SynthConfig(teacher="http://x/v1", own=own), tmp_path / "out", open_teacher=lambda: model)
    sys.modules.pop("my_module", None)
    reasons = {"does not name them": 1}
    assert counts["greetings"] == {"dialogs": 1, "prompts": 2, "pairs": 0, "dropped": 1, "reasons": reasons}
