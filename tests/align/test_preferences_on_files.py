"""herdlm reward, score and dpo: what they measure, against transformers, PEFT and counts by hand."""

import json
import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from herdlm.align.defaults import SIZES, settings
from herdlm.align.dpo_training import dpo
from herdlm.align.preference_figures import auc
from herdlm.align.reward_figures import ScoredPair, calibration, length_bias, reward_figures
from herdlm.align.reward_training import reward
from herdlm.align.score import score
from herdlm.align.sft import sft
from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.model.average import average_folders
from herdlm.model.config import ModelConfig
from herdlm.model.hf import load_folder
from tests.align.conftest import SMALL, write_lines
from tests.align.jobs import DPO, REWARD, SFT, job
from tests.run.conftest import herdlm


def pairs_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def chat(pair, side):
    return [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair[side]}]


@pytest.fixture(scope="module")
def judge(folder, tmp_path_factory):
    """(folder of a reward model, its counts)."""
    out = tmp_path_factory.mktemp("reward") / "judge"
    counts = reward(job(folder, out, data="pairs.jsonl", held_out=folder / "test-pairs.jsonl", steps=12), REWARD)
    return out, counts


def test_a_reward_model_learns_the_preference_and_tells_by_grade(judge):
    _, counts = judge
    figures = counts["held_out"]
    assert figures["accuracy"]["value"] > 0.9
    assert set(figures["accuracy_by_grade"]) == {"better", "much better"}
    assert sum(grade["pairs"] for grade in figures["accuracy_by_grade"].values()) == figures["pairs"] == 12


def test_scores_are_those_of_transformers_in_batches(folder, judge, tmp_path):
    out, _ = judge
    done = herdlm("score", out, "--data", folder / "test-pairs.jsonl", "--out", tmp_path / "scores.jsonl")
    assert done.returncode == 0, done.stderr
    assert "Accuracy on 12 pairs" in done.stdout
    lines = pairs_of(tmp_path / "scores.jsonl")
    assert lines[2]["where"] == f"{folder / 'test-pairs.jsonl'}, line 3"
    assert herdlm("export-hf", out, "--out", tmp_path / "hf", "--dtype", "float32").returncode == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    for side in ("chosen", "rejected"):
        texts = [
            tokenizer.apply_chat_template(chat(pair, side), tokenize=False)
            for pair in pairs_of(folder / "test-pairs.jsonl")
        ]
        given = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            values = model(**given).logits[:, 0].tolist()
        assert [line[side] for line in lines] == pytest.approx(values, abs=1e-5)


def test_a_pad_token_that_ends_answers_does_not_hide_the_end_from_transformers(folder, judge, tmp_path):
    """Many chat models pad with the token that ends a turn, and transformers reads the score before the padding."""
    base = tmp_path / "base"
    base.mkdir()
    for file in (folder / "base").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = json.loads((base / "tokenizer_config.json").read_text()) | {"pad_token": "<|eot_id|>"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    reward(job(folder, tmp_path / "judge", model=base, data="pairs.jsonl", steps=4), REWARD)
    ours = score(tmp_path / "judge", [folder / "test-pairs.jsonl"], tmp_path / "scores.jsonl", quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "judge")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "judge").eval()
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.convert_tokens_to_ids("<|eot_id|>")
    texts = [
        tokenizer.apply_chat_template(chat(p, "chosen"), tokenize=False) for p in pairs_of(folder / "test-pairs.jsonl")
    ]
    with torch.no_grad():
        values = model(**tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)).logits[:, 0]
    assert [line["chosen"] for line in pairs_of(tmp_path / "scores.jsonl")] == pytest.approx(values.tolist(), abs=1e-5)
    assert ours["data"]["used"] == 12


def test_a_dialog_whose_template_drops_earlier_answers_is_scored_once_at_its_end(folder, judge, tmp_path):
    template = (
        "{% for m in messages %}{{ m.role + ':' }}{{ m.content if loop.last or m.role != 'assistant' else '' }}"
        "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    said = [{"role": r, "content": f"moo {i}"} for i, r in enumerate(["user", "assistant"] * 3)]
    rows = write_lines(tmp_path / "rows.jsonl", [{"messages": said}, {"messages": said, "label": True}])
    score(judge[0], [rows], tmp_path / "scores.jsonl", template=template, quiet=True)
    dialog, thumb = pairs_of(tmp_path / "scores.jsonl")
    assert dialog["score"] == pytest.approx(thumb["score"], abs=1e-6)


def test_a_model_that_writes_gives_no_scores_and_a_reward_model_does_not_write(folder, judge, tmp_path):
    with pytest.raises(InputError, match="writes text and gives no scores"):
        score(folder / "base", [folder / "test-pairs.jsonl"])
    for run, config in ((sft, SFT), (dpo, DPO)):
        with pytest.raises(InputError, match="is a reward model"):
            run(job(folder, tmp_path / "out", model=judge[0]), config)
    with pytest.raises(InputError, match="no answer to score"):
        score(
            judge[0],
            [write_lines(tmp_path / "prompts.jsonl", [{"prompt": "file", "answer": "1", "verifier": "exact"}])],
        )


def test_a_reward_model_trains_on_with_its_own_head(folder, judge, tmp_path):
    before = load_folder(judge[0]).score.weight.detach()
    reward(job(folder, tmp_path / "more", model=judge[0], data="pairs.jsonl", steps=1), REWARD)
    after = load_folder(tmp_path / "more").score.weight.detach()
    assert before.norm() > 0
    assert (after - before).abs().max() <= 2 * REWARD.train.peak_lr


def test_length_and_calibration_are_counted_by_hand():
    found = [
        ScoredPair(2.0, 0.0, 9, 3),
        ScoredPair(0.0, 2.0, 4, 8),
        ScoredPair(3.0, 1.0, 5, 7),
        ScoredPair(1.0, 1.0, 2, 2),
    ]
    # Two bins: margins of 2 are said with 0.881, and 2 of 3 are right; the tie is said with 0.5, and wrong.
    said = 1 / (1 + math.exp(-2))
    assert calibration(found)["ece"] == pytest.approx(0.75 * (said - 2 / 3) + 0.25 * 0.5, abs=1e-6)
    assert [(b["pairs"], b["accuracy"]) for b in calibration(found)["bins"]] == [(1, 0.0), (3, 0.6667)]
    bias = length_bias(found)
    # Margins 2, -2, 2, 0 with length differences 6, -4, -2, 0.
    assert bias["correlation"] == pytest.approx(16 / math.sqrt(11 * 56), abs=1e-4)
    shares = {name: (bias[name]["pairs"], bias[name]["value"]) for name in bias if name != "correlation"}
    assert shares == {"chosen_longer": (1, 1.0), "chosen_shorter": (2, 0.5), "equal_length": (1, 0.0)}
    assert "accuracy_by_grade" not in reward_figures(found)


def test_the_area_under_the_curve_counts_ordered_pairs():
    found = auc([3.0, 1.0, 2.0], [0.0, 2.0])
    assert found.value == pytest.approx((3 + 1.5) / 6)
    assert found.low < found.value < found.high


def sequence_logprob(model, tokenizer, pair, side, masked):
    """The log-probability of an answer by transformers, with or without the token that ends it."""
    said = chat(pair, side)
    ids = tokenizer.apply_chat_template(said, return_dict=False)
    first = len(tokenizer.apply_chat_template(said[:1], add_generation_prompt=True, return_dict=False))
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logprobs[at - 1, ids[at]]) for at in range(first, len(ids) - masked))


@pytest.mark.parametrize("loss", ["sigmoid", "norm", "simpo", "apo", "kto"])
def test_dpo_prefers_the_chosen_answers_by_the_numbers_of_transformers(folder, tmp_path, loss):
    keys = DPO.model_dump() | {"loss": loss}
    config = parse(type(DPO), {k: v for k, v in keys.items() if v is not None}, "test")
    held_out = folder / "test-pairs.jsonl"
    counts = dpo(job(folder, tmp_path / "out", data="pairs.jsonl", held_out=held_out, steps=6), config)
    figures = counts["held_out"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    sums = [
        [
            [sequence_logprob(model, tokenizer, pair, side, masked=True) for side in ("chosen", "rejected")]
            for pair in pairs_of(held_out)
        ]
        for model in (
            AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
            for place in (folder / "base", tmp_path / "out")
        )
    ]
    before, after = torch.tensor(sums)
    lengths = torch.tensor(
        [
            [len(tokenizer.encode(p[s], add_special_tokens=False)) for s in ("chosen", "rejected")]
            for p in pairs_of(held_out)
        ]
    )
    drift = (after - before) / lengths
    gains = drift if loss in ("norm", "simpo") else after - before
    assert figures["chosen_drift_per_token"] == pytest.approx(float(drift[:, 0].mean()), abs=1e-4)
    assert figures["rejected_drift_per_token"] == pytest.approx(float(drift[:, 1].mean()), abs=1e-4)
    assert figures["implicit_reward_accuracy"]["value"] == pytest.approx(
        float((gains[:, 0] > gains[:, 1]).double().mean())
    )
    for name, values in (("logprob_accuracy_before", before), ("logprob_accuracy", after)):
        assert figures[name]["value"] == pytest.approx(float((values[:, 0] > values[:, 1]).double().mean()), abs=1e-6)
    assert figures["implicit_reward_accuracy"]["value"] > 0.8
    assert figures["sampled_answers"]["before"]["answers"] == 12


def test_kto_reads_thumbs_and_measures_them(folder, tmp_path):
    def thumbs(path):
        return [
            {"prompt": p["prompt"], "completion": p[side], "label": side == "chosen"}
            for p in pairs_of(path)
            for side in ("chosen", "rejected")
        ]

    rows, held_out = (
        write_lines(tmp_path / f"{name}.jsonl", thumbs(folder / f"{name}.jsonl")) for name in ("pairs", "test-pairs")
    )
    config = DPO.model_copy(update={"loss": "kto"})
    one = dpo(job(folder, tmp_path / "one", data=rows, held_out=held_out, steps=6), config)
    two = dpo(job(folder, tmp_path / "two", data="pairs.jsonl", steps=6), config)
    assert one["items"] == two["items"] == 48
    assert one["last_loss"] == two["last_loss"]  # a pair gives the same two thumbs
    figures = one["held_out"]
    assert (figures["thumbs"], figures["thumbs_up"]) == (24, 12)
    assert figures["implicit_reward_auc"]["value"] > 0.7
    assert figures["desirable_drift_per_token"] > figures["undesirable_drift_per_token"]


@pytest.mark.parametrize(("run", "config", "data"), [(sft, SFT, "chats.jsonl"), (dpo, DPO, "pairs.jsonl")])
def test_an_adapter_is_the_merged_models(folder, tmp_path, run, config, data):
    run(job(folder, tmp_path / "merged", data=data, steps=3, lora=4), config)
    run(job(folder, tmp_path / "adapter", data=data, steps=3, lora=4, merge=False), config)
    assert not (tmp_path / "adapter" / "config.json").exists()
    done = herdlm("export-hf", tmp_path / "adapter", "--out", tmp_path / "exported", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    ids = torch.arange(5, 45)[None]
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    with torch.no_grad():
        plain = base(ids).logits
        expected = PeftModel.from_pretrained(base, tmp_path / "merged" / "adapter")(ids).logits
        for name in ("merged", "exported"):
            logits = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)(ids).logits
            assert torch.allclose(logits, expected, atol=1e-5), name
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").pad_token is not None


def test_training_goes_on_from_an_adapter_and_names_a_base_that_is_gone(folder, tmp_path):
    sft(job(folder, tmp_path / "adapter", steps=2, lora=4, merge=False), SFT)
    counts = sft(
        job(folder, tmp_path / "more", model=tmp_path / "adapter", steps=1, held_out=folder / "test-chats.jsonl"), SFT
    )
    first = sft(job(folder, tmp_path / "merged", steps=2, lora=4, held_out=folder / "test-chats.jsonl"), SFT)
    assert counts["held_out"]["loss_before"]["value"] == pytest.approx(first["held_out"]["loss"]["value"], abs=1e-5)
    with pytest.raises(InputError, match="which is no folder"):
        sft(job(folder, tmp_path / "again", model=tmp_path / "adapter", steps=1, lora=2, merge=False), SFT)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(folder / "base"), "/gone"))
    (tmp_path / "adapter" / "manifest.json").unlink()  # an adapter of the user's own
    with pytest.raises(InputError, match="LoRA adapter of '/gone', which is no folder here"):
        sft(job(folder, tmp_path / "out", model=tmp_path / "adapter"), SFT)


def test_a_milestone_of_an_adapter_is_exported_with_its_base(folder, tmp_path):
    often = SFT.train.model_copy(update={"checkpoint_every_steps": 2, "milestone_every_steps": 2})
    sft(job(folder, tmp_path / "long", steps=4, lora=4), SFT.model_copy(update={"train": often}))
    checkpoint = tmp_path / "long" / "checkpoints" / "step-00000002"
    assert herdlm("export-hf", checkpoint, "--out", tmp_path / "hf", "--dtype", "float32").returncode == 0
    short = SFT.train.model_copy(update={"horizon_steps": 4})
    sft(job(folder, tmp_path / "short", steps=2, lora=4), SFT.model_copy(update={"train": short}))
    one, two = load_folder(tmp_path / "hf"), load_folder(tmp_path / "short")
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_models_are_averaged_and_promoted_from_the_command_line(folder, tmp_path):
    models = []
    for seed in (0, 1):
        models.append(tmp_path / f"tuned-{seed}")
        sft(job(folder, models[-1], steps=2 + 8 * seed, held_out=folder / "test-chats.jsonl"), SFT)
    done = herdlm("average", *models, "--weights", "3,1", "--out", tmp_path / "mean")
    assert done.returncode == 0, done.stderr
    one, two, mean = (dict(load_folder(each).named_parameters()) for each in (*models, tmp_path / "mean"))
    for name, value in mean.items():
        assert torch.allclose(value, 0.75 * one[name] + 0.25 * two[name], atol=1e-6), name
    manifest = json.loads((tmp_path / "mean" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"model-1", "model-2"}
    place = tmp_path / "place.json"
    for model, code in ((models[0], 0), (models[1], 0), (models[0], 1)):
        done = herdlm("promote", model, "--over", place, "--lower", "loss")
        assert done.returncode == code, done.stderr
    assert json.loads(place.read_text())["model"] == str(models[1])
    assert "is not promoted: refused: loss" in done.stderr
    assert "not a number" in herdlm("promote", models[0], "--over", place, "--lower", "loss=x").stderr


def test_defaults_follow_the_size_of_the_model_and_what_is_given():
    shape = dict(vocab_size=1000, dim=64, heads=4, kv_heads=4, ffn_dim=128, layers=2, max_seq_len=1024)
    small = ModelConfig(**shape)
    config = settings(type(SFT), "sft", small, {}, lora=False, source="test")
    assert (config.seq_len, config.rows_per_step, config.epochs) == (1024, 2, 2)
    assert (config.train.peak_lr, config.train.decay, config.train.floor) == (SIZES[0].rates["sft"], "linear", 0.0)
    given = {"seq_len": 256, "train": {"peak_lr": 1.0}}
    config = settings(type(SFT), "sft", small, given, lora=True, source="test")
    assert (config.rows_per_step, config.train.peak_lr, config.train.weight_decay) == (8, 1.0, 0.0)
    lora = settings(type(DPO), "dpo", small, {}, lora=True, source="test")
    assert lora.train.peak_lr == pytest.approx(10 * SIZES[0].rates["dpo"])
    big = ModelConfig(
        **(shape | {"dim": 4096, "heads": 32, "kv_heads": 8, "ffn_dim": 14336, "layers": 32, "vocab_size": 128_256})
    )
    assert settings(type(SFT), "sft", big, {}, lora=False, source="test").train.peak_lr == 5e-6
    with pytest.raises(InputError, match="unknown key train.peek_lr. Did you mean train.peak_lr"):
        settings(type(SFT), "sft", small, {"train": {"peek_lr": 1}}, lora=False, source="test")


def test_a_recipes_section_options_and_keys_are_merged(folder, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "[align.dpo]\nseq_len = 64\npairs_per_step = 5\nloss = 'apo'\n[align.dpo.train]\npeak_lr = 1e-3\n"
    )
    arguments = (
        "--data",
        folder / "pairs.jsonl",
        "--out",
        tmp_path / "out",
        "--recipe",
        recipe,
        "--steps",
        1,
        "--json",
    )
    done = herdlm("dpo", folder / "base", *arguments, "--beta", "0.3", *SMALL[2:], "--set", "train.max_grad_norm=0.5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["beta"] == 0.3
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())["recipe"]["dpo"]
    assert (made["seq_len"], made["pairs_per_step"], made["loss"]) == (64, 5, "apo")
    assert (made["train"]["peak_lr"], made["train"]["max_grad_norm"], made["train"]["precision"]) == (
        1e-3,
        0.5,
        "float32",
    )
    refused = herdlm(
        "sft", folder / "base", "--data", folder / "chats.jsonl", "--out", tmp_path / "x", "--recipe", recipe
    )
    assert refused.returncode == 2
    assert "has no section [align.sft]" in refused.stderr


def test_the_shares_of_an_average_are_in_its_lineage(folder, tmp_path):
    average_folders([folder / "base", folder / "base"], tmp_path / "mean", weights=[1, 3])
    assert json.loads((tmp_path / "mean" / "manifest.json").read_text())["recipe"]["shares"] == [0.25, 0.75]
