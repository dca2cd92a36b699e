"""herdlm grpo: what it samples, skips, trains and leaves behind, and that an interrupted run ends the same."""

import json
import signal

import numpy as np
import pytest
import torch

from herdlm.align.defaults import settings
from herdlm.align.grpo.batches import GrpoBatches
from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.groups import figures_of, group_of
from herdlm.align.grpo.rewards import Judge, Judged, advantages
from herdlm.align.grpo.sampler import Drawn, Prompt
from herdlm.align.grpo.training import grpo
from herdlm.base.artifact import hash_file, read_manifest
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.base.json_lines import json_lines
from herdlm.generate import Engine, SamplingParams
from herdlm.model.lora import add_lora, lora_of, merge_lora, merged_weights
from herdlm.tokens.chat_format import ChatFormat
from herdlm.train.policy_gradient import PolicyGradient
from herdlm.verifiers.verdict import failed, passed
from tests import warm
from tests.align.checkable import config
from tests.align.conftest import SMALL, prompts, write_lines
from tests.align.jobs import job
from tests.conftest import small_model
from tests.run.conftest import herdlm


@pytest.fixture(scope="module")
def problems(folder):
    """The folder with prompts that all want the same letter, too."""
    write_lines(folder / "letter-e.jsonl", prompts(2, 40, "e"))
    write_lines(folder / "test-letter-e.jsonl", prompts(3, 40, "e"))
    return folder


def run(folder, out, settings, data="prompts", **changes):
    """A run on a file of the folder, with held-out prompts."""
    return grpo(job(folder, out, data=f"{data}.jsonl", held_out=folder / f"test-{data}.jsonl", **changes), settings)


def steps_of(out):
    return list(read_events(out / "events.jsonl", "step"))


@pytest.fixture(scope="module")
def finished(problems, tmp_path_factory):
    """(folder of the model, counts, lines that were printed), of eight steps, two on each batch."""
    out, said = tmp_path_factory.mktemp("grpo") / "out", []
    settings = config(minibatches=2, train={"peak_lr": 3e-3})
    return out, run(problems, out, settings, steps=8, say=said.append), said


def drawn(right, tokens=5, *, cut=False):
    verdict = passed("right") if right else failed("wrong")
    return Drawn(list(range(tokens)), [-1.0] * tokens, "text", cut, verdict)


def group(right, settings, **more):
    prompt = Prompt({"prompt": [{"role": "user", "content": "what"}]}, "key", [1, 2, 3])
    return group_of(prompt, [drawn(each, **more) for each in right], settings)


def test_advantages_are_distances_from_the_groups_mean():
    rewards = [1.0, 0.0, 0.5, 0.0]
    above = np.array(rewards) - 0.375
    assert advantages(rewards, divide_by_std=False) == pytest.approx(above)
    assert advantages(rewards, divide_by_std=True) == pytest.approx(above / np.std(rewards, ddof=1), rel=1e-4)
    assert advantages([0.3, 0.3, 0.3], divide_by_std=True) == [0.0, 0.0, 0.0]


def test_groups_whose_answers_are_worth_the_same_are_skipped_and_counted():
    settings = config(length_penalty=0.1)
    groups = [group(right, settings) for right in ([True] * 4, [False] * 4, [True, False, False, True])]
    assert [bool(each.trained(settings)) for each in groups] == [False, False, True]
    figures = figures_of(groups, settings)
    assert (figures["groups"], figures["skipped"]) == (3, 2)
    assert figures["right"] == 0.5
    assert figures["any_right"] == pytest.approx(2 / 3)
    assert figures["reward"] == pytest.approx(0.5 - 0.1 * 5 / 8)


def test_lengths_alone_teach_nothing():
    settings = config(length_penalty=0.1)
    prompt = Prompt({"prompt": [{"role": "user", "content": "what"}]}, "key", [1])
    wrong = group_of(prompt, [drawn(False, 2), drawn(False, 8, cut=True)], settings)
    assert wrong.rewards[0] > wrong.rewards[1]
    assert wrong.trained(settings) == []


def test_cut_answers_can_be_left_out_of_the_loss_but_not_of_the_mean():
    settings = config(cut_answers="mask", cut_penalty=0.5, divide_by_std=False)
    prompt = Prompt({"prompt": [{"role": "user", "content": "what"}]}, "key", [1])
    mixed = group_of(prompt, [drawn(True), drawn(False, 8, cut=True), drawn(False)], settings)
    assert mixed.rewards == [1.0, -0.5, 0.0]
    assert [answer.advantage for answer in mixed.answers(0, settings)] == pytest.approx([1 - 1 / 6, -1 / 6])
    whole = group_of(prompt, mixed.drawn, config(cut_penalty=0.5))
    assert [answer.targets for answer in whole.answers(1, config())] == [5, 8, 5]


def test_the_samples_are_published_with_what_they_were_worth(finished):
    out, counts, _ = finished
    files = sorted((out / "samples").iterdir())
    rows = [row for path in files for _, row in json_lines(path)]
    events = steps_of(out)
    assert [event["step"] for event in events] == list(range(1, 9))
    for number in range(4):  # each batch is trained on in two steps
        here = rows[number * 4 : number * 4 + 4]
        rewards = [sample["reward"] for row in here for sample in row["samples"]]
        assert events[2 * number]["reward"] == events[2 * number + 1]["reward"] == pytest.approx(np.mean(rewards))
    samples = [sample for row in rows for sample in row["samples"]]
    assert all(sample["verdict"]["passed"] == (sample["reward"] == 1.0) for sample in samples)
    assert {sample["finish"] for sample in samples} == {"stop", "length"}
    assert all(sample["tokens"] == 8 for sample in samples if sample["finish"] == "length")
    assert len({row["id"] for row in rows}) == len(rows) == 16  # no prompt twice in 16 of 40
    assert counts["sampled"]["groups"] == 16


def test_what_was_sampled_is_what_is_trained_on(problems, tmp_path, monkeypatch):
    """The prompt as the template writes it, the drawn tokens, and the end token as a target where it was drawn."""
    plain, seen = GrpoBatches.micro_batches, []

    def watched(self, step):
        made = plain(self, step)
        seen.append((self._rollout.answers, made))
        return made

    monkeypatch.setattr(GrpoBatches, "micro_batches", watched)
    run(problems, tmp_path / "out", config(prompts_per_step=8), steps=1)
    ((answers, (batch,)),) = seen
    format = ChatFormat.load(problems / "base")
    (path,) = (tmp_path / "out" / "samples").iterdir()
    rows = [row for _, row in json_lines(path) if not row["skipped"]]
    pairs = [(format.prompt(row["prompt"]), sample) for row in rows for sample in row["samples"]]
    assert {sample["finish"] for _, sample in pairs} == {"stop", "length"}
    for answer, (prompt, sample) in zip(answers, pairs, strict=True):
        said = answer.tokens[len(prompt) :].tolist()
        assert answer.tokens[: len(prompt)].tolist() == prompt
        assert len(said) == answer.targets == sample["tokens"]
        assert (said[-1] in format.stop_tokens) == (sample["finish"] == "stop")
        assert answer.advantage == sample["advantage"]
    targets = batch.targets[batch.weights > 0].tolist()
    assert sorted(targets) == sorted(token for answer in answers for token in answer.tokens[-answer.targets :].tolist())
    assert float(batch.columns["advantage"].sum()) == pytest.approx(
        sum(a.advantage * a.targets for a in answers), abs=1e-4
    )


def test_the_first_update_has_ratios_of_one_and_the_engine_agrees_with_training(finished):
    out, *_ = finished
    events = steps_of(out)
    for event in events[::2]:
        assert event["clipped"] == 0.0
        assert event["mismatch"] < 1e-5
        assert event["entropy"] > 1
    assert all("mismatch" not in event for event in events[1::2])
    assert {"reward", "right", "any_right", "answer_tokens", "cut", "groups", "skipped"} <= events[0].keys()


def test_held_out_figures_are_those_of_the_finished_model(problems, finished):
    out, counts, said = finished
    held, format = counts["held_out"], ChatFormat.load(out)
    given = prompts(1, 20)
    for folder, key in ((problems / "base", "right_before"), (out, "right")):
        engine = Engine.load(folder, dtype="float32")
        params = SamplingParams(max_tokens=8, temperature=0, stop_tokens=format.stop_tokens)
        asked = [format.prompt([{"role": "user", "content": row["prompt"]}]) for row in given]
        texts = [one.text for (one,) in engine.generate(asked, params)]
        right = [row["answer"] in text for row, text in zip(given, texts, strict=True)]
        assert held[key]["value"] == pytest.approx(np.mean(right))
    assert json.loads((out / "figures.json").read_text())["right"] == held["right"]
    assert held["right_change"]["low"] < held["right_change"]["value"] < held["right_change"]["high"]
    assert any("answered rightly" in line for line in said)
    assert read_manifest(out).recipe["grpo"]["samples"] == 4


def test_a_model_learns_what_is_rewarded(problems, tmp_path):
    settings = config(prompts_per_step=8, samples=8, train={"peak_lr": 1e-2})
    counts = run(problems, tmp_path / "out", settings, data="letter-e", steps=15)
    assert counts["sampled"]["right_first"]["value"] < 0.7
    assert counts["sampled"]["right_last"]["value"] > 0.9
    assert counts["held_out"]["right"]["value"] >= 0.9
    solved = [event for event in steps_of(tmp_path / "out") if event["skipped"] == event["groups"]]
    assert solved  # and once there is nothing to learn, steps go on without a gradient
    assert all(event["grad_norm"] == 0.0 for event in solved)


SETTINGS = {
    "two passes": config(minibatches=2, passes=2, kl_weight=0.1, temperature=0.9),
    "dynamic": config(dynamic_sampling=True, mean="answers", divide_by_std=False),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("lora", [None, 2])
def test_an_interrupted_run_ends_with_the_same_model(problems, tmp_path, monkeypatch, name, lora):
    """Interrupted in the middle of a batch: its samples come from weights that no checkpoint has."""
    settings = SETTINGS[name]
    whole = run(problems, tmp_path / "whole", settings, steps=7, lora=lora)
    plain, asked = GrpoBatches.micro_batches, []

    def interrupted(self, step):
        asked.append(step)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(GrpoBatches, "micro_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(problems, tmp_path / "resumed", settings, steps=7, lora=lora)
    assert run(problems, tmp_path / "resumed", settings, steps=7, lora=lora) == whole
    assert asked == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    assert hash_file(tmp_path / "whole" / "model.safetensors") == hash_file(tmp_path / "resumed" / "model.safetensors")
    samples = [sorted((tmp_path / each / "samples").iterdir()) for each in ("whole", "resumed")]
    assert [path.read_bytes() for path in samples[0]] == [path.read_bytes() for path in samples[1]]


@pytest.mark.slow
def test_a_killed_command_ends_with_the_same_model(problems, tmp_path):
    arguments = ("grpo", problems / "base", "--prompts", problems / "prompts.jsonl", "--peak-lr", "1e-3", *SMALL)
    arguments += ("--held-out", problems / "test-prompts.jsonl", "--prompts-per-step", 4, "--samples", 4)
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[align.grpo]\nminibatches = 2\ntrain = { checkpoint_every_steps = 3 }\n")
    arguments += ("--max-answer-tokens", 8, "--steps", 8, "--recipe", recipe)
    whole = herdlm(*arguments, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = warm.run("tests.align.killed", 5, *arguments, "--out", tmp_path / "resumed")
    assert killed.returncode == -signal.SIGKILL
    resumed = herdlm(*arguments, "--out", tmp_path / "resumed")
    assert resumed.returncode == 0, resumed.stderr
    assert hash_file(tmp_path / "whole" / "model.safetensors") == hash_file(tmp_path / "resumed" / "model.safetensors")
    told = [json.loads((tmp_path / each / "training.json").read_text()) for each in ("whole", "resumed")]
    assert told[0] == told[1]
    assert f"Model: {tmp_path / 'whole'}\nNext: herdlm chat" in whole.stdout
    assert read_manifest(tmp_path / "whole").recipe["grpo"]["minibatches"] == 2


def test_a_step_that_is_rolled_back_is_sampled_anew(problems, tmp_path, monkeypatch):
    """After it the weights differ from those that sampled, so that a batch is not taken from its file."""
    plain, calls = PolicyGradient.read, []

    def broken(self, output_head, hidden, batch):
        loss, logged = plain(self, output_head, hidden, batch)
        calls.append(1)
        return (loss * float("nan") if len(calls) == 6 else loss), logged

    monkeypatch.setattr(PolicyGradient, "read", broken)
    settings = config(train={"on_not_finite": "roll-back", "checkpoint_every_steps": 2})
    counts = run(problems, tmp_path / "out", settings, steps=7, micro_batch_rows=8)
    assert counts["steps"] == 7
    refused = [event["step"] for event in read_events(tmp_path / "out" / "events.jsonl", "refused")]
    assert refused == [6]
    assert all(event["mismatch"] < 1e-5 for event in steps_of(tmp_path / "out"))


def test_dynamic_sampling_draws_until_the_batch_is_full(problems, tmp_path):
    settings = config(dynamic_sampling=True, samples=2, max_draws=8)
    run(problems, tmp_path / "out", settings, steps=3)
    events = steps_of(tmp_path / "out")
    assert all(event["groups"] - event["skipped"] == 4 for event in events)
    assert max(event["groups"] for event in events) > 4


def test_prompts_that_teach_nothing_end_the_run_with_advice(problems, tmp_path):
    write_lines(tmp_path / "hard.jsonl", [row | {"answer": "no such text"} for row in prompts(5, 40)])
    with pytest.raises(InputError, match="none of the first 16 prompts got answers of different worth; 0%") as error:
        grpo(job(tmp_path, tmp_path / "out", model=problems / "base", data="hard.jsonl", steps=1), config())
    assert "fine-tune it first" in error.value.remedy


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "what?"}, "the prompt 'what\\?' has no verifier"),
        ({"prompt": "what?", "answer": "x", "verifier": "nothing"}, "verifier 'nothing' is unknown"),
        ({"prompt": "what?", "answer": "x", "verifier": "number"}, "the prompt 'what\\?': "),
        ({"prompt": "what " * 200, "answer": "4"}, "no row of .* too long"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_before_sampling(problems, tmp_path, row, problem):
    write_lines(tmp_path / "prompts.jsonl", [row])
    with pytest.raises(InputError, match=problem):
        grpo(job(tmp_path, tmp_path / "out", model=problems / "base", data="prompts.jsonl", steps=1), config())


def test_prompts_without_room_for_an_answer_are_left_out(problems, tmp_path):
    rows = [*prompts(6, 6), *({**row, "prompt": row["prompt"] + " file log" * 20} for row in prompts(7, 3))]
    write_lines(tmp_path / "prompts.jsonl", rows)
    keys, said = dict(model=problems / "base", data="prompts.jsonl", steps=1), []
    counts = grpo(job(tmp_path, tmp_path / "out", say=said.append, **keys), config(max_answer_tokens=90))
    assert (counts["prompts"], counts["without_room"]) == (6, 3)
    assert "3 prompts leave no room for an answer of 90 tokens: left out" in said
    with pytest.raises(InputError, match="no prompt leaves room for an answer of 127 tokens"):
        grpo(job(tmp_path, tmp_path / "none", **keys), config(max_answer_tokens=127))


def test_verdicts_come_in_order_by_each_prompts_own_verifier():
    said = [{"role": "user", "content": "what"}]
    number = {"prompt": said, "verifier": "number", "answer": "4"}
    tests = {"prompt": said, "verifier": "tests", "tests": ["assert f() == 3"], "options": {"workers": 2}}
    with Judge() as judge:
        judge.check([number, tests])
        answers = [Judged(number, "so 4"), Judged(tests, "def f(): return 3"), Judged(number, "5")]
        assert [verdict.passed for verdict in judge.verdicts(answers)] == [True, True, False]


def test_a_function_that_prompts_name_is_called_only_if_the_settings_name_it_too():
    asked = {"prompt": [{"role": "user", "content": "what"}], "verifier": "tests.align.checkable:has", "answer": "a"}
    with Judge(["tests.align.checkable:has"]) as judge:
        assert judge.verdicts([Judged(asked, "banana")])[0].passed
    with Judge() as judge, pytest.raises(InputError, match="would run on this machine"):
        judge.check([asked])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(train={"prefetch_steps": 2}), "prefetch_steps must be 0"),
        (dict(max_answer_tokens=128), "leaves no room for a prompt"),
        (dict(minibatches=5), "do not divide into 5"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        config(**changes)
    assert isinstance(config(), GrpoConfig)
    assert config().train.prefetch_steps == 0


def test_defaults_follow_the_size_of_the_model():
    def defaults(shape, given=None, *, lora=False):
        return settings(GrpoConfig, "grpo", shape, given or {}, lora=lora, source="here")

    small = small_model().config
    large = small.model_copy(update=dict(vocab_size=128_256, dim=4096, layers=32, ffn_dim=14_336, max_seq_len=8192))
    assert (defaults(small).seq_len, defaults(small).max_answer_tokens) == (256, 128)
    assert (defaults(large).seq_len, defaults(large).max_answer_tokens) == (2048, 512)
    assert defaults(small, {"seq_len": 64}).max_answer_tokens == 32
    assert (defaults(small).prompts_per_step, defaults(large).prompts_per_step) == (16, 64)
    rates = [defaults(shape, lora=lora).train.peak_lr for shape in (small, large) for lora in (False, True)]
    assert rates == pytest.approx([1e-5, 1e-4, 1e-6, 1e-5])
    assert defaults(small).train.decay == "constant"
    with pytest.raises(InputError, match="here"):
        defaults(small, {"sample": 4})


def test_adapters_are_merged_on_their_way_to_the_engine():
    model = small_model(attention_bias=True)
    add_lora(model, 2, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    given = dict(merged_weights(model.named_parameters(), lora_of(model)))
    merged = dict(merge_lora(model).named_parameters())
    assert given.keys() == merged.keys()
    assert all(torch.equal(given[name], merged[name]) for name in merged)
