"""herdlm sample: what it writes, how it divides answers, that it resumes to the same bytes, and what it refuses."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from herdlm.align.samples.asking import batched
from herdlm.align.samples.options import SampleOptions, parts
from herdlm.align.samples.rows import prompt_id, read_prompts, read_samples
from herdlm.align.samples.sample import draw
from herdlm.base.errors import InputError
from herdlm.base.ledger import Ledger
from herdlm.cli.app import app
from herdlm.data.row import RowError
from herdlm.evaluate.remote import RemoteOptions
from tests import warm
from tests.align.samples.conftest import PROMPTS, lines, write
from tests.curate.grade.badly_behaved import Reply, server

SHORT = ("-k", "4", "--max-tokens", "12", "--batch", "8", "--quiet")


def run(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)])


def drawn(folder, prompts, out, *arguments):
    done = run(folder, "--prompts", prompts, "--out", out, *SHORT, *arguments)
    assert done.exit_code == 0, done.output or done.exception
    return out.read_bytes()


@pytest.fixture(scope="module")
def whole(models, prompts, tmp_path_factory):
    """What an undisturbed run writes."""
    return drawn(models / "first", prompts, tmp_path_factory.mktemp("whole") / "s.jsonl")


def test_each_prompt_gets_its_answers_beside_its_own_keys(models, prompts, tmp_path):
    out = tmp_path / "s.jsonl"
    drawn(models / "first", prompts, out)
    rows = read_samples(out)
    assert [len(row["samples"]) for row in rows] == [4] * len(PROMPTS)
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is 0 and 0?"}]
    assert {key: rows[0][key] for key in ("answer", "verifier", "task", "source")} == {
        "answer": "0",
        "verifier": "number",
        "task": "sums",
        "source": "made",
    }
    assert rows[5]["options"] == {"pattern": "^[^e]*$"}
    assert rows[6]["note"] == "kept"
    assert len({row["id"] for row in rows}) == len(rows)
    for sample in rows[0]["samples"]:
        assert sample["model"] == "first"
        assert sample["temperature"] == 0.7
        assert sample["finish"] in {"stop", "length"}
        assert 0 <= sample["tokens"] <= 12
        assert sample["logprob"] < 0
        assert "system" not in sample
    assert len({sample["answer"] for row in rows for sample in row["samples"]}) > len(rows)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_killed_run_ends_with_the_same_bytes_and_asks_nothing_twice(
    models, prompts, whole, tmp_path, kept, monkeypatch
):
    out = tmp_path / "s.jsonl"
    arguments = (kept, "sample", models / "first", "--prompts", prompts, "--out", out, *SHORT)
    assert warm.run("tests.align.samples.killed", *arguments).returncode == -9
    assert not out.exists()
    added = []
    plain = Ledger.add
    monkeypatch.setattr(Ledger, "add", lambda ledger, key, value: (added.append(key), plain(ledger, key, value))[1])
    assert drawn(models / "first", prompts, out) == whole
    assert len(added) == 4 - kept  # 7 prompts of 4 answers in batches of 8
    assert not list(tmp_path.glob(".*"))


def test_several_engines_write_the_bytes_of_one(models, prompts, whole, tmp_path):
    assert drawn(models / "first", prompts, tmp_path / "s.jsonl", "--workers", "2") == whole


def test_answers_are_divided_among_models_temperatures_and_system_prompts(models, prompts, tmp_path):
    said = tmp_path / "brief.txt"
    said.write_text("Be brief.\n")
    out = tmp_path / "s.jsonl"
    more = ("--temperature", "0.5", "--temperature", "1", "--system", "", "--system", said, "--system", "Be kind.")
    done = run(
        models / "first", models / "second", "--prompts", prompts, "--out", out, *SHORT, "-k", "6", *more, "--json"
    )
    counts = json.loads(done.output)
    rows = read_samples(out)
    for row in rows:
        cells = Counter((sample["model"], sample["temperature"]) for sample in row["samples"])
        assert sorted(cells.values()) == [1, 1, 2, 2]
        assert len({sample.get("system") for sample in row["samples"]}) == 1
    assert {sample.get("system") for row in rows for sample in row["samples"]} == {None, "Be brief.", "Be kind."}
    assert "system" not in rows[6]["samples"][0]  # it has one of its own
    assert counts["own_system"] == 1
    assert counts["models"]["first"] + counts["models"]["second"] == counts["samples"] == 42
    # The seed chooses who gives the answers that are left over.
    options = SampleOptions(samples=3, temperatures=(0.5, 1.0))
    extra = Counter((p.model, p.temperature) for i in range(200) for p in parts(f"id {i}", 2, options) if p.count)
    assert min(extra.values()) > 120


def test_a_system_prompt_and_the_seed_change_what_is_drawn(models, tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "How is the cow?"}]}]

    def texts(name, **options):
        made = draw(
            rows, [str(models / "first")], SampleOptions(4, max_tokens=12, **options), tmp_path / name, quiet=True
        )
        return [sample["answer"] for sample in made.rows[0]["samples"]]

    plain = texts("a")
    assert texts("b") == plain
    assert texts("c", systems=("Moo.",)) != plain
    assert texts("d", seed=1) != plain


def test_a_limit_takes_prompts_that_a_larger_one_takes_too(models, prompts, tmp_path):
    drawn(models / "first", prompts, tmp_path / "2.jsonl", "--limit", "2")
    drawn(models / "first", prompts, tmp_path / "4.jsonl", "--limit", "4")
    few, more = ([row["id"] for row in lines(tmp_path / f"{n}.jsonl")] for n in (2, 4))
    assert len(few) == 2
    assert set(few) < set(more)


def test_prompts_that_are_too_long_are_counted_and_not_cut(models, tmp_path):
    rows = [{"prompt": "moo " * 300}, {"prompt": "Moo?"}]
    done = run(models / "first", "--prompts", write(tmp_path / "p.jsonl", rows), "--out", tmp_path / "s.jsonl", *SHORT)
    assert "prompts  1 of 2" in done.output
    assert "1 prompts not asked of first: too long for the context" in done.output
    assert [row["prompt"][0]["content"] for row in lines(tmp_path / "s.jsonl")] == ["Moo?"]
    with pytest.raises(InputError, match="too long"):
        draw(
            [{"prompt": [{"role": "user", "content": "moo " * 300}]}],
            [str(models / "first")],
            SampleOptions(),
            tmp_path,
        )


def test_a_server_is_asked_and_asked_no_more_for_what_it_answered(prompts, tmp_path):
    def answer(request):
        if request.path.endswith("/models"):
            return Reply(body={"data": [{"id": "far"}]})
        if not request.path.endswith("/chat/completions"):
            return Reply(status=404)
        choices = [
            {"message": {"content": f"{request.question} {i} \ud83d"}, "finish_reason": "stop"}
            for i in range(request.body.get("n", 1))
        ]
        return Reply(body={"choices": choices, "usage": {"completion_tokens": 8}})

    rows, _ = read_prompts([prompts])
    options = SampleOptions(2, (0.5,), ("Be kind.",), max_tokens=9, seed=3)
    with server(answer) as running:
        made = draw(rows, [running.address], options, tmp_path, remote=RemoteOptions(first_wait=0.01), quiet=True)
        asked = [request.body for request in running.requests if request.body.get("max_tokens") == 9]
        again = draw(rows, [running.address], options, tmp_path, remote=RemoteOptions(first_wait=0.01), quiet=True)
        assert len([r for r in running.requests if r.body.get("max_tokens") == 9]) == len(asked) == len(rows)
    assert again == made
    assert made.rows[0]["samples"][1] == {
        "answer": "What is 0 and 0? 1 ?",
        "model": "far",
        "system": "Be kind.",
        "temperature": 0.5,
        "finish": "stop",
        "tokens": 4,
        "logprob": None,
    }
    assert len({body["seed"] for body in asked}) == len(rows)
    assert all(body["messages"][0]["role"] == "system" for body in asked)


def test_batches_do_not_change_when_whole_ones_are_left_out():
    counts = [3, 3, 3, 8, 1, 1, 9, 2]
    batches = batched(counts, 8)
    assert batches == [[0, 1, 2], [3], [4, 5, 6], [7]]
    left = [i for batch in (batches[0], batches[2], batches[3]) for i in batch]
    assert [[left[i] for i in batch] for batch in batched([counts[i] for i in left], 8)] == [
        batches[0],
        batches[2],
        batches[3],
    ]


def test_an_id_is_the_rows_own_or_a_hash_of_prompt_and_tools():
    row = {"prompt": [{"role": "user", "content": "Moo?"}]}
    assert prompt_id(row) == prompt_id({**row, "task": "cows", "tools": []})
    assert len(prompt_id(row)) == 16
    assert prompt_id(row) != prompt_id({**row, "tools": [{"name": "moo"}]})
    assert prompt_id({**row, "id": 7}) == "7"
    with pytest.raises(InputError, match="id"):
        prompt_id({**row, "id": ["a"]})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "line 2, key id: 'a' is also at"),
        ([{"id": [], "prompt": "x"}], "line 1, key id"),
        ([{"prompt": "x", "answer": "1", "options": [1]}], "line 1, key options"),
        ([{"prompt": " "}], "hold no prompt"),
    ],
)
def test_wrong_prompts_are_refused_by_line_and_key(rows, message, tmp_path):
    with pytest.raises((RowError, InputError), match=message):
        read_prompts([write(tmp_path / "p.jsonl", rows)])


def test_equal_prompts_are_counted_and_dropped(tmp_path):
    rows = [{"prompt": "x", "answer": "1"}, {"prompt": "x", "answer": "1"}, {"prompt": "x", "answer": "2"}]
    found, counts = read_prompts([write(tmp_path / "p.jsonl", rows)])
    assert [row["answer"] for row in found] == ["1"]
    assert {reason: dropped.count for reason, dropped in counts.dropped.items()} == {
        "duplicate": 1,
        "the same prompt with another reference": 1,
    }
    assert (counts.read, counts.kept) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-k", "4", "--temperature", "0"), "temperature 0 would be equal"),
        (("--temperature", "1", "--temperature", "1"), "twice"),
        (("--key", "nowhere"), "no model is one"),
        (("--top-p", "0"), "top_p"),
    ],
)
def test_options_that_cannot_be_are_refused(models, prompts, tmp_path, arguments, message):
    done = run(models / "first", "--prompts", prompts, "--out", tmp_path / "s.jsonl", *arguments)
    assert message in str(done.exception)
    assert not (tmp_path / "s.jsonl").exists()


def test_a_file_that_exists_and_a_reward_model_are_refused(models, prompts, tmp_path):
    (tmp_path / "s.jsonl").write_text("")
    assert "exists" in str(run(models / "first", "--prompts", prompts, "--out", tmp_path / "s.jsonl").exception)
    assert "reward" in str(run(models / "reward", "--prompts", prompts, "--out", tmp_path / "t.jsonl").exception)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [], "samples": []}, "line 1, key id: it is missing"),
        ({"id": "a", "prompt": [], "samples": 3}, "line 1, key samples: it is a number"),
        ({"id": "a", "prompt": [], "samples": [{"answer": "x"}]}, r"key samples\[0\].model: it is missing"),
        ({"id": "a", "prompt": [], "samples": ["x"]}, r"key samples\[0\]: it is text"),
    ],
)
def test_wrong_samples_are_refused_by_line_and_key(row, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_samples(write(tmp_path / "s.jsonl", [row]))
