"""IFEval: every verdict is the published checker's, on stored answers of models; see published/README.md."""

import json
from collections import Counter
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.ifeval import IFEval
from herdlm.verifiers.ifeval_instructions import INSTRUCTIONS

STORED = [json.loads(line) for line in (Path(__file__).parent / "published" / "ifeval.jsonl").open(encoding="utf-8")]


def test_all_verdicts_equal_the_published_checkers():
    strict = IFEval()
    different = []
    for row in STORED:
        details = strict(row["answer"], row).details
        if (details["strict"], details["loose"]) != (row["strict"], row["loose"]):
            different.append((row["source"], details, row["strict"], row["loose"]))
    assert different == []


def test_the_stored_answers_keep_and_break_every_kind():
    seen = Counter(
        (n, kept) for row in STORED for n, kept in zip(row["instruction_id_list"], row["strict"], strict=True)
    )
    assert {name for name, _ in seen} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25
    assert [key for name in INSTRUCTIONS for key in ((name, True), (name, False)) if not seen[key]] == []
    assert any(row["strict"] != row["loose"] for row in STORED)


def test_the_score_is_the_share_of_instructions_kept():
    reference = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [{}, {"num_words": None}],
    }
    verdict = IFEval()("no comma", reference)
    assert (verdict.passed, verdict.score, verdict.reason) == (False, 0.5, "breaks startend:quotation")
    assert IFEval()('"no comma"', reference).passed
    assert not IFEval()("", reference).score


def test_loose_verdicts_forgive_an_introduction():
    reference = {"instruction_id_list": ["detectable_format:json_format"], "kwargs": [{}]}
    answer = 'Sure, here it is:\n{"a": 1}'
    assert not IFEval()(answer, reference).passed
    assert IFEval(loose=True)(answer, reference).passed


@pytest.mark.parametrize(
    "reference, message",
    [
        (None, "has no instructions"),
        ({"kwargs": []}, "instruction_id_list is missing"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "not an object for each"),
        ({"instruction_id_list": [], "kwargs": []}, "not an object for each"),
        ({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}, "no_coma' is unknown"),
        ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3}]}, "lack relation"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": 3}]}, "takes no num_words"),
        (
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 3, "relation": "at most"}],
            },
            "neither 'less than' nor 'at least'",
        ),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["("]}]},
            "kwargs of keywords:existence",
        ),
    ],
)
def test_wrong_references_are_refused(reference, message):
    with pytest.raises(InputError, match=message):
        IFEval()("an answer", reference)
