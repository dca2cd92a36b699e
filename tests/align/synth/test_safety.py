"""Refusals and harmless requests that sound alike: what is written, and what the verifiers reject."""

import re

import pytest

from herdlm.align.synth.config import SafetyConfig
from herdlm.align.synth.safety.answers import PREACHY, wrong_refusal
from herdlm.align.synth.safety.requests import CATEGORIES
from herdlm.verifiers.load import load_verifier
from tests.align.synth.scripted import make, of_kind, reasons

REFUSES = "I can't help with that. If you like, I can suggest something else."
HELPS = "Take your time with it: {words} are easier once everything lies ready on the table beside you."


def teacher(*, reword=None, briefly=REFUSES, violating=REFUSES, borderline=HELPS, told=HELPS):
    """A teacher; {words} in an answer are the longer words of the request."""

    def reply(messages, sample):
        asked = messages[-1]["content"]
        if asked.startswith("Here is what someone asked"):
            text = asked.rpartition("\n\n")[2]
            return (reword or "Somebody at work wonders: {text}").format(text=text)
        said = {True: borderline, False: violating}[asked in BORDERLINE]
        if messages[0]["role"] == "system":
            said = told if "harmless, even" in messages[0]["content"] else briefly
        return said.format(words=" ".join(re.findall(r"\w{4,}", asked)))

    return reply


BORDERLINE = {text for category in CATEGORIES.values() for text in category["borderline"]}
SMALL = {"violating": 9, "borderline": 9, "rewordings": 0, "samples": 1}


def test_without_a_teacher_refusals_are_made_by_program(tmp_path):
    made = make("safety", SafetyConfig(violating=500, borderline=500), tmp_path)
    prompts, dialogs = of_kind(made, "prompts"), of_kind(made, "dialogs")
    verify = load_verifier("refusal")
    assert len(dialogs) > 400 and len({d["messages"][1]["content"] for d in dialogs}) > 100
    wanted = {row["id"]: row["reference"] for row in prompts}
    assert sorted(set(wanted.values())) == ["compliance", "refusal"]
    for dialog in dialogs:
        answer = dialog["messages"][1]["content"]
        assert wanted[dialog["lineage"]["prompt"]] == "refusal"
        assert verify(answer, "refusal").reason == "refusal" and not PREACHY.search(answer)
    assert {dialog["lineage"]["category"] for dialog in dialogs} == set(CATEGORIES)


def test_categories_have_their_turn_as_often(tmp_path):
    made = make("safety", SafetyConfig(violating=2 * len(CATEGORIES), borderline=0), tmp_path)
    codes = [prompt["category"] for prompt in of_kind(made, "prompts")]
    assert codes == [*codes[: len(CATEGORIES)]] * 2 and set(codes) == set(CATEGORIES)


def test_a_good_teacher_refuses_and_helps(tmp_path):
    made = make("safety", SafetyConfig(**SMALL), tmp_path, teacher())
    dialogs = of_kind(made, "dialogs")
    assert len(dialogs) == 18 and {d["source"] for d in dialogs} == {"scripted"} and not reasons(made)
    pairs = of_kind(made, "pairs")  # harmless requests alone: the refusal is the program's
    assert len(pairs) == 9 and {p["rejected_source"] for p in pairs} == {"program"}
    verify = load_verifier("refusal")
    for pair in pairs:
        assert verify(pair["chosen"][0]["content"], "compliance").passed
        assert verify(pair["rejected"][0]["content"], "refusal").passed


@pytest.mark.parametrize(
    ("script", "reason", "rating"),
    [
        ({"violating": "Sure, you do it like this and then that."}, None, "significantly better"),
        ({"violating": REFUSES + " It is important to respect others."}, None, "slightly better"),
        ({"briefly": "Sure, here is how you do that."}, "does what it should refuse", None),
        ({"briefly": REFUSES + " Remember that we should all be kind."}, "the refusal is preachy", None),
        ({"briefly": REFUSES + " So let us talk of the weather." * 12}, "the refusal is too long", None),
        ({"briefly": REFUSES + "..."}, "cut off", None),
    ],
)
def test_bad_refusals_are_dropped_or_rejected(tmp_path, script, reason, rating):
    options = SafetyConfig(**SMALL | {"borderline": 0})
    made = make("safety", options, tmp_path, teacher(**script))
    assert reasons(made) == ([reason] * 9 if reason else [])
    assert [pair["rating"] for pair in of_kind(made, "pairs")] == ([rating] * 9 if rating else [])
    dialogs = of_kind(made, "dialogs")  # the program refuses where the teacher does not
    assert len(dialogs) == 9 and {d["source"] for d in dialogs} == {"program" if reason else "scripted"}
    assert not any(wrong_refusal(d["messages"][1]["content"], 70) for d in dialogs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REFUSES, "refuses what is harmless"),
        ("Just do it.", "says almost nothing"),
        ("{words}, {words}", "repeats the request"),
        (
            "One two six ten ".strip() * 6 + " one two six ten one two six ten one two",
            "does not speak of what was asked",
        ),
        (HELPS + "...", "cut off"),
    ],
)
def test_bad_answers_to_harmless_requests_are_dropped(tmp_path, text, reason):
    options = SafetyConfig(**SMALL | {"violating": 0})
    made = make("safety", options, tmp_path / "a", teacher(borderline=text))
    if reason != "repeats the request":
        assert set(reasons(made)) == {reason} and len(reasons(made)) == 9
    assert len(of_kind(made, "dialogs")) == 9  # told that the request is harmless, the teacher helps
    rejected = {pair["rejected_source"] for pair in of_kind(made, "pairs")}
    assert rejected == ({"scripted"} if reason.startswith("refuses") else {"program"})
    never = make("safety", options, tmp_path / "b", teacher(borderline=REFUSES, told=REFUSES))
    assert not of_kind(never, "dialogs") and not of_kind(never, "pairs") and len(reasons(never)) == 18


@pytest.mark.parametrize(
    ("reword", "reason"),
    [
        ("Tell me something about cheese from the mountains, please.", "the rewording asks for something else"),
        ("How can people protect themselves from this: {text}", "the rewording asks for something harmless"),
        (REFUSES, "the teacher refuses to reword it"),
        ("{text}", "repeats an earlier one"),
        ("No.", "the rewording is too short or too long"),
        ("{text}...", "cut off"),
    ],
)
def test_bad_rewordings_are_dropped(tmp_path, reword, reason):
    options = SafetyConfig(**SMALL | {"rewordings": 1, "borderline": 0})
    made = make("safety", options, tmp_path, teacher(reword=reword))
    assert reasons(made) == [reason] * 9 and len(of_kind(made, "prompts")) == 9


def test_good_rewordings_become_prompts_and_a_resumed_call_is_equal(tmp_path):
    options = SafetyConfig(**SMALL | {"rewordings": 1, "borderline": 0})
    first = make("safety", options, tmp_path, teacher())
    assert len(of_kind(first, "prompts")) == 18
    assert sum(d["lineage"]["reworded"] for d in of_kind(first, "dialogs")) == 9

    def silent(messages, sample):
        raise AssertionError("asked again")

    assert make("safety", options, tmp_path, silent) == first
