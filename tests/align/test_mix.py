"""A mix by capability: shares that are reached, limits that hold, rows whose place is not known."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from herdlm.align.config import SftConfig
from herdlm.align.mix import MixConfig, check_tasks, mix
from herdlm.base.errors import InputError
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from tests.align.conftest import dialogs

REPORT = {
    "general-english": 0.5266,
    "code": 0.1489,
    "multilingual": 0.0301,
    "exam-like": 0.0814,
    "reasoning-and-tools": 0.2119,
    "long-context": 0.0011,
}


def config(shares, **keys):
    return MixConfig(parts={name: {"share": share} for name, share in shares.items()}, **keys)


def rows_of(counts):
    return [{"task": task} for task, count in counts.items() for _ in range(count)]


def test_the_reports_shares_are_reached_by_repeating_and_leaving_out():
    given = dict(zip(REPORT, (30_000, 20_000, 3000, 6000, 40_000, 1000), strict=True))
    rows = rows_of(given)
    found = mix(rows, [1] * len(rows), config(REPORT), seed=3)
    used = Counter(rows[number]["task"] for number in found.rows)
    assert len(found.rows) == pytest.approx(100_000, abs=6)
    for task, share in REPORT.items():
        assert used[task] / 100_000 == pytest.approx(share, abs=1e-4)
        assert found.counts[task]["share"] == pytest.approx(share, abs=1e-4)
        assert (found.counts[task]["rows"], found.counts[task]["used"]) == (given[task], used[task])
    repeats = Counter(Counter(found.rows).values())
    assert set(repeats) == {1, 2}  # 30,000 rows for a share of 52,660, and 6,000 for 8,140


def test_shares_of_tokens_count_lengths():
    rows = rows_of({"a": 1000, "b": 1000})
    lengths = [10] * 1000 + [30] * 1000
    found = mix(rows, lengths, config({"a": 0.5, "b": 0.5}, by="tokens"), seed=0)
    tokens = Counter()
    for number in found.rows:
        tokens[rows[number]["task"]] += lengths[number]
    assert tokens["a"] == pytest.approx(20_000, abs=10) and tokens["b"] == pytest.approx(20_000, abs=30)
    assert found.counts["a"]["repeats"] == 2.0


def test_a_scarce_part_is_repeated_only_so_often_and_others_make_up_for_it():
    rows = rows_of({"a": 10, "b": 500, "c": 490})
    found = mix(rows, [1] * 1000, config({"a": 0.5, "b": 0.3, "c": 0.2}, max_repeats=3), seed=0)
    used = Counter(rows[number]["task"] for number in found.rows)
    assert used["a"] == 30 and max(Counter(found.rows).values()) == 3
    assert used["b"] / used["c"] == pytest.approx(1.5, rel=0.01) and sum(used.values()) == pytest.approx(1000, abs=2)
    assert (found.counts["a"]["share"], found.counts["a"]["asked"]) == (pytest.approx(0.03, abs=1e-3), 0.5)


def test_a_part_without_rows_leaves_its_share_to_the_others():
    rows = rows_of({"a": 100, "b": 100})
    found = mix(rows, [1] * 200, config({"a": 0.4, "b": 0.4, "c": 0.2}), seed=0)
    assert Counter(rows[number]["task"] for number in found.rows) == {"a": 100, "b": 100}
    assert found.counts["c"] == {"rows": 0, "used": 0, "repeats": 0.0, "share": 0.0, "asked": 0.2}
    assert mix([], [], config({"a": 1.0}), seed=0).rows == []


def test_several_tasks_make_a_part():
    mixed = MixConfig(parts={"maths": {"share": 0.5, "tasks": ("sums", "products")}, "talk": {"share": 0.5}})
    rows = rows_of({"sums": 50, "products": 50, "talk": 50})
    used = Counter(rows[number]["task"] for number in mix(rows, [1] * 150, mixed, seed=0).rows)
    assert used["sums"] + used["products"] == used["talk"] == 75


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=2),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
    st.sampled_from(["dialogs", "tokens"]),
    st.floats(1, 5),
)
def test_limits_and_counts_hold_for_any_data(counts, parts, by, most):
    names = sorted(counts)
    whole = sum(parts[: len(names)])
    shares = {name: parts[number] / whole for number, name in enumerate(names)}
    rows = rows_of(counts)
    lengths = [7 + number % 13 for number in range(len(rows))]
    found = mix(rows, lengths, config(shares, by=by, max_repeats=most), seed=1)
    uses = Counter(found.rows)
    assert max(uses.values(), default=0) <= most + 1 and found.rows == sorted(found.rows)
    assert sum(part["used"] for part in found.counts.values()) == len(found.rows)
    size = [1] * len(rows) if by == "dialogs" else lengths
    total, used = sum(size), sum(size[number] for number in found.rows)
    assert used <= total + max(size) * len(names)
    assert used >= total - max(size) * len(names)  # all that is capped gives to others, which have rows to give
    for name in names:  # within a row, a part never exceeds the limit
        part = sum(size[n] for n in found.rows if rows[n]["task"] == name)
        assert part <= most * sum(s for s, row in zip(size, rows, strict=True) if row["task"] == name) + max(size)


def test_the_choice_is_the_seeds_and_does_not_depend_on_other_parts():
    rows = rows_of({"a": 100, "b": 300})
    shares = {"a": 0.5, "b": 0.5}
    one, same, other = (mix(rows, [1] * 400, config(shares), seed=seed).rows for seed in (1, 1, 2))
    assert one == same != other
    turned = rows[100:] + rows[:100]
    assert [(n + 100) % 400 for n in mix(turned, [1] * 400, config(shares), seed=1).rows if n < 300] == [
        n for n in one if n >= 100
    ]


def test_rows_of_no_part_are_refused_with_their_tasks():
    rows = [*rows_of({"a": 2, "poems": 3}), {}]
    with pytest.raises(InputError, match=r"no part for the tasks no task \(1 rows\), poems \(3 rows\)"):
        mix(rows, [1] * 6, config({"a": 1.0}), seed=0)
    check_tasks(config({"a": 0.5, "poems": 0.5}), rows[:5])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"a": {"share": 0.5}}, "add up to 0.5"),
        ({"a": {"share": 0.5, "tasks": ["x"]}, "b": {"share": 0.5, "tasks": ["x"]}}, "belongs to 'a' and to 'b'"),
        ({}, "at least 1 item"),
    ],
)
def test_mixes_that_make_no_sense_are_refused(parts, said):
    with pytest.raises(ValidationError, match=said):
        MixConfig(parts=parts)


def test_training_takes_the_mixed_rows_for_a_number_of_steps(folder):
    given = [row | {"task": "a" if number < 10 else "b"} for number, row in enumerate(dialogs(0, 40))]
    found = mix(given, [1] * 40, config({"a": 0.5, "b": 0.5}), seed=0)
    assert Counter(given[number]["task"] for number in found.rows) == {"a": 20, "b": 20}
    batches = DialogBatches(
        ChatFormat.load(folder / "base"),
        [given[number] for number in found.rows],
        seq_len=128,
        rows_per_step=2,
        epochs=None,
        seed=0,
        steps=7,
    )
    assert batches.steps == 7 and len(batches.pieces) == 40


def test_fine_tuning_is_as_long_as_steps_or_epochs_say():
    keys = {"seq_len": 8, "rows_per_step": 1, "train": {"peak_lr": 1e-5}}
    assert SftConfig(steps=9, **keys).steps == 9
    for length in ({}, {"steps": 9, "epochs": 1}):
        with pytest.raises(ValidationError, match="give one of the two"):
            SftConfig(**length, **keys)
