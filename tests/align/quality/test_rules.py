"""Each rule on examples of its kind, and on examples that look like them and must stay."""

import pytest

from herdlm.align.quality.config import STEPS, QualityConfig
from herdlm.align.quality.control import control

ONLY = dict.fromkeys(STEPS, False)
LONG = (
    "The river rises in the hills and flows to the sea through several towns. It has been used for trade for a long "
    "time, and its banks are lined with old mills that people visit in summer"
)


def dialog(asked, answer, **keys):
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], **keys}


def dropped_by(step, *rows, **keys):
    """The reasons why one step alone drops rows, "" for each row that stays."""
    found = control(rows, QualityConfig(**(ONLY | {step: keys})))
    reasons = {id_of(row): row["dropped"]["reason"] for row in found.dropped}
    return [reasons.get(id_of(row), "") for row in rows]


def id_of(row):
    return repr(row.get("messages") or row.get("prompt"))


LEAKS = [
    ("What is two and two?", "Four.<|im_end|>\n<|im_start|>user", "special token"),
    ("What is two and two?", "[INST] Four. [/INST]", "special token"),
    ("What is two and two?", "Four. </s>", "special token"),
    ("What is two and two?", "Four.\n\n### Instruction:\nAdd three.", "heading of a template"),
    ("What is two and two?", "Four.\n\nUser: And three?\nAssistant: Five.", "role name before a turn"),
    ("What is two and two?", "Assistant: Four.", "role name before a turn"),
]
NO_LEAKS = [
    ("What does <|im_end|> do?", "The token <|im_end|> ends a turn."),
    ("Write a dialog of a user and a bot.", "User: Hello\nBot: Hello, how are you?"),
    ("Which are warm-blooded?", "Goat: warm\nFrog: cold\nHuman: warm"),
    ("How do I strike text in HTML?", "Use the `<s>` element, which strikes text."),
    ("Who uses the system?", "The user: a person who logs in. Systems are used by users."),
    ("Make it bold.", "**Note:** it is bold now."),
    ("Compare a < b | c > d.", "Both sides are compared bit by bit."),
]
TRUNCATED = [
    ("Write a program.", "Here it is:\n```python\nprint(1)\n", "code is not closed"),
    ("Tell me of the river.", f"{LONG} and", "ends with an open word"),
    ("Tell me of the river.", f"{LONG}, which is why they are so well known,", "ends with an open word"),
]
WHOLE = [
    ("Tell me of the river.", LONG),  # people leave out the last full stop
    ("Which word is it?", "the"),
    ("Write a program.", "Here it is:\n```python\nprint(1)\n```"),
    ("Tell me of the river.", f"{LONG}, which is what it is known for."),
    ("List them.", "\n".join(f"- item {n} of the list" for n in range(12))),
]
CIRCLES = [
    ("Tell me of the river.", "The river is very long indeed. " * 9, "a sentence again and again"),
    ("Name animals.", ", ".join(["cats and dogs and birds and fish and mice and cows"] * 14), "repeated 5-grams"),
    ("Who was the first man on the moon?", "Who was the first man on the moon?", "repeats the prompt"),
]
NO_CIRCLES = [
    ("Tell me of the river.", LONG),
    ("Write a song with a refrain.", "We sail away to the sea again. " * 9),
    ("Correct this: He go to school every day.", "Correct this: He go to school every day."),
    ("Fill the table.", "```sql\n" + "id integer primary key autoincrement\n" * 12 + "```\nThese are the tables."),
    (
        "Sort the fruit into kinds.",
        "The apple is a fruit with seeds. The pear is a fruit with seeds. A nut is no fruit.",
    ),
]
REFUSING = [
    "I'm sorry, but I can't help with that.",
    "I cannot provide instructions for that.",
    "As an AI language model, I am not able to write programs.",
    "Unfortunately, I'm unable to assist you with this request.",
    "I must decline to answer.",
    "I won't do that. It goes against my guidelines.",
]
NO_REFUSING = [
    "You can't help it: the moon pulls at the sea.",
    "As an AI, I don't have a favorite player, but Curry has won the most titles with the team.",
    "I'm sorry to hear that. Rest, drink water, and see a doctor if it goes on.",
    "The firm cannot provide shares to the public, since it is private.",
    "Sorry is the hardest word, the song says.",
    "An assistant that refuses too much is of little use.",
]


@pytest.mark.parametrize(("asked", "answer", "reason"), LEAKS)
def test_rests_of_templates_are_dropped(asked, answer, reason):
    assert dropped_by("leaks", dialog(asked, answer)) == [reason]


@pytest.mark.parametrize(("asked", "answer"), NO_LEAKS)
def test_what_only_looks_like_a_template_stays(asked, answer):
    assert dropped_by("leaks", dialog(asked, answer)) == [""]


def test_a_template_around_the_prompt_is_found_in_prompts_too():
    wrapped = "### Instruction:\nAdd two and two.\n\n### Response:\n"
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in (wrapped, "### Input: the data of today")]
    assert dropped_by("leaks", *rows) == ["template around the prompt", ""]


@pytest.mark.parametrize(("asked", "answer", "reason"), TRUNCATED)
def test_answers_that_stop_in_the_middle_are_dropped(asked, answer, reason):
    assert dropped_by("truncation", dialog(asked, answer)) == [reason]


@pytest.mark.parametrize(("asked", "answer"), WHOLE)
def test_whole_answers_stay(asked, answer):
    assert dropped_by("truncation", dialog(asked, answer)) == [""]


@pytest.mark.parametrize(("asked", "answer", "reason"), CIRCLES)
def test_answers_that_run_in_circles_are_dropped(asked, answer, reason):
    assert dropped_by("repetition", dialog(asked, answer)) == [reason]


@pytest.mark.parametrize(("asked", "answer"), NO_CIRCLES)
def test_answers_that_may_repeat_stay(asked, answer):
    assert dropped_by("repetition", dialog(asked, answer)) == [""]


@pytest.mark.parametrize("answer", REFUSING)
def test_refusals_are_dropped_but_not_of_safety_tasks_or_assistants_with_tools(answer):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    rows = [
        dialog("How?", answer),
        dialog("How?", answer, task="safety-borderline"),
        dialog("How?", answer, tools=[tool]),
    ]
    found = [dropped_by("refusals", row) for row in rows]
    assert found == [["refusal"], [""], [""]]


@pytest.mark.parametrize("answer", NO_REFUSING)
def test_what_only_sounds_like_a_refusal_stays(answer):
    assert dropped_by("refusals", dialog("How?", answer)) == [""]


def test_a_refusal_that_the_prompt_asks_for_stays():
    rows = [
        dialog("Politely decline this invitation: Come to dinner.", "I'm sorry, but I can't do that on Friday."),
        dialog("What are things you can't do?", "As an AI, I cannot access the Internet."),
    ]
    assert dropped_by("refusals", *rows) == ["", ""]


def test_answers_with_several_apologies_are_dropped_and_those_that_open_with_one_are_thinned_out():
    many = dialog("Why?", "I apologize for the error. I am sorry about that. Again, I apologize.")
    opening = [dialog(f"Why {n}?", "I apologize for the confusion. It is seven.", reward=float(n)) for n in range(6)]
    plain = [dialog(f"How {n}?", f"It is {n}.") for n in range(94)]
    found = dropped_by("apologies", many, *opening, *plain, max_share=0.03)
    assert found[0] == "several apologies"
    assert found[1:7] == ["opens with an apology"] * 3 + [""] * 3  # the best by reward stay
    assert set(found[7:]) == {""}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("My dog died.", "I'm so sorry for your loss. I am sorry to hear it. I'm sorry that you feel so sad."),
        ("Write an apology to a customer.", "I am sorry. We apologize. I apologize for the delay."),
        ("Why?", "Sorry states of affairs arise when nobody is in charge."),
    ],
)
def test_sympathy_and_apologies_that_were_asked_for_stay(asked, answer):
    assert dropped_by("apologies", dialog(asked, answer), max_share=0.5, most=0) == [""]


def test_emoji_and_exclamation_marks_are_dropped_where_nobody_asked_for_them():
    rows = [
        dialog("How hot is the sun?", "Very hot 🌞🔥🔥🔥 indeed 🎉"),
        dialog("How hot is the sun? 🌞", "Very hot 🌞🔥🔥🔥 indeed 🎉"),
        dialog("Write it with emoji: the sun is hot", "☀️🌞🔥🔥🔥"),
        dialog("How hot is it?", "Quite hot 🔥"),
    ]
    assert dropped_by("emoji", *rows) == ["emoji", "", "", ""]
    rows = [
        dialog("How hot is the sun?", "Wow! So hot! You would not believe it! Yay! It burns!"),
        dialog("How hot is the sun?", "It is hot!!!!"),
        dialog("Write a slogan for the sun.", "Wow! So hot! You would not believe it! Yay! It burns!"),
        dialog("How do I compare?", "Use != for that. 5! is 120. a != b, c != d, e != f. That is all. It works. Good!"),
        dialog("How hot is the sun?", "It is hot! " + "It has a surface of about 5,500 degrees. " * 9),
        dialog("Where?", "See https://maps.example/a!b!c!d!e for it."),
    ]
    assert dropped_by("exclamations", *rows) == ["exclamation marks", "exclamation marks in a row", "", "", "", ""]


ENGLISH = "The river rises in the hills near the old town and flows slowly to the sea, past fields and small villages."
GERMAN = (
    "Der Fluss entspringt in den Hügeln bei der alten Stadt und fließt langsam ins Meer, vorbei an Feldern und Dörfern."
)


def test_an_answer_in_another_language_is_dropped_unless_the_prompt_asks_for_it():
    asked = "Please tell me in a few words how the river flows from the hills down to the sea."
    rows = [
        dialog(asked, GERMAN),
        dialog(f"Answer in German. {asked}", GERMAN),
        dialog(f"Translate: {ENGLISH}", GERMAN),
        dialog(asked, ENGLISH),
        dialog(GERMAN, GERMAN),
        dialog("Wo?", ENGLISH),  # too short to know
        dialog(asked, "```python\nfluss = 'Der Fluss fließt langsam ins Meer'\n```"),
    ]
    assert dropped_by("language", *rows) == ["answer in another language", "", "", "", "", "", ""]
    assert dropped_by("language", rows[3], rows[4], only=("en",)) == ["", "another language than wanted"]


def test_a_phrase_that_many_answers_end_with_is_thinned_out_and_the_best_stay():
    words = ["red", "blue", "green", "small", "old", "new", "warm", "cold", "long", "short"]
    bodies = [
        f"The {a} house stands by a {b} lake {n}." for n, (a, b) in enumerate((a, b) for a in words for b in words)
    ]
    rows = [dialog(f"Describe house {n}.", body) for n, body in enumerate(bodies)]
    tic = [
        dialog(f"Tell me of {n}.", f"{body} Hopefully that clears everything up.", reward=float(n))
        for n, body in enumerate(bodies[:30])
    ]
    found = dropped_by("phrases", *rows, *tic, max_share=0.1, min_count=5)
    assert found[100:117] == ["over-used phrase"] * 17 and found[117:] == [""] * 13  # 0.1 of 130
    assert set(found[:100]) == {""}


def test_the_form_of_one_topic_and_phrases_to_keep_are_no_over_use():
    words = ["red", "blue", "green", "small", "old", "new", "warm", "cold", "long", "short"]
    plain = [
        dialog(f"Describe {a} {b}.", f"Some {a} thing with a {b} edge.", task="prose") for a in words for b in words
    ]
    form = [dialog(f"Solve {n}.", f"Count it all. Therefore we obtain precisely {n}.", task="sums") for n in range(40)]
    assert set(dropped_by("phrases", *plain, *form, max_share=0.1, min_count=5)) == {""}
    unlabeled = [{key: value for key, value in row.items() if key != "task"} for row in [*plain, *form]]
    assert "over-used phrase" in dropped_by("phrases", *unlabeled, max_share=0.1, min_count=5)
    keep = dict(max_share=0.1, min_count=5, keep=("therefore we obtain", "we obtain precisely"))
    assert set(dropped_by("phrases", *unlabeled, **keep)) == {""}


def test_evaluation_items_are_dropped_long_ones_by_what_they_share_and_short_ones_by_equality():
    item = "Anna has seventeen red apples and gives five of them to her brother Tom; how many apples are left with her?"
    rows = [
        dialog(f"Solve this. {item}", "12"),
        dialog("Anna has seventeen red apples in a bowl on the table near the door. What color are they?", "Red."),
        dialog("Why is the sky blue", "It scatters."),
        dialog("Why is the sky blue in the day but red at night?", "It scatters."),
    ]
    found = control(
        rows, QualityConfig(**(ONLY | {"contamination": {}})), against={"test.jsonl": [item, "Why is the sky blue?"]}
    )
    assert [row["dropped"]["detail"] for row in found.dropped] == ["test.jsonl, 100% of its words", "test.jsonl"]
    assert [row["messages"][0]["content"][:4] for row in found.dropped] == ["Solv", "Why "]


def test_prompts_that_want_too_few_things_are_dropped_if_that_is_asked_for():
    rows = [
        dialog("Why is the sky blue?", "It scatters."),
        dialog("List three fruits, and explain each in exactly 5 words. Do not use commas.", "Apple ..."),
        {**dialog("Write.", "Yes."), "instruction_id_list": ["a", "b", "c"]},
        dialog("Hm.", "Hm.", difficulty=4),
    ]
    found = control(rows, QualityConfig(**(ONLY | {"difficulty": {}})))
    assert [row["quality"]["difficulty"] for row in found.kept] == [1, 4, 4, 4]
    assert dropped_by("difficulty", *rows, min_intents=3) == ["too easy", "", "", ""]
