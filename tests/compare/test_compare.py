"""The comparison of two models: its figures against ones computed by hand, its inputs, and what it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from herdlm.base.artifact import read_manifest, verify
from herdlm.base.errors import DamagedError, InputError
from herdlm.compare.compare import compare, lines
from herdlm.compare.data import ComparisonData, read_prompts, read_texts
from herdlm.compare.measure import AnswerSampling
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.load import load_fp8
from herdlm.model.attention import DocumentAttention
from herdlm.model.hf import load_folder, save_folder
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, Tokenizer
from tests.conftest import TEXT, small_model

PROMPTS = [
    {"prompt": "Which package does the file belong to?", "task": "files", "answer": "never this"},
    {"prompt": "List the files.", "task": "files", "answer": "nor this"},
    {"prompt": "It's <b>simple</b>: why?"},
    {"prompt": "When is the disk full?"},
]
EVERYTHING = Fp8Config(attention=True, skip_first_layers=0, skip_last_layers=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A model, its FP8, a reward model, text and prompts."""
    root = tmp_path_factory.mktemp("comparison")
    model = small_model(layers=4)
    with torch.no_grad():
        model.lm_head.weight.mul_(4)  # opinions strong enough to differ in
    save_folder(model, root / "bf16", dtype=torch.bfloat16)
    tokenizer.save(root / "bf16")
    quantize_folder(root / "bf16", root / "fp8", EVERYTHING)
    reward = small_model(3, head="score")
    with torch.no_grad():
        reward.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    save_folder(reward, root / "reward")
    tokenizer.save(root / "reward")
    (root / "text.txt").write_text(TEXT * 3)
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)) + "\n\n")
    return root


@pytest.fixture(scope="module")
def result(folders):
    data = ComparisonData(folders / "text.txt", folders / "prompts.jsonl", folders / "reward")
    return compare(
        folders / "bf16",
        folders / "fp8",
        folders / "report",
        data,
        sampling=AnswerSampling(max_tokens=12),
        seq_len=64,
        device="cpu",
        quiet=True,
    )


def test_the_report_is_an_artifact_with_numbers_answers_and_a_page(folders, result):
    manifest = read_manifest(folders / "report")
    verify(folders / "report", manifest)
    assert set(manifest.files) == {"answers.jsonl", "comparison.html", "comparison.json"}
    assert manifest.kind == "comparison" and set(manifest.inputs) == {
        "original",
        "changed",
        "text",
        "prompts",
        "reward",
    }
    assert json.loads((folders / "report" / "comparison.json").read_text()) == result
    assert manifest.counts["kl"] == result["text"]["kl"]
    with pytest.raises(InputError, match="exists"):
        compare(folders / "bf16", folders / "fp8", folders / "report", ComparisonData(folders / "text.txt"))


def test_weights_are_those_of_the_files(folders, result):
    for side, folder in (("original", "bf16"), ("changed", "fp8")):
        # a safetensors file: eight bytes, a header of so many, and the weights
        content = (folders / folder / "model.safetensors").read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        assert result[side]["weight_bytes"] == len(content) - header
    assert result["changed"]["fp8_parameters"] == 4 * (3 * 32 * 64 + 2 * 32 * 32 + 2 * 32 * 16)


@torch.no_grad()
def logits(model, tokens):
    ids = torch.tensor([tokens])
    return model.logits(
        model(ids, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(ids)))[0]
    ).double()


def test_divergence_along_an_answer_is_that_of_its_tokens(folders, result):
    tokenizer = Tokenizer.load(folders / "bf16")
    models = (load_folder(folders / "bf16", dtype=torch.float32), load_fp8(folders / "fp8", dtype=torch.float32))
    rows = [json.loads(line) for line in (folders / "report" / "answers.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in PROMPTS]
    means, every = [], []
    for row in rows:
        said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["original"]}]
        dialog = ChatFormat.of(tokenizer).render(said)
        p, q = (F.log_softmax(logits(model, dialog.tokens[:-1]), -1) for model in models)
        kl = (p.exp() * (p - q)).sum(-1)[torch.tensor(dialog.weights[1:]) > 0]
        means.append(float(kl.mean()))
        every += kl.tolist()
    assert [row["kl"] for row in rows] == pytest.approx(means, rel=1e-3, abs=1e-6)
    along = result["answers"]["along_answers"]
    assert along["tokens"] == len(every)
    assert along["kl"] == pytest.approx(np.mean(every), rel=1e-3)
    assert along["kl_max"] == pytest.approx(max(every), rel=1e-3)
    worst = result["answers"]["worst"]["by_divergence"]
    assert [row["kl"] for row in worst] == sorted((row["kl"] for row in rows), reverse=True)


def test_rewards_are_the_reward_models_and_paired(folders, result):
    tokenizer, reward = Tokenizer.load(folders / "reward"), load_folder(folders / "reward")
    rows = [json.loads(line) for line in (folders / "report" / "answers.jsonl").read_text().splitlines()]
    for row in rows:
        for side in ("original", "changed"):
            said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
            ids = torch.tensor([ChatFormat.of(tokenizer).render(said).tokens])
            with torch.no_grad():
                hidden = reward(ids, torch.arange(ids.shape[1])[None], DocumentAttention(torch.zeros_like(ids)))
                score = float(reward.scores(hidden[0, -1:])[0])
            assert row["reward"][side] == pytest.approx(score, rel=1e-3, abs=1e-4)
    found = result["answers"]["reward"]
    differences = [row["reward"]["changed"] - row["reward"]["original"] for row in rows]
    assert found["difference"]["value"] == pytest.approx(np.mean(differences), rel=1e-3, abs=1e-6)
    half = 1.959964 * np.std(differences, ddof=1) / math.sqrt(len(rows))
    assert found["difference"]["high"] - found["difference"]["value"] == pytest.approx(half, rel=1e-3, abs=1e-6)
    for side in ("original", "changed"):
        assert sum(found["histogram"][side]) == pytest.approx(1)
        mean = np.mean([row["reward"][side] for row in rows])
        assert found["distribution"][side]["mean"] == pytest.approx(mean, rel=1e-3, abs=1e-6)
    fell = result["answers"]["worst"]["by_reward"]
    assert len(fell) == sum(d < 0 for d in differences)


def test_right_answers_are_counted_by_task(result, folders, tmp_path):
    assert {name: task["questions"] for name, task in result["answers"]["tasks"].items()} == {"all": 2, "files": 2}
    rows = [json.loads(line) for line in (folders / "report" / "answers.jsonl").read_text().splitlines()]
    known = [{"prompt": row["prompt"], "task": "copy", "answer": " ".join(row["original"].split())} for row in rows]
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)))
    again = compare(
        folders / "bf16",
        folders / "fp8",
        tmp_path / "out",
        ComparisonData(None, tmp_path / "known.jsonl"),
        sampling=AnswerSampling(max_tokens=12),
        device="cpu",
        quiet=True,
    )
    same = sum(row["original"] == row["changed"] for row in rows)
    task = again["answers"]["tasks"]["copy"]
    assert task["original"]["value"] == 1.0 and task["lost"] == len(rows) - same and task["gained"] == 0
    assert again["answers"]["same_answers"] == same / len(rows)
    assert again["text"] is None and again["answers"]["reward"] is None


def test_benchmarks_are_answered_by_likelihood_and_paired(folders, tmp_path):
    rows = [
        {
            "task": f"t{i % 2}",
            "question": f"Question {i}: the package",
            "choices": ["manager", "server", "disk"],
            "answer": i % 3,
        }
        for i in range(24)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, rows[0] | {"question": TEXT * 9}]))
    found = compare(
        folders / "bf16",
        folders / "fp8",
        tmp_path / "out",
        ComparisonData(benchmarks=tmp_path / "b.jsonl"),
        device="cpu",
        quiet=True,
    )
    assert found["benchmarks"]["too_long"] == 1
    tokenizer = Tokenizer.load(folders / "bf16")
    models = (load_folder(folders / "bf16", dtype=torch.float32), load_fp8(folders / "fp8", dtype=torch.float32))
    right, nats = [], []
    for model in models:
        values = np.array(
            [[likelihood(model, tokenizer, row["question"], choice) for choice in row["choices"]] for row in rows]
        )
        answers = np.array([row["answer"] for row in rows])
        right.append(values.argmax(1) == answers)
        sizes = np.array([len(row["choices"][row["answer"]]) for row in rows])
        nats.append(-values[np.arange(len(rows)), answers] / sizes)
    for name, own in (("all", slice(None)), ("t0", slice(0, None, 2)), ("t1", slice(1, None, 2))):
        task = found["benchmarks"]["tasks"][name]
        before, after = right[0][own], right[1][own]
        assert (task["original"]["value"], task["changed"]["value"]) == (before.mean(), after.mean())
        assert task["difference"]["value"] == pytest.approx(after.mean() - before.mean())
        assert (task["gained"], task["lost"]) == ((after & ~before).sum(), (before & ~after).sum())
        moved = (nats[1] - nats[0])[own]
        assert task["nats"]["difference"]["value"] == pytest.approx(moved.mean(), abs=1e-3)
        half = 1.96 * moved.std(ddof=1) / math.sqrt(len(moved))
        assert task["nats"]["difference"]["high"] == pytest.approx(moved.mean() + half, abs=1e-3)
    assert any("all: right" in line for line in lines(found))
    assert read_manifest(tmp_path / "out").counts["benchmark_difference"]
    assert "Nats per byte" in (tmp_path / "out" / "comparison.html").read_text()


def likelihood(model, tokenizer, question, choice):
    before = [tokenizer.special(BEGIN_OF_TEXT), *tokenizer.encode(question)]
    tokens = [*before, *tokenizer.encode(f" {choice}")]
    found = F.log_softmax(logits(model, tokens), -1)[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    return float(found[len(before) - 1 :].sum())


def test_a_model_against_itself_has_not_changed(folders, tmp_path):
    data = ComparisonData(folders / "text.txt", folders / "prompts.jsonl", folders / "reward")
    result = compare(
        folders / "fp8",
        folders / "fp8",
        tmp_path / "out",
        data,
        sampling=AnswerSampling(2, 1.0, 8),
        seq_len=64,
        device="cpu",
        quiet=True,
    )
    assert result["text"]["kl_max"] == 0 and result["text"]["top1_agreement"] == 1
    assert result["answers"]["same_answers"] == 1 and result["answers"]["reward"]["difference"]["value"] == 0
    assert result["answers"]["worst"]["by_reward"] == []
    assert lines(result)[0].startswith("weights")


def test_a_run_supplies_its_own_data(tmp_path):
    for name in ("tokens/web-validation", "bank", "round-2-reward", "round-10-reward"):
        (tmp_path / "stages" / name).mkdir(parents=True)
    (tmp_path / "stages" / "bank" / "held_out.jsonl").write_text("{}")
    assert ComparisonData().or_from_run(tmp_path) == ComparisonData()  # no run: no recipe.json
    (tmp_path / "recipe.json").write_text("{}")
    stages = tmp_path / "stages"
    assert ComparisonData(text=tmp_path / "mine").or_from_run(tmp_path) == ComparisonData(
        tmp_path / "mine", stages / "bank" / "held_out.jsonl", stages / "round-10-reward"
    )


def test_texts_come_from_several_kinds_of_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_texts(tmp_path / "a.jsonl") == ["one", "two"]
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert read_texts(tmp_path / "a.txt") == ["one\ntwo"]
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"words": 2}\n')
    with pytest.raises(DamagedError, match=r"b.jsonl, line 2 has no text"):
        read_texts(tmp_path / "b.jsonl")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match="not UTF-8"):
        read_texts(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text(" \n")
    with pytest.raises(InputError, match="holds no text"):
        read_texts(tmp_path / "c.txt")
    with pytest.raises(InputError, match="does not exist"):
        read_texts(tmp_path / "d.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no prompts"),
        ("[]\n", "line 1 is not a JSON object"),
        ('{"prompt": ""}', "line 1 has no prompt"),
        ('{"prompt": "a"}\n{', "line 2 is not JSON"),
        ('{"prompt": "a", "answer": 3}', "line 1 has no prompt"),
    ],
)
def test_bad_prompts_are_named(tmp_path, content, said):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises((InputError, DamagedError), match=said):
        read_prompts(tmp_path / "p.jsonl")


def test_what_does_not_belong_together_is_refused(folders, tmp_path, tokenizer):
    out, text = tmp_path / "out", ComparisonData(folders / "text.txt")
    with pytest.raises(InputError, match="nothing to compare on"):
        compare(folders / "bf16", folders / "fp8", out, ComparisonData())
    with pytest.raises(InputError, match="there are no prompts"):
        compare(folders / "bf16", folders / "fp8", out, ComparisonData(folders / "text.txt", None, folders / "reward"))
    with pytest.raises(InputError, match="vocabulary and head"):
        compare(folders / "bf16", folders / "reward", out, text)
    with pytest.raises(InputError, match="writes nothing"):
        compare(folders / "reward", folders / "reward", out, text)
    with pytest.raises(InputError, match="is not a reward model"):
        compare(
            folders / "bf16",
            folders / "fp8",
            out,
            ComparisonData(None, folders / "prompts.jsonl", folders / "bf16"),
            quiet=True,
        )
    with pytest.raises(InputError, match="are the same"):
        AnswerSampling(samples=2)
    assert not out.exists()
