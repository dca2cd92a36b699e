"""Tasks: right answers pass, instances do not leak, the split holds in every wording."""

import re

import pytest

from herdlm.align.bank.tasks import BY_NAME, NUMBERS, TASKS, Bank, Question, is_right, questions, skill_documents

WORDS = [
    "file",
    "log",
    "disk",
    "server",
    "user",
    "list",
    "package",
    "archive",
    "space",
    "service",
    "night",
    "letter",
    "table",
    "window",
    "river",
    "stone",
]
BANK = Bank(
    words=WORDS,
    snippets={"en": ["the cat sat on the mat"], "de": ["der hund lief weg"]},
    held_out_snippets={"en": ["a bird was in the tree"], "de": ["ein haus am see"]},
)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_every_wording_uses_only_slots_the_task_makes(task):
    (question,) = [q for q in questions(BANK, len(TASKS), seed=0, name="x") if q.task == task.name]
    assert question.answer
    assert is_right(question, question.answer)
    assert not is_right(question, question.answer + " x")
    slots = set(re.findall(r"{(\w+)}", "".join(task.prompts + task.documents)))
    assert "answer" not in slots


def test_answers_are_right_by_an_independent_reading():
    for q in questions(BANK, 600, seed=1, name="check"):
        words = [w for w in re.findall(r"[a-z]+", q.prompt.split(":")[-1]) if w in WORDS]
        if q.task == "copy":
            assert q.answer.split() == words
        elif q.task == "reverse":
            assert q.answer.split() == words[::-1]
        elif q.task == "sort":
            assert q.answer.split() == sorted(words)
        elif q.task == "count" and ":" in q.prompt:
            assert q.answer == str(len(words))
        elif q.task == "times":
            n = next(i for i, name in enumerate(NUMBERS) if f" {name}" in q.prompt)
            assert q.answer.split() == [q.answer.split()[0]] * n


def test_held_out_questions_share_no_instance_with_training():
    def instances(held_out, name):
        # What a question is about, whatever its wording: its task, its words in order, its answer.
        made = questions(BANK, 3000, seed=2, name=name, held_out=held_out)
        content = lambda q: tuple(w for w in re.findall(r"\w+", q.prompt) if w in WORDS or w.isdigit())  # noqa: E731
        return {
            (q.task, content(q), q.answer) for q in made if q.task in ("copy", "reverse", "sort", "number", "count")
        }

    train, held_out = instances(False, "a"), instances(True, "b")
    assert len(train) > 400
    assert len(held_out) > 100
    assert not train & held_out


def test_documents_show_no_held_out_instance_and_no_users_wording():
    held_out = {
        tuple(w for w in re.findall(r"\w+", q.prompt) if w in WORDS)
        for q in questions(BANK, 2000, seed=3, name="h", held_out=True)
        if q.task == "reverse"
    }
    shown = set()
    for before, answer in skill_documents(BANK, 20_000, seed=3, context_share=0.5):
        line = before.splitlines()[-1]
        if line.startswith("reverse") or line.endswith("backwards :"):
            words = tuple(w for w in re.findall(r"\w+", line) if w in WORDS)
            assert answer.split() == list(words)[::-1]
            shown.add(words)
        assert not any(line.startswith(p.split("{")[0]) for t in TASKS for p in t.prompts if len(p.split("{")[0]) > 8)
    assert len(shown) > 300
    assert not shown & held_out


def test_texts_are_split_by_where_they_come_from():
    for held_out, snippets in ((False, BANK.snippets), (True, BANK.held_out_snippets)):
        made = [q for q in questions(BANK, 300, seed=4, name="t", held_out=held_out) if q.task == "language"]
        assert made
        assert all(any(text in q.prompt for texts in snippets.values() for text in texts) for q in made)


def test_questions_are_different_and_the_same_again():
    made = questions(BANK, 1000, seed=5, name="n")
    assert len({q.prompt for q in made}) == len(made)
    assert made == questions(BANK, 1000, seed=5, name="n")
    assert made != questions(BANK, 1000, seed=5, name="m")


def test_spaces_do_not_matter_but_letters_do():
    question = Question("copy", "x", "a file")
    assert is_right(question, "  a   file\n")
    assert not is_right(question, "A file")


def test_the_secret_stays_one():
    (question,) = [q for q in questions(BANK, 14, seed=6, name="s") if q.task == "secret"]
    secret = re.search(r"secret is (\w+)", question.prompt)[1]
    assert secret not in question.answer
    assert not BY_NAME["secret"].verifiable
