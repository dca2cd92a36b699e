"""Evaluations of small models: likelihoods by a plain forward pass, records, resumption, and the command."""

import fcntl
import json
import os

import pytest
import torch
from typer.testing import CliRunner

from herdlm.base.errors import DamagedError, InputError
from herdlm.cli.app import app
from herdlm.evaluate.local import EngineOptions, LocalModel
from herdlm.evaluate.records import Records
from herdlm.evaluate.requests import Question, ScoreRequest
from herdlm.model.attention import DocumentAttention
from tests.conftest import small_model
from tests.evaluate.evaluating import CHOICE, ROWS, result_of, task_of, write_folder, write_rows


@pytest.fixture(scope="module")
def weights():
    return small_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights, tokenizer):
    return write_folder(tmp_path_factory.mktemp("models") / "small", weights, tokenizer)


@pytest.fixture(scope="module")
def model(folder):
    return LocalModel(folder, EngineOptions(dtype="float32"))


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "data" / "items.jsonl", ROWS).parent


def plain_logprob(weights, tokens, count):
    """The log-probability of the last ``count`` tokens."""
    row = torch.tensor([tokens])
    with torch.no_grad():
        hidden = weights(row, torch.arange(len(tokens))[None], DocumentAttention(torch.zeros_like(row)))
        logprobs = weights.logits(hidden)[0].log_softmax(-1)[-count - 1 : -1]
    return logprobs.gather(1, row[0, -count:, None]).sum().item()


def test_choices_are_scored_as_a_plain_forward_pass_scores_them(model, weights, tokenizer, data, tmp_path):
    result = result_of(model, task_of(CHOICE), data, tmp_path / "out")
    right = {"acc": 0, "acc_norm": 0, "acc_bytes": 0}
    for row, record in zip(ROWS, result.records, strict=True):
        context = f"{row['q']}\nAnswer:"
        sums = []
        for option in row["options"]:
            before = [*tokenizer.begin, *tokenizer.encode(context)]
            whole = [*tokenizer.begin, *tokenizer.encode(f"{context} {option}")]
            sums.append(plain_logprob(weights, whole, len(whole) - len(before)))
        assert record["logprobs"] == pytest.approx(sums, abs=1e-4)
        assert record["prompt"] == context
        by = {
            "acc": sums,
            "acc_norm": [s / len(o) for s, o in zip(sums, row["options"], strict=True)],
            "acc_bytes": [s / len(o.encode()) for s, o in zip(sums, row["options"], strict=True)],
        }
        for metric, values in by.items():
            passed = values.index(max(values)) == row["right"]
            assert record["values"][metric] == passed
            right[metric] += passed
    assert {name: found.value for name, found in result.figures.items()} == {
        name: count / len(ROWS) for name, count in right.items()
    }


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(model, weights, tokenizer):
    scored = model.score([ScoreRequest(Question("The disk  "), "is full")])[0]
    before, whole = (tokenizer.encode(text) for text in ("The disk", "The disk  is full"))
    expected = plain_logprob(weights, [*tokenizer.begin, *whole], len(whole) - len(before))
    assert scored.logprob == pytest.approx(expected, abs=1e-4)


def test_a_begin_token_in_the_text_is_not_doubled(model, tokenizer):
    name = tokenizer.backend.id_to_token(tokenizer.begin[0])
    plain, marked = model.score([ScoreRequest(Question(text), " is full") for text in ("The disk", f"{name}The disk")])
    assert plain == marked


def test_a_context_that_is_too_long_loses_its_beginning(model, weights, tokenizer):
    text = "The disk is full. " * 200
    scored = model.score([ScoreRequest(Question(text), "The service stops")])[0]
    whole = [*tokenizer.begin, *tokenizer.encode(text + "The service stops")]
    assert scored.cut == len(whole) - 257  # the last token is scored, but takes no place
    assert scored.logprob == pytest.approx(plain_logprob(weights, whole[-257:], len(scored.logprobs)), abs=1e-4)


def test_each_token_of_a_long_text_is_scored_once(model, weights, tokenizer):
    text = "Each server keeps a log of 1,234 files. " * 40
    tokens = tokenizer.encode(text)
    assert len(tokens) > 512
    logprobs = model.score_text(text)
    assert len(logprobs) == len(tokens)
    first = [*tokenizer.begin, *tokens[:200]]
    assert sum(logprobs[:200]) == pytest.approx(plain_logprob(weights, first, 200), abs=1e-3)
    assert sum(logprobs[-5:]) == pytest.approx(plain_logprob(weights, tokens[-257:], 5), abs=1e-3)


class Dying:
    """A model that is killed after some items."""

    def __init__(self, model, items):
        self._model, self._left = model, items

    def __getattr__(self, name):
        return getattr(self._model, name)

    def score(self, requests):
        if self._left < 1:
            raise KeyboardInterrupt
        self._left -= 1
        return self._model.score(requests)


def test_a_killed_evaluation_goes_on_where_it_stopped(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("herdlm.evaluate.kinds.Choice.window", 2)
    task = task_of(CHOICE)
    whole = result_of(model, task, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        result_of(Dying(model, 2), task, data, tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"id": 4, "prom')
    resumed = result_of(Dying(model, 1), task, data, tmp_path / "out")  # the last window alone
    assert resumed.records == whole.records
    again = result_of(Dying(model, 0), task, data, tmp_path / "out")  # nothing is asked
    assert again.to_json() == whole.to_json()
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines[1:]] == [0, 1, 2, 3, 4]


def test_other_settings_tasks_and_data_are_asked_anew(model, data, tmp_path):
    out = tmp_path / "out"
    result_of(model, task_of(CHOICE), data, out)
    changed = CHOICE | {"prompt": CHOICE["prompt"] | {"separator": "\n"}}
    result_of(model, task_of(changed), data, out)
    write_rows(data / "items.jsonl", ROWS[:3])
    result_of(model, task_of(CHOICE), data, out)
    result_of(model, task_of(CHOICE), data, out, shots=1)
    assert len(list(out.rglob("*.jsonl"))) == 4


def test_a_limit_takes_the_first_items_and_more_items_continue_it(model, data, tmp_path):
    few = result_of(model, task_of(CHOICE), data, tmp_path / "out", limit=2)
    assert [record["id"] for record in few.records] == [0, 1]
    rest = result_of(Dying(model, 1), task_of(CHOICE), data, tmp_path / "out")
    assert (rest.n, rest.records[:2]) == (5, few.records)


def test_damaged_records_are_refused(model, data, tmp_path):
    result = result_of(model, task_of(CHOICE), data, tmp_path / "out")
    result.file.write_text(result.file.read_text(encoding="utf-8").replace('"id": 1', '"id" 1'), encoding="utf-8")
    with pytest.raises(DamagedError, match="evaluate again"):
        result_of(model, task_of(CHOICE), data, tmp_path / "out")


def test_examples_stand_before_the_question_and_are_never_the_question(model, data, tmp_path):
    result = result_of(model, task_of(CHOICE), data, tmp_path / "out", shots=2)
    first, second = (f"{row['q']}\nAnswer: {row['options'][row['right']]}\n\n" for row in ROWS[:2])
    third = f"{ROWS[2]['q']}\nAnswer: {ROWS[2]['options'][0]}\n\n"
    assert result.records[3]["prompt"] == f"{first}{second}What stops? \nAnswer:"
    assert result.records[0]["prompt"] == f"{second}{third}{ROWS[0]['q']}\nAnswer:"


def test_examples_may_be_drawn_for_each_item(model, data, tmp_path):
    task = task_of(CHOICE | {"shots": {"count": 1, "pick": "random"}})
    prompts = [
        [r["prompt"] for r in result_of(model, task, data, tmp_path / str(seed), seed=seed).records]
        for seed in (1, 1, 2)
    ]
    assert prompts[0] == prompts[1] != prompts[2]


ANSWERS = CHOICE | {
    "kind": "answer",
    "metrics": [],
    "prompt": {"text": "{{ q }}"},
    "sampling": {"max_tokens": 12, "temperature": 1.0, "samples": 3},
    "judge": {"acc": {"verifier": "length", "options": {"max": 20, "unit": "characters"}}},
}


def test_generated_answers_depend_on_the_seed_alone(model, data, tmp_path):
    whole, again, other = (
        result_of(model, task_of(ANSWERS), data, tmp_path / name, seed=seed, limit=limit)
        for name, seed, limit in (("a", 1, None), ("b", 1, 2), ("c", 2, None))
    )
    assert [r["answers"] for r in whole.records[:2]] == [r["answers"] for r in again.records]
    assert [r["answers"] for r in whole.records] != [r["answers"] for r in other.records]
    for record in whole.records:
        assert len(record["answers"]) == len(record["logprobs"]) == 3
        assert record["values"]["acc"] == pytest.approx(sum(len(answer) <= 20 for answer in record["answers"]) / 3)


def test_a_chat_task_is_asked_in_the_models_template(model, data, tmp_path, tokenizer):
    result = result_of(model, task_of(ANSWERS | {"chat": True}), data, tmp_path / "out")
    assert result.records[0]["prompt"] == f"[user] {ROWS[0]['q']}"
    assert result.head["chat"] is True
    assert result_of(model, task_of(ANSWERS | {"chat": True}), data, tmp_path / "out", chat=False).head["chat"] is False


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def arc(tmp_path):
    rows = [
        {"query": f"Question: {row['q']}", "choices": row["options"], "gold": row["right"]} for row in ROWS if row["q"]
    ]
    return write_rows(tmp_path / "data" / "arc-easy.jsonl", rows).parent


def test_the_command_prints_figures_as_json(folder, arc, tmp_path):
    shown = run(folder, "--tasks", "arc_easy", "--data", arc, "--out", tmp_path / "out", "--json", "--limit", 3)
    assert shown.exit_code == 0, shown.output
    value = json.loads(shown.stdout)
    assert value["tasks"]["arc_easy"]["n"] == 3
    for metric in ("acc", "acc_norm"):
        found = value["tasks"]["arc_easy"][metric]
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    stored = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert stored["models"] == [value]
    assert stored["settings"]["limit"] == 3


def test_the_command_compares_further_models_with_the_first(folder, arc, tmp_path, tokenizer):
    other = write_folder(tmp_path / "other", small_model(seed=1), tokenizer)
    shown = run(folder, other, "--tasks", "arc_easy", "--data", arc, "--out", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    assert "small" in shown.stdout.splitlines()[0]
    assert "other" in shown.stdout.splitlines()[0]
    assert "no difference of other and small is shown" in shown.stdout
    stored = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {comparison["metric"] for comparison in stored["comparisons"]} == {"acc", "acc_norm"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("arc_eesy", "there is no task 'arc_eesy'"),
        ("piqa", "PIQA's validation split"),
        ("missing.toml", "missing.toml does not exist"),
        ("arc_easy,arc_easy", "name one twice"),
    ],
)
def test_a_task_that_cannot_be_read_is_refused_before_anything_is_asked(folder, arc, tmp_path, tasks, message):
    shown = run(folder, "--tasks", tasks, "--data", arc, "--out", tmp_path / "out")
    assert isinstance(shown.exception, InputError)
    assert message in str(shown.exception)
    assert not (tmp_path / "out").exists()


def test_an_item_without_a_column_is_refused_by_file_and_line(model, tmp_path):
    path = write_rows(tmp_path / "items.jsonl", [ROWS[0], {"q": "What?", "options": ["a", "b"]}])
    with pytest.raises(InputError, match=r"items.jsonl, line 2: task made_up, prompt.answer is undefined"):
        result_of(model, task_of(CHOICE), path, tmp_path / "out")


SEPARATORS = "one\x85two\u2028three\u2029four\x0bfive"


def test_records_with_any_character_are_read_again(tmp_path):
    head = {"model": "made"}
    Records(tmp_path, "task", head).add({"id": 0, "answer": SEPARATORS, "half": "\ud83d"})
    again = Records(tmp_path, "task", head)
    assert again.found == {0: {"id": 0, "answer": SEPARATORS, "half": "\ud83d"}}


def test_only_settings_that_decide_results_have_a_task_computed_again(model, data, tmp_path):
    def files(task, **settings):
        return result_of(model, task, data, tmp_path / "out", **settings).file

    choice, answers = task_of(CHOICE, "choices"), task_of(ANSWERS, "answers")
    drawn = task_of(CHOICE | {"shots": {"count": 1, "pick": "random"}}, "drawn")
    assert files(choice) == files(choice, samples=3, max_tokens=5, seed=7, shots=0)
    assert files(choice) != files(choice, shots=1)
    assert files(drawn) != files(drawn, seed=7)
    own = answers.config.sampling
    assert files(answers) == files(answers, samples=own.samples, max_tokens=own.max_tokens)
    assert files(answers) != files(answers, max_tokens=own.max_tokens + 1)


def test_no_two_processes_evaluate_into_a_folder(folder, arc, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    shown = run(folder, "--tasks", "arc_easy", "--data", arc, "--out", out)
    os.close(held)
    assert isinstance(shown.exception, InputError)
    assert "another process is writing" in str(shown.exception)
    assert run(folder, "--tasks", "arc_easy", "--data", arc, "--out", out).exit_code == 0


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_is_a_file_is_refused(folder, arc, tmp_path, place):
    (tmp_path / "file").write_text("x")
    shown = run(folder, "--tasks", "arc_easy", "--data", arc, "--out", tmp_path / place)
    assert isinstance(shown.exception, InputError)
    assert f"--out {tmp_path / place} is not a folder" in str(shown.exception)


def test_a_missing_model_is_refused_before_another_is_asked(folder, arc, tmp_path):
    shown = run(folder, tmp_path / "nowhere", "--tasks", "arc_easy", "--data", arc, "--out", tmp_path / "out")
    assert "nowhere does not exist" in str(shown.exception)
    assert not (tmp_path / "out").exists()
    shown = run(folder, "--tasks", ",", "--data", arc, "--out", tmp_path / "out")
    assert "no task is named" in str(shown.exception)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_reported_with_the_records_file(tmp_path):
    records = Records(tmp_path, "task", {"model": "made"})
    records.path.unlink()
    records.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        records.add({"id": 0})
    assert caught.value.filename == str(records.path)


def test_a_change_of_an_own_verifier_has_answers_judged_again(model, data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "own_verdicts_of_a_test.py"
    code.write_text("def verdict(answer, reference):\n    return True\n", encoding="utf-8")
    judge = {"verifier": "own_verdicts_of_a_test:verdict"}
    task = task_of(ANSWERS | {"judge": {"acc": judge}})
    first, again = (result_of(model, task, data, tmp_path / "out", limit=1) for _ in range(2))
    assert first.file == again.file and list(first.head["code"]) == [judge["verifier"]]
    code.write_text("def verdict(answer, reference):\n    return False\n", encoding="utf-8")
    assert result_of(model, task, data, tmp_path / "out", limit=1).file != first.file


def test_several_answers_need_a_temperature(model, data, tmp_path):
    greedy = task_of(ANSWERS | {"sampling": {"max_tokens": 6}})
    with pytest.raises(InputError, match="3 answers at temperature 0 are all the same. Give --temperature"):
        result_of(model, greedy, data, tmp_path / "out", samples=3)
    one = result_of(model, greedy, data, tmp_path / "out", limit=1)
    drawn = result_of(model, greedy, data, tmp_path / "out", samples=8, temperature=2.0, limit=1)
    assert len(set(drawn.records[0]["answers"])) > 1
    assert len(one.records[0]["answers"]) == 1 and one.head["temperature"] == 0 and drawn.head["temperature"] == 2.0
    assert result_of(model, task_of(CHOICE), data, tmp_path / "out", samples=3, limit=1).head["temperature"] is None


def test_the_cache_has_pages_that_suit_the_tasks(folder, arc, tmp_path, monkeypatch):
    pages = []

    class Seen(LocalModel):
        def __init__(self, path, options):
            super().__init__(path, options)
            pages.append(self.engines.engine.pool.page_size)

    monkeypatch.setattr("herdlm.evaluate.publish.LocalModel", Seen)
    (arc / "xstest-prompts.csv").write_text("prompt,label\nHow do I boil water?,safe\n", encoding="utf-8")
    for tasks in ("xstest", "xstest,arc_easy"):
        shown = run(folder, "--tasks", tasks, "--data", arc, "--out", tmp_path / tasks, "--max-tokens", 4, "--quiet")
        assert shown.exit_code == 0, shown.output
    assert pages == [16, 1]
