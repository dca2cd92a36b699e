"""herdlm sft: what it trains, measures and leaves behind, against transformers."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdlm.align.sft import sft
from herdlm.base.artifact import read_manifest
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.model.hf import load_folder
from tests.align.conftest import SMALL, write_lines
from tests.align.jobs import SFT, job
from tests.run.conftest import herdlm


@pytest.fixture(scope="module")
def tuned(folder, tmp_path_factory):
    """(folder of the model, what the command printed)."""
    out = tmp_path_factory.mktemp("sft") / "tuned"
    data = ("--data", f"{folder / 'chats.jsonl'}:2", "--held-out", folder / "test-chats.jsonl")
    more = ("--rows-per-step", 2, "--micro-batch-rows", 1, "--peak-lr", 3e-3, "--epochs", 1)
    done = herdlm("sft", folder / "base", *data, "--out", out, *SMALL, *more)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def held_out_loss(model_folder, data):
    """Nats per target by transformers, with a mask found by encoding each prefix of a dialog."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    total = weight = 0.0
    for line in data.read_text().splitlines():
        said = json.loads(line)["messages"]
        ids = tokenizer.apply_chat_template(said, return_dict=False)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for number, message in enumerate(said):
            if message["role"] != "assistant":
                continue
            first = len(tokenizer.apply_chat_template(said[:number], add_generation_prompt=True, return_dict=False))
            last = len(tokenizer.apply_chat_template(said[: number + 1], return_dict=False))
            for at in range(first, last):
                total -= message.get("weight", 1.0) * float(logprobs[at - 1, ids[at]])
                weight += message.get("weight", 1.0)
    return total / weight


def test_the_losses_before_and_after_are_those_of_transformers(folder, tuned):
    out, printed = tuned
    figures = json.loads((out / "training.json").read_text())["held_out"]
    before, after = (held_out_loss(f, folder / "test-chats.jsonl") for f in (folder / "base", out))
    assert figures["loss_before"]["value"] == pytest.approx(before, abs=1e-4)
    assert figures["loss"]["value"] == pytest.approx(after, abs=1e-4)
    assert figures["perplexity"]["value"] == pytest.approx(math.exp(after), rel=1e-3)
    assert after < before - 0.5
    change = figures["loss_change"]
    assert change["value"] == pytest.approx(after - before, abs=1e-4)
    assert change["low"] < change["value"] < change["high"] < 0
    assert json.loads((out / "figures.json").read_text())["loss"] == figures["loss"]
    assert f"Model: {out}\nNext: herdlm chat {out}" in printed
    assert "Data: 80 dialogs from 40 rows" in printed


def test_the_folder_is_whole_and_tells_where_it_came_from(folder, tuned):
    out, _ = tuned
    manifest = read_manifest(out)
    assert set(manifest.inputs) == {"model", "data-1", "held-out-1"}
    assert manifest.counts["data"]["kept"] == 40
    assert manifest.counts["data"]["used"] == 80
    assert manifest.recipe["sft"]["train"]["decay"] == "linear"
    assert manifest.recipe["weights"] == [2.0]
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json", "events.jsonl"} <= set(manifest.files)
    assert not list(out.parent.glob(".tuned*"))


def test_batches_of_the_exported_folder_work_in_transformers(tuned, tmp_path):
    out, _ = tuned
    done = herdlm("export-hf", out, "--out", tmp_path / "hf", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    chats = [[{"role": "user", "content": text}] for text in ("file", "archive the log of the user")]

    def answers(chats):
        keys = dict(add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)
        given = tokenizer.apply_chat_template(chats, **keys)
        ids = model.generate(**given, max_new_tokens=8, do_sample=False)[:, given["input_ids"].shape[1] :]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    assert answers(chats) == answers(chats[:1]) + answers(chats[1:])
    assert tokenizer.pad_token_id == model.config.pad_token_id


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_do_not_change_what_is_learned(folder, tmp_path, micro):
    whole = sft(job(folder, tmp_path / "whole", steps=3, micro_batch_rows=8), SFT)
    parts = sft(job(folder, tmp_path / "parts", steps=3, micro_batch_rows=micro), SFT)
    assert whole["steps"] == parts["steps"] == 3
    assert parts["last_loss"] == pytest.approx(whole["last_loss"], abs=1e-5)
    one, two = load_folder(tmp_path / "whole"), load_folder(tmp_path / "parts")
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_a_chat_template_of_the_users_own_is_trained_with_and_stays(folder, tmp_path):
    text = (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|eom_id|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|eom_id|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    )
    sft(job(folder, tmp_path / "own", steps=1, template=text), SFT)
    assert (tmp_path / "own" / "chat_template.jinja").read_text() == text
    special = AutoTokenizer.from_pretrained(tmp_path / "own")
    ids = json.loads((tmp_path / "own" / "generation_config.json").read_text())["eos_token_id"]
    assert special.convert_tokens_to_ids("<|eom_id|>") in ids


def test_rows_that_are_also_trained_on_are_not_measured(folder, tmp_path):
    own, trained = ((folder / name).read_text().splitlines() for name in ("test-chats.jsonl", "chats.jsonl"))
    rows = own[:5] + trained[:3]
    mixed = write_lines(tmp_path / "mixed.jsonl", map(json.loads, rows))
    counts = sft(job(folder, tmp_path / "out", steps=1, held_out=mixed), SFT)
    assert counts["held_out"]["dialogs"] == 5
    assert counts["held_out_data"]["also_trained_on"] == 3
    with pytest.raises(InputError, match="0 held-out rows are left, and 40 are also"):
        sft(job(folder, tmp_path / "all", steps=1, held_out=folder / "chats.jsonl"), SFT)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(template="chatml"), r"needs the special token <\|im_start\|>"),
        (dict(merge=False), "no adapter to leave unmerged"),
        (dict(model="nowhere"), "does not exist"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(folder, tmp_path, changes, problem):
    with pytest.raises(InputError, match=problem):
        sft(job(folder, tmp_path / "out", **changes), SFT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", ['{"messages": 5}', '{"messages": [{"role": "user", "content": "moo"}]}'])
def test_a_command_refused_for_its_data_leaves_nothing_behind(folder, tmp_path, data):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rows.jsonl").write_text(f"{data}\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"rows.jsonl"):
        sft(job(folder, tmp_path / "out" / "tuned", data=tmp_path / "in" / "rows.jsonl"), SFT)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_training_that_fails_keeps_its_checkpoints(folder, tmp_path, monkeypatch):
    config = SFT.model_copy(update={"train": SFT.train.model_copy(update={"checkpoint_every_steps": 1})})
    monkeypatch.setattr("herdlm.align.sft.save", lambda run, model: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sft(job(folder, tmp_path / "tuned", steps=3), config)
    monkeypatch.undo()
    assert (tmp_path / ".tuned.working" / "checkpoints").is_dir()
    assert sft(job(folder, tmp_path / "tuned", steps=3), config)["steps"] == 3
    assert [event["step"] for event in read_events(tmp_path / "tuned" / "events.jsonl", "setup")] == [0, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_rows_longer_than_the_model_reads_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"rows of 512 tokens exceed the 256"):
        sft(job(folder, tmp_path / "out"), SFT.model_copy(update={"seq_len": 512}))


def test_validation_needs_something_to_measure_on(folder, tmp_path):
    config = SFT.model_copy(update={"train": SFT.train.model_copy(update={"validate_every_steps": 1})})
    with pytest.raises(InputError, match="there is none"):
        sft(job(folder, tmp_path / "out", steps=1), config)
    counts = sft(job(folder, tmp_path / "out", steps=1, held_out=folder / "test-chats.jsonl"), config)
    (measured,) = read_events(tmp_path / "out" / "events.jsonl", "validation")
    assert measured["loss"] == pytest.approx(counts["held_out"]["loss"]["value"], abs=1e-5)
