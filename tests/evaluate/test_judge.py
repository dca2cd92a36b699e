"""The command herdlm judge: what it prints, writes and refuses."""

import json

import pytest
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app

ROWS = [
    {"id": 1, "answer": "It is 4.", "reference": 4},
    {"id": 2, "answer": "It is 5.", "reference": "4"},
    {"id": 3, "answer": "I do not know.", "reference": 4},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, ["judge", *arguments])


def test_a_table_with_rate_interval_and_reasons(tmp_path):
    done = run(write(tmp_path / "a.jsonl", ROWS), "--verifier", "number")
    assert done.exit_code == 0
    # Wilson's interval of 1 in 3, as R's binom::binom.wilson gives it.
    assert "answers     3\npass rate   33.3%  (95% interval 6.1% to 79.2%)\nmean score  0.333\n" in done.output
    assert [line.split() for line in done.output.splitlines()[3:]] == [
        ["passed:", "equal", "1", "33.3%"],
        ["failed:", "another", "number", "1", "33.3%"],
        ["failed:", "no", "number", "1", "33.3%"],
    ]


def test_rows_are_written_with_their_verdicts(tmp_path):
    out = tmp_path / "out.jsonl"
    done = run(write(tmp_path / "a.jsonl", ROWS), "--verifier", "number", "--out", str(out), "--json")
    assert json.loads(done.output)["n"] == 3
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{key: row[key] for key in ROWS[0]} for row in written] == ROWS
    assert written[1]["verdict"] == {
        "passed": False,
        "score": 0.0,
        "reason": "another number",
        "details": {"found": "5", "expected": "4"},
    }


def test_options_and_keys(tmp_path):
    rows = [{"text": "5", "truth": 4}]
    file = write(tmp_path / "a.jsonl", rows)
    arguments = (file, "--verifier", "number", "--answer-key", "text", "--reference-key", "truth", "--json")
    assert json.loads(run(*arguments).output)["rate"]["value"] == 0
    for options in (["tolerance=1"], ['{"tolerance": 1}'], ['{"take": "last"}', "tolerance=1"]):
        given = [word for option in options for word in ("--options", option)]
        assert json.loads(run(*arguments, *given).output)["rate"]["value"] == 1


def test_an_option_may_be_a_text_of_digits(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"answer": "The answer is 2.", "reference": 2}])
    done = run(file, "--verifier", "choice", "--options", "letters=1234", "--json")
    assert json.loads(done.output)["reasons"] == {"passed: equal": 1}


def test_references_of_several_keys_are_found_in_the_row(tmp_path):
    rows = [{"answer": "none", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
    done = run(write(tmp_path / "a.jsonl", rows), "--verifier", "ifeval", "--json")
    assert json.loads(done.output)["reasons"] == {"passed: keeps all instructions": 1}


def test_a_verifier_may_need_no_reference(tmp_path):
    rows = [{"answer": "one two"}]
    done = run(write(tmp_path / "a.jsonl", rows), "--verifier", "length", "--options", "max=3", "--json")
    assert json.loads(done.output)["score"] == 1


def test_code_is_judged_by_several_workers_in_the_order_of_the_rows(tmp_path):
    rows = [{"answer": f"def f():\n    return {n % 3}", "tests": ["assert f() == 0"]} for n in range(9)]
    out = tmp_path / "out.jsonl"
    done = run(write(tmp_path / "a.jsonl", rows), "--verifier", "code", "--options", "workers=3", "--out", str(out))
    assert done.exit_code == 0
    assert [json.loads(line)["verdict"]["passed"] for line in out.read_text().splitlines()] == [True, False, False] * 3


@pytest.mark.parametrize(
    "rows, arguments, message",
    [
        ([{"answer": "4", "reference": 4}, {"reference": 4}], [], "a.jsonl, line 2: answer is missing"),
        ([{"answer": 4, "reference": 4}], [], "line 1: answer is not a text"),
        ([{"answer": "4"}], [], "line 1: reference is missing"),
        ([{"answer": "4", "reference": 4}], ["--reference-key", "truth"], "line 1: truth is missing"),
        ([{"answer": "4", "reference": "x"}], [], "line 1: reference 'x' is not a number"),
        ([{"answer": "4", "kwargs": []}], ["--verifier", "ifeval"], "line 1: instruction_id_list is missing"),
        ([], [], "no answer to judge"),
        ([{"answer": "4", "reference": 4}], ["--options", "tolerance"], "not of the form KEY=VALUE"),
        ([{"answer": "4", "reference": 4}], ["--options", "{"], "is not JSON"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_file_line_and_key(tmp_path, rows, arguments, message):
    done = run(write(tmp_path / "a.jsonl", rows), "--verifier", "number", *arguments)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


def test_an_existing_file_is_kept(tmp_path):
    file = write(tmp_path / "a.jsonl", ROWS)
    done = run(file, "--verifier", "number", "--out", file)
    assert isinstance(done.exception, InputError)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
