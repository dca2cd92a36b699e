"""The user's own steps: the documented one, what is part of the fingerprint, and errors that name the key."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.curate.config import STEPS, CurateConfig
from herdlm.curate.pipeline import curate
from herdlm.curate.steps.contents import corpus_steps, document_steps, page_steps
from herdlm.curate.steps.own import PageStepName
from tests.curate.crawls import article

DOCS = Path(__file__).parents[2] / "docs/own-parts.md"
COOKING = " Heat the oven and add a teaspoon of salt, then a tablespoon of the oil, before the oven is hot again."


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder to run in. What is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def documented() -> tuple[str, dict[str, Any]]:
    """The page's module and recipe."""
    section = DOCS.read_text(encoding="utf-8").partition("## Your own curation step\n")[2].partition("\n## ")[0]
    ((_, module), (_, recipe)) = re.findall(r"```(python|toml)\n(.*?)```", section, re.DOTALL)
    return module, tomllib.loads(recipe)


def configure(step: str, **keys: Any) -> CurateConfig:
    return parse(CurateConfig, {"workers": 1, "steps": {"mine": {"step": step, **keys}}}, "recipe")


def write_module(body: str, *, name: str) -> None:
    """A module of one step; every test has a name of its own, since Python imports a module once."""
    imports = "from herdlm.curate.batch import Outcome\nfrom herdlm.curate.step import PageStep\n\n\n"
    Path(f"{name}.py").write_text(imports + body, encoding="utf-8")
    importlib.invalidate_caches()


def run(config: CurateConfig, name: str = "out") -> Path:
    rows = [{"url": f"https://x.example/{n}", "text": article("en", str(n)) + COOKING * (n % 2)} for n in range(6)]
    Path("pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = Path(name)
    out.mkdir()
    curate(["pages.jsonl"], out, config, quiet=True)
    return out


def test_the_documented_step_runs_in_worker_processes_and_is_in_the_funnel() -> None:
    module, tables = documented()
    assert len(module.strip().splitlines()) <= 20
    Path("my_steps.py").write_text(module, encoding="utf-8")
    out = run(parse(CurateConfig, tables["curate"] | {"workers": 2}, "recipe"))
    steps = json.loads((out / "funnel.json").read_text())["steps"]
    names = [step["step"] for step in steps]
    assert names[names.index("heuristics") + 1] == "no_recipes"
    (row,) = [step for step in steps if step["step"] == "no_recipes"]
    assert (row["documents_in"], row["documents_out"]) == (6, 3)
    assert row["dropped"]["cooking_recipe"]["documents"] == 3
    dropped = pq.read_table(out / "dropped").to_pylist()
    assert {(row["step"], row["reason"]) for row in dropped} == {("no_recipes", "cooking_recipe")}
    assert "no_recipes" in json.loads((out / "samples.json").read_text())


def test_steps_run_where_they_are_put_and_can_change_the_text() -> None:
    write_module(
        """class Shout(PageStep):
    filters = False

    def run(self, batch):
        return Outcome([None] * len(batch["id"]), {"text": [text.upper() for text in batch["text"]]})


class NoCapitals(PageStep):
    def run(self, batch):
        return Outcome(["loud" if text.isupper() else None for text in batch["text"]])
""",
        name="placed",
    )
    shout = {"step": "placed:Shout", "after": "pii"}
    tables = {"steps": {"early": {"step": "placed:NoCapitals", "after": "repair"}, "shout": shout}, "workers": 1}
    config = parse(CurateConfig, tables, "recipe")
    assert all(row["text"].isupper() for row in pq.read_table(run(config) / "documents").to_pylist())
    tables["steps"]["late"] = {"step": "placed:NoCapitals", "after": "pii"}
    with pytest.raises(InputError, match=r"no document is left of 6 pages: step late dropped most \(loud 6\)"):
        run(parse(CurateConfig, tables, "recipe"), "late")


def test_the_fingerprint_covers_settings_version_and_source() -> None:
    body = (
        "class Mine(PageStep):\n    version = {}\n\n    def run(self, batch):\n        return Outcome(batch['fault'])\n"
    )
    fingerprints = []
    for name, version, extra in (("v1", 1, ""), ("v2", 2, ""), ("v3", 1, "# changed\n")):
        write_module(body.format(version) + extra, name=name)
        (steps,) = configure(f"{name}:Mine").fingerprint()["steps"].values()
        assert steps.pop("step") == f"{name}:Mine"
        fingerprints.append(steps)
    assert fingerprints[0]["version"] != fingerprints[1]["version"]
    assert fingerprints[0]["version"] == fingerprints[2]["version"]
    assert fingerprints[0]["source"] != fingerprints[2]["source"]
    assert configure("v1:Mine", after="pii").fingerprint() != configure("v1:Mine").fingerprint()
    assert "steps" not in CurateConfig().fingerprint()
    assert CurateConfig(workers=3).fingerprint() == CurateConfig().fingerprint()


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (
            "nowhere.rules:Mine",
            r"curate.steps.mine.step = 'nowhere.rules:Mine': there is no module nowhere. Install it",
        ),
        ("json:Mine", r"curate.steps.mine.step = 'json:Mine': module json has no Mine"),
        ("json:JSONDecodr", r"Did you mean json:JSONDecoder\?"),
        ("json:JSONDecoder", r"'json:JSONDecoder' is not a step. Name a subclass of herdlm.curate.step.PageStep"),
        ("herdlm.curate.step:PageStep", "does not define run"),
        ("broken:Mine", r"importing it failed with ZeroDivisionError: division by zero \(.*broken.py, line 5\)"),
        ("unreadable:Mine", r"SyntaxError: '\(' was never closed \(unreadable.py, line 5\)\. Fix that module"),
        ("settings:Mine", r"curate.steps.mine.settings: unknown key limit. Allowed here: most"),
        ("bare:Mine", r"its Settings is not a section"),
    ],
)
def test_a_step_that_cannot_be_loaded_is_refused_before_anything_is_read(step: str, error: str) -> None:
    write_module("1 / 0\n", name="broken")
    write_module("def run(\n", name="unreadable")
    settings = (
        "class Mine(PageStep):\n    class Settings({}):\n        most: int = 1\n\n    def run(self, batch): ...\n"
    )
    write_module("from herdlm.base.recipe import Section\n" + settings.format("Section"), name="settings")
    write_module(settings.format("object"), name="bare")
    config = configure(step, settings={"limit": 3})
    for use in (config.fingerprint, lambda: run(config)):
        with pytest.raises(InputError, match=error) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert not Path(".out.curate").exists()


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("None", "run returned NoneType, not Outcome"),
        ("Outcome([None])", "run returned 1 reasons for 6 pages"),
        ("Outcome([3] * 6)", "run returned the reason 3, which is neither a name nor None"),
        ("Outcome([None] * 6, {'row': [1] * 6})", "run set the column row, but a step can only set text, language"),
        ("Outcome([None] * 6, {'text': ['']})", "run returned 1 values of text for 6 pages"),
        ("Outcome([None] * 6, {'text': [b''] * 6})", "run set text to b'', which is not str"),
        ("Outcome(batch['nothing'])", r"curate.steps.mine \(.*:Mine\) raised KeyError: 'nothing' \(.*.py, line 7\)"),
    ],
)
def test_a_wrong_outcome_is_one_line_that_names_the_step(returned: str, error: str) -> None:
    name = f"wrong_{zlib.crc32(returned.encode())}"
    write_module(f"class Mine(PageStep):\n    def run(self, batch):\n        return {returned}\n", name=name)
    with pytest.raises(InputError, match=error) as caught:
        run(configure(f"{name}:Mine"))
    assert str(caught.value).startswith(f"curate.steps.mine ({name}:Mine)")
    assert "\n" not in str(caught.value)


def test_a_step_that_only_annotates_drops_nothing() -> None:
    body = (
        "class Mine(PageStep):\n    filters = False\n\n    def run(self, batch):\n        return Outcome(['x'] * 6)\n"
    )
    write_module(body, name="annotates")
    with pytest.raises(InputError, match="run returned the reason 'x', but the step has filters = False"):
        run(configure("annotates:Mine"))


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        ({"quality": {"step": "a:B"}}, "'quality' is the name of a built-in step"),
        ({"No Recipes": {"step": "a:B"}}, "'No Recipes' is not a step name"),
        ({"mine": {"step": "a.B"}}, "steps.mine.step: 'a.B' is not module:attribute"),
        ({"mine": {"step": "a:B", "after": "hosts"}}, "key steps.mine.after = 'hosts'"),
    ],
)
def test_keys_are_checked(tables: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        parse(CurateConfig, {"steps": tables}, "recipe")


def test_the_names_of_built_in_steps_are_those_of_the_pipeline() -> None:
    config = CurateConfig()
    assert tuple(step.name for step in page_steps(config)) == get_args(PageStepName)
    assert set(STEPS) == {step.name for step in (*page_steps(config), *corpus_steps(config), *document_steps(config))}
