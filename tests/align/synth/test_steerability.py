"""Dialogs under system prompts: every answer keeps the wishes, pairs are told apart by the verifier."""

import pytest

from herdlm.align.synth.config import SteerabilityConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import Setting
from herdlm.align.synth.steerability.wishes import CLASHES, TEXTS, WISHES, compose
from herdlm.verifiers.load import load_verifier
from tests.align.synth.scripted import make, of_kind, reasons

FORBIDDEN = [*TEXTS["words"]["forbidden"], *(word for words in TEXTS["plains"].values() for word in words)]
TONES = {word for words in TEXTS["tones"].values() for word in words}
BAD = " ".join(f"No, {word} or so." for word in FORBIDDEN if word not in TONES) * 2  # breaks all wishes
PLAIN = "it is a matter of patience and of some practice every day"


def obedient(system):
    """An answer that keeps all wishes of a system prompt but those of its language."""
    text = PLAIN
    words = [w for tone in TEXTS["tones"].values() if f'"{tone[0]}"' in system for w in tone[:1]]
    text = " ".join([text, *words, *(name for name in TEXTS["names"] if name in system)])
    if "apital letter" not in system and "lower case" not in system:
        text = text[0].upper() + text[1:]
    if "ighlight" in system or "phrases" in system:
        text = text.replace("matter", "*matter*").replace("patience", "*patience*").replace("some", "*some*")
    points = next((n for n in range(2, 6) if f"exactly {n} bullet" in system or f"list of {n} points" in system), 0)
    text = "\n".join([f"* {text}"] * points) if points else text
    text += "".join(f"\n{phrase}" for phrase in TEXTS["words"]["closing"] if phrase in system)
    lower = "capital letter" in system or "lower case" in system
    text = text.lower() if lower else text
    return f'"{text}"' if "double quotation" in system else text


def test_dialogs_keep_all_wishes_over_all_turns_and_pairs_differ(tmp_path):
    def reply(messages, sample):
        return "No, " + "very, really: " * 60 if sample == 0 else obedient(messages[0]["content"])

    made = make("steerability", SteerabilityConfig(count=26, samples=2), tmp_path, reply)
    prompts = {row["id"]: row for row in of_kind(made, "prompts")}
    verify, dialogs = load_verifier("ifeval"), of_kind(made, "dialogs")
    assert len(dialogs) >= 24
    assert {len(d["messages"]) for d in dialogs} == {3, 5, 7}
    for dialog in dialogs:
        prompt = prompts[dialog["lineage"]["prompt"]]
        assert dialog["messages"][:2] == prompt["prompt"] and dialog["messages"][0]["role"] == "system"
        for message in dialog["messages"][2::2]:
            assert verify(message["content"], prompt).passed
    pairs = of_kind(made, "pairs")
    assert len(pairs) > 26
    for pair in pairs:
        prompt = prompts[pair["lineage"]["prompt"]]
        assert verify(pair["chosen"][0]["content"], prompt).passed
        assert not verify(pair["rejected"][0]["content"], prompt).passed
    assert {"better", "significantly better"} == {pair["rating"] for pair in pairs}
    assert all(reason.startswith("breaks ") for reason in reasons(made))


def test_a_dialog_ends_before_the_question_that_no_answer_obeys(tmp_path):
    def reply(messages, sample):
        return obedient(messages[0]["content"]) if len(messages) == 2 else BAD

    made = make("steerability", SteerabilityConfig(count=13, samples=1, most=1), tmp_path, reply)
    assert {len(d["messages"]) for d in of_kind(made, "dialogs")} == {3}
    assert not of_kind(made, "pairs")
    later = [p for p in of_kind(made, "prompts") if len(p["prompt"]) == 4]
    assert later and len(reasons(made)) == len(later) and all(each.startswith("breaks ") for each in reasons(made))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I can't help with that. I am not able to.", "refuses"),
        ("Yes.", "says almost nothing"),
        (PLAIN + "...", "cut off"),
        ("", "empty"),
    ],
)
def test_answers_that_are_none_are_dropped(tmp_path, text, reason):
    options = SteerabilityConfig(count=5, samples=1)
    made = make("steerability", options, tmp_path, lambda messages, sample: text)
    assert reasons(made) == [reason] * 5 and not of_kind(made, "dialogs") and not of_kind(made, "pairs")


def test_a_wish_for_a_language_is_verified(tmp_path):
    german = "Das braucht zuerst etwas Geduld und jeden Tag etwas Übung, dann wird es bald besser."

    def reply(messages, sample):
        return german if sample else "It takes some patience and a little practice every day."

    options = SteerabilityConfig(count=1, samples=2, most=1, turns=1, languages=("de",))
    made = make("steerability", options, tmp_path, reply)
    (dialog,) = of_kind(made, "dialogs")
    assert "German" in dialog["messages"][0]["content"] and dialog["messages"][2]["content"] == german
    assert reasons(made) == ["breaks language"]


def test_wishes_do_not_clash_and_all_sorts_lead(tmp_path):
    setting = Setting("x", 1, tmp_path)
    for number in range(260):
        first = list(WISHES)[number % len(WISHES)]
        wishes = compose(Draw(setting.random(number)), 4, ("de",), first)
        assert wishes.sorts[0] == first and 1 <= len(wishes.sorts) <= 4
        assert all(len(clash & set(wishes.sorts)) < 2 for clash in CLASHES)
        assert len(wishes.names) == len(wishes.kwargs) == len(wishes.sorts)


def test_a_resumed_call_asks_nothing_again(tmp_path):
    options = SteerabilityConfig(count=6, samples=2)
    first = make("steerability", options, tmp_path, lambda messages, sample: obedient(messages[0]["content"]))

    def silent(messages, sample):
        raise AssertionError("asked again")

    assert make("steerability", options, tmp_path, silent) == first
