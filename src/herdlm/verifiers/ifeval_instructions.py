"""The 25 kinds of checkable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911).

Each function takes an answer and the instruction's parameters, and returns whether the answer keeps it. What counts
as a bullet, section or word is what the published checker counts, which is at times less, or more, than its
description says; keywords, section marks and other parameters that it puts into patterns are regular expressions here
as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from herdlm.verifiers.detect import detect_language
from herdlm.verifiers.english import count_words, sentences, tokens

RELATIONS = ("less than", "at least")


def _compare(count: int, relation: str, limit: int) -> bool:
    if relation not in RELATIONS:
        raise ValueError(f"relation {relation!r} is neither 'less than' nor 'at least'")
    return count < limit if relation == "less than" else count >= limit


# keywords


def existence(answer: str, *, keywords: list[str]) -> bool:
    """All keywords occur, also inside of words."""
    return all(re.search(keyword, answer, re.IGNORECASE) for keyword in keywords)


def frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs often, or seldom, enough."""
    return _compare(len(re.findall(keyword.strip(), answer, re.IGNORECASE)), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A character occurs often, or seldom, enough, in either case."""
    return _compare(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


# language, case


def response_language(answer: str, *, language: str) -> bool:
    """The answer is in a language; one without letters passes."""
    return detect_language(answer) in (language, None)


def english_capital(answer: str) -> bool:
    """All letters are capitals, and the language is English."""
    return answer.isupper() and response_language(answer, language="en")


def english_lowercase(answer: str) -> bool:
    """No letter is a capital, and the language is English."""
    return answer.islower() and response_language(answer, language="en")


def capital_word_frequency(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Words in capitals occur often, or seldom, enough; a word with hyphens is one."""
    return _compare(sum(token.isupper() for token in tokens(answer)), capital_relation, capital_frequency)


# length


def number_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    """There are enough, or few enough, sentences."""
    return _compare(len(sentences(answer)), relation, num_sentences)


def number_words(answer: str, *, num_words: int, relation: str) -> bool:
    """There are enough, or few enough, words."""
    return _compare(count_words(answer), relation, num_words)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """``***`` divides the answer into so many paragraphs, of which none in the middle is empty."""
    parts = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", answer)]
    # A divider at the very start or end is allowed. With a single part, start and end are the same one.
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Blank lines divide the answer into so many paragraphs, and the nth starts with a word."""
    parts = answer.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if count != num_paragraphs or nth_paragraph > count:
        return False
    words = parts[nth_paragraph - 1].split()  # empty parts are counted here, though not above
    if not words:
        return False
    start = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return start.lower() == first_word.lower()


# content and format


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """There are enough placeholders in square brackets."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """A postscript begins with the mark, somewhere in the answer."""
    mark = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(mark, mark.lower()), answer.lower()) is not None


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """There are exactly so many lines that begin with a single ``*`` or with ``-``."""
    stars = re.findall(r"^\s*\*[^*].*$", answer, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(answer: str) -> bool:
    """One of three sentences occurs."""
    return any(f"My answer is {word}." in answer for word in ("yes", "no", "maybe"))


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """There are enough passages between stars; those between double stars count in both forms."""
    single = sum(bool(found.strip("*").strip()) for found in re.findall(r"\*[^\n*]*\*", answer))
    double = sum(bool(found[2:-2].strip()) for found in re.findall(r"\*\*[^\n*]*\*\*", answer))
    return single + double >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """There are enough sections with numbered headings."""
    return len(re.findall(rf"\s?{section_spliter.strip()}\s?\d+\s?", answer)) >= num_sections


def json_format(answer: str) -> bool:
    """The answer is JSON, alone or in one fenced block."""
    text = answer.strip()
    for mark in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(mark)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str) -> bool:
    """A title stands in double angle brackets."""
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", answer))


# combinations, start and end, punctuation


def two_responses(answer: str) -> bool:
    """Six stars divide the answer into two different ones."""
    parts = [part.strip() for part in answer.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the prompt."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """The answer ends with a phrase, which may be in double quotes."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(answer: str) -> bool:
    """The answer is in double quotes."""
    text = answer.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def no_comma(answer: str) -> bool:
    """There is no comma."""
    return "," not in answer


INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
"""The kinds of instructions by their ids in the data set."""
