"""Judges that are models: a scripted server rates answers, and a tiny model judges badly but is asked rightly."""

import json
import re
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.model_judge import Judged, ModelJudge
from herdlm.evaluate.publish import evaluate_models
from herdlm.evaluate.remote import RemoteModel, RemoteOptions
from herdlm.evaluate.requests import Answer, Question
from tests.curate.grade.badly_behaved import Reply, says, server
from tests.serve.conftest import write_model

FAST = RemoteOptions(first_wait=0.01, tries=2, concurrency=8)


class Scripted:
    """A judge that says what a function of the prompt returns, and counts how often it is asked."""

    name, fingerprint, chats, context, width = "judge", "scripted", True, 4096, 1

    def __init__(self, say):
        self.say, self.calls, self.prompts = say, 0, []

    def answer(self, requests):
        self.calls += 1
        self.prompts += [request.question.messages[0]["content"] for request in requests]
        for number in reversed(range(len(requests))):
            text = self.say(requests[number].question.messages[0]["content"])
            yield number, [Answer(text, 1, None, "stop")]


def judged(question, *samples, **row):
    return Judged(row, Question(messages=({"role": "system", "content": "s"}, *question)), samples)


def user(text):
    return {"role": "user", "content": text}


def test_all_answers_are_rated_in_one_round_and_each_gets_its_own_rating():
    model = Scripted(lambda prompt: f"Well [[1]]. Rating: [[{prompt[-1]}]]")
    judge = ModelJudge({"prompt": "{{ topic }}: {{ question }} -> {{ answer }}", "scale": 10, "passing": 5}, "t", model)
    items = [judged([user(f"q{i}")], [f"a{i}"], [f"b{9 - i}"], topic=f"t{i}") for i in range(10)]
    verdicts = judge.verdicts(items)
    assert model.calls == 1
    assert sorted(model.prompts)[:2] == ["t0: q0 -> a0", "t0: q0 -> b9"]
    assert [[v.details["ratings"] for v in each] for each in verdicts] == [[[i], [9 - i]] for i in range(10)]
    assert [[v.passed for v in each] for each in verdicts] == [[i >= 5, 9 - i >= 5] for i in range(10)]
    assert judge.metrics("rating", verdicts[2]) == {"rating": pytest.approx(0.45)}


def test_each_turn_is_rated_with_what_came_before_it():
    model = Scripted(lambda prompt: f"[[{prompt.count('/')}]]")
    options = {
        "prompt": "{% for turn in turns %}{{ turn.question }}/{{ turn.answer }} {% endfor %}|{{ answer }}",
        "scale": 4,
        "each_turn": True,
    }
    judge = ModelJudge(options, "t", model)
    dialog = [user("one"), {"role": "assistant", "content": "1"}, user("two")]
    ((verdict,),) = judge.verdicts([judged(dialog, ["1", "2"])])
    assert sorted(model.prompts) == ["one/1 two/2 |2", "one/1 |1"]
    assert verdict.details["ratings"] == [1.0, 2.0]
    assert judge.metrics("r", [verdict]) == {"r": 0.375, "r_turn_1": 0.25, "r_turn_2": 0.5}


def test_an_answer_without_a_rating_on_the_scale_counts_in_no_mean():
    said = {"a": "I cannot say", "b": "[[11]]", "c": "[[ 7 ]] [[8]]"}
    judge = ModelJudge({"prompt": "{{ answer }}", "scale": 10}, "t", Scripted(said.__getitem__))
    verdicts = [each[0] for each in judge.verdicts([judged([user("q")], [answer]) for answer in "abc"])]
    assert [v.details["ratings"] for v in verdicts] == [[None], [None], [8.0]]
    assert [v.reason for v in verdicts] == ["the judge gives no rating"] * 2 + ["rated too low"]
    assert judge.metrics("r", verdicts[:1]) == {}
    assert judge.metrics("r", verdicts) == {"r": 0.8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 10}, "prompt"),
        ({"prompt": "x"}, "scale"),
        ({"prompt": "x", "scale": 1, "pattern": "[0-9]+"}, "group"),
        ({"prompt": "x", "scale": 1, "pattern": "("}, "regular expression"),
        ({"prompt": "{% if %}", "scale": 1}, "Jinja"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ModelJudge(options, "task t, judge.r", Scripted(str))


QUESTIONS = [
    {"question_id": 81 + i, "category": ["writing", "math"][i % 2], "turns": [f"Say the number {i}.", "And the next?"]}
    for i in range(6)
] + [{"question_id": 99, "category": "math", "turns": ["What is 2 + 2?", "And 3 + 3?"], "reference": ["four", "six"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    return write_model(tmp_path_factory.mktemp("models") / "flagship", tokenizer)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


def run(models, data, out, judge, **settings):
    options = {"settings": Settings(**settings), "options": EngineOptions(), "remote": FAST, "quiet": True}
    return evaluate_models(models, ["mt_bench"], [data], out, judge=judge, **options)


def test_mt_bench_asks_two_turns_and_has_both_rated_by_a_server(data, tmp_path):
    """The answering model counts its turns; the judge rates the first 8 and the second 4."""

    def answer(request):
        if request.path.endswith("/models"):
            return Reply({"data": [{"id": "answering"}, {"id": "judge"}]})
        text = request.question
        if request.body["model"] == "judge":
            return says(f"Fine. Rating: [[{8 if 'conversation so far' not in text else 4}]]")
        said = [message for message in request.body["messages"] if message["role"] == "assistant"]
        return says(f"answer {len(said) + 1} to {text}")

    with server(answer) as at:
        found = run([f"{at.address}#answering"], data, tmp_path / "out", f"{at.address}#judge")
        (result,) = found["answering"]
        prompts = [r.question for r in at.requests if r.body.get("model") == "judge" and r.body["max_tokens"] > 1]
        asked = len(at.requests)
        run([f"{at.address}#answering"], data, tmp_path / "out", f"{at.address}#judge")
        assert len(at.requests) <= asked + 4  # the lists of models and probes of chats; no item again
    assert result.n == 7
    assert {name: figure.value for name, figure in result.figures.items()} == pytest.approx(
        {"rating": 0.6, "rating_turn_1": 0.8, "rating_turn_2": 0.4}
    )
    assert set(result.groups) == {"writing", "math"}
    assert result.head["judge"].endswith("model judge")
    assert len(prompts) == 14
    (second,) = [p for p in prompts if "<reference>" in p and "conversation so far" in p]
    order = ["What is 2 + 2?", "answer 1 to What is 2 + 2?", "And 3 + 3?", "six", "answer 2 to And 3 + 3?"]
    assert [second.index(text) for text in order] == sorted(second.index(text) for text in order)
    assert "four" not in second
    assert all(("answer 2" in p) == ("conversation so far" in p) for p in prompts)
    record = result.records[0]
    assert record["details"]["rating"][0]["ratings"] == [8.0, 4.0]
    assert record["passed"] is True


def test_a_model_folder_judges_answers_of_a_model_folder(folder, data, tmp_path):
    found = run([str(folder)], data, tmp_path / "out", str(folder), limit=2, max_tokens=8)
    (result,) = found["flagship"]
    assert [len(record["details"]["rating"][0]["judge"]) for record in result.records] == [2, 2]
    assert {record["reason"] for record in result.records} == {"the judge gives no rating"}
    assert result.figures == {}


def test_a_task_that_a_model_judges_is_refused_without_one(folder, data, tmp_path):
    with pytest.raises(InputError, match=r"judges the answers to mt_bench.*--judge"):
        run([str(folder)], data, tmp_path / "out", None)
    task = tmp_path / "plain.toml"
    task.write_text(
        'title = ""\nabout = ""\nkind = "answer"\n[items]\nfiles = ["question.jsonl"]\nsource = ""\n'
        '[judge.acc]\nverifier = "exact"\nreference = "category"\n'
    )
    with pytest.raises(InputError, match="none of the tasks asks a model"):
        options = {"settings": Settings(), "options": EngineOptions(), "judge": str(folder)}
        evaluate_models([str(folder)], [str(task)], [data], tmp_path / "out", **options)
    assert not list(Path(tmp_path).glob("out/**/*.jsonl"))


def test_the_judge_of_a_remote_model_is_asked_in_a_chat_only_if_it_has_one():
    def answer(request):
        if request.path.endswith("/models"):
            return Reply({"data": [{"id": "base"}]})
        if request.path.endswith("/chat/completions"):
            return Reply({"error": {"message": "no template"}}, 400)
        found = re.fullmatch("rate (.)", request.body["prompt"])
        return Reply({"choices": [{"text": f"[[{found[1]}]]"}]})

    with server(answer) as at:
        model = RemoteModel(at.address, FAST)
        judge = ModelJudge({"prompt": "rate {{ answer }}", "scale": 5}, "t", model)
        assert [v[0].score for v in judge.verdicts([judged([user("q")], [a]) for a in "135"])] == [0.2, 0.6, 1.0]
        model.close()
