"""Probing: what the teacher knows is kept, "I don't know" is taught where it is wrong, the rest is dropped."""

import re

import pytest

from herdlm.align.synth.config import FactualityConfig
from herdlm.align.synth.factuality.generate import UNKNOWN
from herdlm.align.synth.factuality.judge import A_NUMBER
from herdlm.align.synth.texts import lines
from herdlm.verifiers.load import load_verifier
from tests.align.synth.documents import GOODS, TOWNS, document, write
from tests.align.synth.scripted import make, of_kind, reasons

OPTIONS = {"count": 4, "probes": 4, "shortest": 900, "section": 300}
WRONG = "It was gold, as everybody in the country says."


def teacher(probes, judge="no", question="What did the merchants of {town} trade?", answer="{goods}", given="{goods}"):
    """A teacher; ``probes`` are its answers without the passage."""

    def reply(messages, sample):
        text = messages[-1]["content"]
        town = next(town for town in TOWNS if town in text)
        goods = GOODS[TOWNS.index(town)]
        if "exactly this form" in text:
            return f"Question: {question}\nAnswer: {answer}".format(town=town, goods=goods)
        if text.startswith("Question: "):
            return judge(text) if callable(judge) else judge
        if "Answer briefly" in text:
            return given.format(goods=goods)
        return probes[sample % len(probes)].format(goods=goods)

    return reply


def probed(tmp_path, *args, options=None, **script):
    folder = write(tmp_path / "d", document())
    chosen = FactualityConfig(**OPTIONS | (options or {}))
    return make("factuality", chosen, tmp_path / "work", teacher(*args, **script), documents=[folder])


def test_what_is_known_is_kept_in_the_words_it_is_mostly_said(tmp_path):
    made = probed(tmp_path, ["They traded {goods}.", "Mainly {goods}, I think.", "They traded {goods}.", WRONG])
    dialogs, prompts = of_kind(made, "dialogs"), of_kind(made, "prompts")
    assert len(dialogs) == 4 and not reasons(made) and not of_kind(made, "pairs")
    for dialog, prompt in zip(dialogs, prompts, strict=True):
        assert dialog["messages"][1]["content"] == f"They traded {prompt['answer']}."
        assert dialog["lineage"]["verdict"] == "consistently right" and dialog["lineage"]["right"] == 3
        assert "The town of" not in dialog["messages"][0]["content"]


def test_where_it_is_always_wrong_it_learns_to_say_so(tmp_path):
    made = probed(tmp_path, [WRONG])
    dialogs, pairs = of_kind(made, "dialogs"), of_kind(made, "pairs")
    assert len(dialogs) == 4 == len(pairs) and not reasons(made)
    assert {dialog["messages"][1]["content"] for dialog in dialogs} <= set(lines("factuality/unknown.txt"))
    prompt = of_kind(made, "prompts")[0]
    verifier = load_verifier(prompt["verifier"])
    assert all(verifier(text, prompt["answer"]).passed for text in lines("factuality/unknown.txt"))
    assert not verifier(WRONG, prompt["answer"]).passed
    assert {pair["rejected"][0]["content"] for pair in pairs} == {WRONG}


@pytest.mark.parametrize(
    ("probes", "script", "reason"),
    [
        (["{goods}", WRONG], {}, "informative, but at times right and at times wrong"),
        (["I don't know."], {}, "the teacher says that it does not know"),
        (["Well..."], {}, "the answers are cut off"),
        ([WRONG], {"judge": lambda text: "yes" if "First answer: It" in text else "no"}, "the judge does not agree"),
        ([WRONG], {"judge": "yes"}, "right by the judge only"),
        (["{goods}"], {"given": "gold"}, "answered otherwise with the passage"),
        (["{goods}"], {"question": "What did they trade in {town}?"}, "the question does not say what it is about"),
        (["{goods}"], {"answer": "gold"}, "the answer does not occur in the section"),
    ],
)
def test_what_teaches_nothing_is_dropped(tmp_path, probes, script, reason):
    made = probed(tmp_path, probes, **script)
    assert len(reasons(made)) == 4 and all(reason in each for each in reasons(made))
    assert not of_kind(made, "dialogs") and not of_kind(made, "prompts")


def test_the_judge_is_asked_in_both_orders_and_only_about_other_words(tmp_path):
    asked = []

    def judge(text):
        asked.append(re.findall(r"answer: (.+)", text))
        return "No."

    probed(tmp_path, [WRONG, "They traded {goods}."], judge=judge, options={"count": 1})
    (first, second) = asked
    assert first == second[::-1] and WRONG in first
    asked.clear()
    probed(tmp_path / "b", [WRONG], judge=judge, options={"judge": False})
    assert not asked


def test_numbers_are_judged_without_a_judge(tmp_path):
    def reply(messages, sample):
        text = messages[-1]["content"]
        town = next(town for town in TOWNS if town in text)
        year = 1200 + 37 * TOWNS.index(town)
        if "exactly this form" in text:
            return f"Question: When was {town} founded?\nAnswer: {year}"
        assert not text.startswith("Question: "), "a judge is not needed"
        return f"It was in {year}." if "Answer briefly" in text else "It was in 1066."

    folder = write(tmp_path / "d", document())
    made = make("factuality", FactualityConfig(**OPTIONS), tmp_path / "work", reply, documents=[folder])
    assert {d["lineage"]["verdict"] for d in of_kind(made, "dialogs")} == {"consistently wrong"}
    assert len(of_kind(made, "dialogs")) == 4
    assert A_NUMBER.match("1,200.5") and not A_NUMBER.match("12 towns") and re.search(UNKNOWN, "I am not sure.")


def test_a_resumed_call_asks_nothing_again(tmp_path):
    first = probed(tmp_path, [WRONG])

    def silent(messages, sample):
        raise AssertionError("asked again")

    folder = tmp_path / "d"
    assert make("factuality", FactualityConfig(**OPTIONS), tmp_path / "work", silent, documents=[folder]) == first
