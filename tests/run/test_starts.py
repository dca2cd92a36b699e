"""Recipes whose models start from folders: trained further, or taken as they are, with and without pages."""

import json
import shutil

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.hf import load_folder
from herdlm.pretrain.herd_config import SHAPE
from herdlm.recipe import read_recipe
from herdlm.run.execute import run
from herdlm.run.pipeline import examined, result_models, stages_of
from herdlm.run.stages.report import report_stage
from herdlm.run.status import status
from tests.curate.crawls import article
from tests.pretrain.test_start import save_start
from tests.report.made_up_run import TOML, MadeUpRun
from tests.run.conftest import SMOKE, herdlm
from tests.run.test_parts import sections

PRETRAIN = """
[pretrain]
seq_len = 32
rows_per_step = 2
steps = 4
mix = [{ source = "web", share = 1.0 }]
anneal_mix = [{ source = "web-anneal", share = 1.0 }]
train = { peak_lr = 1e-3, warmup_steps = 1, anneal_steps = 1, precision = "float32" }
"""
DATA = """
[data]
sources = ["pages.jsonl"]
[tokens]
validation_percent = 20.0
"""
NEW = "small = { dim = 16, layers = 1, heads = 2, kv_heads = 1, ffn_dim = 32 }\n"
SMALL = '[herd]\nsmall = "small"\n'
FROM = '[herd.models]\nflagship = { from = "start" }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages and two model folders beside the recipes; the folder ``other`` has another tokenizer."""
    folder = tmp_path_factory.mktemp("starts")
    shutil.copytree(save_start(folder / "start", layers=4), folder / "pretrain-flagship")
    save_start(folder / "start-2", seed=5)
    save_start(folder / "other", "llama-3")
    rows = [
        {"text": "\n\n".join(article("en", f"{n} {k}") for k in range(3)), "url": f"https://x.example/{n}"}
        for n in range(40)
    ]
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(folder, text, *keys):
    path = folder / "mine.toml"
    path.write_text(text)
    return read_recipe(path, keys)


def names(recipe):
    return [stage.name for stage in stages_of(recipe)]


def test_a_folder_is_relative_to_the_recipe_and_survives_being_written(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    read = recipe(folder, FROM)
    assert read.start_folder("flagship") == folder / "start"
    again = type(read).model_validate_json(read.model_dump_json())
    assert again == read
    assert read.model_dump()["herd"]["models"]["flagship"]["from"] == str(folder / "start")


def test_without_pretraining_and_pages_there_is_nothing_but_the_model(folder, tmp_path):
    read = recipe(folder, FROM.replace('"start"', '"pretrain-flagship"') + "[quantize]\n")  # named as its stage is
    assert names(read) == ["pretrain-flagship", "flagship-bf16", "flagship-fp8", "report"]
    assert result_models(read) == {"flagship": "flagship-bf16", "flagship-fp8": "flagship-fp8"}
    result = run(read, tmp_path / "run", quiet=True)
    assert result.made == names(read)
    start, imported = (load_folder(path) for path in (folder / "start", tmp_path / "run/stages/pretrain-flagship"))
    assert next(imported.parameters()).dtype == torch.bfloat16  # copied as it is
    assert imported.config == start.config
    for name, value in imported.named_parameters():
        assert torch.equal(value, start.get_parameter(name)), name
    assert {row.state for row in status(tmp_path / "run")} == {"finished"}
    assert run(read, tmp_path / "run", quiet=True).made == []
    page = (tmp_path / "run" / "report.html").read_text()
    for absent in ("From pages to tokens", "Pre-training", "FP8 against BF16", str(folder)):
        assert absent not in page
    assert "was made from pretrain-flagship (" in page


def test_pages_continue_the_pretraining_and_another_folder_remakes_it(folder, tmp_path):
    read = recipe(folder, FROM + DATA + PRETRAIN)
    assert names(read) == ["curate", "tokenizer", "tokens", "pretrain-flagship", "flagship-bf16", "report"]
    run(read, tmp_path / "run", quiet=True)
    stages = tmp_path / "run" / "stages"
    assert (stages / "tokenizer" / "tokenizer.json").read_bytes() == (folder / "start/tokenizer.json").read_bytes()
    before, after = load_folder(folder / "start"), load_folder(stages / "pretrain-flagship")
    assert after.config == before.config
    distance = sum(float((a - b).detach().norm()) for a, b in zip(after.parameters(), before.parameters(), strict=True))
    assert 0 < distance < 0.1 * sum(float(value.detach().norm()) for value in before.parameters())
    assert json.loads((stages / "pretrain-flagship/generation_config.json").read_text())["temperature"] == 0.25
    page = (tmp_path / "run" / "report.html").read_text()
    assert "From pages to tokens" in page and "Pre-training" in page
    changed = recipe(folder, FROM.replace('"start"', '"start-2"') + DATA + PRETRAIN)
    made = run(changed, tmp_path / "run", until="pretrain-flagship", quiet=True).made
    assert made == ["tokenizer", "pretrain-flagship"]  # the same tokenizer makes the same tokens


def test_a_new_model_takes_the_folders_tokenizer_and_vocabulary(folder):
    read = recipe(folder, SMALL + FROM + NEW + DATA + PRETRAIN)
    published = read.model_config_of("flagship")
    assert read.model_config_of("small").vocab_size == published.vocab_size
    assert read.model_config_of("small").family == "llama"
    small = read.job("small")
    assert small.start is None and not small.own_tokenizer


TWO = SMALL + '[herd.models]\nflagship = { from = "start" }\nsmall = { from = "other" }\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FROM + "[tokenizer]\nvocab_size = 300\n", "herd.models.flagship starts from a folder"),
        ('[herd.models.flagship]\nfrom = "start"\ndim = 32\n', "the shape is that of the folder"),
        ("[herd.models.flagship]\ndim = 32\nlayers = 2\n" + PRETRAIN, "key heads is missing"),
        ("[data]\nsources = ['pages.jsonl']\n", "there is no \\[pretrain\\], but herd.models.flagship starts from no"),
        ('[herd.models.flagship]\nfrom = "start"\npeak_lr = 1e-3\n', "herd.models.flagship.peak_lr is for pre-train"),
        (FROM + "[tokens]\nskill_documents = 10\n", "tokens.skill_documents are for pre-training"),
        ("[herd]\nrope_theta = 100.0\n" + FROM, "herd.rope_theta is for models with new weights"),
        (FROM + PRETRAIN + 'init = { std = "dim" }\n', "pretrain.init is for models with new weights"),
        (
            '[herd]\nladder = ["a", "b"]\n' + FROM + "a = {}\nb = {}\n" + PRETRAIN,
            "herd.ladder forecasts the loss of new",
        ),
        ('[herd.models.flagship]\nfrom_ = "start"\n', "Did you mean herd.models.flagship.from"),
    ],
)
def test_recipes_that_contradict_a_start_are_refused(folder, text, message):
    with pytest.raises(InputError, match=message):
        recipe(folder, text)


def test_a_run_refuses_folders_that_do_not_fit_before_its_first_stage(folder, tmp_path):
    align = TOML[TOML.index("[align]") : TOML.index("[quantize]")].replace("teach = ", "# ")
    for text, message in (
        (TWO, "herd.models.small.from and herd.models.flagship.from have different tokenizers"),
        (FROM.replace('"start"', '"nowhere"'), "nowhere does not exist"),
        (FROM + PRETRAIN, "has no \\[data\\], but a run needs pages for \\[pretrain\\]"),
        (FROM + align, "has no \\[data\\], but a run needs pages for \\[align\\]"),
        (
            FROM + DATA + align.replace("seq_len = 64", "seq_len = 65"),
            "rows of 65 tokens exceed max_position_embeddings",
        ),
    ):
        with pytest.raises(InputError, match=message):
            run(recipe(folder, text), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run" / "stages").exists()


def test_a_recipe_can_begin_at_post_training(folder, tmp_path):
    begun = TOML[: TOML.index("[herd]")].replace("[tokenizer]\nvocab_size = 512\n", "")
    begun += SMALL + FROM + 'small = { from = "start-2" }\n' + TOML[TOML.index("[align]") :]
    read = recipe(folder, begun)
    stages = {stage.name: stage for stage in stages_of(read)}
    assert stages["pretrain-flagship"].inputs == {}
    assert stages["seeds-sft"].inputs["base"] == "pretrain-flagship"
    assert stages["examine-flagship-bf16"].settings["seq_len"] == 64  # the folders' context
    assert examined(read)["pretrain-flagship"] == "flagship, as given"
    context = MadeUpRun(tmp_path / "run", read).build()
    report_stage(context)
    page = sections(context.out / "report.html")
    assert "Pass rates" in page and "FP8 against BF16" in page
    assert "Pre-training" not in page and "Forecast" not in page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_smoke_run_begins_at_its_own_pretrained_models(smoke_run, tmp_path):
    stages = smoke_run / "stages"
    shapeless = "".join(f"{key} = false, " for key in SHAPE)
    models = "".join(f'{name} = {{ {shapeless}from = "{stages}/pretrain-{name}" }}\n' for name in ("flagship", "small"))
    (tmp_path / "aligned.toml").write_text(
        f'extends = "{SMOKE}"\npretrain = false\ntokenizer = false\ntokens.skill_documents = 0\n'
        f"[herd]\nladder = false\n[herd.models]\n{models}"
    )
    done = herdlm("run", tmp_path / "aligned.toml", "--out", tmp_path / "run", seconds=1500)
    assert done.returncode == 0, done.stderr
    one, two = (
        (root / "stages" / "round-1-sft" / "model.safetensors").read_bytes() for root in (smoke_run, tmp_path / "run")
    )
    assert one == two  # from the same weights and demonstrations
