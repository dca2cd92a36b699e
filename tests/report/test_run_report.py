"""The report stage on a made-up run: its figures, its safety, its refusals."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from herdlm.base.errors import DamagedError
from herdlm.report import format
from herdlm.run.stage import Context
from herdlm.run.stages.report import report_stage
from tests.report.made_up_run import HOSTILE, MadeUpRun

Z = 1.959963984540054
VOID = {"meta", "br", "path", "line", "rect"}


class Page(HTMLParser):
    """A page taken apart: its elements with attributes, its text, and whether its tags close as they open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def right(run: MadeUpRun, stage: str) -> list[bool]:
    lines = (run.folder(f"examine-{stage}") / "answers.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["right"] for line in lines if line]


def paired(run: MadeUpRun, after: str, before: str) -> tuple[float, float, float]:
    """The paired interval in points from the counts of discordant answers."""
    pairs = list(zip(right(run, after), right(run, before), strict=True))
    n, gained, lost = len(pairs), sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    # Agresti and Min 2005: half an answer more in each of the four outcomes.
    more, share_gained, share_lost = n + 2, (gained + 0.5) / (n + 2), (lost + 0.5) / (n + 2)
    center = share_gained - share_lost
    half = Z * math.sqrt((share_gained + share_lost - center**2) / more)
    return 100 * (gained - lost) / n, 100 * (center - half), 100 * (center + half)


def wilson(run: MadeUpRun, stage: str) -> str:
    given = right(run, stage)
    n, p = len(given), sum(given) / len(given)
    low, high = (
        (p + Z * Z / (2 * n) + sign * Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))) / (1 + Z * Z / n)
        for sign in (-1, 1)
    )
    return f"{100 * p:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


@pytest.fixture
def reported(finished_run: tuple[MadeUpRun, Context, dict[str, Any]]) -> tuple[MadeUpRun, dict[str, Any], Page]:
    run, context, counts = finished_run
    assert counts["checks"] == 6
    numbers = json.loads((context.out / "report.json").read_text(encoding="utf-8"))
    verdicts = {check["name"]: check["verdict"] for check in numbers["checks"] + numbers["further_checks"]}
    assert counts["verdicts"] == verdicts
    assert counts["shown"] == sum(check["verdict"] == "shown" for check in numbers["checks"])
    return run, numbers, Page(context.out / "report.html")


@pytest.mark.parametrize(
    ("name", "after", "before", "verdict"),
    [
        ("rounds-over-control", "round-2-gate", "control-sft", "shown"),
        ("flagship-teaches-small", "small-taught", "small-control", "shown"),
        ("dpo-with-nll-over-without", "dpo-with-nll", "dpo-without-nll", "shown"),
        ("dpo-without-nll-collapses", "dpo-without-nll", "round-1-sft", "shown"),
        ("demonstrations-over-pretrained", "seeds-sft", "pretrain-flagship", "shown"),
        ("round-2-over-before", "round-2-gate", "round-1-gate", "shown"),
        ("dpo-over-sft-1", "round-1-dpo", "round-1-sft", "not shown"),
        ("dpo-with-nll-over-start", "dpo-with-nll", "round-1-sft", "not shown"),
    ],
)
def test_differences_are_the_paired_ones(
    reported: tuple[MadeUpRun, dict[str, Any], Page], name: str, after: str, before: str, verdict: str
) -> None:
    run, numbers, page = reported
    check = next(c for c in numbers["checks"] + numbers["further_checks"] if c["name"] == name)
    value, low, high = paired(run, after, before)
    assert [100 * check[key] for key in ("value", "low", "high")] == pytest.approx([value, low, high])
    assert check["verdict"] == verdict
    assert f"{points(value)} points" in page.text
    assert f"{points(low)} to {points(high)}" in page.text


def test_pass_rates_and_tasks_are_those_of_the_answers(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    run, numbers, page = reported
    for examination in numbers["examinations"]:
        given = right(run, examination["stage"])
        assert (examination["right"], examination["asked"]) == (sum(given), len(given))
        assert wilson(run, examination["stage"]) in page.text
        copies = given[::3]
        assert ["copy", sum(copies), len(copies)] in examination["tasks"]


def test_the_other_sections_hold_what_the_stages_wrote(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    run, numbers, page = reported
    assert "100 pages came in, 60 clean documents are left (60.0%, 30.0 kB of text)" in page.text
    assert "step “heuristics”: 30." in page.text
    assert "too few words heuristics 20 4.0 kB" in page.text
    assert [language["code"] for language in numbers["curation"]["languages"]] == ["en", "de"]
    flagship = run.recipe.model_config_of("flagship")
    measured = 12 * flagship.body_parameters**-0.1
    forecast = next(c for c in numbers["checks"] if c["name"] == "forecast-matches")
    assert forecast["value"] == pytest.approx(12.5 / 12 - 1)
    assert numbers["forecast"]["measured"] == pytest.approx(measured)
    assert f"Measured: {measured:.3f} nats per token" in page.text
    assert "25.0% of the parameters are FP8" in page.text
    assert "0.00090" in page.text and "97.50%" in page.text and "0.012" in page.text
    assert "\N{MINUS SIGN}0.125 (\N{MINUS SIGN}0.250 to +0.062)" in page.text
    assert numbers["quantization"]["gained"] == numbers["quantization"]["lost"] == 0
    first, second = numbers["rounds"]
    assert (first["kept"], first["cleaned"], first["gate"]["promoted"]) == (50, 45, None)
    assert second["gate"]["promoted"] == "average with the model before"
    assert "refused, dpo: +1.0 points [-2.0, +4.0]" in page.text
    ablations = {c["name"]: c["value"] for c in numbers["further_checks"] if c["name"].startswith("with-")}
    assert set(ablations) == {"with-reward", "with-dpo", "with-averaging"}
    assert ablations["with-reward"] > 0
    assert "70.0% (39.0 to 90.0)" in page.text
    assert "odd_even acc 120 75.0% 69.8 to 80.2 50.0% 44.8 to 55.2" in page.text
    assert "web word_perplexity 3 7.51 7.46 to 7.57 7.25 7.20 to 7.30" in page.text
    assert "regression a sentence about odd_even and runs/second <i>." in page.text
    assert numbers["benchmarks"]["models"] == ["first", "runs/second <i>"]
    assert numbers["settings"]["evaluate"]["data"] == ["arc-easy.jsonl"]
    stages = len(numbers["times"])
    assert sum(time["seconds"] for time in numbers["times"]) == pytest.approx(2.0 * stages)
    assert f"All stages together took {format.seconds(2.0 * stages)}, the longest" in page.text
    assert numbers["settings"]["herd"]["models"]["flagship"]["dim"] == 48


def test_curves_are_means_over_stretches_that_cover_every_step(
    reported: tuple[MadeUpRun, dict[str, Any], Page],
) -> None:
    run, numbers, _ = reported
    curve = next(p for p in numbers["pretraining"] if p["model"] == "flagship")["loss"]
    lines = (run.folder("pretrain-flagship") / "events.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(curve["steps"]) == 120 and curve["steps"][-1] == 300
    starts = [0, *curve["steps"][:-1]]
    expected = [sum(losses[a:b]) / (b - a) for a, b in zip(starts, curve["steps"], strict=True)]
    assert curve["values"] == pytest.approx(expected)


def test_the_drift_of_dpo_is_the_mean_of_its_last_quarter(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    _, numbers, page = reported
    late = sum(range(16, 21)) / 5  # steps 16 to 20 of 20; the made-up drift is -0.1 and -0.2 nats a step
    for drift in numbers["ablation"]:
        assert (drift["chosen_late"], drift["rejected_late"]) == pytest.approx((-0.1 * late, -0.2 * late))
    minus = "\N{MINUS SIGN}"
    assert f"without NLL {minus}1.80 for chosen and {minus}3.60 for rejected answers" in page.text


def test_the_lineage_goes_back_to_the_crawl_by_hash(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    run, numbers, page = reported
    line = numbers["lineage"]["line"]
    assert line == [
        "crawl.warc.gz",
        "curate",
        "tokens",
        "pretrain-flagship",
        "round-2-sft",
        "round-2-dpo",
        "round-2-gate",
        "flagship-bf16",
        "flagship-fp8",
    ]
    source, manifest = numbers["lineage"]["nodes"][0], json.loads((run.folder("curate") / "manifest.json").read_text())
    assert (source["name"], source["kind"]) == ("crawl.warc.gz", "source file")
    assert source["content"] in [entry["content"] for entry in manifest["inputs"].values()]
    assert source["content"] in page.text
    assert "small-taught" not in [node["name"] for node in numbers["lineage"]["nodes"]]


def test_no_folder_of_this_machine_is_told(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    run, numbers, page = reported
    for text in (json.dumps(numbers), page.text):
        assert str(run.root) not in text and "secret-folder" not in text


def test_dialogs_show_the_first_question_of_each_task_marked_by_word(
    reported: tuple[MadeUpRun, dict[str, Any], Page],
) -> None:
    run, numbers, page = reported
    assert [dialog["task"] for dialog in numbers["dialogs"]] == ["copy", "sort", "<i>odd</i>"]
    for number, dialog in enumerate(numbers["dialogs"]):
        stages = ("seeds-sft", "control-sft", "round-2-dpo", "small-control", "small-taught")
        assert [answer["right"] for answer in dialog["answers"]] == [right(run, stage)[number] for stage in stages]
    marks = page.text.count("✓ right") + page.text.count("✗ wrong")
    assert marks == 15


def test_hostile_output_stays_text(reported: tuple[MadeUpRun, dict[str, Any], Page]) -> None:
    _, _, page = reported
    assert {"script", "img", "i", "b", "iframe", "object", "embed"} & {name for name, _ in page.elements} == set()
    assert len(page.all("style")) == 1
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    shown = " ".join(HOSTILE.replace("\x00", "\u2400").replace("\x1b", "\u241b").split())
    assert page.text.count(shown) >= 6
    assert "made-up_run" in page.text


def test_the_page_needs_nothing_else_and_can_be_read_without_eyes(
    reported: tuple[MadeUpRun, dict[str, Any], Page],
) -> None:
    _, _, page = reported
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.open == []
    for _, attributes in page.elements:
        assert "src" not in attributes
        link = attributes.get("href")
        assert link is None or (link.startswith("#") and link[1:] in ids)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == 12
    assert len(page.all("table")) == len(page.all("caption"))
    charts = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(charts) == len(page.all("figure")) == len(page.all("figcaption")) == 7
    assert all(len(attributes["aria-label"] or "") > 40 for attributes in charts)
    assert all(attributes.get("aria-hidden") == "true" for attributes in page.all("svg"))


def test_equal_runs_give_equal_bytes_but_for_seconds(made_up_run: MadeUpRun, tmp_path: Path) -> None:
    other = MadeUpRun(tmp_path / "elsewhere", made_up_run.recipe)
    slower = MadeUpRun(tmp_path / "slower", made_up_run.recipe, seconds=3.0)
    first, second, third = (run.build() for run in (made_up_run, other, slower))
    for context in (first, second, third):
        report_stage(context)
    for name in ("report.html", "report.json"):
        assert (first.out / name).read_bytes() == (second.out / name).read_bytes()
    one, two = (json.loads((context.out / "report.json").read_text()) for context in (first, third))
    assert one.pop("times") != two.pop("times")
    assert one == two


def drop_key(file: str, *path: str) -> Callable[[Path, dict[str, Any]], None]:
    def change(out: Path, counts: dict[str, Any]) -> None:
        told = json.loads((out / file).read_text())
        inner = told
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        (out / file).write_text(json.dumps(told))

    return change


def drop_count(key: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda out, counts: counts.__delitem__(key)


def drop_file(name: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda out, counts: (out / name).unlink()


def write(name: str, text: str) -> Callable[[Path, dict[str, Any]], None]:
    def change(out: Path, counts: dict[str, Any]) -> None:
        (out / name).write_text(text)

    return change


ANSWER = '{"task": "copy", "prompt": "p", "answer": "a", "given": "a", "right": true}\n'


@pytest.mark.parametrize(
    ("stage", "change", "told"),
    [
        ("curate", drop_key("funnel.json", "steps"), "funnel.json: key steps: field required"),
        ("tokens", lambda out, counts: counts["web"].__delitem__("tokens"), "counts: key web.tokens"),
        ("pretrain-l2", drop_file("events.jsonl"), "pretrain-l2/events.jsonl is missing"),
        ("pretrain-l2", write("events.jsonl", '{"kind": "note"}\n'), "holds no step event"),
        ("pretrain-l2", write("events.jsonl", '{"kind": "step", "step": 1, "loss": 2}\n'), "line 1: no number lr"),
        ("forecast", drop_key("forecast.json", "parameters", "forecast"), "key parameters.forecast"),
        ("forecast", write("forecast.json", "{"), "forecast.json is not valid JSON"),
        ("examine-control-sft", write("answers.jsonl", ANSWER), "answers other questions than the other models"),
        ("examine-seeds-sft", write("answers.jsonl", ""), "answers.jsonl has no answers"),
        ("examine-small-taught", write("answers.jsonl", ANSWER.replace('"right"', '"left"')), "line 1: key right"),
        ("round-1-reward", drop_count("held_out_accuracy"), "no held_out_accuracy"),
        ("flagship-fp8", drop_count("parameters_fp8"), "flagship-fp8/manifest.json, counts: key parameters_fp8"),
        ("compare-fp8", drop_key("comparison.json", "text", "kl"), "comparison.json: key text.kl"),
        ("benchmarks", drop_key("results.json", "comparisons"), "results.json: key comparisons"),
        ("round-1-sft", drop_file("training.json"), "round-1-sft/training.json is missing"),
    ],
)
def test_what_a_section_needs_and_does_not_find_is_an_error_that_names_it(
    made_up_run: MadeUpRun, stage: str, change: Callable[[Path, dict[str, Any]], None], told: str
) -> None:
    made_up_run.change[stage] = change
    context = made_up_run.build()
    with pytest.raises(DamagedError) as caught:
        report_stage(context)
    assert told in str(caught.value)
    assert "run the recipe again" in caught.value.remedy.lower()
    assert not list(context.out.iterdir())


def test_an_unfinished_or_absent_stage_is_an_error(made_up_run: MadeUpRun) -> None:
    context = made_up_run.build()
    del context.inputs["forecast"]
    with pytest.raises(DamagedError, match="needs stage forecast"):
        report_stage(context)
    context.inputs["forecast"] = made_up_run.root / "nowhere"
    with pytest.raises(DamagedError, match="stage forecast is not finished"):
        report_stage(context)


def test_a_stage_made_anew_behind_the_back_of_the_lineage_is_an_error(made_up_run: MadeUpRun) -> None:
    context = made_up_run.build()
    manifest = made_up_run.folder("tokens") / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"content": "0" * 64, "seal": ""}))  # as older manifests, without a seal
    with pytest.raises(DamagedError, match="was made from another tokens than the run holds now"):
        report_stage(context)


def test_a_round_without_held_out_pairs_says_so(made_up_run: MadeUpRun) -> None:
    def none(out: Path, counts: dict[str, Any]) -> None:
        counts["held_out_pairs"] = 0
        del counts["held_out_accuracy"]

    made_up_run.change["round-2-reward"] = none
    context = made_up_run.build()
    counts = report_stage(context)
    assert "reward-round-1" in counts["verdicts"] and "reward-round-2" not in counts["verdicts"]
    assert "no such pairs" in Page(context.out / "report.html").text


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_sticks_out_of_the_window(made_up_run: MadeUpRun, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "this test needs Chromium"
    context = made_up_run.build()
    report_stage(context)
    page = (context.out / "report.html").read_text(encoding="utf-8")
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)  # it would stop the script below
    width_of = "(e => document.title = `sticks out by ${e.scrollWidth - e.clientWidth}`)(document.documentElement)"
    script = f"<script>{width_of}</script>"
    frame = f'<iframe src="page.html" style="border:0;width:{width}px;height:9000px"></iframe>'
    (tmp_path / "page.html").write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    reader = "<script>onload = () => document.title = frames[0].document.title</script>"
    (tmp_path / "frame.html").write_text(frame + reader, encoding="utf-8")
    told = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            str(tmp_path / "frame.html"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "<title>sticks out by 0</title>" in told.stdout
