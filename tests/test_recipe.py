"""Recipes: extending, overriding, and errors that name file, key and remedy."""

import pytest

from herdlm.base.errors import InputError
from herdlm.recipe import Recipe, read_recipe
from herdlm.run.pipeline import stages_of
from tests.run.conftest import ROOT, SMOKE, herdlm

TINY = ROOT / "recipes" / "tiny.toml"


def test_smoke_extends_tiny():
    tiny, smoke = read_recipe(TINY), read_recipe(SMOKE)
    assert smoke.tokenizer == tiny.tokenizer
    assert smoke.pretrain.steps < tiny.pretrain.steps


def test_overrides_are_toml_or_words():
    recipe = read_recipe(TINY, ["pretrain.steps=300", "name=mine", "tokens.max_text_megabytes={de = 1.5}"])
    assert (recipe.pretrain.steps, recipe.name) == (300, "mine")
    assert recipe.tokens.max_text_megabytes["de"] == 1.5


def test_sources_are_relative_to_the_recipe_that_names_them(tmp_path):
    (tmp_path / "mine.toml").write_text(f'extends = "{TINY}"\nname = "mine"\n')
    assert read_recipe(tmp_path / "mine.toml").data.sources == (str(ROOT / "sample" / "starter.warc.gz"),)
    (tmp_path / "mine.toml").write_text(f'extends = "{TINY}"\n[data]\nsources = ["a.warc.gz", "s3://b/c.warc.gz"]\n')
    assert read_recipe(tmp_path / "mine.toml").data.sources == (str(tmp_path / "a.warc.gz"), "s3://b/c.warc.gz")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.stepz=3", "unknown key pretrain.stepz. Did you mean pretrain.steps?"),
        ("pretrain.train.peak_learning=3", "unknown key pretrain.train.peak_learning"),
        ("pretrain.steps=many", "key pretrain.steps = 'many': input should be a valid integer"),
        ("curate=true", "key curate = True: input should be a table"),
        ("herd.ladder=ladder-1", "key herd.ladder = 'ladder-1': input should be a list"),
        ("pretrain.objective=my.Focal", "pretrain.objective: 'my.Focal' is not module:attribute, such as"),
        ("pretrain.train.decay=square", "'cosine', 'linear', 'constant' or 'warmup-stable-decay'"),
        ("pretrain.train.decay=warmup-stable-decay", "needs decay_steps"),
        ("pretrain.train={peak_lr = 1e-3, decay = 'constant', decay_steps = 9}", "decay_steps has no meaning"),
        ("pretrain.train.horizon_steps=9", "horizon_steps is pretrain.steps"),
        ("pretrain.ramp=[{from_tokens = 9, seq_len = 128, tokens_per_step = 200}]", "take 128 or 256"),
        (
            "pretrain.ramp=[{from_tokens = 9, seq_len = 64, tokens_per_step = 64}, "
            "{from_tokens = 9, seq_len = 64, tokens_per_step = 128}]",
            "from_tokens 9 does not come after 9",
        ),
        (
            "pretrain.mix_phases=[{from_tokens = 9000000, mix = [{source = 'web', share = 1}]}]",
            "from_tokens 9,000,000 is past the end of the main part at 2,969,600 tokens",
        ),
        (
            "pretrain.mix_phases=[{from_tokens = 2, mix = [{source = 'wob', share = 1}]}]",
            "key pretrain.mix_phases.0.mix.0.source",
        ),
        ("pretrain.long_context=[{seq_len = 128, tokens = 1000}]", "rows of 128 tokens after rows of 128 are not"),
        ("pretrain.long_context=[{seq_len = 256, tokens = 5000000}]", "raise it above 2,592"),
        (
            "pretrain.long_context=[{seq_len = 320, tokens = 1000}]",
            "is not a multiple of seq_len 320: take 1920 or 2240",
        ),
        ("pretrain.long_context=[{seq_len = 512, tokens = 5000}]", "rows of 512 tokens exceed herd.max_seq_len 256"),
        ("herd.rope_scaling={rope_type = 'yarn', low_freq_factor = 2}", "rope_type yarn does not read low_freq_factor"),
        ("herd.rope_scaling={rope_type = 'dynamic'}", "herd.rope_scaling: rope_type dynamic changes nothing"),
        ("herd.rope_scaling={rope_type = 'longrope'}", "key herd.rope_scaling.rope_type = 'longrope'"),
        (
            "pretrain.long_context=[{seq_len = 192, tokens = 5000, rope_scaling = {rope_type = 'dynamic'}}]",
            "pretrain.long_context.0.rope_scaling: rope_type dynamic changes nothing",
        ),
        ("herd.models.flagship.heads=5", "herd.models.flagship"),
        ("herd.flagship=giant", "no [herd.models.giant]"),
        ("pretrain.steps=100", "anneal_steps 150 leaves none of 100 steps"),
        ("herd.max_seq_len=64", "rows of 128 tokens exceed herd.max_seq_len 64"),
        ("tokens.skill_documents=0", "tokens.skill_documents is 0"),
        ("tokens.max_text_megabytes={german = 0.1}", "language 'german' is not known"),
        ("tokens.max_text_megabytes={de = -3.0}", "greater than 0"),
        ("herd.small=flagship", "herd.small and herd.flagship are both flagship"),
        ('herd.ladder=["ladder-1", "ladder-1"]', "names a model twice"),
        ("nonsense", "is not of the form key=value"),
    ],
)
def test_bad_keys_name_file_key_and_what_is_allowed(override, message):
    with pytest.raises(InputError) as caught:
        read_recipe(TINY, [override])
    assert message in str(caught.value)
    if "=" in override:
        assert str(TINY) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ('extends = "mine.toml"', "extends itself"),
        ('extends = "gone.toml"', "gone.toml"),
    ],
)
def test_broken_recipes_are_named(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "mine.toml")


def test_a_recipe_scales_rope_in_any_kind():
    recipe = read_recipe(TINY, ["herd.rope_scaling={rope_type = 'yarn', factor = 4, truncate = false}"])
    scaling = recipe.model_config_of("flagship").rope_scaling
    assert scaling.table() | {"factor": 4.0, "truncate": False} == scaling.table()
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_the_command_line_tells_bad_input_in_one_line_with_exit_code_2():
    done = herdlm("run", "recipes/tine.toml")
    assert done.returncode == 2
    assert done.stderr == "herdlm: recipe recipes/tine.toml does not exist. Did you mean recipes/tiny.toml?\n"


def test_a_missing_crawl_is_named(tmp_path):
    done = herdlm("run", TINY, "--out", tmp_path / "run", "--set", 'data.sources=["/nowhere/crawl.warc.gz"]')
    assert done.returncode == 2
    assert "source /nowhere/crawl.warc.gz does not exist" in done.stderr


def test_stages_come_after_what_they_need():
    seen = set()
    for stage in stages_of(read_recipe(TINY)):
        assert stage.needs <= seen, stage.name
        seen.add(stage.name)
