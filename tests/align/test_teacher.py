"""herdlm sft with a teacher: the loss written out with transformers, what it leaves behind, resuming, and refusals."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdlm.align.config import SftConfig
from herdlm.align.sft import sft
from herdlm.base.artifact import hash_file, read_manifest
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.model.hf import load_folder, save_folder
from herdlm.recipe import read_recipe
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from herdlm.train import teacher as teaching
from tests.align.conftest import SMALL, dialogs, write_lines
from tests.align.jobs import SFT, TRAIN, job
from tests.conftest import TEXT, small_model
from tests.run.conftest import SMOKE, herdlm


def taught(**distill):
    """The section with a teacher."""
    return SftConfig.model_validate(SFT.model_dump() | {"distill": distill})


@pytest.fixture(scope="module")
def teacher(folder):
    """A model of another depth and other weights, with the same tokenizer."""
    return folder / "teacher"


def written_out(student, teacher, data, weight, temperature, top_k):
    """Loss, next-token loss and divergence per target, by transformers, dialog by dialog and target by target."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    models = [AutoModelForCausalLM.from_pretrained(f, dtype=torch.float64).eval() for f in (student, teacher)]
    sums, weights = torch.zeros(3, dtype=torch.float64), 0.0
    for line in data.read_text().splitlines():
        said = json.loads(line)["messages"]
        ids = tokenizer.apply_chat_template(said, return_dict=False)
        with torch.no_grad():
            mine, theirs = (model(torch.tensor([ids])).logits[0] for model in models)
        for number, message in enumerate(said):
            if message["role"] != "assistant":
                continue
            first = len(tokenizer.apply_chat_template(said[:number], add_generation_prompt=True, return_dict=False))
            last = len(tokenizer.apply_chat_template(said[: number + 1], return_dict=False))
            for at in range(first, last):
                nll = -mine[at - 1].log_softmax(-1)[ids[at]]
                p, q = ((scores[at - 1] / temperature).softmax(-1) for scores in (theirs, mine))
                best = p.topk(top_k).indices
                p, q = (torch.cat((each[best], (1 - each[best].sum())[None])) for each in (p, q))
                crossed = -(p * q.log()).sum()
                kl = (p * (p / q).log()).sum()
                loss = (1 - weight) * nll + weight * temperature**2 * crossed
                counts = message.get("weight", 1.0)
                sums += counts * torch.stack((loss, nll, kl))
                weights += counts
    return (sums / weights).tolist()


@pytest.mark.parametrize(("weight", "temperature", "top_k"), [(0.5, 1.0, 64), (0.3, 2.0, 5), (1.0, 1.5, 1)])
def test_the_loss_is_the_mixture_written_out_on_answers_alone(folder, teacher, tmp_path, weight, temperature, top_k):
    config = taught(weight=weight, temperature=temperature, top_k=top_k).model_copy(update={"rows_per_step": 64})
    counts = sft(job(folder, tmp_path / "out", teacher=teacher), config)
    assert counts["steps"] == 1
    expected = written_out(folder / "base", teacher, folder / "chats.jsonl", weight, temperature, top_k)
    (step,) = read_events(tmp_path / "out" / "events.jsonl", "step")
    found = [step["loss"], step["next_token_loss"], step["teacher_kl"]]
    assert found == pytest.approx(expected, abs=2e-4)


def test_a_student_comes_closer_to_its_teacher_than_without(folder, teacher, tmp_path):
    train = TRAIN | {"peak_lr": 1e-2}
    rows = write_lines(tmp_path / "rows.jsonl", dialogs(3, 150))
    keys = dict(data=rows, steps=25)
    alone = SftConfig(seq_len=128, rows_per_step=4, epochs=1, train=train)
    config = SftConfig.model_validate(alone.model_dump() | {"distill": {"weight": 1.0}})
    sft(job(folder, tmp_path / "alone", **keys), alone)
    sft(job(folder, tmp_path / "taught", teacher=teacher, **keys), config)
    kls = [
        written_out(tmp_path / name, teacher, folder / "test-chats.jsonl", 1.0, 1.0, 64)[2]
        for name in ("alone", "taught")
    ]
    assert kls[1] < 0.5 * kls[0]


def test_a_teacher_of_itself_changes_nothing_and_the_manifest_names_it(folder, teacher, tmp_path):
    config = taught(weight=1.0, top_k=400)
    counts = sft(job(folder, tmp_path / "out", teacher=folder / "base", steps=1), config)
    (step,) = read_events(tmp_path / "out" / "events.jsonl", "step")
    assert step["teacher_kl"] == pytest.approx(0, abs=1e-6)
    assert step["grad_norm"] == pytest.approx(0, abs=1e-5)
    assert counts["steps"] == 1
    manifest = read_manifest(tmp_path / "out")
    assert manifest.recipe["sft"]["distill"] == {"weight": 1.0, "temperature": 1.0, "top_k": 400}
    assert manifest.inputs["teacher"].path == str(folder / "base")


def test_a_run_without_a_teacher_has_the_settings_it_had_before(folder, tmp_path):
    sft(job(folder, tmp_path / "out", steps=1), SFT)
    assert "distill" not in read_manifest(tmp_path / "out").recipe["sft"]


def test_an_interrupted_call_asks_the_teacher_for_the_rest_alone(folder, teacher, tmp_path, monkeypatch):
    config = taught(top_k=8)
    config = config.model_copy(update={"train": config.train.model_copy(update={"prefetch_steps": 0})})
    keys = dict(teacher=teacher, held_out=folder / "test-chats.jsonl", steps=5)
    whole = sft(job(folder, tmp_path / "whole", **keys), config)
    computed, plain = [], teaching.teacher_columns

    def interrupted(*arguments):
        computed.append(None)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(teaching, "teacher_columns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sft(job(folder, tmp_path / "resumed", **keys), config)
    read, given = [], DialogBatches.micro_batches

    def stopped(self, step):
        read.append(step)
        if read == [0, 1, 2, 3, 4, 0, 1, 2, 3]:  # the teacher has read all, and the student's third step is taken
            raise KeyboardInterrupt
        return given(self, step)

    monkeypatch.setattr(DialogBatches, "micro_batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        sft(job(folder, tmp_path / "resumed", **keys), config)
    assert len(computed) == 2 + 1 + 3
    assert sft(job(folder, tmp_path / "resumed", **keys), config) == whole
    assert len(computed) == 2 + 1 + 3
    assert read[9:] == [0, 1, 2, 3, 4, 2, 3, 4]  # the columns are checked, then training resumes
    assert hash_file(tmp_path / "whole" / "model.safetensors") == hash_file(tmp_path / "resumed" / "model.safetensors")
    assert not list(tmp_path.glob(".resumed*"))


def test_an_adapter_teaches_as_it_would_merged(folder, teacher, tmp_path):
    sft(job(folder, tmp_path / "adapter", lora=4, merge=False, steps=3), SFT)
    sft(job(folder, tmp_path / "merged", lora=4, steps=3), SFT)
    for name in ("adapter", "merged"):
        config = taught(weight=1.0)
        sft(job(folder, tmp_path / f"by-{name}", teacher=tmp_path / name, steps=2), config)
    one, two = (load_folder(tmp_path / f"by-{name}") for name in ("adapter", "merged"))
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    assert set(read_manifest(tmp_path / "by-adapter").inputs) == {"model", "teacher", "teacher-base", "data-1"}


def test_the_command_takes_a_teacher_and_its_share(folder, teacher, tmp_path):
    data = ("--data", folder / "chats.jsonl", *SMALL, "--steps", 2)
    more = ("--teacher", teacher, "--distill", 0.7, "--set", "distill.temperature=2", "--set", "distill.top_k=6")
    done = herdlm("sft", folder / "base", *data, *more, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"Teacher: {teacher}, 0.7 of the loss at temperature 2, its 6 most likely tokens" in done.stdout
    assert read_manifest(tmp_path / "out").recipe["sft"]["distill"] == {"weight": 0.7, "temperature": 2.0, "top_k": 6}
    for words, problem in (
        (("--distill", 0.5), "distill is set, but there is no teacher"),
        (("--teacher", teacher, "--set", "distill.top_k=500"), "top_k 500 exceeds the vocabulary of 400"),
        (("--teacher", tmp_path / "none"), "does not exist"),
        (("--teacher", teacher, "--distill", 1.5), "distill.weight"),
        (("--teacher", teacher, "--set", "objective=mine:Own"), "distill and objective are both set"),
    ):
        done = herdlm("sft", folder / "base", *data, *words, "--out", tmp_path / "refused")
        assert done.returncode == 2
        assert problem in done.stderr
    assert not list(tmp_path.glob("*refused*"))


def test_teachers_that_do_not_fit_are_refused(folder, tmp_path, tokenizer):
    for name, changes in (("wide", {"vocab_size": 512}), ("short", {"max_seq_len": 64}), ("judge", {"head": "score"})):
        save_folder(small_model(**changes), tmp_path / name)
        tokenizer.save(tmp_path / name)
    save_folder(small_model(), tmp_path / "alien")
    train_tokenizer([TEXT[:200] * 3], TokenizerConfig(vocab_size=300)).save(tmp_path / "alien")
    for name, problem in (
        ("wide", "vocabulary of 512, but the student has 400"),
        ("short", "supports rows of 64 tokens, but the student's have 128"),
        ("judge", "is a reward model"),
        ("alien", "different tokenizers"),
    ):
        with pytest.raises(InputError, match=problem):
            sft(job(folder, tmp_path / "out", teacher=tmp_path / name, steps=1), taught())
    with pytest.raises(InputError, match="nothing says how to learn from the teacher"):
        sft(job(folder, tmp_path / "out", teacher=folder / "base", steps=1), SFT)


def test_a_run_refuses_keys_of_a_teacher_that_it_would_not_ask():
    with pytest.raises(InputError, match="align.sft.distill is for herdlm sft --teacher"):
        read_recipe(SMOKE, ["align.sft.distill.weight=0.5"])
