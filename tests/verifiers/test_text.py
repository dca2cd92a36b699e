"""Equal texts, regular expressions, lengths and languages."""

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.load import load_verifier


@pytest.mark.parametrize(
    "name, options, answer, reference, passes",
    [
        ("exact", {}, " Paris\n", "Paris", True),
        ("exact", {}, "paris", "Paris", False),
        ("exact", {}, "Paris", ["Lyon", "Paris"], True),
        ("exact", {"strip": False}, " Paris", "Paris", False),
        ("text", {}, "The  Paris!", "paris", True),
        ("text", {}, "“Ｐａｒｉｓ”", "Paris", True),
        ("text", {}, "It is Paris.", "Paris", False),
        ("text", {"contains": True}, "It is Paris.", "Paris", True),
        ("text", {"contains": True}, "It is Parisian.", "Paris", False),
        ("text", {"ignore_case": False}, "paris", "Paris", False),
        ("text", {"ignore_punctuation": False}, "Paris!", "Paris", False),
        ("text", {"ignore_articles": False}, "the Paris", "Paris", False),
        ("regex", {}, "on 2024-05-06", r"\d{4}-\d\d-\d\d", True),
        ("regex", {"whole": True}, "on 2024-05-06", r"\d{4}-\d\d-\d\d", False),
        ("regex", {"whole": True}, " 2024-05-06\n", r"\d{4}-\d\d-\d\d", True),
        ("regex", {"pattern": "cows?", "ignore_case": True}, "COW", None, True),
        ("regex", {"pattern": "^b$"}, "a\nb\nc", None, False),
        ("regex", {"pattern": "^b$", "multiline": True}, "a\nb\nc", None, True),
        ("regex", {"pattern": r"x = (\d+)"}, "x = 1, x = 2", "2", True),
        ("regex", {"pattern": r"x = (\d+)"}, "x = 1, x = 2", "1", False),
        ("regex", {"pattern": r"x = (\d+)"}, "none", "1", False),
        ("length", {"max": 3}, "one two three", None, True),
        ("length", {"max": 2}, "one two three", None, False),
        ("length", {"min": 4}, "one two three", None, False),
        ("length", {}, "one two three", 3, True),
        ("length", {}, "one two three", {"min": 4}, False),
        ("length", {"unit": "characters"}, "één", 3, True),
        ("length", {"unit": "sentences"}, "Dr. Smith came. He left.", 2, True),
        ("length", {"unit": "lines"}, "a\n\nb\n", 2, True),
        ("length", {"unit": "paragraphs"}, "a\nb\n\n\nc", 2, True),
        ("language", {}, "Das ist ein ganz einfacher deutscher Satz.", "de", True),
        ("language", {}, "This is a very simple English sentence.", "de", False),
        ("language", {"language": "zh"}, "这是一个非常简单的中文句子，我们用它来测试。", None, True),
        ("language", {"language": "de"}, "12345", None, False),
        ("language", {"language": "de"}, f"Das ist ein Satz.\n```\n{'It is a comment. ' * 9}\n```\n", None, True),
    ],
)
def test_verdicts(name, options, answer, reference, passes):
    verdict = load_verifier(name, options)(answer, reference)
    assert (verdict.passed, verdict.score) == (passes, float(passes))
    assert verdict.reason


@pytest.mark.parametrize(
    "name, options, reference, message",
    [
        ("exact", {}, None, "neither a text nor a list"),
        ("text", {}, [], "neither a text nor a list"),
        ("text", {}, [1], "neither a text nor a list"),
        ("regex", {}, "(", "is not a regular expression"),
        ("regex", {}, None, "is not a regular expression"),
        ("regex", {"pattern": "(a)"}, None, "neither a text nor a list"),
        ("length", {}, "3", "is no limit"),
        ("length", {}, {"most": 3}, "is no limit"),
        ("length", {}, True, "is no limit"),
        ("language", {}, "elvish", "is unknown"),
        ("language", {}, None, "is unknown"),
    ],
)
def test_references_of_another_kind_are_refused(name, options, reference, message):
    with pytest.raises(InputError, match=message):
        load_verifier(name, options)("answer", reference)


def test_the_same_text_always_has_the_same_language():
    language = load_verifier("language", {"language": "en"})
    found = {language("Cat dog ok la le no", None).details["found"] for _ in range(20)}
    assert len(found) == 1
