"""The command herdlm data check: what it prints, writes and refuses."""

import json

from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app
from herdlm.data.check import histogram
from herdlm.data.read import read_dialogs
from herdlm.data.show import rendered
from herdlm.data.source import Source
from tests.run.conftest import herdlm

ASK = {"role": "user", "content": "2+2?"}
GOOD, BAD = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5", "weight": 0.5}
ROWS = [
    {"messages": [{"role": "system", "content": "Be short."}, ASK, GOOD], "id": 1},
    {"messages": [ASK, BAD, ASK, GOOD]},
    {"messages": [ASK]},
    {"messages": [ASK, {"role": "assistant", "content": "```python\nx = 4\n```"}]},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *arguments])


class Letters:
    """A chat format in which every character is a token, and a whole answer is a target."""

    class Rendered:
        def __init__(self, tokens, weights):
            self.tokens, self.weights = tokens, weights

    class Tokenizer:
        def decode(self, ids, *, keep_special=False):
            return "".join(map(chr, ids))

    tokenizer = Tokenizer()

    def render(self, messages, *, tools=None, first=0):
        tokens, weights = [], []
        for index, message in enumerate(messages):
            head, said = f"<{message['role']}>", message["content"]
            weight = message.get("weight", 1.0) if message["role"] == "assistant" and index >= first else 0.0
            tokens += map(ord, head + said)
            weights += [0.0] * len(head) + [weight] * len(said)
        return self.Rendered(tokens, weights)


def test_the_report_counts_what_is_in_the_rows(tmp_path):
    done = run(write(tmp_path / "a.jsonl", ROWS), "--json")
    assert done.exit_code == 0, done.output
    (report,) = json.loads(done.output)["files"]
    assert report["forms"] == {"messages": 4}
    assert (report["rows"], report["read"], report["kept"]) == (4, 4, 3)
    assert report["dropped"] == {"no assistant message": {"count": 1, "examples": [f"{tmp_path / 'a.jsonl'}, line 3"]}}
    assert report["roles"] == {"user": 4, "assistant": 4, "system": 1}
    assert report["holds"] == {"single-turn": 2, "system prompt": 1, "multi-turn": 1, "weights": 1, "code": 1}
    assert report["unused_columns"] == {"id": 1}
    assert report["lengths"] == {"min": 10, "median": 14, "p95": 23, "max": 23, "sum": 47}
    assert report["histogram"] == {"<= 16": 2, "<= 32": 1}
    shown = run(str(tmp_path / "a.jsonl")).output
    assert "a.jsonl: messages (4)" in shown
    assert "1 dropped: no assistant message (such as" in shown


def test_examples_show_what_is_trained(tmp_path):
    shown = run(write(tmp_path / "a.jsonl", ROWS), "--show", "2").output
    assert "user: 2+2?\nassistant: ⟦0.5:5⟧\nuser: 2+2?\nassistant: ⟦4⟧" in shown
    pair = {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}
    (dialog,) = rendered("dialogs", {"messages": [ASK, BAD, ASK, GOOD]}, Letters())
    assert dialog.plain == "<user>2+2?<assistant>⟦0.5:5⟧<user>2+2?<assistant>⟦4⟧"
    styles = {dialog.plain[span.start : span.end]: str(span.style) for span in dialog.spans}
    assert "green" in styles["⟦4⟧"]
    assert "dim" in styles["<user>2+2?<assistant>"]
    sides = [text.plain for text in rendered("preferences", pair, Letters())]
    assert sides == ["chosen:\n<user>2+2?<assistant>⟦4⟧", "rejected:\n<user>2+2?<assistant>⟦0.5:5⟧"]


def test_rows_that_cannot_be_read_end_with_exit_2_and_the_first_twenty(tmp_path):
    bad = {"messages": [{"role": "alien", "content": "x"}]}
    path = write(tmp_path / "a.jsonl", [ROWS[0], *[bad] * 25])
    done = herdlm("data", "check", path)
    assert done.returncode == 2
    assert done.stderr.count("role 'alien' is unknown") == 20
    assert f"{path}, line 2, key messages[0].role: role 'alien' is unknown" in done.stderr
    assert "25 rows cannot be read; the first 20 are above" in done.stderr
    assert "25: role 'alien' is unknown" in done.stdout


def test_what_is_written_is_canonical(tmp_path):
    rows = [{"frage": "Wie?", "antwort": "So."}, {"frage": "Wer?", "antwort": ""}]
    out = tmp_path / "out.jsonl"
    done = run(
        write(tmp_path / "a.jsonl", rows), "--map", "prompt=frage", "--map", "completion=antwort", "--write", str(out)
    )
    assert done.exit_code == 0, done.output
    said = [{"role": "user", "content": "Wie?"}, {"role": "assistant", "content": "So."}]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [{"messages": said}]
    assert read_dialogs([Source(out)])[0] == [{"messages": said}]


def test_what_cannot_be_checked_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": "q", "chosen": "a", "rejected": "b"}])
    for arguments, words in (
        (["--seq-len", "8"], "--seq-len needs a tokenizer"),
        (["--write", str(tmp_path / "out.jsonl")], "the files hold dialogs and preferences"),
        (["--model", str(tmp_path / "none")], "does not exist"),
    ):
        error = run(path, *arguments).exception
        assert isinstance(error, InputError)
        assert words in str(error)
    assert not (tmp_path / "out.jsonl").exists()


def test_with_a_model_lengths_and_examples_are_its_own(tmp_path, tokenizer):
    (tmp_path / "model").mkdir()
    tokenizer.save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    dialog = [("user", "2+2?"), ("assistant", "4"), ("user", "Sure?"), ("assistant", "Yes, " * 40)]
    roles = [{"role": role, "content": content} for role, content in dialog]
    path = write(tmp_path / "a.jsonl", [{"messages": roles[:2]}, {"messages": roles}])
    done = run(path, "--model", str(tmp_path / "model"), "--seq-len", "30", "--show", "1")
    assert done.exit_code == 0, done.output
    asked = f"<|begin_of_text|>{header.format('user')}2+2?<|eot_id|>{header.format('assistant')}"
    assert f"{asked}⟦4<|eot_id|>⟧" in done.output
    length = sum(len(tokenizer.encode(f"{part}")) for part in ("user", "\n\n", "2+2?", "assistant", "\n\n", "4")) + 7
    assert f"length in tokens: shortest {length}, " in done.output
    assert "1 dropped: too long for 30 tokens" in done.output


def test_lengths_by_powers_of_two():
    assert histogram([1, 2, 3, 4, 9]) == [("<= 1", 1), ("<= 2", 1), ("<= 4", 2), ("<= 8", 0), ("<= 16", 1)]
    assert histogram([0]) == [("<= 1", 1)]
    assert histogram([]) == []
