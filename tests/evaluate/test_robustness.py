"""Variants of tasks: a model that knows the answers, models that know only a letter or a place, and wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app
from herdlm.evaluate import publish
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.comparing import robustness_table
from herdlm.evaluate.items import reorder, with_right_at
from herdlm.evaluate.local import EngineOptions
from herdlm.evaluate.robustness import robustness, variants_of
from herdlm.evaluate.run import load
from herdlm.evaluate.task import Items, Task, load_task, task_names
from tests.conftest import small_model
from tests.evaluate.evaluating import write_folder, write_rows
from tests.evaluate.made_model import MadeModel

TASK = """
title = "Letters"
about = "Which word is in the question"
kind = "choice"
metrics = ["acc"]

[items]
files = ["letters.jsonl"]
source = "made for a test"
choices = "texts"
answer = "right"

[items.fields]
letters = "['A', 'B', 'C', 'D']"

[prompt]
text = "{{ asked }}?\\n{% for text in texts %}{{ letters[loop.index0] }}. {{ text }}\\n{% endfor %}Answer:"
choices = "letters"
answer = "right"

[shots]
count = 3
files = ["shots.jsonl"]

[variants.label_names]
numbers = { items.fields.letters = "['1', '2', '3', '4']" }

[variants.answer_order]
reversed = { items.order = "range(n) | reverse | list" }
rotated = { items.order = "(range(1, n) | list) + [0]" }

[variants.shot_labels]
AAA = { shots.answers = [0] }
DC = { shots.answers = [3, 2] }

[variants.wording]
polite = { prompt.description = "Please answer.\\n\\n" }
"""
WORDS = ["anchor", "basket", "candle", "dragon"]
ITEMS = Items(files=("x",), source="x", choices="texts", answer="right")


def rows(count: int) -> list[dict]:
    """Items whose right choice stands in each place equally often."""
    return [{"asked": f"{WORDS[n % 4]} {n}", "texts": WORDS, "right": n % 4} for n in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "letters.toml").write_text(TASK)
    write_rows(tmp_path / "letters.jsonl", rows(40))
    write_rows(tmp_path / "shots.jsonl", rows(7)[4:])
    return tmp_path


def evaluated(folder: Path, monkeypatch, model: MadeModel, *, robust: bool = True, task: str = "letters"):
    monkeypatch.setattr(publish, "open_model", lambda path, *_: model)
    monkeypatch.setattr(publish, "model_folder", Path)
    return publish.evaluate_models(
        ["made"],
        [str(folder / f"{task}.toml")],
        [folder],
        folder / "out",
        settings=Settings(),
        options=EngineOptions(),
        robustness=robust,
        quiet=True,
    )


def question(text: str) -> list[str]:
    """The lines of the item itself, behind its examples."""
    return text.rsplit("\n\n", 1)[-1].splitlines()


def knows(text: str, continuation: str) -> float:
    """Likes the label of the choice that the question names, whatever the labels, the order and the wording."""
    lines = question(text)
    return 0.0 if f"{continuation.strip()}. {lines[0].split()[0]}" in lines[1:5] else -9.0


def likes_a(text: str, continuation: str) -> float:
    return {" A": 0.0, " B": -1.0, " C": -2.0, " D": -3.0}.get(continuation, -9.0)


def repeats_shots(text: str, continuation: str) -> float:
    """Likes the label that most of the examples have."""
    return float(text.count(f"Answer:{continuation}\n"))


def test_a_model_that_knows_the_answers_is_right_in_every_variant(folder: Path, monkeypatch) -> None:
    (result,) = evaluated(folder, monkeypatch, MadeModel(knows))["made"]
    found = robustness(result, result.variants)
    assert list(found) == ["label_names", "answer_order", "shot_labels", "wording", "all"]
    assert found["all"]["acc"].figures.keys() == {
        "label_names.numbers",
        "answer_order.reversed",
        "answer_order.rotated",
        "shot_labels.AAA",
        "shot_labels.DC",
        "wording.polite",
    }
    for spread in (spread["acc"] for spread in found.values()):
        assert spread.baseline.value == 1.0
        assert (spread.low, spread.high, spread.deviation) == (1.0, 1.0, 0.0)
        assert all(change.value == 0 for change in spread.changes.values())


def test_a_model_that_says_a_is_right_where_the_right_answer_stands_first(folder: Path, monkeypatch) -> None:
    write_rows(
        folder / "letters.jsonl",
        [{**row, "texts": [row["asked"].split()[0], "x", "y"], "right": 0} for row in rows(40)],
    )
    (result,) = evaluated(folder, monkeypatch, MadeModel(likes_a))["made"]
    spread = robustness(result, result.variants)["answer_order"]["acc"]
    assert spread.baseline.value == 1.0
    assert {name: figure.value for name, figure in spread.figures.items()} == {"reversed": 0.0, "rotated": 0.0}
    assert spread.changes["reversed"].value == -1.0 and spread.changes["reversed"].high < -0.8
    assert (spread.low, spread.high) == (0.0, 1.0)
    assert spread.deviation == pytest.approx(3**-0.5)  # of 1, 0, 0 by hand: sqrt((4/9 + 1/9 + 1/9) / 2)


def test_examples_with_one_label_pull_a_model_that_repeats_them(folder: Path, monkeypatch) -> None:
    (result,) = evaluated(folder, monkeypatch, MadeModel(repeats_shots))["made"]
    answers = {
        name: {record["answer"] for record in variant.records}
        for name, variant in result.variants["shot_labels"].items()
    }
    assert answers == {"AAA": {0}, "DC": {3}}  # D, C, D


def test_variants_ask_the_same_items_and_say_so(folder: Path, monkeypatch) -> None:
    model = MadeModel(knows)
    (result,) = evaluated(folder, monkeypatch, model)["made"]
    for variants in result.variants.values():
        for name, variant in variants.items():
            assert [record["id"] for record in variant.records] == [record["id"] for record in result.records], name
            assert all(question(record["prompt"])[0].startswith(WORDS[record["id"] % 4]) for record in variant.records)
    prompts = [variant.records[0]["prompt"] for variants in result.variants.values() for variant in variants.values()]
    assert len({result.records[0]["prompt"], *prompts}) == 7


def test_what_is_finished_is_not_asked_again(folder: Path, monkeypatch) -> None:
    first, second = MadeModel(knows), MadeModel(knows)
    evaluated(folder, monkeypatch, first, robust=False)
    assert len(first.asked) == 40 * 4
    (robust,) = evaluated(folder, monkeypatch, second)["made"]
    assert len(second.asked) == 6 * 40 * 4
    third = MadeModel(knows)
    assert evaluated(folder, monkeypatch, third)["made"][0].to_json() == robust.to_json()
    assert third.asked == []
    (folder / "letters.toml").write_text(TASK + 'loud = { prompt.description = "ANSWER!\\n\\n" }\n')
    evaluated(folder, monkeypatch, third)
    assert len(third.asked) == 40 * 4  # the new variant only


def test_json_results_file_and_table_have_figures_changes_and_spread(folder: Path, monkeypatch) -> None:
    found = evaluated(folder, monkeypatch, MadeModel(likes_a))
    (result,) = found["made"]
    axis = result.to_json()["robustness"]["answer_order"]["acc"]
    assert axis.keys() == {"baseline", "variants", "min", "max", "std"}
    assert axis["variants"]["reversed"].keys() == {"value", "low", "high", "change"}
    stored = json.loads((folder / "out" / "results.json").read_text())
    assert stored["models"][0]["tasks"]["letters"]["robustness"] == result.to_json()["robustness"]
    evaluations = stored["evaluations"]["made"]
    assert len(evaluations) == 7
    for name, entry in evaluations.items():
        assert len((folder / "out" / entry["file"]).read_text().splitlines()) == 41, name
    lines = robustness_table(found)
    assert len(lines) == 1 + 6 + 4 + 1  # head, variants, axes, all
    assert lines[0].split() == ["model", "task", "varied", "variant", "metric", "figure", "change"]


def test_without_robustness_no_variant_is_asked(folder: Path, monkeypatch) -> None:
    found = evaluated(folder, monkeypatch, MadeModel(knows), robust=False)
    assert "robustness" not in found["made"][0].to_json()
    assert robustness_table(found) == []


def test_tasks_without_variants_are_refused(folder: Path, monkeypatch) -> None:
    (folder / "plain.toml").write_text(TASK.partition("[variants")[0])
    with pytest.raises(InputError, match="none of plain has variants"):
        evaluated(folder, monkeypatch, MadeModel(knows), task="plain")


@pytest.mark.parametrize(
    ("variant", "problem"),
    [
        ("x = { prompt.txt = 'a' }", r"variants.wrong.x: unknown key prompt.txt"),
        ("x = { items.files = ['other.jsonl'] }", r"variants.wrong.x changes items.files"),
        ("x = { variants.a.b.prompt.text = 'a' }", r"variants.wrong.x changes variants"),
        ("x = { metrics = ['acc_norm'] }", r"variants.wrong.x changes metrics"),
        ("x = {}\n[variants.all]\ny = {}", r"variants.all.y: names are of letters"),
        ("'x/y' = { shots.count = 1 }", r"variants.wrong.x/y: names are of letters"),
        ("x = { items.answer = '', items.order = '[0]' }", r"needs items.choices and items.answer"),
    ],
)
def test_wrong_variants_are_named(folder: Path, monkeypatch, variant: str, problem: str) -> None:
    (folder / "letters.toml").write_text(f"{TASK}\n[variants.wrong]\n{variant}\n")
    with pytest.raises(InputError, match=problem):
        evaluated(folder, monkeypatch, MadeModel(knows))
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ("items.order = '[0, 1]'", r"line 1: \[0, 1\] is no order of 4 choices"),
        ("items.order = '[0, 1, 1, 2]'", "is no order of 4 choices"),
        ("items.order = 'n'", "4 is no order of 4 choices"),
        ("items.choices = 'asked', items.order = '[0]'", "asked is 'anchor 0', not a list"),
        ("items.answer = 'asked', items.order = '[3, 2, 1, 0]'", "asked is 'anchor 0', not the number of a choice"),
        ("shots.answers = [4]", "there is no choice 4 of 4"),
    ],
)
def test_orders_that_do_not_fit_name_the_item(folder: Path, changes: str, problem: str) -> None:
    (folder / "letters.toml").write_text(f"{TASK}\n[variants.wrong]\nx = {{ {changes} }}\n")
    wrong = variants_of(load_task(str(folder / "letters.toml")))[-1]
    with pytest.raises(InputError, match=problem):
        load(wrong.task, [folder], Settings())


@given(st.data(), st.integers(1, 6))
def test_the_right_text_stays_the_right_one_in_any_order(data, n: int) -> None:
    order = data.draw(st.permutations(range(n)))
    right, place = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    texts = [f"text {i}" for i in range(n)]
    row = {"texts": texts, "right": right, "place": "row 1"}
    reorder(row, ITEMS, order)
    assert row["texts"][row["right"]] == texts[right] and sorted(row["texts"]) == texts
    moved = with_right_at(row, ITEMS, place)
    assert moved["right"] == place and moved["texts"][place] == texts[right] and sorted(moved["texts"]) == texts
    assert sum(a != b for a, b in zip(row["texts"], moved["texts"], strict=True)) in (0, 2)
    marked = {"texts": texts, "right": [int(i == right) for i in range(n)], "place": "row 1"}
    reorder(marked, ITEMS, order)
    assert marked["texts"][marked["right"].index(1)] == texts[right]


def test_all_built_in_variants_are_sound_and_mmlu_has_the_reports_axes() -> None:
    for name in task_names():
        task = load_task(name)
        same = Task(name, task.config.model_copy(update={"variants": {"nothing": {"changed": {}}}}))
        assert [variant.task.digest for variant in variants_of(same)] == [task.digest], name
        digests = [variant.task.digest for variant in variants_of(task)]
        assert len({task.digest, *digests}) == 1 + len(digests), name
    assert list(load_task("mmlu").config.variants) == ["label_names", "answer_order", "shot_labels", "wording"]


def test_the_command_shows_spread_and_contamination_of_a_model_folder(folder: Path, tokenizer) -> None:
    small = write_folder(folder / "small", small_model(max_seq_len=2048), tokenizer)
    write_rows(
        folder / "letters.jsonl",
        [{**row, "asked": f"{row['asked']} of {len(row)} and six more words"} for row in rows(4)],
    )
    write_rows(folder / "data.jsonl", [{"text": "candle 2 of 3 and six more words"}])
    given = [
        "evaluate",
        small,
        "--tasks",
        folder / "letters.toml",
        "--data",
        folder,
        "--out",
        folder / "out",
        "--quiet",
    ]
    shown = CliRunner().invoke(app, [*map(str, given), "--robustness", "--contamination", str(folder / "data.jsonl")])
    assert shown.exit_code == 0, shown.output
    for line in ("reversed", "shot_labels", "spread", "dirty items", "0 of 4"):
        assert line in shown.stdout, shown.stdout
    again = CliRunner().invoke(app, [*map(str, given), "--robustness", "--json"])
    value = json.loads(again.stdout)["tasks"]["letters"]
    assert value["robustness"]["all"]["acc"]["baseline"] == value["acc"] and "contamination" not in value
