"""New tasks from seeds: filters, novelty, and answers that agree."""

import json

import pytest

from herdlm.align.synth.config import SelfInstructConfig
from herdlm.align.synth.self_instruct.answers import choose
from herdlm.align.synth.self_instruct.tasks import Novelty, listed, read_seeds, wrong_task
from herdlm.base.errors import InputError
from tests.align.synth.scripted import make, of_kind, reasons

SEEDS = [
    {"instruction": "Name an animal that lives in the desert.", "instances": [{"input": "", "output": "A camel."}]},
    {"instruction": "Is this review kind?", "instances": [{"input": "I loved the soup.", "output": "Yes"}]},
    {"instruction": "Write a limerick on rain.", "instances": [{"input": "", "output": "There was a wet man."}]},
]
CAPITAL, LABEL, LONG = (
    "Which city is the capital of Norway?",
    'Decide whether the sentence "Our train was late again and nobody said why" is a complaint.',
    "Explain to a beginner how yeast makes dough rise.",
)
ESSAYS = [
    "Yeast eats the sugar of the dough and gives off gas, which makes small bubbles and lifts it.",
    "The yeast in dough eats sugar and gives off gas; the bubbles of gas lift the dough.",
    "Yeast eats sugar in the dough and makes gas, and this gas lifts the dough in many bubbles.",
]


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    return path


def teacher(tasks, answers):
    """``answers`` of each task, one a sample."""

    def reply(messages, sample):
        text = messages[-1]["content"]
        if text.startswith("Below is"):
            return tasks
        if text.startswith("Here is a task"):
            return "Yes." if "Decide" in text or "label please" in text else "No."
        key = text.removesuffix("\n\nReply with the label only.")
        return answers[key][sample % len(answers[key])]

    return reply


def made_of(tmp_path, seeds, tasks, answers=None, **options):
    chosen = SelfInstructConfig(seeds=(seeds,), at_once=1, samples=3, **{"count": 3, **options})
    return make("self_instruct", chosen, tmp_path / "work", teacher(tasks, answers or {}))


ANSWERS = {CAPITAL: ["Oslo.", "oslo", "Bergen"], LABEL: ["Complaint", "complaint", "complaint."], LONG: ESSAYS}


def test_new_tasks_get_answers_that_agree(tmp_path, seeds):
    made = made_of(tmp_path, seeds, f"4. {CAPITAL}\n5. {LABEL}\n6. {LONG}", ANSWERS)
    dialogs = {d["messages"][0]["content"]: d for d in of_kind(made, "dialogs")}
    assert dialogs[CAPITAL]["messages"][1]["content"] == "Oslo."
    label = dialogs[f"{LABEL}\n\nReply with the label only."]
    assert label["task"] == "classification" and label["messages"][1]["content"] == "Complaint"
    assert dialogs[LONG]["messages"][1]["content"] in ESSAYS and dialogs[LONG]["task"] == "generation"
    prompts = of_kind(made, "prompts")  # those with short answers alone can be checked
    assert [(p["verifier"], p["answer"]) for p in prompts] == [("text", "Oslo."), ("text", "Complaint")]
    assert not reasons(made)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["Oslo", "Bergen", "Trondheim"], "the short answers do not agree"),
        (["I can't help with that."], "most answers: refuses"),
        (["Oslo..."], "most answers: cut off"),
        ([ESSAYS[0], "Green ideas sleep furiously under many very old apple trees.", "Nine. " * 12], "too little"),
        (["The capital of Norway is which city?"], "most answers: repeats the task"),
        ([f"{CAPITAL} That is a good thing to ask."], "most answers: repeats the task"),
    ],
)
def test_answers_that_do_not_agree_are_dropped(tmp_path, seeds, answers, reason):
    made = made_of(tmp_path, seeds, f"1. {CAPITAL}", {CAPITAL: answers}, count=1)
    assert len(reasons(made)) == 1 and reason in reasons(made)[0] and not of_kind(made, "dialogs")


def test_a_label_must_be_short(tmp_path, seeds):
    made = made_of(tmp_path, seeds, f"1. {LABEL}", {LABEL: ESSAYS}, count=1)
    assert reasons(made) == ["the label is no short answer"]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("Write.", "the task is too short"),
        ("Say it again. " * 60, "the task is too long"),
        ("- name three rivers in Asia", "the task begins with a mark"),
        ("Describe what you see in the image of a harbor.", "needs more than text"),
        ("Open the attached file and count its lines.", "needs more than text"),
        ("Summarize the page at https://a.example for me.", "needs more than text"),
        ("Find three grammar mistakes in the following paragraph.", "speaks of a text that is not there"),
        ("Shorten this sentence: The man who lives next door to us sold his old blue car.", ""),
        ("Name three rivers in Asia.", ""),
    ],
)
def test_tasks_that_a_text_model_cannot_do_are_dropped(task, reason):
    assert wrong_task(task) == reason


def test_tasks_like_earlier_ones_are_dropped_and_asking_ends(tmp_path, seeds):
    made = made_of(tmp_path, seeds, "1. Name an animal that lives in a desert.\n2. Write a limerick on snow and rain.")
    found = reasons(made)
    assert found[:2] == ["is like an earlier task"] * 2
    assert found[-1].startswith("no new task in 3 rounds") and not of_kind(made, "prompts")


def test_new_tasks_become_examples(tmp_path, seeds):
    shown = []
    numbered = ["one lake in Finland", "two kinds of cheese", "a planet with rings"]

    def reply(messages, sample):
        text = messages[-1]["content"]
        if text.startswith("Below is"):
            shown.append(text)
            return f"1. Tell me about {numbered[len(shown) - 1]}, please."
        return "No." if text.startswith("Here is a task") else "The same."

    options = SelfInstructConfig(seeds=(seeds,), count=3, at_once=1, examples=3, own=2, samples=2)
    made = make("self_instruct", options, tmp_path / "work", reply)
    assert len(of_kind(made, "dialogs")) == 3
    assert [text.count("Tell me about") for text in shown] == [0, 1, 2]


def test_novelty_counts_common_words():
    novelty = Novelty(0.6)
    novelty.add("Name a fish that can fly.")
    assert novelty.nearest("name a FISH") == pytest.approx(2 * 3 / 9)
    assert not novelty.is_new("Name a fish!") and novelty.is_new("Name a bird of prey.")


def test_lists_and_choices():
    assert listed("Sure.\n") == ["Sure."]
    assert listed('4. One thing\n5) "Another"\nTask 6: Third') == ["One thing", "Another", "Third"]
    chosen = choose("Which?", ["the Rhine", "Rhine.", "Elbe", ""], agree=0.4, common=0.2)
    assert (chosen.number, chosen.share, chosen.short) == (0, 0.5, True)


def test_seeds_are_needed_and_resumed_calls_are_equal(tmp_path, seeds):
    assert read_seeds([seeds])[1] == "Is this review kind?\n\nI loved the soup."
    tasks = f"4. {CAPITAL}\n5. {LABEL}\n6. {LONG}"
    first = made_of(tmp_path, seeds, tasks, ANSWERS)

    def silent(messages, sample):
        raise AssertionError("asked again")

    options = SelfInstructConfig(seeds=(seeds,), at_once=1, samples=3, count=3)
    assert make("self_instruct", options, tmp_path / "work", silent) == first
    with pytest.raises(InputError, match="no seed tasks"):
        make("self_instruct", SelfInstructConfig(), tmp_path / "x", silent)
