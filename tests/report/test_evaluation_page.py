"""The page of an evaluation and the scripts with its items: complete, escaped, of equal data equal."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from herdlm.report.evaluation_items import LONGEST, joined_items, write_items
from herdlm.report.evaluation_page import render_evaluation_page, write_evaluation_page
from tests.report.made_up_evaluation import (
    HOSTILE,
    MODELS,
    STRANGE,
    TITLES,
    answer_record,
    choice_record,
    records,
    results,
)
from tests.report.test_corpus_page import Reader


def rendered(found: dict[str, Any] | None = None) -> str:
    said = records()
    return render_evaluation_page(found or results(), said, TITLES, {task: f"items/{task}.js" for task in said})


def items_of(path: Path) -> dict[str, Any]:
    """What a script gives to the page, as a JavaScript engine would read it."""
    call = path.read_text(encoding="utf-8")
    task, text = re.fullmatch(r"herdlmItems\((\".*?\"), (\".*\")\);\n", call, re.DOTALL).groups()  # type: ignore[union-attr]
    assert json.loads(task)
    found: dict[str, Any] = json.loads(json.loads(text))
    return found


def test_figures_comparisons_groups_settings_and_hashes_are_told() -> None:
    words = " ".join(Reader(rendered()).words)
    for figure in (
        "2 models on 3 tasks, 2026-02-03",
        "1 regression",
        "75.0%",
        "69.8 to 80.2",
        "7.51",
        "7.46 to 7.5",
        "less is better",
        "\N{MINUS SIGN}25.0 points",
        "\N{MINUS SIGN}31.2 to \N{MINUS SIGN}18.8",
        "a sentence about odd_even and runs/second <i>",
        "nothing shown",
        "30 only first gets right",
        "<biology>",
        "chemistry & physics",
        "odd_even: 2 groups",
        "77",
        "as the task says",
        "9.8.7",
        "6.5.4",
        "a1a1a1a1a1a1",
        "b2b2b2b2b2b2",
        "c3c3c3c3c3c3",
        "plain text",
    ):
        assert figure in words, figure
    assert "regressions" not in words and "only runs/second <i> gets right" not in words


def test_an_interval_that_is_not_known_is_left_out() -> None:
    text = rendered()
    row = re.search(r'<a href="#task=counting">.*?</tr>', text)
    assert row and "75.0%" in row[0] and " to " not in row[0] and "nan" not in row[0] and "<svg" not in row[0]


def test_one_model_has_nothing_to_be_compared_with() -> None:
    found = results()
    found["models"], found["comparisons"] = found["models"][:1], []
    text = rendered(found)
    assert 'id="comparisons"' not in text and 'id="figures"' in text and "1 model on 3 tasks" in text


def test_a_task_that_only_one_model_has_leaves_the_other_cell_empty() -> None:
    found = results()
    del found["models"][1]["tasks"]["web"]
    row = re.search(r'<a href="#task=web">.*?</tr>', rendered(found))
    assert row and row[0].count("7.5") >= 1 and '<td class="number"></td>' in row[0]


def test_the_page_lets_only_its_own_script_run_and_escapes_names() -> None:
    text = rendered()
    page = Reader(text)
    assert "runs/second <i>" not in text and "<biology>" not in text
    assert page.tags.isdisjoint({"img", "iframe", "object", "link", "i"})
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])  # type: ignore[index]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]  # type: ignore[index]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}' 'strict-dynamic'"
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script)
    assert text == rendered()


def test_the_data_in_the_page_cannot_end_its_element() -> None:
    name = f"task {HOSTILE}"
    found = results()
    for model in found["models"]:
        model["tasks"] = {name: model["tasks"]["odd_even"]}
    found["comparisons"], found["evaluations"] = [], {}
    said = {name: records()["odd_even"]}
    text = render_evaluation_page(found, said, {name: HOSTILE}, {name: "items/x.js"})
    data = re.search(r'id="evaluation">(.*?)</script>', text, re.DOTALL)[1]  # type: ignore[index]
    assert json.loads(data)["tasks"] == [{"name": name, "title": HOSTILE, "file": "items/x.js"}]
    assert "<img" not in text and text.count("<script") == 2


def test_every_text_of_an_item_survives_the_way_through_its_script(tmp_path: Path) -> None:
    path = write_items(tmp_path, "counting", records()["counting"])
    found = items_of(tmp_path / path)
    assert found["models"] == list(MODELS)
    strange = found["items"][2]
    assert strange["models"][0]["answers"] == [STRANGE]
    assert "".join(part for part in strange["prompts"][0] if isinstance(part, str)) == STRANGE
    hostile = found["items"][1]
    assert hostile["models"][0]["answers"] == [HOSTILE] and hostile["expected"] == "1"
    said = hostile["models"][0]
    assert (said["finish"], said["tokens"], said["logprobs"], said["passed"]) == (["stop"], [41], [-12.5], True)
    assert json.loads(said["details"]) == {"exact": [{"found": "1"}]}


def test_a_prompt_is_whole_again_from_what_it_shares_and_shows_where_its_question_starts() -> None:
    said = records()["odd_even"]
    before = ""
    for item, record in zip(joined_items(said), said[MODELS[0]], strict=True):
        [(shared, rest, start)] = item["prompts"]
        before = before[:shared] + rest
        assert before == record["prompt"] and before[start:].startswith(f"Question: {item['id']}, is it odd?")
        assert item["right"] == [record["expected"]] and item["choices"] == record["choices"]
        assert [part["picked"] for part in item["models"]] == [said[model][item["id"]]["answer"] for model in MODELS]


def test_positions_count_as_javascript_does() -> None:
    two = {"m": [answer_record(n, True, "", prompt=f"😀😀 shots\n\nquestion {n}") for n in range(2)]}
    first, second = joined_items(two)
    assert first["prompts"] == [[0, "😀😀 shots\n\nquestion 0", 12]]
    assert second["prompts"] == [[21, "1", 12]]


def test_models_that_were_asked_otherwise_keep_their_prompts_and_one_that_was_not_asked_is_null() -> None:
    first = [answer_record(0, True, "a", "plain"), answer_record(5, True, "b", "plain too")]
    second = [answer_record(5, False, "c", "[user] chat")]
    items = joined_items({"first": first, "second": second})
    assert [item["id"] for item in items] == [0, 5]
    assert items[0]["models"][1] is None
    assert len(items[1]["prompts"]) == 2 and items[1]["models"][1]["prompt"] == 1
    assert items[1]["models"][0]["prompt"] == 0


def test_ratios_are_shown_as_figures_and_infinite_numbers_as_null() -> None:
    record = choice_record(0, 0) | {"logprobs": [float("-inf"), -1.0], "ratios": {"perplexity": [2.0, 2.0]}}
    [item] = joined_items({"m": [record]})
    assert item["models"][0]["metrics"] == {"acc": 1.0, "perplexity": 2.7183}
    assert item["models"][0]["logprobs"] == [None, -1.0]
    json.dumps(item, allow_nan=False)


def test_a_very_long_text_says_what_it_lacks() -> None:
    long = "start " + "x" * (2 * LONGEST) + " end"
    [item] = joined_items({"m": [answer_record(0, True, long)]})
    [shown] = item["models"][0]["answers"]
    assert shown.startswith("start ") and shown.endswith(" end") and len(shown) < LONGEST + 100
    assert f"{len(long) - LONGEST:,} characters, which the records have" in shown


@pytest.mark.parametrize("task", ["arc_easy", "my task/../x", "aufgabe ä", "-", "..."])
def test_scripts_stay_in_their_folder_and_tasks_apart(tmp_path: Path, task: str) -> None:
    path = write_items(tmp_path, task, records(2)["odd_even"])
    assert (tmp_path / path).is_file() and (tmp_path / path).parent == tmp_path / "items"
    assert re.fullmatch(r"items/[A-Za-z0-9_.-]+\.js", path)
    assert path != write_items(tmp_path, f"{task} ", records(2)["odd_even"])
    assert not list((tmp_path / "items").glob("*.tmp"))


def test_an_evaluation_again_replaces_its_page(tmp_path: Path) -> None:
    write_evaluation_page(tmp_path, results(), records(4), TITLES)
    write_evaluation_page(tmp_path, results(), records(6), TITLES)
    assert len(items_of(tmp_path / "items" / "odd_even.js")["items"]) == 6
    assert (tmp_path / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def with_extras() -> dict[str, Any]:
    """Results of an evaluation that asked variants and searched training data."""
    found = results()
    change = {"value": -0.05, "low": -0.092, "high": -0.008}
    variant = {"value": 0.7, "low": 0.65, "high": 0.75, "change": change}
    spread = {
        "baseline": {"value": 0.75, "low": 0.7, "high": 0.8},
        "variants": {"<b>reversed": variant},
        "min": 0.7,
        "max": 0.75,
        "std": 0.0354,
    }
    part = {"value": 0.5, "low": 0.413, "high": 0.587}
    gain = {"all": part, "clean": part, "dirty": None, "gain": change, "chance": 0.0123}
    perplexity = {
        "min": 7.5,
        "max": 7.75,
        "std": None,
        "variants": {"long": {"value": None, "low": None, "high": None}},
    }
    first = found["models"][0]["tasks"]
    first["odd_even"]["robustness"] = {"answer_order": {"acc": spread}, "all": {"acc": spread}}
    first["web"]["robustness"] = {"wording": {"word_perplexity": perplexity}}
    first["counting"]["contamination"] = {
        "threshold": 0.35,
        "ngram_words": 8,
        "dirty": 1234,
        "clean": 66,
        "unjudged": 9,
        "metrics": {"exact": gain, "mean": gain | {"gain": None, "chance": None, "clean": None}},
    }
    return found


def test_robustness_and_contamination_are_told_where_there_are_any() -> None:
    plain, extra = rendered(), rendered(with_extras())
    assert 'id="robustness"' not in plain and 'id="contamination"' not in plain
    assert 'id="robustness"' in extra and 'id="contamination"' in extra
    words = " ".join(Reader(extra).words)
    for text in (
        "Spread of odd_even",
        "answer order",
        "70.0 to 75.0%",
        "std 3.5",
        "odd_even: 1 figure of variants",
        "<b>reversed",
        "\N{MINUS SIGN}5.0 points",
        "\N{MINUS SIGN}9.2 to \N{MINUS SIGN}0.8",
        "7.50 to 7.75",
        "1,234 of 1,300",
        "9 too short",
        "0.35",
        "0.012",
        "41.3 to 58.7",
    ):
        assert text in words, text
    assert "<b>reversed" not in extra
    for bad in ("nan", "None", "std None"):
        assert bad not in words, bad
