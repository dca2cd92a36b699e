"""Questions and summaries of long documents: what the verifier lets through, and what it drops."""

import re

import pytest

from herdlm.align.synth.config import LongDocumentsConfig
from herdlm.align.synth.passages import cut, sections
from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.verifiers.load import load_verifier
from tests.align.synth.documents import GOODS, TOWNS, document, write
from tests.align.synth.scripted import Scripted, make, of_kind, reasons

QUESTIONS = {"shortest": 900, "longest": 3000, "section": 300}


def asked_for(text):
    """The town of a section that a question is asked for."""
    return next(town for town in TOWNS if f"The town of {town}" in text)


def reply(question="Question: What did the merchants of {town} trade?\nAnswer: {goods}", alone="No idea.", whole=None):
    def answer(messages, sample):
        text = messages[-1]["content"]
        if "exactly this form" in text:
            town = asked_for(text)
            return question.format(town=town, goods=GOODS[TOWNS.index(town)])
        if "The town of" not in text:
            return alone
        town = re.findall(r"merchants of (\w+)", text)[-1]
        return (whole or "They traded {goods} there.").format(goods=GOODS[TOWNS.index(town)])

    return answer


def test_a_question_is_asked_with_the_whole_document(tmp_path):
    folder, text = write(tmp_path / "d", document()), document()
    options = LongDocumentsConfig(questions=9, summaries=0, **QUESTIONS)
    made = make("long_documents", options, tmp_path / "work", reply(), documents=[folder])
    dialogs, prompts = of_kind(made, "dialogs"), {row["id"]: row for row in of_kind(made, "prompts")}
    assert len(dialogs) == 4 == len(prompts)  # one of each section, though nine were asked for
    for dialog in dialogs:
        question, answer = (message["content"] for message in dialog["messages"])
        assert text in question and "What did the merchants of" in question
        prompt = prompts[dialog["lineage"]["prompt"]]
        verifier = load_verifier(prompt["verifier"], prompt["options"])
        assert verifier(answer, prompt["answer"]).passed and not verifier("They traded gold.", prompt["answer"]).passed
    assert sorted(dialog["lineage"]["section"] for dialog in dialogs) == [0, 1, 2, 3]
    assert {dialog["source"] for dialog in dialogs} == {"scripted"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"question": "What is it?"}, "has not the form of a question and its answer"),
        ({"question": "Question: What did {town} trade?\nAnswer: goods..."}, "cut off"),
        ({"question": "Question: What did {town} trade?\nAnswer: gold"}, "the answer does not occur in the section"),
        (
            {"question": "Question: When was {town} founded?\nAnswer: in 1999"},
            "the answer has numbers that the section has not",
        ),
        ({"question": "Question: Which town is {town}?\nAnswer: {town}"}, "the question gives the answer away"),
        (
            {"question": "Question: What is traded according to the text?\nAnswer: {goods}"},
            "the question speaks of the section",
        ),
        (
            {"question": "Question: Womit haben die Händler von {town} damals gehandelt?\nAnswer: {goods}"},
            "the question is in another language",
        ),
        ({"question": "Question: What of {town}?\nAnswer: " + "a wide river " * 6}, "the answer has not a few words"),
        ({"alone": "They traded " + ", ".join(GOODS) + "."}, "answered without the document"),
        ({"whole": "They traded gold."}, "answered otherwise from the whole document"),
        ({"whole": "They traded {goods} for 99 years."}, "has numbers that the document has not"),
        (
            {"whole": "Die Händler haben dort lange Zeit mit {goods} gehandelt, sagt man."},
            "answered in another language",
        ),
        ({"whole": "They traded {goods}..."}, "cut off"),
    ],
)
def test_bad_questions_and_answers_are_dropped(tmp_path, script, reason):
    folder = write(tmp_path / "d", document())
    options = LongDocumentsConfig(questions=4, summaries=0, **QUESTIONS)
    made = make("long_documents", options, tmp_path / "work", reply(**script), documents=[folder])
    assert set(reasons(made)) == {reason}
    assert not of_kind(made, "dialogs") and not of_kind(made, "prompts")


GOOD = (
    "The town of {town} lies beside a wide river in the northern hills and was founded by merchants "
    "who traded with the coast."
)


def summarize(*texts):
    """A teacher that gives each part its summaries, one a sample."""

    def answer(messages, sample):
        return texts[sample % len(texts)].format(town=asked_for(messages[-1]["content"]))

    return answer


SUMMARIES = {"questions": 0, "summaries": 1, "shortest": 900, "longest": 3000, "part": 300}


def test_summaries_are_made_of_parts_and_then_of_summaries(tmp_path):
    folder = write(tmp_path / "d", document(0, 6))
    options = LongDocumentsConfig(**SUMMARIES, attempts=2)
    script = summarize("The town has 999 golden towers, and dragons fly above it all of the time.", GOOD)
    made = make("long_documents", options, tmp_path / "work", script, documents=[folder])
    (dialog,) = of_kind(made, "dialogs")
    assert document(0, 6) in dialog["messages"][0]["content"]
    assert dialog["messages"][1]["content"] == GOOD.format(town="Arvik")
    assert dialog["lineage"]["levels"] == 3  # six parts, two of three summaries, one of two
    assert dialog["task"] == "summaries" and not reasons(made)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A town.", "a summary is too short"),
        (GOOD * 2, "a summary is too long"),
        ("The town of {town} lies beside a wide river and has 4711 families in it.", "a summary has numbers"),
        (
            "Elephants juggle purple spaceships while dancing dragons sing operas underneath moonlight tonight.",
            "has too many",
        ),
        (
            "Die Stadt {town} liegt an einem breiten Fluss, sie wurde von Händlern gegründet und ist kalt.",
            "in another language",
        ),
        (GOOD + "...", "a summary is cut off"),
    ],
)
def test_bad_summaries_are_dropped(tmp_path, text, reason):
    folder = write(tmp_path / "d", document(0, 6))
    script = summarize(text)
    made = make("long_documents", LongDocumentsConfig(**SUMMARIES), tmp_path / "work", script, documents=[folder])
    (found,) = reasons(made)
    assert reason in found and not of_kind(made, "dialogs")


def test_sections_are_whole_paragraphs_and_documents_are_cut_after_one():
    text = document(0, 5)
    assert "\n\n".join(sections(text, 500)) == text
    assert [part.count("The town of") for part in sections(text, 900)] == [3, 2]
    assert len(sections(document(0, 4), 900)) == 1  # the fourth is too short to stand alone
    assert cut(text, 900) == document(0, 2) and cut(text, 9000) == text


def test_a_resumed_call_asks_nothing_again(tmp_path, monkeypatch):
    folder, asked = write(tmp_path / "d", document(), document(4)), []
    real = Scripted.answer
    monkeypatch.setattr(Scripted, "answer", lambda self, requests: asked.append(len(requests)) or real(self, requests))
    options = LongDocumentsConfig(questions=4, summaries=0, **QUESTIONS)
    first = make("long_documents", options, tmp_path / "work", reply(), documents=[folder])
    before = len(asked)
    again = make("long_documents", options, tmp_path / "work", reply(), documents=[folder])
    assert before == 3 and len(asked) == before
    assert again == first and of_kind(first, "dialogs")


def test_documents_and_a_teacher_are_needed(tmp_path):
    folder = write(tmp_path / "d", "Too short.")
    with pytest.raises(InputError, match="needs a teacher"):
        make("long_documents", LongDocumentsConfig(), tmp_path / "a", documents=[folder])
    with pytest.raises(InputError, match="needs documents"):
        make("long_documents", LongDocumentsConfig(), tmp_path / "b", reply())
    with pytest.raises(InputError, match="the documents hold none with 4,000 characters"):
        make("long_documents", LongDocumentsConfig(), tmp_path / "c", reply(), documents=[folder])
    with pytest.raises(InputError, match="shortest = 900 is more than longest = 800"):
        parse(LongDocumentsConfig, {"shortest": 900, "longest": 800}, "recipe")
