"""The pipeline: nothing is lost, order does not matter, duplicates and limits, files, inspection, lineage."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from herdlm.align.quality.config import STEPS, QualityConfig
from herdlm.align.quality.control import NO_ITEMS, NO_MODEL, control
from herdlm.align.quality.embed import Embedder
from herdlm.align.quality.steps.semantic import k_means
from herdlm.base.errors import InputError
from herdlm.cli.app import app
from tests.align.quality.test_rules import LONG, ONLY, dialog

ASKED = ["Why?", "What is a river?", "Tell me of the river.", "Name animals.", f"Summarize: {LONG}"]
ANSWERS = [LONG, f"{LONG} and", "I can't help with that.", "It is long.", "It is long!", "Sorry, no.", f"{LONG} now"]
ROWS = st.lists(
    st.builds(
        lambda asked, answer, keys: dialog(asked, answer, **keys),
        st.sampled_from(ASKED),
        st.sampled_from(ANSWERS),
        st.fixed_dictionaries(
            {},
            optional={
                "reward": st.sampled_from([-1.0, 0.0, 2.0]),
                "task": st.sampled_from(["a", "b"]),
                "judge": st.sampled_from([{"score": 3, "best": 3}, {"score": 1, "best": 3}]),
                "lineage": st.sampled_from([{"prompt": "x"}, {"prompt": "y", "reward": 1.0}]),
            },
        ),
    ),
    max_size=20,
)
CONFIG = QualityConfig(
    quality={"top_share": 0.5},
    phrases={"min_count": 2, "max_share": 0.2},
    near={"min_similarity": 0.5},
    caps={"per_topic": 3},
    semantic={"per_cluster": 3, "max_cosine": 0.9},
)


def by_letters(texts):
    """Vectors of texts, by the letters in them."""
    rows = np.array([[text.lower().count(letter) + 0.1 for letter in "abcdefghijklmnop"] for text in texts], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bare(row):
    return {key: value for key, value in row.items() if key not in ("quality", "dropped")}


def as_set(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_nothing_is_lost_and_order_does_not_matter(rows, seed):
    against = {"e.jsonl": ["Name animals."]}
    found = control(rows, CONFIG, embed=by_letters, against=against)
    assert as_set(map(bare, [*found.kept, *found.dropped])) == as_set(rows)
    assert all(row["dropped"]["step"] in STEPS and row["dropped"]["reason"] for row in found.dropped)
    assert [step["step"] for step in found.funnel["steps"]] == list(STEPS)
    left = len(rows)
    for step in found.funnel["steps"]:
        assert step["given"] == left
        assert sum(step["reasons"].values()) == step["dropped"]
        left -= step["dropped"]
    assert left == len(found.kept) == found.funnel["kept"]
    shuffled = control(random.Random(seed).sample(rows, len(rows)), CONFIG, embed=by_letters, against=against)
    assert (as_set(shuffled.kept), as_set(shuffled.dropped)) == (as_set(found.kept), as_set(found.dropped))
    assert shuffled.funnel == found.funnel


@settings(max_examples=30, deadline=None)
@given(rows=ROWS)
def test_what_stays_is_in_the_order_given_and_stays_again(rows):
    gentle = QualityConfig(quality=False, phrases=False, apologies=False)
    found = control(rows, gentle, embed=by_letters)
    places = [rows.index(bare(row)) for row in found.kept]
    assert places == sorted(places)
    again = control([bare(row) for row in found.kept], QualityConfig(**(ONLY | {"exact": {}, "near": {}})))
    assert again.dropped == []


def test_each_step_can_be_turned_off():
    row = dialog("How?", "I can't help with that.")
    assert control([row], QualityConfig(refusals=False)).dropped == []
    assert control([row, row], QualityConfig(**ONLY)).dropped == []
    assert control([row], QualityConfig(**ONLY)).funnel["steps"] == []


def test_steps_without_what_they_need_are_passed_over_and_the_funnel_says_so():
    steps = {step["step"]: step.get("skipped") for step in control([dialog("a?", "b.")]).funnel["steps"]}
    assert (steps["semantic"], steps["contamination"], steps["near"]) == (NO_MODEL, NO_ITEMS, None)


def test_pairs_are_refused():
    with pytest.raises(InputError, match="row 1 is neither a dialog nor a prompt"):
        control([{"prompt": [], "chosen": [], "rejected": []}])


def only(**steps):
    return QualityConfig(**(ONLY | steps))


def test_of_equal_examples_the_best_stays_and_others_name_it():
    rows = [dialog("Why?", "It is so.", reward=0.0), dialog("why", "It is  so", reward=5.0), dialog("Why?", "No.")]
    found = control(rows, only(exact={}))
    assert [row.get("reward") for row in found.kept] == [5.0, None]
    assert found.dropped[0]["dropped"]["of"] == found.kept[0]["quality"]["key"]


def test_answers_to_equal_prompts_are_limited_if_that_is_asked_for():
    rows = [dialog("Why?", f"Because {n}.", reward=float(n)) for n in range(4)]
    assert [row["reward"] for row in control(rows, only(exact={"same_prompt": 2})).kept] == [2.0, 3.0]
    assert len(control(rows, only(exact={})).kept) == 4


def test_nearly_equal_examples_are_dropped_but_not_two_questions_about_one_text():
    text = " ".join(f"word{n}" for n in range(80))
    rows = [
        dialog(f"Summarize: {text}", "It lists words in a row from the first to the last of them."),
        dialog(f"Summarize: {text} end", "It lists words in a row from the first to the last of them.", reward=1.0),
        dialog(f"Summarize: {text}?", "A different answer that says something about numbers."),
        dialog("Summarize this.", "It lists words in a row from the first to the last of them."),
    ]
    found = control(rows, only(near={}))
    assert found.dropped == [{**rows[0], "dropped": found.dropped[0]["dropped"]}]
    assert found.dropped[0]["dropped"]["of"] == found.kept[0]["quality"]["key"]
    assert control([rows[0], rows[1]], only(near={"min_similarity": 1.0})).dropped == []


def test_the_top_quarter_by_reward_or_full_marks_stay():
    rows = [dialog(f"q{n}?", "a.", lineage={"reward": float(n)}) for n in range(8)]
    rows += [dialog("m?", "a.", lineage={"reward": -9.0, "judge": {"score": 3, "best": 3}})]
    rows += [dialog("v?", "a.", lineage={"reward": -9.0, "verdict": "equal"}), dialog("u?", "a.")]
    rows += [dialog("w?", "a.", verdict={"passed": False, "reason": "unequal"})]
    found = control(rows, only(quality={}))
    # Of ten rewards, those of q5, q6 and q7 are above three quarters of them.
    assert [row["messages"][0]["content"] for row in found.kept] == ["q5?", "q6?", "q7?", "m?", "v?", "u?"]
    assert found.funnel["steps"][0]["reasons"] == {"not full marks": 1, "not in the top share": 5}
    strict = control(rows, only(quality={"keep_unscored": False}))
    assert strict.funnel["steps"][0]["reasons"]["no score"] == 1


def test_caps_keep_the_best_of_a_topic_by_quality_times_difficulty():
    rows = [dialog(f"Why {n}?", "a.", task="t", reward=float(n)) for n in range(4)]
    rows += [
        dialog("Why, how, and when? List them, explain each. Who?", "a.", task="t", reward=2.5),
        dialog("?", "a.", task="u"),
    ]
    config = only(topics={}, difficulty={}, caps={"per_topic": 2, "topics": {"u": 5}})
    found = control(rows, config)
    assert [row.get("reward") for row in found.kept] == [3.0, 2.5, None]


def test_a_row_without_a_task_gets_the_topic_of_the_prompts_it_is_most_like():
    def embed(texts):
        points = {"s": (1.0, 0.1), "c": (0.1, 1.0)}
        rows = np.array([points[text[0]] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    rows = [dialog(f"sum {n}", "a", task="sums") for n in range(3)] + [
        dialog(f"code {n}", "a", task="code") for n in range(3)
    ]
    rows += [dialog("sum it up", "a"), dialog("code it", "a")]
    found = control(rows, only(topics={"neighbors": 3}), embed=embed)
    assert [row["quality"]["topic"] for row in found.kept[-2:]] == ["sums", "code"]
    assert [row["quality"]["topic"] for row in control(rows, only(topics={})).kept[-2:]] == ["other", "other"]


def test_semantic_duplicates_are_dropped_greedily_in_each_cluster():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(12, 16))
    texts = {f"text {n}": centers[n // 5] + 0.15 * rng.normal(size=16) for n in range(60)}

    def embed(given):
        rows = np.array([texts[text.partition("\n")[0]] for text in given], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    rows = [dialog(text, "a", reward=float(n)) for n, text in enumerate(texts)]
    found = control(rows, only(semantic={"per_cluster": 60, "max_cosine": 0.8}), embed=embed)
    vectors = embed([row["messages"][0]["content"] for row in rows])
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = [rows.index(bare(row)) for row in found.kept]
    cosines = vectors @ vectors.T
    assert 12 <= len(kept) < 60
    assert (cosines[np.ix_(kept, kept)] - np.eye(len(kept)) < 0.8).all()
    for row in found.dropped:
        number = rows.index(bare(row))
        better = [k for k in kept if k > number]  # by reward
        assert cosines[number, better].max() >= 0.8


def test_k_means_finds_groups_and_the_same_ones_each_time():
    rng = np.random.default_rng(1)
    centers = np.eye(4, 8)
    vectors = (centers[np.arange(80) % 4] + 0.05 * rng.normal(size=(80, 8))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = k_means(vectors, 4, 0)
    assert len({tuple(sorted(np.flatnonzero(labels == label) % 4)) for label in range(4)}) == 4
    assert all(len(set(np.flatnonzero(labels == label) % 4)) == 1 for label in range(4))
    assert (k_means(vectors, 4, 0) == labels).all()
    assert set(k_means(vectors[[0, 0, 0]], 3, 0)) == {0}


# Files


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def cleaned(tmp_path):
    samples = write(
        tmp_path / "samples.jsonl",
        [
            {
                "id": "p1",
                "prompt": [],
                "samples": [
                    {"answer": "no", "model": "m"},
                    {
                        "answer": "It is long.",
                        "model": "m",
                        "reward": 2.0,
                        "verdict": {"passed": True, "reason": "equal"},
                    },
                ],
            }
        ],
    )
    lineage = {
        "prompt": "p1",
        "sample": 1,
        "model": "m",
        "file": str(samples),
        "verdict": "equal",
        "reward": 2.0,
        "round": 3,
    }
    rows = [
        dialog("How long is the river?", "It is long.", task="facts", source="m", lineage=lineage),
        dialog("How?", "I can't help with that."),
        dialog("Who painted the ceiling of the chapel in Rome for the pope in those years?", "Michelangelo."),
    ]
    items = write(
        tmp_path / "test.jsonl",
        [
            {
                "question": "Who painted the ceiling of the chapel in Rome for the pope in those years?",
                "choices": ["a"],
                "answer": "a",
            }
        ],
    )
    chats = write(tmp_path / "chats.jsonl", rows)
    result = run("data", "clean", chats, "--out", tmp_path / "clean", "--against", items, "--license", f"{chats}=MIT")
    assert result.exit_code == 0, (result.output, result.exception)
    return tmp_path / "clean", result.output


def test_the_command_writes_what_stays_what_is_dropped_the_funnel_and_a_card(cleaned):
    folder, output = cleaned
    kept, dropped = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("dialogs.jsonl", "dropped.jsonl")
    )
    assert [row["messages"][1]["content"] for row in kept] == ["It is long."]
    assert {row["dropped"]["step"]: row["dropped"]["reason"] for row in dropped} == {
        "refusals": "refusal",
        "contamination": "an evaluation's item",
    }
    assert kept[0]["lineage"]["prompt"] == "p1" and kept[0]["license"] == "MIT"
    assert dropped[0]["lineage"] == {"from": str(folder.parent / "chats.jsonl"), "row": "line 2"}
    card = json.loads((folder / "card.json").read_text())
    assert card["rows"] == {"given": 3, "kept": 1, "dropped": 2}
    assert (card["models"], card["licenses"], card["rounds"], card["tasks"]) == (
        {"m": 1},
        {"MIT": 1},
        {"3": 1},
        {"facts": 1},
    )
    text = (folder / "card.md").read_text()
    assert "1 dialogs of 3; 2 were dropped." in text and "| refusals | 3 | 1 | refusal: 1 |" in text
    assert "Kept 1 of 3" in output
    assert json.loads((folder / "funnel.json").read_text())["kept"] == 1


def test_inspect_shows_what_a_step_dropped_and_follows_an_example_to_its_sample(cleaned):
    folder, _ = cleaned
    shown = run("inspect", folder, "--dropped", "--step", "refusals").output
    assert "dropped by refusals: refusal (I can't help)" in shown and "Michelangelo" not in shown
    assert "It is long." in run("inspect", folder).output
    followed = run("inspect", folder, "--key", "p1").output
    assert "samples.jsonl, line 1, sample 1 of 2; verdict equal, reward 2.0" in followed
    assert "round: 3" in followed
    (row,) = json.loads(run("inspect", folder, "--key", "p1", "--json").output)
    assert row["origin"]["sample"]["answer"] == "It is long."
    missing = run("inspect", folder, "--dropped", "--step", "near")
    assert "refusals: refusal" in str(missing.exception)


def test_prompts_stay_prompts_with_their_references(tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n} and {n}?"}],
            "answer": str(2 * n),
            "verifier": "number",
            "task": "sums",
        }
        for n in (2, 3, 3)
    ]
    chats = write(tmp_path / "p.jsonl", rows)
    assert (
        run(
            "data", "clean", chats, "--out", tmp_path / "clean", "--set", "quality=false", "--kind", "prompts"
        ).exit_code
        == 0
    )
    kept = [json.loads(line) for line in (tmp_path / "clean" / "prompts.jsonl").read_text().splitlines()]
    assert [(row["answer"], row["verifier"], row["task"]) for row in kept] == [
        ("4", "number", "sums"),
        ("6", "number", "sums"),
    ]


def test_files_of_pairs_and_unknown_keys_are_refused(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert "line 1: the row gives preferences" in str(run("data", "clean", pairs, "--out", tmp_path / "a").exception)
    chats = write(tmp_path / "c.jsonl", [dialog("a?", "b.")])
    result = run("data", "clean", chats, "--out", tmp_path / "b", "--set", "nears.bands=2")
    assert "unknown key nears" in str(result.exception)
    assert "not FILE=NAME" in str(run("data", "clean", chats, "--out", tmp_path / "b", "--license", "x=MIT").exception)
    assert not (tmp_path / "b").exists()


def test_embeddings_of_a_model_are_stored_and_made_once(folder, tmp_path, monkeypatch):
    store = tmp_path / "embeddings"
    first = Embedder(folder / "base", store=store, quiet=True)
    found = first(["the server is full", "a disk", "the server is full"])
    assert found.shape == (3, 32) and (found[0] == found[2]).all() and not np.allclose(found[0], found[1])
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    with store.open("ab") as file:
        file.write(b"half an entry")
    again = Embedder(folder / "base", store=store, quiet=True)
    monkeypatch.setattr(again, "_embed", None)  # nothing is left to compute
    assert (again(["a disk", "the server is full"]) == found[[1, 0]]).all()
    assert store.stat().st_size == 2 * (16 + 4 * 32)


def test_the_command_drops_semantic_duplicates_with_a_model(folder, tmp_path):
    rows = [dialog("how is the server", "full of logs now"), dialog("how is the disk", "archive package space user")]
    chats = write(tmp_path / "c.jsonl", rows)
    result = run(
        "data",
        "clean",
        chats,
        "--out",
        tmp_path / "clean",
        "--model",
        folder / "base",
        "--set",
        "semantic.max_cosine=0.99",
        "--device",
        "cpu",
        "--json",
    )
    assert result.exit_code == 0, result.exception
    (semantic,) = [step for step in json.loads(result.output)["steps"] if step["step"] == "semantic"]
    assert "skipped" not in semantic and semantic["given"] == 2 and semantic["clusters"] == 1
