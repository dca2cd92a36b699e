"""Items planted in training data: how much of them is found, and what they do to scores whose truth is known."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.evaluate import contamination, corpora, publish
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.comparing import contamination_table
from herdlm.evaluate.contamination import SHARE, contaminated, item_texts, shares_in
from herdlm.evaluate.corpora import Corpus
from herdlm.evaluate.figures import figure
from herdlm.evaluate.local import EngineOptions
from herdlm.evaluate.run import load
from herdlm.evaluate.task import load_task
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.tokenizer import Tokenizer
from tests.evaluate.evaluating import write_rows
from tests.evaluate.made_model import MadeModel

TASK = """
title = "Tales"
about = "Which word ends a tale"
kind = "choice"
metrics = ["acc"]

[items]
files = ["tales.jsonl"]
source = "made for a test"

[prompt]
text = "{{ tale }}"
choices = "ends"
answer = "right"
"""


def tale(number: int, words: int = 19) -> str:
    """Words that no other tale has."""
    return " ".join(f"{Random(f'{number} {place}').randbytes(4).hex()}" for place in range(words))


def shares(path: Path, texts: list[str], corpus: Path, *tokenizers: Path) -> list[float | None]:
    return shares_in({"tales": texts}, [Corpus(corpus, tokenizers)], path, quiet=True)[0]


def test_a_share_is_that_of_the_words_in_8_grams_that_the_data_has(tmp_path: Path) -> None:
    words = tale(0, 20).split()
    parts = {
        "nothing of it": ("the weather was fine", 0.0),
        "7 words": (" ".join(words[:7]), 0.0),
        "8 words": (" ".join(words[3:11]), 8 / 20),
        "10 words": (" ".join(words[:10]), 10 / 20),
        "8 words, twice": (" ".join(words[:8]) + " and " + " ".join(words[12:]), 16 / 20),
        "16 words with a gap": (" ".join(words[:7]) + " and " + " ".join(words[7:14]), 0.0),
        "all, loud": (f"«{' - '.join(words).upper()}!»", 1.0),
    }
    for name, (text, share) in parts.items():
        write_rows(tmp_path / "data.jsonl", [{"text": f"Before. {text} After."}])
        assert shares(tmp_path, [" ".join(words)], tmp_path / "data.jsonl") == [pytest.approx(share)], name


def test_parts_of_an_item_in_several_documents_add_up(tmp_path: Path) -> None:
    words = tale(0, 20).split()
    write_rows(tmp_path / "data.jsonl", [{"text": " ".join(words[:10])}, {"text": " ".join(words[8:16])}])
    assert shares(tmp_path, [" ".join(words)], tmp_path / "data.jsonl") == [16 / 20]


def test_items_that_are_too_short_are_not_judged(tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", [{"text": "seven words do not make eight words"}])
    assert shares(tmp_path, ["seven words do not make eight words", tale(1)], tmp_path / "data.jsonl") == [None, 0.0]


def write_all_forms(folder: Path, texts: list[str], tokenizer: Tokenizer) -> dict[str, Path]:
    """The same texts in each form of training data."""
    forms = {name: folder / name for name in ("jsonl", "gzip", "dialogs", "parquet", "curated", "text", "shards")}
    for path in forms.values():
        path.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (forms["jsonl"] / "part.jsonl").write_text(lines)
    with gzip.open(forms["gzip"] / "part.jsonl.gz", "wt") as file:
        file.write(lines)
    write_rows(
        forms["dialogs"] / "d.jsonl",
        [{"messages": [{"role": "user", "content": "Tell."}, {"role": "assistant", "content": t}]} for t in texts],
    )
    pq.write_table(pa.table({"text": texts}), forms["parquet"] / "part.parquet")
    (forms["curated"] / "documents").mkdir()
    pq.write_table(
        pa.table({"id": list(map(str, range(len(texts)))), "text": texts}), forms["curated"] / "documents" / "0.parquet"
    )
    (forms["curated"] / "report.json").write_text("{}")
    (forms["text"] / "deep").mkdir()
    (forms["text"] / "deep" / "book.txt").write_text("\n\n".join(texts))
    tokenizer.save(forms["shards"])
    for name, part in (("web", texts), ("web-validation", ["held out"])):
        writer = ShardWriter(
            forms["shards"] / "tokens" / name, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content()
        )
        for text in part:
            writer.add([*tokenizer.begin, *tokenizer.encode(text), tokenizer.end], text_bytes=len(text))
        writer.close()
    return forms


def test_all_forms_of_training_data_give_the_same_shares(tmp_path: Path, tokenizer: Tokenizer) -> None:
    items = [tale(number) for number in range(6)]
    texts = [items[0], tale(100, 300), f"Once, {' '.join(items[1].split()[:9])}; then {items[2].upper()}.", "Short."]
    found = {
        name: shares(tmp_path / f"out-{name}", items, path)
        for name, path in write_all_forms(tmp_path, texts, tokenizer).items()
    }
    assert found["jsonl"] == [1.0, pytest.approx(9 / 19), 1.0, 0.0, 0.0, 0.0]
    assert all(each == found["jsonl"] for each in found.values()), found


def test_text_is_read_in_blocks_that_lose_no_n_gram(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(corpora, "BLOCK", 1000)
    monkeypatch.setattr(corpora, "CARRIED", 200)
    items = [tale(number) for number in range(60)]
    (tmp_path / "book.txt").write_text("\n".join(items) + "\n")
    assert shares(tmp_path, items, tmp_path / "book.txt") == [1.0] * 60
    blocks = list(Corpus(tmp_path / "book.txt").texts())
    assert len(blocks) > 5 and max(map(len, blocks)) < 1400


def test_many_small_texts_are_looked_up_together_without_n_grams_between_them(tmp_path: Path, monkeypatch) -> None:
    items = [tale(number) for number in range(30)]
    halves = [half for item in items[:20] for half in (item[: len(item) // 2], item[len(item) // 2 :])]
    write_rows(tmp_path / "data.jsonl", [{"text": half} for half in halves])
    expected = [shares(tmp_path / "out", [item], tmp_path / "data.jsonl")[0] for item in items]
    assert all(0 < share < 1 for share in expected[:20]) and expected[20:] == [0.0] * 10  # not 1: halves do not touch
    for batch in (1, 9, 1000):
        monkeypatch.setattr(contamination, "BATCH", batch)
        assert shares(tmp_path / f"out-{batch}", items, tmp_path / "data.jsonl") == expected


def test_held_out_shards_are_left_out_unless_they_are_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    forms = write_all_forms(tmp_path, [tale(0)], tokenizer)
    assert list(Corpus(forms["shards"]).texts()) == [tale(0)]
    assert list(Corpus(forms["shards"] / "tokens" / "web-validation").texts()) == ["held out"]


def test_a_shard_needs_its_own_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shard = write_all_forms(tmp_path, [tale(0)], tokenizer)["shards"]
    model = tmp_path / "model"
    model.mkdir()
    for file in shard.glob("tokenizer*.json"):
        file.rename(model / file.name)
    with pytest.raises(InputError, match="its tokenizer is neither beside it nor that of a model"):
        Corpus(shard)
    assert list(Corpus(shard, [model]).texts()) == [tale(0)]


def test_unusable_training_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.png").write_bytes(b"x")
    for name, problem in {
        "missing": "does not exist",
        "empty": "holds no text",
        "image.png": "of no known type",
    }.items():
        with pytest.raises(InputError, match=f"{name} {problem}|{name} is {problem}"):
            Corpus(tmp_path / name)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text\n')
    with pytest.raises(InputError, match="bad.jsonl, line 2"):
        list(Corpus(tmp_path / "bad.jsonl").texts())
    (tmp_path / "bad.txt").write_bytes(b"a \xff b")
    with pytest.raises(InputError, match="bad.txt is not UTF-8"):
        list(Corpus(tmp_path / "bad.txt").texts())
    (tmp_path / "bad.txt.gz").write_bytes(gzip.compress(b"text " * 999)[:-9])
    with pytest.raises(DamagedError, match="bad.txt.gz is not whole"):
        list(Corpus(tmp_path / "bad.txt.gz").texts())


def test_equal_items_and_data_are_not_searched_again(tmp_path: Path, monkeypatch) -> None:
    write_rows(tmp_path / "data.jsonl", [{"text": tale(0)}])
    first = shares(tmp_path, [tale(0), tale(1)], tmp_path / "data.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "texts", lambda self: pytest.fail("read again"))
        assert shares(tmp_path, [tale(0), tale(1)], tmp_path / "data.jsonl") == first == [1.0, 0.0]
    assert shares(tmp_path, [tale(0), tale(2)], tmp_path / "data.jsonl") == [1.0, 0.0]
    write_rows(tmp_path / "data.jsonl", [{"text": tale(1)}])
    assert shares(tmp_path, [tale(0), tale(1)], tmp_path / "data.jsonl") == [0.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=25), min_size=1, max_size=4),
    st.lists(st.sampled_from("abcd"), max_size=60),
)
def test_shares_equal_those_of_a_search_by_hand(items: list[list[str]], document: list[str]) -> None:
    found = contamination._scan(
        [contamination.Benchmark("x", [" ".join(item) for item in items], contamination.BenchmarkConfig(path="x"))],
        [type("Made", (), {"texts": lambda self: iter([" ".join(document)])})()],
        quiet=True,
    )[0]
    grams = {tuple(document[i : i + 8]) for i in range(len(document) - 7)}
    for item, share in zip(items, found, strict=True):
        starts = range(len(item) - 7)
        covered = {i + k for i in starts if tuple(item[i : i + 8]) in grams for k in range(8)}
        assert share == (pytest.approx(len(covered) / len(item)) if len(item) >= 8 else None)


def records(right: list[float], share: list[float | None], **extra) -> list[dict]:
    return [
        {"id": i, "values": {"acc": value}, SHARE: part, **extra}
        for i, (value, part) in enumerate(zip(right, share, strict=True))
    ]


def made(dirty: int, clean: int, dirty_rate: float, clean_rate: float, share: float = 0.8) -> list[dict]:
    """Items of which exactly these shares are right."""
    right = [float(i < dirty * dirty_rate) for i in range(dirty)] + [
        float(i < clean * clean_rate) for i in range(clean)
    ]
    return records(right, [share] * dirty + [0.1] * clean)


def half_width(rate: float, n: int) -> float:
    return 1.959963984540054 * math.sqrt(rate * (1 - rate) / n)


def test_the_gain_is_all_minus_clean_by_hand() -> None:
    (found,) = contaminated([made(100, 300, 0.9, 0.5)])
    gain = found.metrics["acc"]
    assert (found.dirty, found.clean, found.unjudged) == (100, 300, 0)
    assert 0.1 < found.threshold <= 0.8
    assert gain.all.value == pytest.approx(0.6)
    assert (gain.clean.value, gain.dirty.value) == (pytest.approx(0.5), pytest.approx(0.9))
    assert gain.gain.value == pytest.approx(0.1)
    # Newcombe's square-and-add of the intervals of both rates, times the dirty items' weight.
    clean, dirty = half_width(0.5, 300), half_width(0.9, 100)
    assert gain.gain.low == pytest.approx(0.25 * (0.4 - math.hypot(clean, dirty)), abs=1e-9)
    assert gain.gain.high == pytest.approx(0.25 * (0.4 + math.hypot(clean, dirty)), abs=1e-9)
    assert gain.chance == pytest.approx(1 / 1001)


def test_contamination_without_effect_shows_no_gain() -> None:
    (found,) = contaminated([made(200, 200, 0.5, 0.5)])
    gain = found.metrics["acc"]
    assert found.threshold == contamination.USUAL
    assert gain.gain.value == 0 and gain.gain.low < 0 < gain.gain.high
    assert gain.chance > 0.3


def test_the_threshold_is_where_the_gain_is_largest() -> None:
    levels = [(0.2, 0.5), (0.45, 0.5), (0.7, 0.95), (0.9, 0.95)]
    right, share = [], []
    for level, rate in levels:
        right += [float(i < 200 * rate) for i in range(200)]
        share += [level] * 200
    (found,) = contaminated([records(right, share)])
    assert found.threshold == 0.7
    assert (found.dirty, found.clean) == (400, 400)


def test_models_share_the_threshold_and_each_has_its_own_gain() -> None:
    knows, learns = made(100, 300, 0.5, 0.5), made(100, 300, 0.9, 0.5)
    apart = contaminated([knows, learns])
    assert apart[0].threshold == apart[1].threshold
    assert [found.metrics["acc"].gain.value for found in apart] == [0.0, pytest.approx(0.1)]
    assert contaminated([learns])[0].metrics["acc"].gain == apart[1].metrics["acc"].gain


def test_no_dirty_or_no_clean_items_are_said_so() -> None:
    (none,) = contaminated([records([1.0, 0.0] * 20, [0.0] * 40)])
    gain = none.metrics["acc"]
    assert none.dirty == 0 and gain.dirty is None and gain.gain.value == 0 and gain.chance is None
    (all_,) = contaminated([records([1.0, 0.0] * 20, [1.0] * 40)])
    gain = all_.metrics["acc"]
    assert all_.clean == 0 and gain.clean is None and gain.gain is None
    (short,) = contaminated([records([1.0, 0.0] * 20, [None] * 40)])
    assert short.unjudged == 40 and short.metrics == {}
    json.dumps([each.to_json() for each in (none, all_, short)], allow_nan=False)


def test_the_interval_covers_the_true_gain_and_chance_is_right_about_no_effect() -> None:
    """100 made benchmarks: 95% intervals cover about 95 times, and a chance below 5% shows in about 5."""
    rng = np.random.default_rng(5)
    covered = false_alarms = 0
    for _ in range(100):
        share = rng.uniform(0, 1, 300)
        truth = np.where(share >= 0.5, 0.8, 0.5)
        right = (rng.uniform(size=300) < truth).astype(float)
        rows = records(right.tolist(), share.tolist())
        dirty = float((share >= 0.5).mean())
        on_clean, on_dirty = (figure([r for r in rows if (r[SHARE] >= 0.5) == d], "acc") for d in (False, True))
        found = contamination._gain(rows, "acc", 0.5, on_clean, on_dirty, seed=0)
        covered += found.low <= dirty * 0.3 <= found.high
        none = records((rng.uniform(size=300) < 0.5).astype(float).tolist(), share.tolist())
        false_alarms += contamination._chance(none, "acc", 0) < 0.05
    assert covered >= 88
    assert false_alarms <= 12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.3, 0.6, 1.0])), min_size=1, max_size=60))
def test_figures_of_both_parts_add_up_to_all(rows: list[tuple[bool, float]]) -> None:
    (found,) = contaminated([records([float(right) for right, _ in rows], [share for _, share in rows])])
    gain = found.metrics["acc"]
    assert found.dirty + found.clean == len(rows)
    total = sum(n * part.value for n, part in ((found.dirty, gain.dirty), (found.clean, gain.clean)) if part)
    assert total / len(rows) == pytest.approx(gain.all.value)
    if gain.gain:
        assert gain.gain.value == pytest.approx(gain.all.value - gain.clean.value)
        assert gain.gain.low <= gain.gain.value <= gain.gain.high
    assert gain.chance is None or 0 < gain.chance <= 1


def test_perplexities_lists_and_clusters_have_gains_by_resampling() -> None:
    rows = made(100, 300, 0.9, 0.5)
    for i, row in enumerate(rows):
        row["ratios"] = {"perplexity": [1.0 if row[SHARE] > 0.5 else 2.0 + (i % 3) / 10, 1.0]}
        row["values"]["parts"] = [1.0, float(i % 7 < 3)]
        row["cluster"] = i // 4
    (found,) = contaminated([rows])
    assert found.metrics["acc"].gain.value == pytest.approx(0.1)
    assert found.metrics["acc"].gain.low < 0.1 < found.metrics["acc"].gain.high
    worse = found.metrics["perplexity"]
    assert worse.gain.value == pytest.approx(worse.all.value - worse.clean.value) and worse.gain.high < 0
    assert worse.chance == pytest.approx(1 / 1001)  # dirty items are easier, though their perplexity is lower
    parts = found.metrics["parts"]
    assert (
        parts.gain.value == pytest.approx(parts.all.value - parts.clean.value) and parts.gain.low < 0 < parts.gain.high
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 tales of which the training data has every other one, and two that are too short."""
    ends = ["one end", "other end"]
    rows = [{"tale": tale(n), "ends": ends, "right": n % 4 // 2} for n in range(40)]
    rows += [{"tale": "Too short", "ends": ends, "right": 0}] * 2
    (tmp_path / "tales.toml").write_text(TASK)
    write_rows(tmp_path / "tales.jsonl", rows)
    write_rows(tmp_path / "data.jsonl", [{"text": f"{row['tale']} {ends[row['right']]}"} for row in rows[:40:2]])
    return tmp_path


def evaluated(folder: Path, monkeypatch, *models: MadeModel, training_data: tuple[Path, ...]):
    by_name = {model.name: model for model in models}
    monkeypatch.setattr(publish, "open_model", lambda path, *_: by_name[path])
    monkeypatch.setattr(publish, "model_folder", Path)
    return publish.evaluate_models(
        list(by_name),
        [str(folder / "tales.toml")],
        [folder],
        folder / "out",
        settings=Settings(),
        options=EngineOptions(),
        training_data=training_data,
        quiet=True,
    )


def test_a_model_that_knows_the_data_by_heart_gains_and_one_that_guesses_does_not(folder: Path, monkeypatch) -> None:
    data = (folder / "data.jsonl").read_text()
    heart = MadeModel(lambda text, end: float(text + end in data), "heart")
    guess = MadeModel(lambda text, end: float(end == " one end"), "guess")
    found = evaluated(folder, monkeypatch, heart, guess, training_data=(folder / "data.jsonl",))
    (knows,), (guesses,) = found["heart"], found["guess"]
    assert [record[SHARE] for record in knows.records] == [1.0, 0.0] * 20 + [None, None]
    gain = knows.to_json()["contamination"]
    assert (gain["dirty"], gain["clean"], gain["unjudged"], gain["ngram_words"]) == (20, 20, 2, 8)
    acc = gain["metrics"]["acc"]
    assert acc["dirty"]["value"] == 1.0 and acc["clean"]["value"] == 0.5  # of equal likelihoods the first is taken
    assert acc["gain"]["value"] == pytest.approx(0.25) and acc["gain"]["low"] > 0 and acc["chance"] < 0.01
    acc = guesses.to_json()["contamination"]["metrics"]["acc"]
    assert acc["gain"]["value"] == 0 and acc["gain"]["low"] < 0 and acc["chance"] > 0.3
    stored = json.loads((folder / "out" / "results.json").read_text())
    assert stored["models"][0]["tasks"]["tales"]["contamination"] == gain
    assert stored["training_data"].keys() == {str(folder / "data.jsonl")}
    table = contamination_table(found)
    assert table[0].startswith("model") and [line.split()[0] for line in table[1:]] == ["heart", "guess"]
    (kept,) = (folder / "out" / "contamination").glob("tales.*.json")
    assert json.loads(kept.read_text())["shares"] == [1.0, 0.0] * 20 + [None, None]


def test_training_data_changes_no_answer_and_asks_nothing_again(folder: Path, monkeypatch) -> None:
    model = MadeModel(lambda text, end: float(end == " one end"), "guess")
    plain = evaluated(folder, monkeypatch, model, training_data=())
    asked = len(model.asked)
    searched = evaluated(folder, monkeypatch, model, training_data=(folder / "data.jsonl",))
    assert len(model.asked) == asked == 84
    assert plain["guess"][0].figures == searched["guess"][0].figures
    assert "contamination" not in plain["guess"][0].to_json() and contamination_table(plain) == []


def test_missing_training_data_is_told_before_anything_is_asked(folder: Path, monkeypatch) -> None:
    model = MadeModel(lambda text, end: 0.0, "guess")
    with pytest.raises(InputError, match="nowhere does not exist"):
        evaluated(folder, monkeypatch, model, training_data=(folder / "nowhere",))
    assert model.asked == []


def test_an_items_text_is_its_question_and_right_answer_or_what_the_task_says(folder: Path) -> None:
    def first() -> str:
        task = load_task(str(folder / "tales.toml"))
        return item_texts(task, load(task, [folder], Settings()).asking)[0]

    assert first() == f"{tale(0)} one end"
    (folder / "tales.toml").write_text("contaminated = \"ends | join(' ')\"\n" + TASK)
    assert first() == "one end other end"


OTHER_FORMS = [
    ("mmlu", "mmlu.jsonl", {"question": "What is ice?", "choices": ["gas", "water"], "answer": 1, "subject": "x"}),
    ("gsm8k", "gsm8k-test.jsonl", {"question": "What is ice?", "answer": "It is water"}),
    ("svamp", "svamp-test.jsonl", {"body": "What is ice?", "question": "Is it water?", "answer": 1}),
    (
        "truthfulqa_mc1",
        "truthfulqa.csv",
        "Question,Best Answer,Correct Answers,Incorrect Answers\nWhat is ice?,water,,gas\n",
    ),
    (
        "truthfulqa_mc2",
        "truthfulqa.csv",
        "Question,Best Answer,Correct Answers,Incorrect Answers\nWhat is ice?,water,water,gas\n",
    ),
    ("humaneval", "HumanEval.jsonl", {"prompt": "What is ice?", "canonical_solution": "water"}),
    ("humaneval_instruct", "HumanEval.jsonl", {"prompt": "What is ice?", "canonical_solution": "water"}),
    ("mbpp", "mbpp.jsonl", {"text": "What is ice?", "code": "water", "task_id": 11, "test_list": ["", "", ""]}),
]
FORMS = [
    (form["task"], form["file"], form["row"])
    for form in read_json_lines(Path(__file__).parent / "forms.jsonl")
    if form["task"] in ("arc_easy", "arc_challenge", "mmlu_continuation")
]


@pytest.mark.parametrize(("name", "file", "row"), [*FORMS, *OTHER_FORMS])
def test_built_in_tasks_seek_the_question_with_the_right_answer(tmp_path: Path, name: str, file: str, row) -> None:
    if isinstance(row, str):
        (tmp_path / file).write_text(row)
    else:
        write_rows(tmp_path / file, [row])
    task = load_task(name)
    (text,) = item_texts(task, load(task, [tmp_path], Settings(shots=0)).asking)
    assert text.startswith("What is ice?") and "water" in text
