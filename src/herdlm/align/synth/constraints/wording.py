"""How instructions are worded, and how a request and its instructions become a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.draw import Draw

LEAST = ("at least {n}", "no fewer than {n}", "{n} or more", "a minimum of {n}")
LESS = ("fewer than {n}", "less than {n}", "under {n}", "at most {before}", "no more than {before}")

CHOICES = (
    ("yes", ("If it is so", "For a positive reply", "In favor")),
    ("no", ("If it is not so", "For a negative reply", "Against it")),
    ("maybe", ("If that is open", "For a reply in between", "Where nobody can tell")),
)
"""The three sentences of a constrained response, and when each is right."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "keywords:existence": (
        "Use the word{s} {words}.",
        "{words_} must appear in your text.",
        "Make sure that {words} {is_are} in the answer.",
        "Work {words} into what you write.",
        "I want to read the word{s} {words} somewhere in it.",
        "Do not forget to mention {words}.",
    ),
    "keywords:frequency": (
        'Use the word "{word}" {count} times.',
        'The word "{word}" should occur {count} times.',
        'Let "{word}" appear {count} times in the text.',
        'I would like "{word}" to be used {count} times.',
    ),
    "keywords:forbidden_words": (
        "Do not use the word{s} {words}.",
        "Avoid the word{s} {words}.",
        "Leave out {words}.",
        "{words_} must not appear anywhere.",
        "Get by without the word{s} {words}.",
        "The following is off limits: {words}.",
    ),
    "keywords:letter_frequency": (
        'The letter "{letter}" should occur {count} times.',
        'Use the letter "{letter}" {count} times.',
        'Count the letter "{letter}": it has to be there {count} times.',
        'There should be {count} occurrences of the letter "{letter}".',
    ),
    kinds.LANGUAGE: (
        "Answer in {name} only.",
        "Write everything in {name}.",
        "Use the {name} language and no other.",
        "The whole reply has to be in {name}.",
        "Please reply in {name}.",
    ),
    kinds.SENTENCES: (
        "Write {count} sentences.",
        "The answer should have {count} sentences.",
        "Keep it to {count} sentences.",
        "Your text needs {count} sentences.",
        "Use {count} sentences.",
    ),
    kinds.WORDS: (
        "Write {count} words.",
        "The length should be {count} words.",
        "Use {count} words.",
        "Your answer has to consist of {count} words.",
        "I need {count} words.",
    ),
    kinds.PARAGRAPHS: (
        "Write {n} paragraph{s} and put three asterisks (***) between paragraphs.",
        "Divide the text into {n} part{s} by lines with ***.",
        "There should be exactly {n} paragraph{s}, with *** as the divider.",
        "Give it {n} paragraph{s}. Separate them with the mark ***.",
    ),
    kinds.FIRST_WORD: (
        'Write exactly {n} paragraphs with a blank line between them. Paragraph {nth} begins with the word "{first}".',
        'There should be {n} paragraphs, divided by blank lines, and the first word of paragraph {nth} is "{first}".',
        'Make {n} paragraphs, separated only by two line breaks. Start paragraph {nth} with "{first}".',
        'Use {n} paragraphs with an empty line after each but the last; "{first}" opens paragraph number {nth}.',
    ),
    kinds.PLACEHOLDERS: (
        "Leave {least} placeholders in square brackets, such as [name], for me to fill in.",
        "Include {least} blanks in square brackets, for example [date].",
        "Put in {least} placeholders like [city], always in square brackets.",
        "I will complete it later, so use {least} placeholders in square brackets, such as [address].",
    ),
    kinds.POSTSCRIPT: (
        "Let a postscript follow at the bottom, with {mark} in front of it.",
        "Below the text, put {mark} and a postscript after it.",
        "With {mark} as its mark, a postscript has to follow the text.",
        "There should also be a postscript, which {mark} introduces.",
        "Do not forget a postscript that you mark with {mark} at its beginning.",
    ),
    kinds.BULLETS: (
        "Use exactly {n} bullet points, written like this:\n* A point.",
        'Give exactly {n} bullet points, each on a line that begins with "* ".',
        'Put your answer into {n} bullet points in Markdown, such as "* one thing".',
        "The list must have {n} bullets, no more and no fewer, in the form:\n- An item",
        "Format it as a list of exactly {n} points with a star (*) before each.",
    ),
    kinds.CHOICE: (
        "Your reply has to contain one of three phrases. {choices}",
        "There are three ways to answer. {choices}",
        "Decide, and use the right one of these sentences. {choices}",
        "Take exactly one of three sentences. {choices}",
    ),
    kinds.HIGHLIGHTS: (
        "Emphasize {least} passages with asterisks, *like this*.",
        "Highlight {least} parts of the text in Markdown, such as *this part*.",
        "Set {least} words or phrases between stars, as in *a phrase*.",
        "Mark the {n_or_more} most important terms with *asterisks*.",
    ),
    kinds.SECTIONS: (
        "Divide it into {n} sections. Begin each with the heading {mark} and its number, as in {mark} 1.",
        "The answer must have {n} sections that are headed {mark} 1, {mark} 2 and so on.",
        "Structure the text: {n} sections, each opened by {mark} X, where X counts them.",
        'Use {n} numbered sections and start every one with "{mark}" and the number.',
    ),
    kinds.JSON: (
        "Put the whole answer into JSON.",
        "Reply with valid JSON and nothing else.",
        "The output has to be a JSON object; a Markdown code block around it is fine.",
        "Format everything as JSON, since a program will read it.",
        "I can only process JSON, so wrap all of your answer in it.",
    ),
    kinds.TITLE: (
        "Give it a title in double angle brackets, such as <<a title>>.",
        "Put a title on top and write it like this: <<title>>.",
        "It needs a heading between << and >>.",
        "Start with a title, wrapped in double angle brackets like <<this>>.",
    ),
    kinds.TWO: (
        "Give two different answers and separate them with six asterisks: ******.",
        "Write two versions that differ. Put ****** between them and nowhere else.",
        "I would like to choose between two replies. Divide them by six stars (******).",
    ),
    kinds.REPEAT: (
        "Before you answer, copy the request above word for word; then give the answer.",
        "Begin your reply by repeating the request above exactly as it is, and answer after that.",
        "First write the request above again without any change. Only then answer it.",
        "Your reply opens with the exact words of the request above, followed by the answer.",
    ),
    kinds.END: (
        'End with exactly these words: "{phrase}" Nothing may follow them.',
        'The very last words of your reply are: "{phrase}"',
        'Close with the sentence "{phrase}" and add nothing after it.',
        "Finish with this phrase, and stop there: {phrase}",
    ),
    kinds.QUOTATION: (
        "Put the entire answer in double quotation marks.",
        'Your reply should begin and end with a double quote (").',
        "Wrap everything you write in double quotes.",
        'Enclose the whole text in quotation marks of the form "...".',
    ),
    kinds.CAPITAL_WORDS: (
        "Write {count} words in capital letters only, LIKE THIS.",
        "There should be {count} words in which all letters are capitals.",
        "Words in ALL CAPS should appear {count} times.",
        "Use words in full capitals {count} times.",
    ),
    kinds.CAPITAL: (
        "Write everything in English and in capital letters.",
        "Use capital letters only, in English.",
        "All letters of your answer, which is in English, have to be capitals.",
        "The entire English text must be in upper case.",
    ),
    kinds.LOWERCASE: (
        "Write everything in English and in small letters, without a single capital.",
        "Use lower case only, in English.",
        "No capital letters are allowed, and the language is English.",
        "All of the English text has to be lower case, names and sentence starts included.",
    ),
    kinds.NO_COMMA: (
        "Do not use any commas.",
        "Write without commas.",
        "The comma is forbidden in your whole answer.",
        "Get by without a single comma.",
        "There must be no comma anywhere.",
    ),
}
"""Wordings of each kind; what stands in braces follows from its parameters."""

TIMES_KEYS = ("frequency", "let_frequency", "num_sentences", "num_words", "capital_frequency")
COUNT_KEYS = ("num_paragraphs", "num_placeholders", "num_bullets", "num_highlights", "num_sections")


def worded(draw: Draw, kind: str, kwargs: Mapping[str, Any]) -> str:
    """An instruction in words."""
    fields = _fields(draw, kwargs)
    text = draw.one(WORDINGS[kind]).format(**fields)
    if kind == kinds.PARAGRAPHS and kwargs["num_paragraphs"] == 1:
        text = "Write a single paragraph."
    return text if text.endswith((".", "!", '"', "'", "item", "***")) else f"{text}."


def _fields(draw: Draw, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What wordings can name."""
    fields: dict[str, Any] = {}
    relation = next((kwargs[key] for key in ("relation", "let_relation", "capital_relation") if key in kwargs), None)
    for key in TIMES_KEYS:
        if key in kwargs:
            number = kwargs[key]
            wording = draw.one(LEAST if relation == "at least" else LESS if number > 2 else LESS[:3])
            fields["count"] = wording.format(n=number, before=number - 1)
    for key in COUNT_KEYS:
        if key in kwargs:
            number = kwargs[key]
            fields |= {"n": number, "s": "" if number == 1 else "s", "least": draw.one(LEAST).format(n=number)}
            fields["n_or_more"] = f"{number} or more"
    words = kwargs.get("keywords") or kwargs.get("forbidden_words")
    if words:
        quoted = [f'"{word}"' for word in words] if draw.chance(0.6) else list(words)
        listed = (
            quoted[0]
            if len(quoted) == 1
            else ", ".join(quoted[:-1]) + f" {'or' if 'forbidden_words' in kwargs else 'and'} {quoted[-1]}"
        )
        fields |= {"words": listed, "s": "" if len(words) == 1 else "s", "is_are": "is" if len(words) == 1 else "are"}
        fields["words_"] = f"The word{fields['s']} {listed}"
    fields["choices"] = " ".join(f'{draw.one(when)}: "My answer is {word}."' for word, when in draw.some(CHOICES, 3))
    fields |= {
        "word": kwargs.get("keyword"),
        "letter": kwargs.get("letter"),
        "name": kwargs.get("name"),
        "nth": kwargs.get("nth_paragraph"),
        "first": kwargs.get("first_word"),
        "mark": kwargs.get("postscript_marker") or kwargs.get("section_spliter"),
        "phrase": kwargs.get("end_phrase"),
    }
    return fields


LISTED = (
    "Please keep to these rules:",
    "Conditions:",
    "Your answer has to meet the following points:",
    "Some requirements:",
    "What matters to me:",
    "Stick to this:",
    "Requirements for the answer:",
)
BEFORE = (
    "Here is how I want the answer. {rules}\n\n{request}",
    "{rules}\n\nWith that in mind: {request}",
    "Rules first: {rules}\n\nNow the task: {request}",
    "{rules} The task: {request}",
)


def joined(draw: Draw, request: str, rules: Sequence[str], *, request_first: bool) -> str:
    """A prompt of a request and its instructions.

    Args:
        request_first: whether an instruction speaks of "the request above".
    """
    flat = "".join(rule + ("\n" if "\n" in rule else " ") for rule in rules).rstrip()
    shape = draw.one(("after", "after", "after", "lines", "list", "numbers", "before"))
    if shape in ("list", "numbers") and (len(rules) == 1 or "\n" in flat):
        shape = "lines"
    if shape == "before" and (request_first or "\n" in flat or "\n" in request):
        shape = "after"
    if shape == "before":
        return draw.one(BEFORE).format(rules=flat, request=request)
    if shape == "lines" or "\n" in request or request_first:
        return f"{request}\n\n{flat}" if draw.chance(0.6) or request_first else f"{request}\n{flat}"
    if shape == "after":
        return f"{request} {flat}"
    marks = [f"{number}." if shape == "numbers" else "-" for number in range(1, len(rules) + 1)]
    lines = "\n".join(f"{mark} {rule}" for mark, rule in zip(marks, rules, strict=True))
    return f"{request}\n\n{draw.one(LISTED)}\n{lines}"
