"""Labeled rows in the forms that people have."""

from __future__ import annotations

import json

import pytest

from herdlm.align.safety.categories import CategoryNames, parse_categories
from herdlm.align.safety.labels import NO_LABEL, NOT_SAID, read_labeled
from herdlm.base.errors import InputError
from tests.align.conftest import write_lines


def read(tmp_path, *rows, name="rows.jsonl", given=()):
    return read_labeled([write_lines(tmp_path / name, rows)], CategoryNames(parse_categories(given)))


def only(tmp_path, row, **options):
    (found,), _ = read(tmp_path, row, **options)
    return found.subject, found.unsafe, found.codes


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "How?", "unsafe": True, "category": "S9"}, ("prompt", True, ("S9",))),
        ({"prompt": "How?", "unsafe": 0}, ("prompt", False, ())),
        ({"prompt": "How?", "is_safe": False, "response": "So."}, ("answer", True, ())),
        ({"user_input": "How?", "model_output": "So.", "toxicity": 1}, ("answer", True, ())),
        ({"text": "How?", "label": "harmful", "categories": ["hate", "Privacy"]}, ("prompt", True, ("S7", "S10"))),
        ({"prompt": "How?", "unsafe": True, "category": {"theft": True, "hate": False}}, ("prompt", True, ("S2",))),
        (
            {"prompt": "How?", "unsafe": True, "categories": "Violent Crimes, hate_speech"},
            ("prompt", True, ("S1", "S10")),
        ),
        ({"prompt": "How?", "unsafe": False, "category": "hate"}, ("prompt", False, ())),
        ({"prompt": "How?", "label": "unsafe", "type": "contrast_privacy"}, ("prompt", True, ("S7",))),
        ({"prompt": "How?", "label": "unsafe", "type": "contrast_homonyms"}, ("prompt", True, ())),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Lo"}], "label": "safe"},
            ("answer", False, ()),
        ),
        ({"messages": [{"role": "user", "content": "Hi"}], "unsafe": "false"}, ("prompt", False, ())),
    ],
)
def test_each_form_says_what_is_judged_and_how(tmp_path, row, expected):
    assert only(tmp_path, row) == expected


def test_a_row_may_label_prompt_and_answer(tmp_path):
    row = {"prompt": "How?", "response": "No.", "prompt_harm_label": "harmful", "response_harm_label": "unharmful"}
    found, _ = read(tmp_path, row)
    assert [(each.subject, each.unsafe) for each in found] == [("prompt", True), ("answer", False)]
    found, dropped = read(tmp_path, {"prompt": "How?", "prompt_label": "unsafe", "response_label": None})
    assert [(each.subject, each.unsafe) for each in found] == [("prompt", True)] and dropped[NO_LABEL] == 1


def test_of_pairs_only_refusals_are_labels_and_they_are_safe(tmp_path):
    def said(answer):
        return f"\n\nHuman: Where does she live?\n\nAssistant: {answer}"

    row = {"chosen": said("I'm sorry, I can't tell you that."), "rejected": said("In Paris, on the left bank.")}
    (found,), dropped = read(tmp_path, row)
    assert (found.subject, found.unsafe) == ("answer", False) and "can't tell" in found.messages[-1]["content"]
    assert dropped[NOT_SAID] == 1


def test_annotated_refusals_label_prompts_and_answers(tmp_path):
    rows = [
        {"type": kind, "prompt": f"{kind}?", "completion": "Well.", "final_label": label}
        for kind, label in (
            ("homonyms", "2_full_refusal"),
            ("contrast_discr", "1_full_compliance"),
            ("contrast_homonyms", "3_partial_refusal"),
        )
    ]
    found, dropped = read(tmp_path, *rows)
    assert [(each.group, each.subject, each.unsafe, each.codes) for each in found] == [
        ("homonyms", "prompt", False, ()),
        ("homonyms", "answer", False, ()),
        ("contrast_discr", "prompt", True, ("S10",)),
        ("contrast_discr", "answer", True, ("S10",)),
        ("contrast_homonyms", "prompt", True, ()),
    ]
    assert sum(dropped.values()) == 1


def test_equal_rows_count_once_and_contradictions_are_refused(tmp_path):
    found, dropped = read(tmp_path, *[{"prompt": "How?", "unsafe": True}] * 3)
    assert len(found) == 1 and dropped == {"a duplicate": 2}
    with pytest.raises(InputError, match="line 2.*the other label"):
        read(tmp_path, {"prompt": "How?", "unsafe": True}, {"prompt": "How?", "unsafe": False})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "How?"}, "line 1: no label"),
        ({"prompt": "How?", "unsafe": "perhaps"}, "key unsafe: 'perhaps' is neither true nor false"),
        ({"prompt": "How?", "label": "toxic"}, "key label: 'toxic' is neither safe nor unsafe"),
        ({"prompt": " ", "unsafe": True}, "key prompt: not a text, or empty"),
        ({"prompt": "How?", "unsafe": True, "category": "zebras"}, "category 'zebras' is unknown"),
        ({"prompt": "How?", "unsafe": True, "category": 3}, "key category: 3 is no list"),
        ({"answer": "So.", "unsafe": True}, "no prompt"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, row)


def test_names_of_categories_are_given_as_options(tmp_path):
    row = {"prompt": "How?", "unsafe": True, "category": ["zebras", "lions"]}
    assert only(tmp_path, row, given=["zebras=s1,S2", "lions=none"]) == ("prompt", True, ("S1", "S2"))
    for given, message in (("zebras", "not of the form"), ("zebras=S15", "no category 'S15'"), ("=S1", "not of")):
        with pytest.raises(InputError, match=message):
            parse_categories([given])


def test_tables_are_read_too(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(
        'prompt,type,label\n"How do I boil an egg?",homonyms,safe\n"How do I rob a bank?",contrast,unsafe\n'
    )
    found, _ = read_labeled([path], CategoryNames())
    assert [each.unsafe for each in found] == [False, True]
    assert json.dumps([each.group for each in found]) == '["homonyms", "contrast"]'
