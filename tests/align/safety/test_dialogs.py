"""A guard's training dialogs: what is learned, and how categories vary."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from herdlm.align.safety.categories import CategoryNames
from herdlm.align.safety.dialogs import Augmentation, guard_dialogs
from herdlm.align.safety.labels import Labeled, read_labeled
from herdlm.align.safety.prepare import NO_DROPS, prepare
from herdlm.base.errors import InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.data.read import read_dialogs
from herdlm.data.source import Source
from herdlm.serve.guard.guard import CATEGORIES, codes_in, guard_message
from tests.align.conftest import write_lines

PLAIN = Augmentation(shuffle=0, drop=0)
LISTED = re.compile(r"^(S\d+): (.*)\.$", re.MULTILINE)


def labeled(number, codes=(), unsafe=None):
    asked = ({"role": "user", "content": f"Question {number}"},)
    return Labeled(asked, "prompt", bool(codes) if unsafe is None else unsafe, codes, "", "rows.jsonl")


ROWS = [labeled(number, ("S9", "S10") if number % 2 else ()) for number in range(200)]


def told(dialog):
    question, answer = (message["content"] for message in dialog["messages"])
    return dict(LISTED.findall(question)), answer


def test_without_changes_a_dialog_is_what_the_server_asks():
    for dialog in guard_dialogs(ROWS[:4], PLAIN):
        question, answer = dialog["messages"]
        number = int(re.search(r"Question (\d+)", question["content"])[1])
        assert question == guard_message([("User", f"Question {number}")])
        assert answer["content"] == ("unsafe\nS9,S10" if number % 2 else "safe")


def test_codes_follow_their_categories_when_these_are_renumbered():
    numbers = Counter()
    for dialog in guard_dialogs(ROWS, Augmentation(shuffle=1, drop=0)):
        names, answer = told(dialog)
        assert sorted(names.values()) == sorted(CATEGORIES.values()) and list(names) == list(CATEGORIES)
        if answer != "safe":
            codes = codes_in(answer)
            assert {names[code] for code in codes} == {CATEGORIES["S9"], CATEGORIES["S10"]}
            numbers.update(codes)
    assert len(numbers) == 14  # no code keeps its meaning


def test_dropped_categories_are_never_named_and_without_all_violated_ones_a_turn_is_safe():
    seen = Counter()
    for dialog in guard_dialogs(ROWS, Augmentation(copies=4, shuffle=0, drop=1)):
        names, answer = told(dialog)
        number = int(re.search(r"Question (\d+)", dialog["messages"][0]["content"])[1])
        assert 0 < len(names) < 14 and codes_in(answer) <= set(names)
        whole = {"S9", "S10"} <= set(names)
        expected = "unsafe\nS9,S10" if number % 2 and whole else "safe"
        assert answer == expected
        seen[number % 2, answer] += 1
    assert seen[1, "safe"] > 20 and seen[1, "unsafe\nS9,S10"] > 4 * seen[1, "safe"]


def test_nothing_is_dropped_where_it_would_give_the_label_away():
    rows = [*ROWS[:20], labeled(999, unsafe=True)]
    answers = {}
    for dialog in guard_dialogs(rows, Augmentation(drop=1)):
        names, answers[dialog["messages"][0]["content"]] = told(dialog)
        assert len(names) == 14
    assert "unsafe" in answers.values()  # of the turn whose categories nobody knows


def test_dialogs_are_the_same_each_time_and_change_with_the_seed():
    once, again, other = (list(guard_dialogs(ROWS[:20], Augmentation(), seed=seed)) for seed in (1, 1, 2))
    assert once == again != other


def test_files_are_prepared_with_rows_held_out(tmp_path):
    said = [{"role": "assistant", "content": "Never."}]
    rows = [{"prompt": f"How {n}?", "unsafe": n % 2 == 0, "category": "theft" if n % 2 == 0 else ""} for n in range(60)]
    rows += [{"messages": [{"role": "user", "content": f"How {n}?"}, *said], "label": "safe"} for n in range(60)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    out, held = tmp_path / "guard.jsonl", tmp_path / "held.jsonl"
    made = prepare([path], out, CategoryNames(), Augmentation(copies=2), held_out=held, share=0.3)
    assert 20 < made.held_out < 50 and made.held_out % 2 == 0  # a prompt and its answer are on one side
    assert made.dialogs == len(read_json_lines(out)) > 120 - made.held_out
    assert any("0 of " in text and "answers" in text for text in made.warnings)
    assert NO_DROPS not in made.warnings
    dialogs, _ = read_dialogs([Source(out)])
    assert len(dialogs) == made.dialogs
    assert {message["role"] for dialog in dialogs for message in dialog["messages"]} == {"user", "assistant"}
    left, _ = read_labeled([held], CategoryNames())
    assert len(left) == made.held_out
    assert {row.codes for row in left if row.unsafe} == {("S2",)}
    asked = "".join(dialog["messages"][0]["content"] for dialog in dialogs)
    assert not any(f"User: {row.messages[0]['content']}\n" in asked for row in left)
    with pytest.raises(InputError, match="exists"):
        prepare([path], out, CategoryNames(), Augmentation())


def test_a_guards_own_wording_is_used(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "How?", "unsafe": False}])
    wording = tmp_path / "guard_prompt.txt"
    wording.write_text("Judge {role}.\n{categories}\n{conversation}\n")
    prepare([path], tmp_path / "guard.jsonl", CategoryNames(), PLAIN, wording=wording)
    (row,) = read_json_lines(tmp_path / "guard.jsonl")
    assert row["messages"][0]["content"].startswith("Judge User.\nS1: Violent Crimes.")
    wording.write_text("Judge {role}.")
    with pytest.raises(InputError, match="has no {categories}"):
        prepare([path], tmp_path / "other.jsonl", CategoryNames(), PLAIN, wording=wording)
    with pytest.raises(InputError, match="--drop 2 is not a share"):
        Augmentation(drop=2)
