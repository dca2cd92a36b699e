"""Planted leaks of benchmarks, and what is none."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate.steps.contamination.benchmarks import Benchmark, BenchmarkConfig, Contamination, ngram_hashes
from herdlm.curate.steps.contamination.report import ContaminationCounts, report_lines
from herdlm.curate.words import normalize

TEMPLATE = "Answer the question below and give only one number as the answer"
QUESTIONS = [
    "A farmer has twelve sheep and seven goats and sells a third of the sheep at market, how many animals are left?",
    "If a train leaves at noon with sixty people aboard and nine get off at every stop, who is left after four stops?",
    "Of ninety pages Ana reads a tenth on Monday and twice as many on Tuesday. Which page does she open on Wednesday?",
    "Too short to find.",
]
EXAMPLES = [f"{TEMPLATE}. {question}" for question in QUESTIONS[:3]] + QUESTIONS[3:]
FILLER = "The weather had been fine all week long and the boats came home every evening with their holds full of fish."


def config(**changes) -> BenchmarkConfig:
    return BenchmarkConfig(path="made.jsonl", **({"max_examples_per_ngram": 2} | changes))


def planted(**changes) -> Contamination:
    return Contamination([Benchmark("maths", EXAMPLES, config(**changes))])


def test_an_example_within_a_document_is_found_whatever_its_case_and_punctuation() -> None:
    found = planted()
    leaked = f"{FILLER}\n\n{EXAMPLES[1].upper().replace(',', ' -')} {FILLER}"
    assert found.overlaps(leaked) == {"maths": 1.0}
    hits = found.hits(leaked)["maths"]
    assert hits.examples.tolist() == [1]
    assert found.check(found.hits(leaked)) == (["maths"], "contaminated")
    assert found.overlaps(FILLER) == {"maths": 0.0} and found.hits(FILLER) == {}


def test_a_benchmarks_template_and_common_phrases_are_no_leak() -> None:
    found = planted()
    assert found.overlaps(f"{TEMPLATE}: {FILLER}")["maths"] == 0.0
    words = QUESTIONS[0].split()
    phrase = " ".join(words[:9])  # two 8-grams
    overlap = found.overlaps(f"{FILLER} {phrase} {FILLER}")["maths"]
    assert 0 < overlap < 0.5
    assert found.check(found.hits(phrase)) == ([], None)
    assert planted(min_overlap=0.1).check(planted(min_overlap=0.1).hits(phrase))[0] == ["maths"]


def test_flagging_does_not_drop_and_one_benchmark_that_drops_is_enough() -> None:
    text = QUESTIONS[0]
    flag = Benchmark("flagged", QUESTIONS, config(action="flag"))
    drop = Benchmark("dropped", QUESTIONS, config(ngram_words=5))
    assert Contamination([flag]).check(Contamination([flag]).hits(text)) == (["flagged"], None)
    both = Contamination([flag, drop])
    assert both.check(both.hits(text)) == (["flagged", "dropped"], "contaminated")


def test_the_report_adds_up_pieces_of_an_example_from_several_documents_and_shards() -> None:
    found = planted()
    words = EXAMPLES[0].split()
    documents = {
        "a": f"{FILLER} {' '.join(words[:16])}",
        "b": f"{FILLER} {' '.join(words[9:])}",
        "c": EXAMPLES[1],
        "d": f"{FILLER} {EXAMPLES[1]}",
        "e": FILLER,
    }
    whole, first, second = (ContaminationCounts(found) for _ in range(3))
    for id_, text in documents.items():
        whole.add(id_, found.hits(text))
        (first if id_ < "c" else second).add(id_, found.hits(text))
    first.merge(json.loads(json.dumps(second.as_json())))
    assert first.report() == whole.report()
    told = whole.report()["benchmarks"]["maths"]
    assert (told["examples"], told["examples_judged"], told["examples_contaminated"]) == (4, 3, 2)
    assert told["documents_with_an_example"] == 3  # b holds more than half of one
    rows = {row["example"]: row for row in told["contaminated"]}
    assert rows[1] == {"example": 1, "overlap": 1.0, "documents": ["c", "d"]}
    assert rows[0]["overlap"] == 1.0 and rows[0]["documents"] == ["b"]
    assert "maths" in report_lines(whole.report())[-1]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=0, max_size=25)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(2, 4), st.integers(1, 3))
def test_overlaps_equal_those_counted_word_by_word(
    examples: list[list[str]], text: list[str], n: int, most: int
) -> None:
    def grams(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    counted = {g for e in examples for g in grams(e) if sum(g in grams(other) for other in examples) <= most}
    held = set(grams(text)) & counted

    def covered(words: list[str], by: set[tuple[str, ...]]) -> int:
        return len({i + j for i, g in enumerate(grams(words)) if g in by for j in range(n)})

    expected = {i: covered(e, held) / covered(e, counted) for i, e in enumerate(examples) if covered(e, held)}
    benchmark = Benchmark("b", [" ".join(e) for e in examples], config(ngram_words=n, max_examples_per_ngram=most))
    assert benchmark.judged.tolist() == [covered(e, counted) > 0 for e in examples]
    hits = Contamination([benchmark]).hits(" ".join(text)).get("b")
    found = {} if hits is None else dict(zip(hits.examples.tolist(), hits.overlaps.tolist(), strict=True))
    assert found == pytest.approx(expected)


def test_ngram_hashes_depend_on_order_and_do_not_collide_in_a_million() -> None:
    words = np.random.default_rng(0).integers(0, 2**63, 1_000_000, dtype=np.uint64)
    assert len(np.unique(ngram_hashes(words, 8))) == len(words) - 7
    a, b = np.array([[1, 2, 3], [3, 2, 1]], np.uint64)
    assert ngram_hashes(a, 3)[0] != ngram_hashes(b, 3)[0]
    assert len(ngram_hashes(a, 4)) == 0


def test_files_are_read_and_faults_in_them_named(tmp_path: Path) -> None:
    rows = [{"question": q, "answer": "the answer"} for q in QUESTIONS]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fields = ("question", "answer")
    sizes = {
        len(Benchmark.load("x", BenchmarkConfig(path=str(tmp_path / name), fields=fields)).keys)
        for name in ("a.jsonl", "a.jsonl.gz", "a.parquet")
    }
    assert len(sizes) == 1 and sizes.pop() > 20
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-20])
    (tmp_path / "bad.jsonl").write_text('{"question": "x"}\nno json\n')
    (tmp_path / "short.jsonl").write_text('{"question": "x y z"}\n')
    (tmp_path / "a.txt").write_text("x")
    for name, message in {
        "none.jsonl": "does not exist",
        "cut.jsonl.gz": "cannot be read",
        "bad.jsonl": "line 2: is not JSON",
        "short.jsonl": "no example",
        "a.txt": "not named as a JSONL",
    }.items():
        with pytest.raises(InputError, match=message):
            Benchmark.load("x", BenchmarkConfig(path=str(tmp_path / name), fields=("question",)))
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(InputError, match="has no (column )?text"):
            Benchmark.load("x", BenchmarkConfig(path=str(tmp_path / name)))


@pytest.mark.skipif("HERDLM_DATA" not in os.environ, reason="HERDLM_DATA names no folder of data")
def test_leaks_of_public_benchmarks_are_all_found_and_nothing_else() -> None:
    folder = Path(os.environ["HERDLM_DATA"]) / "eval"
    configs = {
        "gsm8k": BenchmarkConfig(path=str(folder / "gsm8k-test.jsonl"), fields=("question",)),
        "humaneval": BenchmarkConfig(path=str(folder / "HumanEval.jsonl.gz"), fields=("prompt",)),
        "ifeval": BenchmarkConfig(path=str(folder / "ifeval.jsonl"), fields=("prompt",)),
    }
    found = Contamination.load(configs)
    draw = Random(0)
    gsm8k = [json.loads(line)["question"] for line in (folder / "gsm8k-test.jsonl").open(encoding="utf-8")]
    for number in draw.sample(range(len(gsm8k)), 40):
        hits = found.hits(f"{FILLER} {gsm8k[number]} {FILLER}")
        assert list(hits) == ["gsm8k"]
        assert dict(zip(hits["gsm8k"].examples.tolist(), hits["gsm8k"].overlaps.tolist(), strict=True))[number] == 1.0
        shuffled = normalize(gsm8k[number]).split()
        draw.shuffle(shuffled)
        assert found.overlaps(" ".join(shuffled))["gsm8k"] == 0.0
