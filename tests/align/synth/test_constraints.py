"""Constraints: answers by program, checked by rules of this file; conflicts, halves, and a teacher's answers."""

import json
import re
from itertools import combinations

import pytest

from herdlm.align.synth.config import ConstraintsConfig
from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.constraints.repair import repaired
from herdlm.align.synth.constraints.requests import foreign_topics, questions, topics
from herdlm.align.synth.constraints.wording import WORDINGS
from herdlm.base.errors import InputError
from herdlm.data.read import converted
from herdlm.verifiers.detect import detect_language
from herdlm.verifiers.ifeval import IFEval
from herdlm.verifiers.ifeval_instructions import INSTRUCTIONS
from tests.align.synth.scripted import make, of_kind, reasons


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make("constraints", ConstraintsConfig(count=500), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def answered(made):
    """Prompts by kind with their answers by program: (prompt text, kwargs, answer)."""
    prompts = {prompt["id"]: prompt for prompt in of_kind(made, "prompts")}
    found = {}
    for dialog in of_kind(made, "dialogs"):
        prompt = prompts[dialog["lineage"]["prompt"]]
        assert dialog["messages"][0] == prompt["prompt"][0]
        for name, kwargs in zip(prompt["instruction_id_list"], prompt["kwargs"], strict=True):
            found.setdefault(name, []).append(
                (prompt["prompt"][0]["content"], kwargs, dialog["messages"][1]["content"])
            )
    return found


def test_every_answer_is_passed_by_the_verifier(made):
    prompts = {prompt["id"]: prompt for prompt in of_kind(made, "prompts")}
    dialogs = of_kind(made, "dialogs")
    assert len(prompts) == 500 and len(dialogs) > 300 and reasons(made) == []
    for dialog in dialogs:
        assert IFEval()(dialog["messages"][1]["content"], prompts[dialog["lineage"]["prompt"]]).passed


def bounded(count, kwargs, key, relation="relation"):
    return count >= kwargs[key] if kwargs[relation] == "at least" else count < kwargs[key]


RULES = {
    "keywords:existence": lambda p, k, a: all(word.lower() in a.lower() for word in k["keywords"]),
    "keywords:frequency": lambda p, k, a: bounded(a.lower().count(k["keyword"]), k, "frequency"),
    "keywords:forbidden_words": lambda p, k, a: not set(k["forbidden_words"]) & set(re.findall(r"\w+", a.lower())),
    "keywords:letter_frequency": lambda p, k, a: bounded(
        a.lower().count(k["letter"]), k, "let_frequency", "let_relation"
    ),
    kinds.LANGUAGE: lambda p, k, a: detect_language(a) == k["language"],
    kinds.WORDS: lambda p, k, a: bounded(len(re.findall(r"\w+", a)), k, "num_words"),
    kinds.PARAGRAPHS: lambda p, k, a: len([x for x in a.split("***") if x.strip()]) == k["num_paragraphs"],
    kinds.FIRST_WORD: lambda p, k, a: (
        len(a.split("\n\n")) == k["num_paragraphs"]
        and a.split("\n\n")[k["nth_paragraph"] - 1].strip('"').lower().startswith(k["first_word"].lower())
    ),
    kinds.PLACEHOLDERS: lambda p, k, a: a.count("[") >= k["num_placeholders"],
    kinds.POSTSCRIPT: lambda p, k, a: k["postscript_marker"] in a.split("\n\n", 1)[1],
    kinds.BULLETS: lambda p, k, a: len(re.findall(r"(?m)^[*-] ", a)) == k["num_bullets"],
    kinds.CHOICE: lambda p, k, a: len(re.findall(r"My answer is (?:yes|no|maybe)\.", a)) == 1,
    kinds.HIGHLIGHTS: lambda p, k, a: len(re.findall(r"\*\w[^*\n]*\*", a)) >= k["num_highlights"],
    kinds.SECTIONS: lambda p, k, a: all(f"{k['section_spliter']} {n + 1}" in a for n in range(k["num_sections"])),
    kinds.JSON: lambda p, k, a: isinstance(json.loads(a.removeprefix("```json").removesuffix("```")), dict),
    kinds.TITLE: lambda p, k, a: re.search(r"^\"?(?:.*\n\n)?<<.+>>", a, re.DOTALL),
    kinds.TWO: lambda p, k, a: len({x.strip() for x in a.split("******")}) == 2,
    kinds.REPEAT: lambda p, k, a: a.startswith(k["prompt_to_repeat"]) and k["prompt_to_repeat"] in p,
    kinds.END: lambda p, k, a: a.strip('"').endswith(k["end_phrase"]),
    kinds.QUOTATION: lambda p, k, a: a[0] == a[-1] == '"',
    kinds.CAPITAL_WORDS: lambda p, k, a: bounded(
        len(re.findall(r"\b[A-Z]+\b", a)), k, "capital_frequency", "capital_relation"
    ),
    kinds.CAPITAL: lambda p, k, a: a == a.upper(),
    kinds.LOWERCASE: lambda p, k, a: a == a.lower(),
    kinds.NO_COMMA: lambda p, k, a: "," not in a,
}


@pytest.mark.parametrize("kind", sorted(RULES))
def test_answers_keep_each_kind_by_an_independent_rule(answered, kind):
    rows = answered[kind]
    assert len(rows) >= 5
    assert [row for row in rows if not RULES[kind](*row)] == []


def test_only_sentences_have_no_rule_here():
    assert set(INSTRUCTIONS) - set(RULES) == {kinds.SENTENCES}
    assert set(WORDINGS) == set(INSTRUCTIONS)


def test_prompts_say_what_the_parameters_are(made):
    for prompt in of_kind(made, "prompts"):
        text = prompt["prompt"][0]["content"]
        for kwargs in prompt["kwargs"]:
            for key, value in kwargs.items():
                if "relation" in key or key == "language":
                    continue
                for part in value if isinstance(value, list) else [value]:
                    said = (str(part), str(part - 1)) if isinstance(part, int) else (part,)
                    assert any(each in text for each in said), (text, key, part)
        assert not re.search(
            r"[{}]|\b1 (?:bullet points|paragraphs|sections|placeholders|passages|sentences|words|times)\b", text
        )


def test_kinds_that_contradict_each_other_are_never_in_one_prompt(made):
    for prompt in of_kind(made, "prompts"):
        names = prompt["instruction_id_list"]
        assert len(names) == len(set(names)) <= 3
        assert not kinds.CONFLICTS & {frozenset(pair) for pair in combinations(names, 2)}
    assert frozenset((kinds.CAPITAL, kinds.LOWERCASE)) in kinds.CONFLICTS
    assert frozenset((kinds.JSON, kinds.TITLE)) in kinds.CONFLICTS


def test_halves_divide_the_kinds_and_each_kind_leads_as_often(tmp_path):
    first, second = (set(kinds.kinds_of(half, ())) for half in ("first half", "second half"))
    assert first | second == set(INSTRUCTIONS) and not first & second and abs(len(first) - len(second)) == 1
    made = make("constraints", ConstraintsConfig(count=60, kinds="second half", most=2), tmp_path)
    seen = [name for prompt in of_kind(made, "prompts") for name in prompt["instruction_id_list"]]
    assert set(seen) == second
    assert all(len(prompt["instruction_id_list"]) <= 2 for prompt in of_kind(made, "prompts"))


def test_open_requests_have_no_answer_and_shares_are_kept(tmp_path):
    none = make("constraints", ConstraintsConfig(count=40, open=1.0, without=(kinds.CHOICE,)), tmp_path)
    assert of_kind(none, "dialogs") == [] and len(of_kind(none, "prompts")) == 40
    every = make("constraints", ConstraintsConfig(count=40, open=0.0), tmp_path)
    assert len(of_kind(every, "dialogs")) == 40
    some = make("constraints", ConstraintsConfig(count=60, open=0.0, program_share=0.3), tmp_path)
    assert 5 < len(of_kind(some, "dialogs")) < 35


def test_equal_seeds_give_equal_prompts(tmp_path):
    options = ConstraintsConfig(count=20)
    first, again, other = (make("constraints", options, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_passages_of_documents_are_given_in_the_prompt(tmp_path):
    text = (
        "The old mill stands beside the river. It was built by two brothers. Farmers brought their grain to it in "
        "autumn. Today it is a small museum. Visitors can see the wheel turn on Sundays."
    )
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps({"text": f"Mill\n\n{text}\n\nToo short."}) + "\n")
    options = ConstraintsConfig(count=40, open=0.0, passages=1.0)
    made = make("constraints", options, tmp_path / "work", documents=(path,))
    given = [prompt for prompt in of_kind(made, "prompts") if text in prompt["prompt"][0]["content"]]
    assert len(given) > 15
    ids = {prompt["source"] for prompt in given}
    assert len(ids) == 1 and len(ids.pop()) == 32
    by_prompt = {dialog["lineage"]["prompt"]: dialog for dialog in of_kind(made, "dialogs")}
    words = set(re.findall(r"[a-z]+", text.lower()))
    for prompt in given:
        said = re.findall(r"[a-z]+", by_prompt[prompt["id"]]["messages"][1]["content"].lower())
        assert len(words & set(said)) > 0.9 * len(words)


def test_documents_without_passages_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("Nothing here")
    with pytest.raises(InputError, match="no English paragraph of 4 to 8 sentences"):
        make("constraints", ConstraintsConfig(count=5), tmp_path / "work", documents=(tmp_path / "a.txt",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": ("length:words",)}, "'length:words' is not an instruction"),
        ({"without": tuple(INSTRUCTIONS)}, "leaves no instruction"),
        ({"teacher_samples": 2}, "teacher_samples needs a teacher"),
        ({"count": 90, "open": 0.0, "without": tuple(set(INSTRUCTIONS) - {kinds.CHOICE})}, ""),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path, options, message):
    if not message:  # 44 questions in many wordings: enough
        assert len(of_kind(make("constraints", ConstraintsConfig(**options), tmp_path), "prompts")) == 90
        return
    with pytest.raises(InputError, match=message):
        make("constraints", ConstraintsConfig(**options), tmp_path)


def test_a_teachers_answers_are_kept_repaired_told_again_or_dropped(tmp_path):
    only = tuple(set(INSTRUCTIONS) - {kinds.NO_COMMA, kinds.BULLETS})
    asked = []

    def reply(messages, sample):
        text = messages[0]["content"]
        asked.append(messages)
        if len(messages) > 1:
            if "bullet" in messages[-1]["content"].lower() or "point" in messages[-1]["content"].lower():
                count = int(re.search(r"(?:exactly|into|have) (\d+)", messages[-1]["content"])[1])
                return "\n".join(["* One more point"] * count)
            return "still, wrong"
        bullets = re.search(r"(?:exactly|into|have) (\d+) (?:bullet|points)", text)
        if sample == 0:
            return "One, two, three." if not bullets else "No points at all."
        return "It runs on and on..."

    options = ConstraintsConfig(count=12, open=0.0, most=1, without=only, program_share=0.0, teacher_samples=2)
    made = make("constraints", options, tmp_path, reply)
    dialogs = of_kind(made, "dialogs")
    prompts = {prompt["id"]: prompt for prompt in of_kind(made, "prompts")}
    assert all(IFEval()(d["messages"][1]["content"], prompts[d["lineage"]["prompt"]]).passed for d in dialogs)
    repaired_ones = [dialog for dialog in dialogs if dialog["source"] == "edited"]
    told = [dialog for dialog in dialogs if dialog["source"] == "scripted"]
    assert len(repaired_ones) == 6 and {d["messages"][1]["content"] for d in repaired_ones} == {"One two three."}
    assert len(told) == 6 and {dialog["lineage"]["told_again"] for dialog in told} == {1}
    assert all(len(dialog["messages"]) == 2 for dialog in told)
    assert reasons(made) == ["cut off"] * 12
    pairs = of_kind(made, "pairs")
    assert [pair["rating"] for pair in pairs] == ["edited"] * 6
    assert {pair["rejected"][0]["content"] for pair in pairs} == {"One, two, three."}


def test_what_stays_wrong_is_dropped_with_what_it_breaks(tmp_path):
    only = tuple(set(INSTRUCTIONS) - {kinds.SECTIONS})
    options = ConstraintsConfig(
        count=3, open=0.0, most=1, without=only, program_share=0.0, teacher_samples=1, repairs=2
    )
    made = make("constraints", options, tmp_path, lambda messages, sample: f"No sections {len(messages)}.")
    assert of_kind(made, "dialogs") == []
    assert reasons(made) == [f"breaks {kinds.SECTIONS}"] * 3
    assert {row["answer"] for row in of_kind(made, "dropped")} == {"No sections 5."}


REPAIRED = [
    (kinds.BULLETS, {"num_bullets": 2}, "1. One\n2. Two\n3. Three", "* One\n* Two"),
    (kinds.TITLE, {}, "# A title\nText.", "<<A title>>\nText."),
    (kinds.END, {"end_phrase": "The end."}, "Text.", "Text.\n\nThe end."),
    (kinds.JSON, {}, 'Here:\n```json\n{"a": 1}\n```\nBye', '{"a": 1}'),
    (kinds.PARAGRAPHS, {"num_paragraphs": 2}, "One.\n\nTwo.", "One.\n\n***\n\nTwo."),
    (kinds.REPEAT, {"prompt_to_repeat": "Do it."}, "Done.", "Do it.\n\nDone."),
    (kinds.QUOTATION, {}, "Text.", '"Text."'),
    (kinds.CAPITAL, {}, "This is an English text.", "THIS IS AN ENGLISH TEXT."),
    (kinds.LOWERCASE, {}, "This is an English text.", "this is an english text."),
    (kinds.NO_COMMA, {}, "1,000 is much, really", "1000 is much really"),
]


@pytest.mark.parametrize(("kind", "kwargs", "answer", "better"), REPAIRED)
def test_repairs_by_rule_make_answers_pass(kind, kwargs, answer, better):
    reference = {"instruction_id_list": [kind], "kwargs": [kwargs]}
    assert not IFEval()(answer, reference).passed
    assert repaired(answer, [kind], [kwargs], [False]) == better
    assert IFEval()(better, reference).passed
    assert repaired(answer, [kind], [kwargs], [True]) == answer


def test_texts_are_in_order():
    assert len({topic.name for topic in topics()}) == len(topics()) > 60
    assert all(len(topic.facts) == 8 for topic in topics())
    assert all(detect_language(" ".join(topic.facts)) == topic.language[0] for topic in foreign_topics())
    assert {answer for _, answer, _ in questions()} == {"yes", "no", "maybe"}


def test_prompts_and_dialogs_are_read_as_they_are(made, tmp_path):
    for kind in ("prompts", "dialogs"):
        path = tmp_path / f"{kind}.jsonl"
        rows = of_kind(made, kind)[:50]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = [record for each in converted(path, kind) for record in each.records]
        key = "prompt" if kind == "prompts" else "messages"
        assert [record[key] for record in found] == [row[key] for row in rows]
        if kind == "prompts":
            assert [record["kwargs"] for record in found] == [row["kwargs"] for row in rows]
