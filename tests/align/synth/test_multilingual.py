"""Translations and native requests: what is kept, and what the verifiers reject."""

import json

import pytest

from herdlm.align.synth.config import MultilingualConfig
from herdlm.align.synth.multilingual.translate import kept
from herdlm.align.synth.words import alike, numbers
from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from tests.align.synth.scripted import make, of_kind, reasons

QUESTION = "How many of the 12 apples in the basket are left after I have eaten `n` of them?"
ANSWER = "There are 12 apples in the basket at first, so that you have 12 less `n` of them left.\n\n```\n12 - n\n```"
IN_GERMAN = {
    QUESTION: "Wie viele der 12 Äpfel im Korb sind noch übrig, nachdem ich `n` davon gegessen habe?",
    ANSWER: "Am Anfang liegen 12 Äpfel im Korb, sodass dir noch 12 weniger `n` davon bleiben.\n\n```\n12 - n\n```",
}
BACK = {german: english for english, german in IN_GERMAN.items()}
DIALOG = {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]}


def teacher(change=lambda text: text, back=None):
    def reply(messages, sample):
        text = messages[-1]["content"].split("write only the translation.\n\n")[1]
        return change(IN_GERMAN[text]) if text in IN_GERMAN else back or BACK.get(text, "Nothing of that kind.")

    return reply


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def translated(tmp_path, reply, **options):
    path = write(tmp_path / "d.jsonl", DIALOG)
    chosen = MultilingualConfig(dialogs=(path,), languages=("de",), **options)
    return make("multilingual", chosen, tmp_path / "work", reply)


def test_a_dialog_is_translated_with_its_code_and_numbers(tmp_path):
    made = translated(tmp_path, teacher())
    (dialog,), (prompt,) = of_kind(made, "dialogs"), of_kind(made, "prompts")
    assert [message["content"] for message in dialog["messages"]] == list(IN_GERMAN.values())
    assert dialog["lineage"]["language"] == "de" and dialog["lineage"]["translated_from"] == "en"
    assert prompt["id"] == dialog["lineage"]["prompt"] and prompt["verifier"] == "language"
    assert prompt["reference"] == "de" and not reasons(made)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("12", "13", 1), "numbers changed"),
        (lambda text: text.replace("`n`", "`m`"), "code or placeholders changed"),
        (lambda text: BACK[text], "not in the language"),
        (lambda text: text + "...", "cut off"),
        (lambda text: "", "empty"),
        (lambda text: text + " Und noch viel mehr davon." * 20, "too long"),
    ],
)
def test_bad_translations_are_dropped(tmp_path, change, reason):
    made = translated(tmp_path, teacher(change))
    assert reasons(made) == [reason] and not of_kind(made, "dialogs") and not of_kind(made, "prompts")


def test_what_is_translated_back_otherwise_is_dropped(tmp_path):
    made = translated(tmp_path, teacher(back="My aunt lives in a small house near the sea."))
    assert reasons(made) == ["the translation back differs"]
    assert len(of_kind(translated(tmp_path / "b", teacher(back="x"), alike=0.0), "dialogs")) == 1


def test_prompts_keep_answers_that_hold_in_all_languages(tmp_path):
    asked = [{"role": "user", "content": QUESTION}]
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": asked, "answer": "12", "verifier": "number"},
        {"prompt": asked, "answer": "twelve of them", "verifier": "text"},
    )
    options = MultilingualConfig(prompts=(path,), languages=("de",))
    made = make("multilingual", options, tmp_path / "work", teacher())
    (prompt,) = of_kind(made, "prompts")
    assert prompt["prompt"][0]["content"] == IN_GERMAN[QUESTION]
    assert (prompt["verifier"], prompt["answer"]) == ("number", "12")
    assert reasons(made) == ["the verifier text does not hold in other languages"]


REQUEST = "Wie koche ich ein weiches Ei, ohne dass die Schale im Wasser platzt?"
SAID = "Nimm das Ei vorher aus dem Kühlschrank und lege es mit einem Löffel ins Wasser."


def native(tmp_path, request=REQUEST, said=SAID, count=1):
    options = MultilingualConfig(native=count, languages=("de",))
    script = lambda messages, sample: request if "Invent one request" in messages[-1]["content"] else said  # noqa: E731
    return make("multilingual", options, tmp_path, script)


def test_native_requests_are_answered_in_their_language(tmp_path):
    made = native(tmp_path, count=3)
    (dialog,) = of_kind(made, "dialogs")
    assert [message["content"] for message in dialog["messages"]] == [REQUEST, SAID]
    assert of_kind(made, "prompts")[0]["reference"] == "de"
    assert reasons(made) == ["repeats an earlier one"] * 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"request": "How do I boil an egg so that the shell does not burst?"}, "the request is in another language"),
        ({"request": "Ei?"}, "the request is too short or too long"),
        ({"request": REQUEST + " https://ei.example"}, "the request has links or placeholders"),
        ({"request": REQUEST + "..."}, "cut off"),
        ({"said": "Take it out of the fridge in time and use a spoon."}, "the answer is in another language"),
        ({"said": "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen."}, "refuses"),
        ({"said": REQUEST}, "repeats the request"),
        ({"said": "Ja."}, "says almost nothing"),
    ],
)
def test_bad_native_requests_and_answers_are_dropped(tmp_path, script, reason):
    made = native(tmp_path, **script)
    assert reasons(made) == [reason] and not of_kind(made, "dialogs") and not of_kind(made, "prompts")


def test_numbers_and_placeholders_are_compared_across_languages():
    assert numbers("1,200 and 3.5") == numbers("1.200 und 3,5") == numbers("१,२०० ३.५")
    text = "Dear [NAME], {count} of `x` are at https://a.example/b and %s"
    assert sorted(kept(text)) == sorted(["[NAME]", "{count}", "`x`", "https://a.example/b", "%s"])
    assert alike("the red house", "the red boat") == pytest.approx(2 / 3) and alike("a", "") == 0


def test_resumed_calls_ask_nothing_again_and_wrong_options_are_refused(tmp_path):
    first = translated(tmp_path, teacher())

    def silent(messages, sample):
        raise AssertionError("asked again")

    assert translated(tmp_path, silent) == first
    with pytest.raises(InputError, match="nothing is asked for"):
        make("multilingual", MultilingualConfig(), tmp_path / "x", silent)
    with pytest.raises(InputError, match="'xx' is none of"):
        parse(MultilingualConfig, {"languages": ["xx"]}, "recipe")
