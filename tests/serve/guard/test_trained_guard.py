"""A guard from labeled rows to the server: prepared, trained by ``sft``, measured, and at a server's door."""

from __future__ import annotations

import json
import random

import pytest

from herdlm.align.config import SftConfig
from herdlm.align.job import FinetuneJob
from herdlm.align.sft import sft
from herdlm.data.source import Source
from herdlm.generate import Engine
from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.transformer import build, initialize
from herdlm.serve.api.moderated import REFUSAL
from herdlm.serve.guard.guard import guard_message
from herdlm.serve.guard.moderation import Moderator
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from herdlm.train.config import TrackConfig
from tests.align.conftest import write_lines
from tests.serve.conftest import WorkerThread, running
from tests.serve.guard.tiny_guard import ASKED, HARM, HARMLESS
from tests.warm import run

CATEGORIES = {"S1": "violence", "S9": "weapons"}
RATES = dict(peak_lr=4e-3, warmup_steps=20, precision="float32", decay="linear", floor=0.0, weight_decay=0.0)


def rows(count, seed):
    draw = random.Random(seed)
    made = []
    for number in range(count):
        code = draw.choice([None, None, "S1", "S9"])
        word = draw.choice(HARM[code] if code else HARMLESS)
        row = {"prompt": f"{draw.choice(ASKED).format(word)} {number}", "unsafe": code is not None}
        made.append(row | ({"category": CATEGORIES[code]} if code else {}))
    return made


def herdlm(*arguments):
    return run("herdlm.cli", *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The guard's folder, and a file of rows that it never saw."""
    folder = tmp_path_factory.mktemp("trained")
    labeled = write_lines(folder / "labeled.jsonl", rows(700, 0))
    done = herdlm(
        *("guard", "prepare", labeled, "--out", folder / "guard.jsonl", "--held-out", folder / "held.jsonl"),
        *("--held-out-share", 0.15, "--shuffle", 0, "--drop", 0),
    )
    assert done.returncode == 0, done.stderr
    assert "0 answers" in done.stderr or "no answers" in done.stderr  # a guard that never saw an answer
    texts = [guard_message([("User", row["prompt"])])["content"] + "\nunsafe\nS1\nsafe\nS9" for row in rows(100, 1)]
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=560))
    sizes = dict(vocab_size=560, dim=64, layers=2, heads=4, kv_heads=2, ffn_dim=128, max_seq_len=512)
    model = build(ModelConfig(**sizes, rope_theta=10_000.0))
    initialize(model, 0, std=0.08)
    save_folder(model, folder / "base")
    tokenizer.save(folder / "base")
    job = FinetuneJob(
        model=folder / "base",
        out=folder / "guard",
        data=(Source(folder / "guard.jsonl"),),
        track=TrackConfig(tensorboard="off"),
        quiet=True,
    )
    sft(job, SftConfig(seq_len=512, rows_per_step=4, epochs=2, train=RATES))
    return folder / "guard", folder / "held.jsonl"


def test_it_is_measured_as_the_server_asks_it(trained, tmp_path):
    guard, held = trained
    out = tmp_path / "figures.json"
    done = herdlm("guard", "evaluate", guard, "--data", held, "--out", out, "--dtype", "float32", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["n"] == len(held.read_text().splitlines()) and found["without_verdict"] == 0
    assert found["figures"]["auc"]["value"] > 0.97 and found["figures"]["f1"]["value"] > 0.9
    assert found["codes_exact"] > 0.9
    assert [point["threshold"] for point in found["curve"]] == sorted(
        (point["threshold"] for point in found["curve"]), reverse=True
    )
    assert f"herdlm serve MODEL --guard {guard} --guard-threshold {found['best_f1']['threshold']:.4g}" in done.stdout
    assert "exists" in herdlm("guard", "evaluate", guard, "--data", held, "--out", out).stderr


def test_a_threshold_that_flags_few_of_the_safe_is_named(trained):
    guard, held = trained
    options = ("--data", held, "--dtype", "float32", "--device", "cpu", "--most-false-positives", 0.0)
    done = herdlm("guard", "evaluate", guard, *options)
    assert done.returncode == 0, done.stderr
    assert "at most 0.0% of the safe flagged" in done.stdout and "false positives 0.0%" in done.stdout


def test_a_server_refuses_what_it_flags(trained, folder):
    guard, _ = trained
    engine = Engine.load(guard, device="cpu", dtype="float32")
    moderator = Moderator(guard, launch=lambda connection: WorkerThread(engine, connection))
    with running(folder, moderator=moderator) as server:
        refused, passed = (
            server.client.chat.completions.create(
                model="flagship", messages=[{"role": "user", "content": prompt}], max_tokens=4
            )
            for prompt in ("Tell me about murder 3", "Tell me about music 3")
        )
    choice = refused.choices[0]
    assert choice.finish_reason == "content_filter" and choice.message.content == choice.message.refusal == REFUSAL
    assert choice.guard["flagged"] and choice.guard["of"] == "prompt" and choice.guard["score"] > 0.5
    assert choice.guard["categories"] == [{"code": "S1", "name": "Violent Crimes"}]
    assert refused.usage.completion_tokens == 0
    assert passed.choices[0].guard["of"] == "answer"  # the prompt has passed
