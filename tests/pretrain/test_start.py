"""Pre-training that continues from a model folder: what it keeps, where it begins, cut off, and what is refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdlm.base.artifact import read_manifest
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.data.documents import Corpus
from herdlm.data.tokenize import tokenize
from herdlm.generate import Engine, SamplingParams
from herdlm.model.config import RopeScaling
from herdlm.model.hf import export_hf, load_folder, save_folder
from herdlm.pretrain.batches import open_batches
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.scaling.mix_runs import Bench
from herdlm.tokens.chat_format import generation_settings
from herdlm.tokens.mixture import PretrainBatches
from herdlm.tokens.tokenizer import Tokenizer
from tests.conftest import small_model
from tests.run.conftest import herdlm
from tests.scaling.test_anneal_probe import sentences
from tests.tokens.folders import write_family

RECIPE = """
[pretrain]
seq_len = 32
rows_per_step = 8
steps = 24
mix = [{ source = "web", share = 1.0 }]
anneal_mix = [{ source = "web-anneal", share = 1.0 }]
gate = { short_loss_margin = 9.0, needle_rate = 0.0, needle_depths = 2, needles_per_depth = 1 }
train = { peak_lr = 2e-3, warmup_steps = 2, anneal_steps = 6, precision = "float32", checkpoint_every_steps = 5 }
"""
LONG = "pretrain.long_context=[{seq_len = 128, tokens = 1024, rope_scaling = {original_max_position_embeddings = 64}}]"


def save_start(folder, family="smollm2", more_rows=9, seed=3, **shape):
    """A BF16 folder as published: another family's shape, and more rows than its tokenizer has entries."""
    write_family(family, folder)
    vocab_size = Tokenizer.load(folder).vocab_size + more_rows
    model = small_model(seed=seed, **({"vocab_size": vocab_size, "max_seq_len": 64, "family": "qwen2"} | shape))
    generation = generation_settings(folder) | {"temperature": 0.25}
    save_folder(model, folder, dtype=torch.bfloat16, generation=generation)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_start(tmp_path_factory.mktemp("start") / "start", tied_embeddings=True)


@pytest.fixture(scope="module")
def tokens(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences("web", 80)))
    tokenize([Corpus(folder / "text.jsonl")], tokenizer=start, out=folder / "tokens", validation_percent=20, quiet=True)
    return folder / "tokens"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "more.toml"
    path.write_text(RECIPE)
    return path


def job(recipe, start, *keys):
    return read_recipe(recipe, keys).job("flagship", start)


def train(recipe, tokens, start, out, *keys):
    return pretrain(job(recipe, start, *keys), tokens=tokens, tokenizer=start, out=out)


@pytest.fixture(scope="module")
def whole(recipe, tokens, start, tmp_path_factory):
    """A run from the command line, and what it printed."""
    out = tmp_path_factory.mktemp("whole") / "model"
    done = herdlm("train", recipe, "--from", start, "--tokens", tokens, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_the_first_step_sees_the_losses_that_transformers_computes(whole, recipe, tokens, start):
    reference = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    settings, loaded = job(recipe, start), Tokenizer.load(start)
    seed = read_manifest(whole[0]).seeds["stage"]
    (batch,) = open_batches(settings.pretrain, tokens, seed=seed, pad=loaded.pad).micro_batches(0)
    total = count = 0.0
    for row in range(batch.tokens.shape[0]):
        begins = [n for n, position in enumerate(batch.positions[row].tolist()) if position == 0 or n == 0]
        for first, last in zip(begins, [*begins[1:], batch.tokens.shape[1]], strict=True):
            with torch.no_grad():
                logits = reference(batch.tokens[row, None, first:last]).logits[0]
            weights = batch.weights[row, first:last]
            losses = torch.nn.functional.cross_entropy(
                logits, batch.targets[row, first:last].clamp(min=0), reduction="none"
            )
            total, count = total + float((losses * weights).sum()), count + float(weights.sum())
    first_step = next(iter(read_events(whole[0] / "events.jsonl", "step")))
    assert first_step["loss"] == pytest.approx(total / count, abs=1e-4)


def test_it_learns_and_keeps_what_the_folder_says(whole, start):
    out, counts = whole
    steps = list(read_events(out / "events.jsonl", "step"))
    assert counts["steps"] == len(steps) == 24
    assert counts["validation_nats_per_token"] < steps[0]["loss"] - 1
    before, after = load_folder(start), load_folder(out)
    assert after.config == before.config
    moved = {name: (value != dict(before.named_parameters())[name]) for name, value in after.named_parameters()}
    assert all(bool(each.any(-1).all()) for name, each in moved.items() if "embed" not in name)
    assert next(after.parameters()).dtype == torch.float32
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (start / name).read_bytes()
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["temperature"] == 0.25
    assert generation["eos_token_id"] == [AutoTokenizer.from_pretrained(start).eos_token_id]


def test_its_export_continues_text_in_transformers_as_here(whole, tmp_path):
    export_hf(whole[0], tmp_path / "export", "float32")
    words = AutoTokenizer.from_pretrained(tmp_path / "export")
    prompt = words("The package manager installs", return_tensors="pt")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    greedy = reference.generate(**prompt, max_new_tokens=12, do_sample=False, temperature=None)
    tokens = prompt.input_ids[0].tolist()
    engine = Engine.load(whole[0], dtype="float32")
    ours = engine.generate([tokens], SamplingParams(max_tokens=12, temperature=0.0))[0][0].tokens
    assert ours == greedy[0, len(tokens) :].tolist()


def test_a_run_that_was_cut_off_resumes_to_the_same_weights(whole, recipe, tokens, start, tmp_path, monkeypatch):
    read = PretrainBatches.micro_batches

    def cut(self, step):
        if step == 13:
            monkeypatch.setattr(PretrainBatches, "micro_batches", read)
            raise KeyboardInterrupt
        return read(self, step)

    monkeypatch.setattr(PretrainBatches, "micro_batches", cut)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tokens, start, tmp_path / "model")
    train(recipe, tokens, start, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


def test_another_start_is_another_run(whole, recipe, tokens, start, tmp_path):
    other = save_start(tmp_path / "other", seed=4, tied_embeddings=True)
    train(recipe, tokens, other, tmp_path / "model")
    first, second = read_manifest(whole[0]), read_manifest(tmp_path / "model")
    assert first.fingerprint != second.fingerprint
    assert {role for role in first.inputs if first.inputs[role].content != second.inputs[role].content} == {
        "start",
        "tokenizer",
    }
    benches = [Bench(tokens, start, {}, tmp_path / "runs", {}, 1) for _ in range(2)]
    names = {
        bench._trained(job(recipe, folder, "pretrain.steps=8"), 0).name
        for bench, folder in zip(benches, (start, other), strict=True)
    }
    assert len(names) == 2


def test_a_long_context_stage_replaces_the_scaling_and_lengthens_the_context(recipe, tokens, tmp_path):
    yarn = RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=32)
    start = save_start(tmp_path / "start", rope_scaling=yarn, tied_embeddings=True)
    counts = train(recipe, tokens, start, tmp_path / "model", LONG)
    assert [gate["seq_len"] for gate in counts["gates"]] == [128]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["max_position_embeddings"] == 128
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert config["rope_scaling"]["original_max_position_embeddings"] == 64


def test_a_teacher_with_the_same_rows_teaches_it(recipe, tokens, start, tmp_path):
    keys = ["pretrain.steps=8", "herd.models.flagship={distill = {top_k = 16, weight = 0.5}}"]
    teacher = save_start(tmp_path / "teacher", seed=6, dim=48)
    settings = job(recipe, start, *keys)
    counts = pretrain(settings, tokens=tokens, tokenizer=start, out=tmp_path / "model", teacher=teacher)
    assert counts["steps"] == 8
    steps = list(read_events(tmp_path / "model" / "events.jsonl", "step"))
    assert all(event["teacher_kl"] > 0 for event in steps)


def refused(recipe, tokens, start, tmp_path, *keys):
    with pytest.raises(InputError) as caught:
        train(recipe, tokens, start, tmp_path / "model", *keys)
    assert not (tmp_path / "model").exists()
    return str(caught.value)


def test_a_start_that_does_not_fit_is_refused_by_name(recipe, tokens, start, tmp_path):
    assert "rows of 128 tokens exceed max_position_embeddings 64" in refused(
        recipe, tokens, start, tmp_path, "pretrain.seq_len=128"
    )
    reward = save_start(tmp_path / "reward", head="score")
    assert "reward is a reward model" in refused(recipe, tokens, reward, tmp_path)
    llama = save_start(tmp_path / "llama", "llama-3")
    assert "was made with another tokenizer" in refused(recipe, tokens, llama, tmp_path)
    assert "nowhere does not exist" in refused(recipe, tokens, tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="llama has another tokenizer"):
        pretrain(job(recipe, llama), tokens=tokens, tokenizer=start, out=tmp_path / "model")
    narrow = save_start(tmp_path / "narrow", more_rows=-9)
    assert "entries, but the model has" in refused(recipe, tokens, narrow, tmp_path)
    key = "herd.models.flagship={distill = {top_k = 5000}}"
    assert "herd.models.flagship.distill.top_k 5000 exceeds the vocabulary of" in refused(
        recipe, tokens, start, tmp_path, key
    )


def test_a_model_without_a_shape_waits_for_a_folder(recipe, tokens, start, tmp_path):
    (tmp_path / "bare.toml").write_text("[herd.models.flagship]\npeak_lr = 5e-4\n" + RECIPE)
    with pytest.raises(InputError, match="herd.models.flagship has no shape"):
        read_recipe(tmp_path / "bare.toml").job("flagship")
    train(tmp_path / "bare.toml", tokens, start, tmp_path / "model", "pretrain.steps=8")
    rates = [event["lr"] for event in read_events(tmp_path / "model" / "events.jsonl", "step")]
    assert max(rates) == 5e-4


def test_new_weights_need_a_tokenizer(recipe, tokens, tmp_path):
    done = herdlm("train", recipe, "--tokens", tokens, "--out", tmp_path / "model")
    assert done.returncode == 2
    assert "a model with new weights has no tokenizer" in done.stderr
