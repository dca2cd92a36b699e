"""Selecting from samples: best of K, limits per task, pairs in four grades, lineage; nothing depends on order."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from herdlm.align.samples import select as selecting
from herdlm.align.samples.candidates import joined
from herdlm.align.samples.pairing import spread
from herdlm.align.samples.rows import prompt_id
from herdlm.align.samples.select import KEPT, select
from herdlm.align.samples.select_config import SelectConfig
from herdlm.base.errors import InputError
from herdlm.cli.app import app
from herdlm.data.read import read_dialogs, read_preferences
from herdlm.data.source import Source


def sample(answer, *, passed=None, reward=None, **keys):
    row = {"answer": answer, "model": "m", "temperature": 1.0, "finish": "stop", "tokens": 3, "logprob": None, **keys}
    if passed is not None:
        row["verdict"] = {"passed": passed, "score": float(passed), "reason": "equal" if passed else "unequal"}
    return row | ({} if reward is None else {"reward": reward})


def row(name, *samples, **keys):
    prompt = [{"role": "user", "content": f"Question {name}?"}]
    return {"id": name, "prompt": prompt, "task": "t", "source": "s.jsonl", "samples": list(samples), **keys}


def answers(dialogs):
    return [dialog["messages"][-1]["content"] for dialog in dialogs]


def sides(pairs):
    return [(pair["chosen"][-1]["content"], pair["rejected"][-1]["content"], pair["rating"]) for pair in pairs]


def test_the_best_right_answer_is_kept_even_if_a_wrong_one_has_more_reward():
    found = select(
        [
            row(
                "a",
                sample("wrong", passed=False, reward=9.0),
                sample("right", passed=True, reward=-2.0),
                sample("better", passed=True, reward=1.0),
            )
        ]
    )
    assert answers(found.kept) == ["better"]
    assert found.outcomes == {"a": KEPT}


def test_rank_is_reward_plus_log_of_how_often():
    # log(3) = 1.0986: three times at reward 0 beats once at 1.0, and loses to once at 1.2
    thrice = [sample("often", reward=0.0)] * 3
    config = SelectConfig(share_unverified=1.0)
    assert answers(select([row("a", *thrice, sample("once", reward=1.0))], config).kept) == ["often"]
    assert answers(select([row("a", *thrice, sample("once", reward=1.2))], config).kept) == ["once"]


def test_without_reward_the_most_frequent_answer_is_kept_and_of_equals_the_shortest():
    config = SelectConfig(share_unverified=1.0)
    found = select([row("a", sample("long one"), sample("short"), sample("middle"), sample("middle"))], config)
    assert answers(found.kept) == ["middle"]
    assert answers(select([row("a", sample("long one"), sample("short"))], config).kept) == ["short"]


def test_cut_and_empty_answers_are_never_kept_unless_cut_ones_are_allowed():
    rows = [
        row(
            "cut", sample("cut off", passed=True, reward=5.0, finish="length"), sample("whole", passed=True, reward=0.0)
        ),
        row("only-cut", sample("cut off", passed=True, finish="length")),
        row("empty", sample("  \n"), sample("")),
    ]
    found = select(rows)
    assert answers(found.kept) == ["whole"]
    assert found.outcomes == {"cut": KEPT, "only-cut": selecting.ONLY_CUT, "empty": selecting.ONLY_EMPTY}
    assert sorted(answers(select(rows, SelectConfig(cut="kept")).kept)) == ["cut off", "cut off"]


def test_cut_answers_are_rejected_only_where_that_is_asked_for():
    rows = [row("a", sample("right", passed=True), sample("runs on and on", passed=False, finish="length"))]
    assert select(rows).pairs == []
    assert sides(select(rows, SelectConfig(cut="rejected")).pairs) == [("right", "runs on and on", "better")]


def test_of_the_unverified_the_best_share_of_each_task_is_kept_and_the_verified_are_not_touched():
    rows = [row(f"u{n}", sample(f"answer {n}", reward=float(n)), task="open") for n in range(5)]
    rows += [row(f"v{n}", sample("right", passed=True, reward=-9.0), task="sums") for n in range(5)]
    found = select(rows, SelectConfig(share_unverified=0.5))
    kept = Counter(dialog["task"] for dialog in found.kept)
    assert kept == {"open": 3, "sums": 5}
    assert {name for name, outcome in found.outcomes.items() if outcome == selecting.UNVERIFIED} == {"u0", "u1"}


def test_a_limit_per_task_takes_the_best_of_each_prompt_before_the_second_of_any():
    rows = [
        row(f"p{n}", sample(f"first {n}", passed=True, reward=n + 0.5), sample(f"second {n}", passed=True, reward=n))
        for n in range(3)
    ]
    found = select(rows, SelectConfig(keep_per_prompt=2, keep_per_task=4))
    assert sorted(answers(found.kept)) == ["first 0", "first 1", "first 2", "second 2"]
    assert select(rows, SelectConfig(keep_per_task=2)).outcomes == {"p0": selecting.BEYOND, "p1": KEPT, "p2": KEPT}


def test_an_answer_below_the_quantile_of_its_tasks_rewards_is_not_kept():
    rows = [row(f"p{n}", sample(f"right {n}", passed=True, reward=float(n))) for n in range(5)]
    found = select(rows, SelectConfig(min_reward_quantile=0.5))
    assert [name for name, outcome in found.outcomes.items() if outcome == KEPT] == ["p4", "p3", "p2"]
    assert found.outcomes["p0"] == selecting.LOW_REWARD


def test_an_answer_without_a_finite_reward_is_passed_over_where_others_have_one():
    rows = [row("a", sample("too long", passed=True, reward=float("-inf")), sample("scored", passed=True, reward=-3.0))]
    assert answers(select(rows).kept) == ["scored"]
    alone = [row("a", sample("too long", passed=True, reward=float("-inf")), sample("no", passed=False, reward=1.0))]
    assert select(alone).outcomes == {"a": selecting.NO_REWARD}


def of_spread_one():
    """Prompts without verdicts that make the spread of rewards 1, nearly."""
    return [row(f"u{n}", sample("x", reward=0.0), sample("y", reward=2**0.5), task="unit") for n in range(400)]


def answers_to_a(found):
    return [dialog["messages"][-1]["content"] for dialog in found.kept if dialog["lineage"]["prompt"] == "a"]


def test_diverse_keeps_answers_that_differ():
    near = "we add three and four and that makes seven in all"
    rows = [
        row(
            "a",
            sample(near, passed=True, reward=1.0),
            sample(f"{near} of them", passed=True, reward=0.9),
            sample("seven, by counting on from three", passed=True, reward=0.8),
        )
    ]
    rows += of_spread_one()
    assert answers_to_a(select(rows, SelectConfig(keep_per_prompt=2))) == [near, f"{near} of them"]
    assert answers_to_a(select(rows, SelectConfig(keep_per_prompt=2, diverse=True))) == [
        near,
        "seven, by counting on from three",
    ]


def test_diverse_takes_no_answer_far_below_the_best():
    rows = [
        row(
            "a",
            sample("one two three four", reward=5.0),
            sample("one two three five", reward=4.9),
            sample("nothing alike here", reward=-5.0),
        )
    ]
    rows += of_spread_one()
    found = select(rows, SelectConfig(keep_per_prompt=2, diverse=True, share_unverified=1.0))
    assert answers_to_a(found) == ["one two three four", "one two three five"]


# Pairs


def test_a_right_answer_is_better_than_a_wrong_one_and_the_margin_decides_how_much():
    unit = of_spread_one()

    def rated(right, wrong):
        rows = [
            *unit,
            row("a", sample("right", passed=True, reward=right), sample("wrong", passed=False, reward=wrong)),
        ]
        return next(p["rating"] for p in select(rows).pairs if p["lineage"]["prompt"] == "a")

    assert rated(1.2, 0.0) == "significantly better"
    assert rated(0.5, 0.0) == rated(-0.5, 0.0) == "better"
    assert rated(-1.2, 0.0) == "slightly better"
    assert sides(select([row("a", sample("right", passed=True), sample("wrong", passed=False))]).pairs) == [
        ("right", "wrong", "better")
    ]


def test_without_verdicts_the_margin_alone_decides():
    unit = of_spread_one()

    def rated(margin):
        rows = [*unit, row("a", sample("one", reward=margin), sample("two", reward=0.0))]
        return [p["rating"] for p in select(rows).pairs if p["lineage"]["prompt"] == "a"]

    assert rated(2.2) == ["significantly better"]
    assert rated(1.2) == ["better"]
    assert rated(0.6) == ["slightly better"]
    assert rated(0.4) == []


def test_a_wrong_answer_is_never_chosen_and_two_right_ones_without_rewards_make_no_pair():
    assert (
        select([row("a", sample("no", passed=False, reward=9.0), sample("nor", passed=False, reward=0.0))]).pairs == []
    )
    assert select([row("a", sample("yes", passed=True), sample("aye", passed=True))]).pairs == []
    assert select([row("a", sample("one"), sample("two"), sample("two"))]).pairs == []


def test_the_rejected_answer_is_the_likeliest_wrong_one():
    rows = [row("a", sample("right", passed=True), sample("rare1", passed=False), *[sample("often", passed=False)] * 3)]
    assert sides(select(rows).pairs) == [("right", "often", "better")]
    rows = [
        row(
            "a",
            sample("right", passed=True, reward=1.0),
            sample("bad 1", passed=False, reward=-3.0),
            sample("bad 2", passed=False, reward=0.5),
        )
    ]
    assert sides(select(rows, SelectConfig(better_margin=9.0)).pairs) == [("right", "bad 2", "better")]


def test_of_equally_hard_wrong_answers_the_one_of_equal_length_is_rejected():
    rows = [
        row(
            "a",
            sample("seven it is", passed=True),
            sample("no" * 40, passed=False),
            sample("eight it is", passed=False),
        )
    ]
    assert sides(select(rows).pairs) == [("seven it is", "eight it is", "better")]
    assert select(rows).counts["lengths"] == {"chosen": 11.0, "rejected": 11.0, "chosen_longer": 0.5}


def test_where_wrong_answers_are_longer_pairs_of_like_length_are_chosen():
    rng = random.Random(0)

    def answer(passed):
        return sample("w" * rng.randint(20, 60 if passed else 120), passed=passed, reward=rng.gauss(0, 1))

    rows = [row(f"p{n:03}", *[answer(k < 4) for k in range(12)]) for n in range(200)]

    def difference(weight):
        found = select(rows, SelectConfig(length_weight=weight)).counts["lengths"]
        return found["rejected"] - found["chosen"]

    assert difference(0.0) > 20
    assert difference(1.0) < 0.5 * difference(0.0)
    assert difference(5.0) < difference(1.0)


def test_several_pairs_of_a_prompt_use_different_answers():
    rows = [
        row(
            "a",
            sample("right 1", passed=True),
            sample("right 2", passed=True),
            sample("wrong 1", passed=False),
            sample("wrong 2", passed=False),
        )
    ]
    found = sides(select(rows, SelectConfig(pairs_per_prompt=4)).pairs)
    assert sorted(chosen for chosen, _, _ in found) == ["right 1", "right 2"]
    assert sorted(rejected for _, rejected, _ in found) == ["wrong 1", "wrong 2"]


def test_edited_answers_are_chosen_over_all_and_kept_in_place_of_the_models():
    rows = [row("a", sample("right", passed=True, reward=1.0), sample("wrong", passed=False, reward=0.0))]
    edit = {"messages": [*rows[0]["prompt"], {"role": "assistant", "content": "A person wrote this."}]}
    edit["lineage"] = {"prompt": "a"}
    found = select(rows, SelectConfig(), [edit])
    assert sides(found.pairs) == [
        ("A person wrote this.", "right", "edited"),
        ("right", "wrong", "significantly better"),
    ]
    assert (found.pairs[0]["chosen_source"], found.pairs[0]["rejected_source"]) == ("edited", "m")
    assert [(d["messages"][-1]["content"], d["source"], d["task"]) for d in found.kept] == [
        ("A person wrote this.", "edited", "t")
    ]


def test_an_edit_finds_its_prompt_by_its_messages_and_one_without_samples_is_kept():
    rows = [row("x", sample("right", passed=True))]
    rows[0]["id"] = prompt_id({"prompt": rows[0]["prompt"]})
    mine = {"messages": [*rows[0]["prompt"], {"role": "assistant", "content": "mine"}]}
    other = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    found = select(rows, SelectConfig(), [mine, other])
    assert sides(found.pairs) == [("mine", "right", "edited")]
    assert sorted(answers(found.kept)) == ["!", "mine"]
    assert found.counts["edits_without_samples"] == 1


def test_an_edit_that_confirms_the_models_answer_makes_no_edited_pair():
    rows = [row("a", sample("right"), sample("wrong"))]
    edit = {"messages": [*rows[0]["prompt"], {"role": "assistant", "content": "right"}], "lineage": {"prompt": "a"}}
    assert select(rows, SelectConfig(), [edit]).pairs == []


def test_rows_of_one_prompt_from_several_models_and_rounds_are_joined():
    rows = [
        row("a", sample("right", passed=True, model="big"), file="1.jsonl", round=1),
        row("a", sample("wrong", passed=False, model="small"), file="2.jsonl", round=2),
    ]
    found = select(rows)
    assert found.counts["prompts"] == 1
    (pair,) = found.pairs
    assert (pair["chosen_source"], pair["rejected_source"]) == ("big", "small")
    assert pair["lineage"]["chosen"] == {"sample": 0, "model": "big", "file": "1.jsonl", "verdict": "equal", "round": 1}
    assert pair["lineage"]["rejected"]["round"] == 2
    assert found.kept[0]["lineage"] == {
        "prompt": "a",
        "sample": 0,
        "model": "big",
        "file": "1.jsonl",
        "verdict": "equal",
        "round": 1,
        "from": "s.jsonl",
    }


def test_a_system_prompt_stays_before_its_answer_unless_dropped_and_pairs_do_not_mix_them():
    rows = [row("a", sample("right", passed=True, system="Be brief."), sample("wrong", passed=False))]
    kept = select(rows)
    assert kept.kept[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert kept.pairs == []
    dropped = select(rows, SelectConfig(systems="drop"))
    assert dropped.kept[0]["messages"][0]["role"] == "user"
    assert sides(dropped.pairs) == [("right", "wrong", "better")]


def test_equal_answers_with_different_verdicts_count_as_wrong():
    (asked,) = joined([row("a", sample("same", passed=True), sample("same ", passed=False))])
    assert [(c.count, c.passed, c.reason) for c in asked.candidates] == [(2, False, "unequal")]


def test_the_judges_score_stands_in_for_a_reward():
    rows = [row("a", sample("good", judge={"score": 5.0}), sample("poor", judge={"score": 1.0}))]
    assert answers(select(rows, SelectConfig(share_unverified=1.0)).kept) == ["good"]


def test_a_judges_marks_go_into_the_lineage():
    rows = [row("a", sample("good", judge={"score": 3.0, "best": 3.0, "by": "j"}), sample("poor", reward=None))]
    assert select(rows).kept[0]["lineage"]["judge"] == {"score": 3.0, "best": 3.0}


def test_the_spread_is_pooled_within_prompts():
    prompts = joined(
        [
            row("a", sample("1", reward=100.0), sample("2", reward=102.0)),
            row("b", sample("1", reward=0.0), sample("2", reward=2.0)),
        ]
    )
    assert spread(prompts) == pytest.approx(2**0.5)
    assert spread(joined([row("a", sample("1", reward=3.0))])) == 1.0


def test_pairs_per_task_keep_the_best_ratings():
    rows = [
        row(f"p{n}", sample("right", passed=True, reward=3.0 * n), sample("wrong", passed=False, reward=0.0))
        for n in range(3)
    ]
    found = select(rows, SelectConfig(pairs_per_task=1)).pairs
    assert [(pair["rating"], pair["lineage"]["prompt"]) for pair in found] == [("significantly better", "p1")]


# Properties

SAMPLES = st.lists(
    st.builds(
        sample,
        st.sampled_from(["", " ", "a", "b", "c c", "d d d", "a long answer"]),
        passed=st.sampled_from([None, True, False]),
        reward=st.sampled_from([None, -1.0, 0.0, 0.3, 2.0, float("nan")]),
        finish=st.sampled_from(["stop", "stop", "length"]),
        model=st.sampled_from(["m", "n"]),
        system=st.sampled_from([None, "Be brief."]),
    ),
    max_size=6,
)
ROWS = st.lists(
    st.builds(
        lambda name, samples, task: row(name, *samples, task=task),
        st.sampled_from("abcdef"),
        SAMPLES,
        st.sampled_from(["t", "u"]),
    ),
    max_size=8,
)
CONFIGS = st.builds(
    SelectConfig,
    keep_per_prompt=st.integers(0, 3),
    keep_per_task=st.sampled_from([None, 1, 3]),
    share_unverified=st.sampled_from([0.3, 1.0]),
    min_reward_quantile=st.sampled_from([0.0, 0.5]),
    diverse=st.booleans(),
    cut=st.sampled_from(["never", "rejected", "kept"]),
    systems=st.sampled_from(["keep", "drop"]),
    pairs_per_prompt=st.integers(0, 3),
    pairs_per_task=st.sampled_from([None, 1]),
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, config=CONFIGS, seed=st.integers(0, 99))
def test_every_prompt_has_an_outcome_and_nothing_depends_on_the_order_of_rows(rows, config, seed):
    found = select(rows, config)
    assert set(found.outcomes) == {each["id"] for each in rows}
    kept = Counter(dialog["lineage"]["prompt"] for dialog in found.kept)
    assert set(kept) == {name for name, outcome in found.outcomes.items() if outcome == KEPT}
    assert max(kept.values(), default=0) <= config.keep_per_prompt
    assert sum(found.counts["left_out"].values()) + len(kept) == found.counts["prompts"]
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert drop_places(select(shuffled, config)) == drop_places(found)
    assert select(rows, config).counts == found.counts


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, config=CONFIGS)
def test_what_is_kept_and_paired_obeys_the_rules(rows, config):
    candidates = {
        (a.id, c.system, c.answer): c for a in joined(rows, systems=config.systems == "keep") for c in a.candidates
    }
    judged = {a.id for a in joined(rows) if a.judged}
    found = select(rows, config)
    for dialog in found.kept:
        one = candidate(candidates, dialog["lineage"]["prompt"], dialog["messages"])
        assert one.passed or (one.passed is None and dialog["lineage"]["prompt"] not in judged)
        assert config.cut == "kept" or not one.cut
    for pair in found.pairs:
        name = pair["lineage"]["prompt"]
        chosen = candidate(candidates, name, [*pair["prompt"], *pair["chosen"]])
        rejected = candidate(candidates, name, [*pair["prompt"], *pair["rejected"]])
        assert chosen.answer != rejected.answer
        assert chosen.passed is not False
        assert not (chosen.passed is None and chosen.reward is None)
        assert config.cut == "kept" or not chosen.cut
        assert config.cut != "never" or not rejected.cut


def candidate(candidates, name, messages):
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    return candidates[name, system, messages[-1]["content"]]


def drop_places(found):
    """What was selected without the samples' numbers, which depend on the order of rows of one prompt."""
    return json.loads(
        json.dumps([found.kept, found.pairs, found.outcomes]),
        object_hook=lambda value: {key: item for key, item in value.items() if key != "sample"},
    )


# Files and the command


def write(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_the_command_writes_files_that_training_reads(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a", sample("right", passed=True), sample("wrong", passed=False))])
    two = write(tmp_path / "2.jsonl", [row("b", sample("only wrong", passed=False), task="u")])
    kept, pairs = tmp_path / "kept.jsonl", tmp_path / "pairs.jsonl"
    result = CliRunner().invoke(app, ["select", str(one), str(two), "--kept", str(kept), "--pairs", str(pairs)])
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.output.splitlines()]
    assert table[1] == ["t", "1", "2", "1", "1", "0", "0", "1", "0"]
    assert table[3] == ["all", "2", "3", "1", "1", "0", "0", "1", "0"]
    assert "left out: no right answer: 1 prompts" in result.output
    dialogs, _ = read_dialogs([Source(kept)])
    found, _ = read_preferences([Source(pairs)])
    assert (answers(dialogs), dialogs[0]["source"], dialogs[0]["task"]) == (["right"], "m", "t")
    assert sides(found) == [("right", "wrong", "better")]
    assert json.loads(kept.read_text())["lineage"]["file"] == str(one)


def test_the_command_takes_further_keys_and_refuses_unknown_ones(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a", sample("right", passed=True, finish="length"))])

    def run(*more):
        return CliRunner().invoke(app, ["select", str(one), *more])

    assert json.loads(run("--kept", str(tmp_path / "k"), "--set", "cut=kept", "--json").output)["kept"] == 1
    assert isinstance(run("--kept", str(tmp_path / "l"), "--set", "cuts=kept").exception, InputError)
    assert "neither --kept nor --pairs" in str(run().exception)


def test_files_that_exist_and_rows_without_samples_are_refused(tmp_path):
    good = write(tmp_path / "1.jsonl", [row("a", sample("x", passed=True))])
    bad = write(tmp_path / "2.jsonl", [row("a", sample("x")), {"messages": []}])
    kept, pairs = tmp_path / "k.jsonl", tmp_path / "p.jsonl"

    def run(file):
        return str(CliRunner().invoke(app, ["select", str(file), "--kept", str(kept), "--pairs", str(pairs)]).exception)

    assert "2.jsonl, line 2, key id: it is missing" in run(bad)
    pairs.write_text("")
    assert "p.jsonl exists" in run(good)
    assert not kept.exists()
