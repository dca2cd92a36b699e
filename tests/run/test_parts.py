"""A recipe says which parts a run has; what it leaves out makes no stages, constraints or sections of the report."""

import json
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import result_models, stages_of
from herdlm.run.stages.report import report_stage
from tests.curate.crawls import article
from tests.report.made_up_run import TOML, MadeUpRun
from tests.run.conftest import ROOT, herdlm, toml_blocks

TINY = ROOT / "recipes" / "tiny.toml"
SMALL = [
    "tokens.validation_percent=20.0",
    "pretrain.seq_len=32",
    "pretrain.rows_per_step=2",
    "pretrain.steps=4",
    "pretrain.train={warmup_steps = 1, anneal_steps = 1, precision = 'float32'}",
    "tokenizer.vocab_size=300",
    "herd.models.flagship={dim = 16, layers = 1, heads = 2, kv_heads = 1, ffn_dim = 32}",
    "herd.max_seq_len=64",
]


def sections(page: Path) -> str:
    """A report's sections up to the times, which name stages, and the recipe."""
    return page.read_text(encoding="utf-8").split("</nav>")[1].split("Seconds per stage")[0]


def smallest_recipe() -> str:
    """The first example of docs/recipes.md, which has four sections."""
    return toml_blocks(ROOT / "docs" / "recipes.md")[0]


def names(*overrides: str) -> list[str]:
    return [stage.name for stage in stages_of(read_recipe(TINY, overrides))]


def test_four_sections_are_a_recipe(tmp_path):
    (tmp_path / "four.toml").write_text(smallest_recipe())
    recipe = read_recipe(tmp_path / "four.toml")
    assert recipe.name == "four"
    assert recipe.model_fields_set == {"name", "data", "curate", "tokens", "pretrain"}
    stages = ["curate", "tokenizer", "tokens", "pretrain-flagship", "flagship-bf16", "report"]
    assert [stage.name for stage in stages_of(recipe)] == stages
    assert result_models(recipe) == {"flagship": "flagship-bf16"}


def test_four_sections_run_to_a_report_and_a_model(tmp_path):
    (tmp_path / "four.toml").write_text(smallest_recipe())
    rows = [
        {"text": "\n\n".join(article("en", f"{n} {k}") for k in range(3)), "url": f"https://x.example/{n}"}
        for n in range(40)
    ]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = [part for change in SMALL for part in ("--set", change)]
    done = herdlm("run", tmp_path / "four.toml", "--out", tmp_path / "run", *keys)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "run" / "models").iterdir()] == ["flagship"]
    page = sections(tmp_path / "run" / "report.html")
    assert "Pre-training" in page
    for absent in ("Forecast against truth", "Pass rates", "FP8", "claims are shown"):
        assert absent not in page


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("experiments=false", {"control-sft", "small-control", "dpo-with-nll", "dpo-without-nll"}),
        ("experiments.control_sft=false", {"control-sft"}),
        ("experiments.small_control=false", {"small-control"}),
        ("quantize=false", {"flagship-fp8", "compare-fp8"}),
    ],
)
def test_a_part_that_is_left_out_has_no_stages(override, gone):
    whole = names()
    examinations = {f"examine-{name}" for name in gone} & set(whole)
    assert gone < set(whole)
    assert set(whole) - set(names(override)) == gone | examinations


def test_without_post_training_nothing_is_examined_and_the_skills_stay():
    left = names("align=false", "experiments=false")
    assert "bank" in left  # the skills of pre-training come from it
    assert not [name for name in left if name.startswith(("round-", "examine-", "seeds-", "lesson-"))]
    assert {"pretrain-small", "forecast", "flagship-fp8", "compare-fp8", "small-bf16"} <= set(left)


def test_without_a_ladder_there_is_no_forecast():
    left = names("herd.ladder=[]")
    assert not [name for name in left if "ladder" in name or name == "forecast"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["align.dpo_ablation.peak_lr=1e-3"], "experiments.dpo_nll"),
        (["align=false"], "experiments.control_sft is a control of the rounds"),
        (["align.dpo.nll_weight=0"], "experiments.dpo_nll compares DPO with and without align.dpo.nll_weight"),
        (['herd.ladder=["ladder-1"]'], "herd.ladder has one model"),
        (["quantize=true"], "key quantize"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(overrides, message):
    with pytest.raises(InputError) as caught:
        read_recipe(TINY, overrides)
    assert message in str(caught.value)


def test_false_unsets_what_a_recipe_inherits(tmp_path):
    (tmp_path / "mine.toml").write_text(
        f'extends = "{TINY}"\nexperiments = false\n[herd]\nsmall = false\n[align]\nteach = false\n'
    )
    recipe = read_recipe(tmp_path / "mine.toml")
    assert recipe.herd.small is None
    assert recipe.align.teach is None
    assert not [stage.name for stage in stages_of(recipe) if "small" in stage.name or stage.name.startswith("lesson-")]


@pytest.mark.parametrize("override", ["pretrain.mix=false", "herd.flagship=false", "align.rejection=false"])
def test_false_does_not_unset_a_required_key(override):
    with pytest.raises(InputError, match=f"key {override.split('=')[0]} = False"):
        read_recipe(TINY, [override])


def test_constraints_of_experiments_hold_only_with_them():
    assert read_recipe(TINY, ["experiments=false", "align.dpo.nll_weight=0"]).align.dpo.nll_weight == 0


@pytest.mark.parametrize(
    ("overrides", "absent", "present"),
    [
        (["experiments=false"], ["Control:", "control passed", "with and without NLL", "over-control"], ["Pass rates"]),
        (["quantize=false"], ["FP8"], ["Pass rates", "rounds lift the flagship"]),
        (["herd.ladder=[]"], ["Forecast against truth"], ["Pass rates"]),
        (["align=false", "experiments=false"], ["Pass rates", "Sample dialogs"], ["FP8 against BF16", "Forecast"]),
    ],
)
def test_the_report_tells_of_the_parts_that_are_there(tmp_path, overrides, absent, present):
    path = tmp_path / "made-up.toml"
    path.write_text(TOML, encoding="utf-8")
    context = MadeUpRun(tmp_path / "run", read_recipe(path, overrides)).build()
    counts = report_stage(context)
    page = sections(context.out / "report.html")
    assert counts["checks"] == page.count('class="card"')
    for words in absent:
        assert words not in page, words
    for words in present:
        assert words in page, words
