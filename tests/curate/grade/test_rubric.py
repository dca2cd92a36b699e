"""Rubrics and the strict reading of answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate.grade.rubric import SHIPPED, load_rubric

QUALITY = load_rubric("quality")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("It teaches.\n\nAnswer: 4", "4"),
        ("Answer: `0`.\n\n", "0"),
        ("Clear.\n**Answer: 3**", "3"),
        ("**Answer:** 3", "3"),
        ("<think>Answer: 1? No.\nAnswer: 1</think>Good.\nAnswer: 5", "5"),
        ("Answer: 6", None),
        ("Answer: 3.5", None),
        ("Answer: 3 or 4", None),
        ("Answer: 3\nAnswer: 4", None),
        ("Answer: 3\nbecause it informs", None),
        ("The answer is 3", None),
        ("answer: 3", None),
        ("3", None),
        ("", None),
        ("<think>Answer: 3", None),
        ("Answer: general", None),
    ],
)
def test_only_an_answer_in_the_form_asked_for_counts(reply: str, answer: str | None) -> None:
    assert QUALITY.parse(reply) == answer


@given(st.text())
def test_whatever_a_model_says_the_answer_is_allowed_or_none(reply: str) -> None:
    assert QUALITY.parse(reply) in (None, *QUALITY.answers)


def test_shipped_rubrics_ask_for_what_they_read() -> None:
    assert QUALITY.scores and QUALITY.answers == tuple("012345")
    assert not load_rubric("domains").scores
    for name in SHIPPED:
        rubric = load_rubric(name)
        example = rubric.text.partition("of the form `")[2].partition("`")[0]
        assert rubric.parse(example) is not None
        assert rubric.messages("TEXT")[1]["content"].count("TEXT") == 1


def test_a_rubric_of_ones_own_is_read_and_one_without_answers_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.md"
    own.write_text("Is it funny?\n\n## Answers\n\n- `yes`: it is\n* `no`: it is not\n- not a choice\n")
    rubric = load_rubric(str(own))
    assert rubric.answers == ("yes", "no") and rubric.digest != QUALITY.digest
    own.write_text("Is it funny? Answer `yes` or `no`.\n")
    with pytest.raises(InputError, match="## Answers"):
        load_rubric(str(own))
    with pytest.raises(InputError, match="there is no rubric funny"):
        load_rubric("funny")
