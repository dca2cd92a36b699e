"""Pre-training from a teacher, as a user starts it: taught, cut off, refused, and in a whole run's plan."""

import json

import pytest
import torch

from herdlm.base.artifact import read_manifest
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.evaluate.divergence import divergence
from herdlm.evaluate.perplexity import validation_batches
from herdlm.model.hf import load_folder, save_folder
from herdlm.plan.launch import plan_job
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import stages_of
from herdlm.tokens.mixture import PretrainBatches
from herdlm.tokens.teacher import TeacherColumns
from herdlm.tokens.tokenizer import PAD, TokenizerConfig, train_tokenizer
from tests.conftest import TEXT, small_model
from tests.run.conftest import ROOT, herdlm
from tests.scaling.test_anneal_probe import data  # noqa: F401 - a fixture

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=24",
    "pretrain.rows_per_step=4",
    "pretrain.seq_len=32",
    'pretrain.mix=[{source = "web", share = 1}]',
    "pretrain.rows_per_micro_batch=3",
    'pretrain.anneal_mix=[{source = "web", share = 1}]',
    "pretrain.train.anneal_steps=8",
    "pretrain.train.warmup_steps=3",
    "pretrain.train.checkpoint_every_steps=5",
    "pretrain.train.average_last=0.2",
]
TAUGHT = "herd.models.small.distill={top_k = 16, weight = 0.6}"


def recipe(*more):
    return read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *more])


def train(data, out, *more, **options):  # noqa: F811
    return pretrain(
        recipe(*more).job("small"), tokens=data / "tokens", tokenizer=data / "tokenizer", out=out, **options
    )


def save_teacher(folder, tokenizer, seed=3, **shape):
    folder.mkdir()
    save_folder(small_model(seed=seed, **shape), folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tokenizer, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher", tokenizer)


@pytest.fixture(scope="module")
def whole(data, teacher, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("taught") / "model"
    return out, train(data, out, TAUGHT, teacher=teacher)


def steps_of(out):
    return list(read_events(out / "events.jsonl", "step"))


def test_every_step_is_taught_and_tells_how_far_the_teacher_is(whole):
    events = steps_of(whole[0])
    assert len(events) == 24
    for event in events:
        assert event["teacher_kl"] > 0
        assert event["loss"] > 0.4 * event["next_token_loss"]
    assert events[-1]["teacher_kl"] < events[0]["teacher_kl"]
    assert not list(whole[0].glob("teacher*"))  # the columns are not part of the model
    assert "teacher" in read_manifest(whole[0]).inputs


@pytest.mark.parametrize(
    ("key", "cut_at"),
    [
        (TAUGHT, 7),
        pytest.param(TAUGHT, 17, marks=pytest.mark.slow),
        pytest.param(TAUGHT.replace("{", '{steps="anneal",'), 18, marks=pytest.mark.slow),
    ],
)
def test_a_run_cut_off_ends_with_the_same_weights(whole, data, teacher, tmp_path, monkeypatch, key, cut_at):  # noqa: F811
    if key is not TAUGHT:
        train(data, tmp_path / "whole", key, teacher=teacher)
        whole = tmp_path / "whole", None
    read, calls = PretrainBatches.micro_batches, []

    def cut(self, step):
        calls.append(step)
        if step == cut_at and calls.count(step) == 2:  # the teacher reads a step first
            raise KeyboardInterrupt
        return read(self, step)

    monkeypatch.setattr(PretrainBatches, "micro_batches", cut)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "model", key, teacher=teacher)
    columns = sorted((tmp_path / ".model.working" / "teacher").glob("*.safetensors"))
    assert len(columns) == (24 if key is TAUGHT else 8)
    monkeypatch.setattr(TeacherColumns, "write", lambda *_: pytest.fail("the teacher ran again"))
    train(data, tmp_path / "model", key, teacher=teacher)
    expected = dict(load_folder(whole[0]).named_parameters())
    for name, value in load_folder(tmp_path / "model").named_parameters():
        assert torch.equal(value, expected[name]), name
    assert [event["step"] for event in steps_of(tmp_path / "model")] == list(range(1, 25))


def test_only_the_anneal_may_be_taught(data, teacher, tokenizer, tmp_path):  # noqa: F811
    train(data, tmp_path / "plain")
    train(data, tmp_path / "taught", TAUGHT.replace("{", '{steps = "anneal", '), teacher=teacher)
    plain, taught = steps_of(tmp_path / "plain"), steps_of(tmp_path / "taught")
    assert [event["loss"] for event in plain[:16]] == [event["loss"] for event in taught[:16]]
    assert ["teacher_kl" in event for event in taught] == [False] * 16 + [True] * 8
    assert [event["lr"] for event in plain] == [event["lr"] for event in taught]
    held_out = validation_batches(data / "tokens" / "web-validation", 32, tokenizer.special(PAD))
    models = (load_folder(folder) for folder in (teacher, tmp_path / "plain", tmp_path / "taught"))
    original, without, with_teacher = models
    assert divergence(original, with_teacher, held_out).kl < divergence(original, without, held_out).kl


def test_teacher_and_keys_decide_what_is_made(whole, data, teacher, tokenizer, tmp_path):  # noqa: F811
    other = save_teacher(tmp_path / "other", tokenizer, seed=4)
    prints = {read_manifest(whole[0]).fingerprint}
    for number, (key, folder) in enumerate(
        [(TAUGHT, other), (TAUGHT.replace("0.6", "0.7"), teacher), (TAUGHT.replace("16", "17"), teacher)]
    ):
        train(data, tmp_path / f"model-{number}", "pretrain.steps=10", key, teacher=folder)
        prints.add(read_manifest(tmp_path / f"model-{number}").fingerprint)
    assert len(prints) == 4


def test_what_does_not_go_is_refused_by_name(data, teacher, tokenizer, tmp_path):  # noqa: F811
    out = tmp_path / "model"
    with pytest.raises(InputError, match="herd.models.small.distill needs a teacher's folder"):
        train(data, out, TAUGHT)
    with pytest.raises(InputError, match="a teacher is given, but the recipe has no herd.models.small.distill"):
        train(data, out, teacher=teacher)
    wide = save_teacher(tmp_path / "wide", tokenizer, vocab_size=512)
    with pytest.raises(InputError, match="wide has a vocabulary of 512, but the student has 400"):
        train(data, out, TAUGHT, teacher=wide)
    short = save_teacher(tmp_path / "short", tokenizer, max_seq_len=16)
    with pytest.raises(InputError, match="short supports rows of 16 tokens, but the student's have 32"):
        train(data, out, TAUGHT, teacher=short)
    reward = save_teacher(tmp_path / "reward", tokenizer, head="score")
    with pytest.raises(InputError, match="reward is a reward model"):
        train(data, out, TAUGHT, teacher=reward)
    alien = save_teacher(tmp_path / "alien", train_tokenizer([TEXT[::-1]], TokenizerConfig(vocab_size=400)))
    with pytest.raises(InputError, match="alien and the student have different tokenizers"):
        train(data, out, TAUGHT, teacher=alien)
    assert not out.exists()
    with pytest.raises(InputError, match="herd.models.small.distill and --teacher go together"):
        plan_job(
            "tiny", recipe(TAUGHT).job("small"), path="r", tokens="t", tokenizer="k", out="o", gpus_per_node=1, nodes=1
        )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([TAUGHT.replace("16", "401")], "top_k 401 exceeds tokenizer.vocab_size 400"),
        ([TAUGHT.replace("0.6", "1.5")], "weight = 1.5"),
        (['herd.models.small.distill={teacher = "nobody"}'], "names the model nobody, but there is no"),
        (['herd.models.small.distill={teacher = "small"}'], "in a circle, small <- small"),
        (
            ['herd.models.small.distill={teacher = "flagship"}', 'herd.models.flagship.distill={teacher = "small"}'],
            "in a circle",
        ),
        (['herd.models.ladder-1.distill={teacher = "flagship"}'], "flagship is trained after the ladder"),
        (['herd.models.small.distill={steps = "anneal"}', "pretrain.train.anneal_steps=0"], "anneal_steps is 0"),
        (['herd.models.small.distill={steps = "anneal"}', "pretrain.train.average_last=0.5"], "before the anneal"),
    ],
)
def test_recipes_that_cannot_be_are_refused(keys, message):
    with pytest.raises(InputError, match=message):
        recipe(*keys)


def test_in_a_whole_run_a_model_of_the_herd_teaches_another():
    stages = {stage.name: stage for stage in stages_of(recipe('herd.models.small.distill={teacher = "flagship"}'))}
    plain = {stage.name: stage for stage in stages_of(recipe())}
    assert stages["pretrain-small"].inputs["teacher"] == "pretrain-flagship"
    for name in plain:
        same = stages[name].fingerprint(0, {}) == plain[name].fingerprint(0, {})
        assert same == (name not in {"pretrain-small", "report"}), name
    backwards = list(stages_of(recipe('herd.models.ladder-1.distill={teacher = "ladder-3"}')))
    order = [stage.name for stage in backwards]
    assert order.index("pretrain-ladder-3") < order.index("pretrain-ladder-1") < order.index("forecast")
    with pytest.raises(InputError, match="names no teacher, and a whole run has no folder for it"):
        stages_of(recipe(TAUGHT))


def test_a_stage_of_a_run_is_taught(data, teacher, tmp_path):  # noqa: F811
    from herdlm.run.stage import Context
    from herdlm.run.stages.pretrain import pretrain_stage

    read = recipe('herd.models.small.distill={teacher = "flagship", top_k = 400}')
    stage = next(s for s in stages_of(read) if s.name == "pretrain-small")
    inputs = {"tokens": data / "tokens", "tokenizer": data / "tokenizer", "teacher": teacher}
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    pretrain_stage(Context(stage, read, inputs, tmp_path / "out", tmp_path / "work", quiet=True))
    assert all(event["teacher_kl"] > 0 for event in steps_of(tmp_path / "out"))
    assert json.loads((tmp_path / "work" / "teacher" / "teacher.json").read_text())["top_k"] == 400


@pytest.mark.slow
def test_processes_share_the_teaching_and_end_where_one_does(whole, data, teacher, tmp_path):  # noqa: F811
    sets = [part for key in [*KEYS, TAUGHT, "pretrain.train.precision=float32"] for part in ("--set", key)]
    for processes in (1, 4):
        done = herdlm(
            "train",
            ROOT / "recipes" / "tiny.toml",
            "--tokens",
            data / "tokens",
            "--tokenizer",
            data / "tokenizer",
            "--model",
            "small",
            "--teacher",
            teacher,
            "--out",
            tmp_path / str(processes),
            "--processes",
            processes,
            *sets,
            "--set",
            f"parallel.tp={min(processes, 2)}",
        )
        assert done.returncode == 0, done.stderr
    one, four = (dict(load_folder(tmp_path / n).named_parameters()) for n in ("1", "4"))
    assert max(float((one[n] - four[n]).abs().max() / one[n].abs().max()) for n in one) < 1e-3
    one, four = (steps_of(tmp_path / n) for n in ("1", "4"))
    for a, b in zip(one, four, strict=True):
        assert a["teacher_kl"] == pytest.approx(b["teacher_kl"], rel=1e-3)
