"""herdlm judge on samples: each kind of judge, what it all comes to, resuming, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from herdlm.align.reward import sequence_scores
from herdlm.align.samples.judge import JudgeOptions, judge_rows, parse_by
from herdlm.align.samples.rubric import BUILT_IN, load_rubric, marking, marks
from herdlm.align.samples.summary import summarize
from herdlm.base.errors import InputError
from herdlm.base.ledger import Ledger
from herdlm.cli.app import app
from herdlm.evaluate.remote import RemoteOptions
from herdlm.model.hf import load_folder
from herdlm.tokens.chat_format import ChatFormat
from tests.align.samples.conftest import lines, sampled, write
from tests.curate.grade.badly_behaved import Reply, server

RUBRIC = """
about = "The user is a child."
[[criteria]]
name = "right"
points = 3
text = "The result is right."
[[criteria]]
name = "kind"
points = 2
text = "It is friendly."
[tasks]
code = [{ name = "runs", points = 1, text = "It runs." }]
"""


def run(*arguments):
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def judged(rows, *by, work, **options):
    return judge_rows(
        rows, parse_by(by), JudgeOptions(**options), work, remote=RemoteOptions(first_wait=0.01), quiet=True
    )


def test_each_row_is_judged_by_its_own_verifier_with_its_reference_and_options(tmp_path):
    rows = [
        sampled(["It is 4.", "5"], verifier="number", answer="4"),
        sampled(["4.2", "4"], id="b", verifier="number", options={"tolerance": 0.5}, reference=4),
        sampled(
            ["Moo", "Moo, moo"],
            id="c",
            verifier="ifeval",
            instruction_id_list=["punctuation:no_comma"],
            kwargs=[{}],
            task="words",
        ),
        sampled(["moo"], id="d", task="words"),
    ]
    out = tmp_path / "out.jsonl"
    done = run(write(tmp_path / "s.jsonl", rows), "--by", "verifier", "--out", out, "--json")
    assert done.exit_code == 0, done.exception
    found = lines(out)
    assert [[s["verdict"]["passed"] for s in row["samples"]] for row in found[:3]] == [
        [True, False],
        [True, True],
        [True, False],
    ]
    assert found[0]["samples"][0]["verdict"]["details"] == {"found": "4", "expected": "4"}
    assert "verdict" not in found[3]["samples"][0]
    summary = json.loads(done.output)
    assert summary["without_verifier"] == 1
    assert (summary["pass_rate"]["samples"], summary["pass_rate"]["value"]) == (6, pytest.approx(4 / 6))
    assert summary["pass_rate"]["by_task"]["sums"]["value"] == 0.75
    assert summary["pass_rate"]["by_model"].keys() == {"m"}
    assert summary["any_of"]["1"]["value"] == pytest.approx(4 / 6)
    assert summary["any_of"]["2"]["value"] == 1
    text = run(tmp_path / "s.jsonl", "--by", "verifier", "--out", tmp_path / "again.jsonl").output
    assert "1 prompts have no verifier" in text
    assert "any of 2" in text


def test_programs_run_in_the_sandbox_and_rows_do_not_say_where(tmp_path):
    rows = [
        sampled(
            ["```python\ndef f():\n    return 1\n```", "def f(): return 2"], verifier="tests", tests=["assert f() == 1"]
        )
    ]
    found = judged(rows, "verifier", work=tmp_path / "w").rows
    assert [s["verdict"]["passed"] for s in found[0]["samples"]] == [True, False]
    rows[0]["options"] = {"isolation": "none"}
    with pytest.raises(InputError, match="does not say where code runs"):
        judged(rows, "verifier", work=tmp_path / "w")


def test_functions_of_the_users_own_run_only_if_the_user_names_them(tmp_path):
    file = write(tmp_path / "s.jsonl", [sampled(["4"], verifier="operator:eq", answer="4")])
    refused = run(file, "--by", "verifier", "--out", tmp_path / "o.jsonl")
    assert "row 1 (id a), key verifier: operator:eq is a function" in str(refused.exception)
    for number, allowed in enumerate((("--by", "verifier", "--own", "operator:eq"), ("--by", "verifier:operator:eq"))):
        done = run(file, *allowed, "--out", tmp_path / f"{number}.jsonl")
        assert done.exit_code == 0, done.exception
        assert lines(tmp_path / f"{number}.jsonl")[0]["samples"][0]["verdict"]["passed"]


def test_a_reward_model_scores_each_answer_behind_its_prompt(models, tmp_path):
    rows = [sampled(["moo", "a cow", "moo"]), sampled(["moo " * 300], id="b")]
    rows[0]["samples"][1]["system"] = "Be kind."
    found = judged(rows, f"reward:{models / 'reward'}", work=tmp_path)
    format, model = ChatFormat.load(models / "reward"), load_folder(models / "reward", "cpu")
    asked = [{"role": "user", "content": "What is 2 and 2?"}]
    dialogs = [
        [*asked, {"role": "assistant", "content": "moo"}],
        [{"role": "system", "content": "Be kind."}, *asked, {"role": "assistant", "content": "a cow"}],
    ]
    expected = sequence_scores(model, [format.render(d, first=len(d)).tokens for d in dialogs], title="", quiet=True)
    rewards = [s["reward"] for s in found.rows[0]["samples"]]
    assert rewards[:2] == pytest.approx(expected, abs=1e-5)
    assert rewards[2] == rewards[0]
    assert found.rows[1]["samples"][0]["reward"] is None
    assert found.summary["too_long_for_reward"] == 1
    assert found.summary["reward"]["samples"] == 3
    with pytest.raises(InputError, match="gives no scores"):
        judged(rows, f"reward:{models / 'first'}", work=tmp_path)


def says(text):
    """A server whose model replies ``text(question)``."""

    def answer(request):
        if request.path.endswith("/models"):
            return Reply(body={"data": [{"id": "judge"}]})
        if not request.path.endswith("/chat/completions"):
            return Reply(status=404)
        return Reply(body={"choices": [{"message": {"content": text(request.question)}, "finish_reason": "stop"}]})

    return server(answer)


def test_a_model_gives_points_in_both_orders_and_its_agreement_is_reported(tmp_path):
    def reply(question):
        if "moo" in question:
            return "Good.\noverall: 5"
        if "a cow" in question:
            return "So so.\n**Overall:** 2" if "0 to 5" in question else "Well.\noverall: 3"
        return "I cannot say; overall: 9"

    rows = [sampled(["moo", "a cow", "nothing"])]
    with says(reply) as running:
        found = judged(rows, f"model:{running.address}", work=tmp_path)
        asked = len(running.requests)
        assert judged(rows, f"model:{running.address}", work=tmp_path) == found
        assert len([r for r in running.requests[asked:] if "Mark" in str(r.body)]) == 0
    first, second, third = found.rows[0]["samples"]
    assert {key: first["judge"][key] for key in ("score", "best", "agrees", "by")} == {
        "score": 5.0,
        "best": 5.0,
        "agrees": True,
        "by": "judge",
    }
    assert (second["judge"]["score"], second["judge"]["agrees"]) == (2.5, False)
    assert "judge" not in third
    assert found.summary["asked"] == {"asked": 3, "read": 2, "both": 2, "agree": 1, "tied": 0, "too_long": 0}
    assert found.summary["agreement"]["value"] == 0.5
    assert found.summary["judge"]["value"] == 0.75


def test_a_model_compares_pairs_and_a_preference_for_a_place_is_a_tie(tmp_path):
    def reply(question):
        if "Answer A:" not in question:  # the client finds out whether the server has chats
            return ""
        first, second = question.split("Answer A:")[1].split("Answer B:")
        if "best" in first + second:
            return "Better: A" if "best" in first else "Better: B"
        return "Better: A"  # whatever comes first

    rows = [sampled(["best", "one", "two", "one"])]
    with says(reply) as running:
        found = judged(rows, f"model:{running.address}", work=tmp_path, pairwise=True)
    best, one, two, again = (s["judge"] for s in found.rows[0]["samples"])
    assert (best["score"], best["won"], best["agrees"]) == (1.0, 2, True)
    assert (one["won"], one["tied"], one["lost"], one["score"]) == (0, 1, 1, 0.25)
    assert not one["agrees"]
    assert (two["score"], again) == (0.25, one)
    assert found.summary["asked"] == {"asked": 3, "read": 3, "both": 3, "agree": 2, "tied": 1, "too_long": 0}


def test_a_rubric_gives_points_by_criterion_and_by_task(tmp_path):
    file = tmp_path / "rubric.toml"
    file.write_text(RUBRIC)
    rubric = load_rubric(file)
    row = sampled(["x"], answer="4")
    forth, back = (marking(rubric, row, "x", reverse=reverse) for reverse in (False, True))
    assert forth.index("right (0 to 3") < forth.index("kind (0 to 2")
    assert back.index("kind (2 to 0") < back.index("right (3 to 0")
    assert "The user is a child." in forth
    assert "The right result is: 4" in forth
    assert marks(rubric, "sums", "right: 2.5\n- Kind: 1/2") == {"right": 2.5, "kind": 1.0}
    assert marks(rubric, "sums", "right: 4\nkind: 1") is None
    assert marks(rubric, "sums", "right: 1") is None
    assert marks(rubric, "code", "runs: 1") == {"runs": 1.0}
    assert marks(BUILT_IN, None, "overall: -1") is None
    with says(lambda question: "right: 3\nkind: 1\nruns: 0") as running:
        found = judged(
            [row, sampled(["y"], id="b", task="code")], f"rubric:{file}", work=tmp_path, judge=running.address
        )
    scores = [(r["samples"][0]["judge"]["score"], r["samples"][0]["judge"]["best"]) for r in found.rows]
    assert scores == [(4.0, 5.0), (0.0, 1.0)]


def test_a_folder_may_judge_and_what_cannot_be_read_is_counted(models, tmp_path):
    out = tmp_path / "o.jsonl"
    file = write(tmp_path / "s.jsonl", [sampled(["moo", "a cow"])])
    more = ("--max-tokens", "4", "--quiet")
    rubric = tmp_path / "rubric.toml"
    rubric.write_text('[[criteria]]\nname = "a"\npoints = 1\ntext = "b"')
    done = run(file, "--by", f"rubric:{rubric}", "--judge", models / "first", "--out", out, *more)
    assert done.exit_code == 0, done.exception
    assert "too long" in done.output
    assert all("judge" not in sample for sample in lines(out)[0]["samples"])
    assert not list(tmp_path.glob(".*"))


def test_judging_resumes_where_it_was_killed(models, tmp_path, monkeypatch):
    rows = [sampled(["moo", f"cow {n}"], id=str(n)) for n in range(20)]
    whole = judged(rows, f"reward:{models / 'reward'}", work=tmp_path / "a")

    class Killed(BaseException):
        pass

    plain, added = Ledger.add, []

    def add(ledger, key, value):
        if added:
            raise Killed
        added.append(key)
        plain(ledger, key, value)

    monkeypatch.setattr(Ledger, "add", add)
    with pytest.raises(Killed):
        judged(rows, f"reward:{models / 'reward'}", work=tmp_path / "b")
    monkeypatch.setattr(Ledger, "add", lambda ledger, key, value: (added.append(key), plain(ledger, key, value)))
    assert judged(rows, f"reward:{models / 'reward'}", work=tmp_path / "b") == whole
    assert len(added) == len(set(added)) == 2


def test_intervals_take_the_answers_to_a_prompt_as_one_draw():
    def verdict(passed):
        return {"passed": passed, "score": float(passed), "reason": "", "details": {}}

    rows = [sampled(["x"] * 8, id=str(n)) for n in range(20)]
    for number, row in enumerate(rows):
        for sample in row["samples"]:
            sample["verdict"] = verdict(number % 2 == 0)
    alike = summarize(rows)["pass_rate"]
    for row in rows:
        for number, sample in enumerate(row["samples"]):
            sample["verdict"] = verdict(number % 2 == 0)
    mixed = summarize(rows)["pass_rate"]
    assert alike["value"] == mixed["value"] == 0.5
    assert alike["high"] - alike["low"] == pytest.approx(2 * 1.96 * (0.25 / 19) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no judge is named"),
        (("--by", "magic"), "names no judge"),
        (("--by", "reward"), "names no judge"),
        (("--by", "verifier", "--by", "verifier:number"), "same key"),
        (("--by", "rubric:r.toml"), "cannot be read"),
        (("--by", "model:x", "--judge", "y"), "go together"),
        (("--by", "verifier", "--verifier", "number"), "name judges"),
        (("--by", "verifier", "--answer-key", "text"), "whose keys are known"),
        (("--by", "verifier:number"), "row 1 (id a): answer is missing"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, message, tmp_path):
    file = write(tmp_path / "s.jsonl", [sampled(["4"])])
    done = run(file, *arguments, "--out", tmp_path / "o.jsonl")
    assert message in str(done.exception)
    assert not (tmp_path / "o.jsonl").exists()


def test_samples_need_a_new_file_and_answers_a_verifier(tmp_path):
    file = write(tmp_path / "s.jsonl", [sampled(["4"])])
    assert "--out" in str(run(file, "--by", "verifier").exception)
    answers = write(tmp_path / "a.jsonl", [{"answer": "4", "reference": 4}])
    assert "not of samples" in str(run(answers, "--by", "verifier").exception)
