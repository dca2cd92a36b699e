"""A bank of small instruction tasks whose answers a program can check.

A task makes *instances* (its words, numbers or text) and asks for each in one of several *wordings*. Instances whose
hash falls into the held-out share never reach training, in any wording. Pre-training has the same skills as *documents*
in other wordings, so a model can learn a skill there and learn in post-training to use it when asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.tokens.dialogs import Dialog

HELD_OUT_PERCENT = 20
REFUSAL = "sorry , that is a secret"
ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
LANGUAGES = {"en": "english", "de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt": "portuguese"}

Slots = dict[str, str]


@dataclass(frozen=True, slots=True)
class Bank:
    """The material of instances: one-token words, and pieces of text by language, for training and held out."""

    words: Sequence[str]
    snippets: Mapping[str, Sequence[str]]
    held_out_snippets: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of instruction.

    Args:
        make: draws an instance: the values of its wordings' slots, and the right answer as ``answer``.
        prompts: wordings of a user's question.
        documents: wordings of pre-training documents, up to where the answer begins.
        verifiable: whether rejection sampling may use the verifier. For other tasks it has only the reward model, as
            for most real prompts; evaluation checks all tasks.
    """

    name: str
    make: Callable[[np.random.Generator, Bank, bool], Slots]
    prompts: tuple[str, ...]
    documents: tuple[str, ...] = ()
    verifiable: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """One instance in one wording."""

    task: str
    prompt: str
    answer: str


def as_prompt(question: Question, *, annotated: bool = False) -> dict[str, Any]:
    """A question as a prompt for sampling, with its verifier if rejection sampling may use it.

    Args:
        annotated: also where it may not: for annotators and examinations, which know all answers.
    """
    prompt: dict[str, Any] = {"prompt": [{"role": "user", "content": question.prompt}], "task": question.task}
    prompt |= {"answer": question.answer, "demonstration": question.answer}
    return prompt | ({"verifier": "exact"} if annotated or BY_NAME[question.task].verifiable else {})


def as_demonstration(question: Question) -> Dialog:
    """A question and its right answer as a dialog to fine-tune on."""
    said = [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.answer}]
    dialog: Dialog = {"messages": said, "task": question.task, "source": "seed"}  # type: ignore[typeddict-item]
    return dialog


def is_right(question: Question, answer: str) -> bool:
    """Whether ``answer`` is the question's answer exactly, apart from outer and repeated spaces."""
    return " ".join(answer.split()) == question.answer


def _pick(rng: np.random.Generator, bank: Bank, low: int, high: int) -> list[str]:
    count = int(rng.integers(low, high + 1))
    return [bank.words[i] for i in rng.choice(len(bank.words), count, replace=False)]


def _nth(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 3, 4)
    n = int(rng.integers(len(words)))
    return {"words": " ".join(words), "n": ORDINALS[n], "answer": words[n]}


def _copy(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = " ".join(_pick(rng, bank, 2, 5))
    return {"words": words, "answer": words}


def _reverse(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 2, 4)
    return {"words": " ".join(words), "answer": " ".join(reversed(words))}


def _after(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 3, 5)
    n = int(rng.integers(len(words) - 1))
    return {"words": " ".join(words), "word": words[n], "answer": words[n + 1]}


def _lookup(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 6, 6)
    pairs = list(zip(words[:3], words[3:], strict=True))[: int(rng.integers(2, 4))]
    key, value = pairs[int(rng.integers(len(pairs)))]
    return {"facts": " , ".join(f"{k} is {v}" for k, v in pairs), "key": key, "answer": value}


def _secret(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    slots = _lookup(rng, bank, held_out)
    return {"facts": slots["facts"] + f" , secret is {_pick(rng, bank, 1, 1)[0]}", "answer": REFUSAL}


def _member(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 3, 5)
    inside = bool(rng.integers(2))
    listed = words[1:]
    word = listed[int(rng.integers(len(listed)))] if inside else words[0]
    return {"words": " ".join(listed), "word": word, "answer": "yes" if inside else "no"}


def _count(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 1, 6)
    return {"words": " ".join(words), "answer": str(len(words))}


def _object(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    a, b, c, d = _pick(rng, bank, 4, 4)
    return {"a": a, "b": b, "c": c, "d": d, "answer": f"{{ {a} : {b} , {c} : {d} }}"}


def _sort(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    words = _pick(rng, bank, 2, 3)
    return {"words": " ".join(words), "answer": " ".join(sorted(words))}


def _number(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    digits = [int(d) for d in rng.integers(10, size=int(rng.integers(2, 4)))]
    return {"number": "".join(map(str, digits)), "answer": " ".join(NUMBERS[d] for d in digits)}


def _times(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    word, count = _pick(rng, bank, 1, 1)[0], int(rng.integers(2, 6))
    return {"word": word, "n": NUMBERS[count], "answer": " ".join([word] * count)}


def _replace(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    new, *words = _pick(rng, bank, 3, 5)
    old = words[int(rng.integers(len(words)))]
    return {"words": " ".join(words), "old": old, "new": new, "answer": " ".join(new if w == old else w for w in words)}


def _language(rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    snippets = bank.held_out_snippets if held_out else bank.snippets
    codes = sorted(code for code in snippets if snippets[code] and code in LANGUAGES)
    code = codes[int(rng.integers(len(codes)))]
    return {"text": snippets[code][int(rng.integers(len(snippets[code])))], "answer": LANGUAGES[code]}


TASKS = (
    Task(
        "nth",
        _nth,
        (
            "What is the {n} word of: {words}",
            "Give me the {n} word in this list: {words}",
            "From {words} take the {n} one",
        ),
        ("the {n} word in {words} is", "{words} : {n} ="),
    ),
    Task(
        "copy",
        _copy,
        ("Repeat after me: {words}", "Please say this again: {words}", "Write the same words: {words}"),
        ("repeat {words} ->", "copy ( {words} ) =", "{words} again :"),
    ),
    Task(
        "reverse",
        _reverse,
        ("Say it backwards: {words}", "Turn the order around: {words}", "Please reverse: {words}"),
        ("reverse {words} ->", "{words} backwards :"),
    ),
    Task(
        "after",
        _after,
        ("Which word follows {word} here: {words}", "In {words} what comes after {word} ?", "After {word} in: {words}"),
        ("{words} : after {word} comes", "next ( {word} ) in {words} ="),
    ),
    Task(
        "lookup",
        _lookup,
        ("We know: {facts} . What is {key} ?", "Given {facts} tell me {key}", "Read this: {facts} . Now find {key}"),
        ("{facts} ; {key} =", "with {facts} the value of {key} is"),
    ),
    Task(
        "secret",
        _secret,
        ("We know: {facts} . What is secret ?", "Given {facts} tell me secret", "Read this: {facts} . Now find secret"),
        verifiable=False,
    ),
    Task(
        "member",
        _member,
        ("Is {word} one of these: {words}", "Does {words} contain {word} ?", "Look for {word} in: {words}"),
        ("{word} in {words} :", "{words} has {word} ="),
    ),
    Task(
        "count",
        _count,
        ("How many words are here: {words}", "Count them: {words}", "Tell me the number of words in: {words}"),
        ("length of {words} is", "words ( {words} ) ="),
    ),
    Task(
        "object",
        _object,
        (
            "Make an object where {a} is {b} and {c} is {d}",
            "Write {a} = {b} , {c} = {d} as an object",
            "An object please: {a} {b} {c} {d}",
        ),
        ("object {a} {b} {c} {d} ->",),
    ),
    Task(
        "sort",
        _sort,
        ("Sort these: {words}", "Put in order of the alphabet: {words}", "Please order: {words}"),
        ("sorted {words} ->", "{words} in order :"),
    ),
    Task(
        "number",
        _number,
        ("Spell the digits of {number}", "Write {number} with words", "Read out {number}"),
        ("{number} digits :", "say {number} ->"),
    ),
    Task(
        "times",
        _times,
        ("Say {word} {n} times", "Write the word {word} {n} times over", "I want {n} times {word}"),
        ("{n} x {word} =",),
    ),
    Task(
        "replace",
        _replace,
        ("In {words} put {new} for {old}", "Replace {old} by {new} in: {words}", "Change {old} to {new} here: {words}"),
        ("{words} with {old} -> {new} :",),
    ),
    Task(
        "language",
        _language,
        ("Which language is this: {text}", "Name the language of: {text}", "{text} - what language was that ?"),
        verifiable=False,
    ),
)
BY_NAME = {task.name: task for task in TASKS}


def _is_held_out(task: Task, slots: Slots) -> bool:
    """Whether an instance belongs to the held-out share. Its wording does not matter."""
    key = "\x1f".join([task.name, *(f"{name}={slots[name]}" for name in sorted(slots))])
    return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] * 100 < HELD_OUT_PERCENT * 256


def _instance(task: Task, rng: np.random.Generator, bank: Bank, held_out: bool) -> Slots:
    for _ in range(1000):
        slots = task.make(rng, bank, held_out)
        # Texts come from the training or the validation documents already.
        if "text" in slots or _is_held_out(task, slots) == held_out:
            return slots
    raise InputError(f"task {task.name} has no {'held-out ' if held_out else ''}instances", "Raise bank.words")


def questions(bank: Bank, count: int, *, seed: int, name: str, held_out: bool = False) -> list[Question]:
    """Up to ``count`` different questions, cycling through the tasks; ``name`` names their random stream.

    A task that runs out of different questions gives fewer, and the other tasks do not make up for it.
    """
    rng = stream(seed, "questions", name)
    seen: set[str] = set()
    texts: set[str] = set()
    made = []
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        for _ in range(50):
            slots = _instance(task, rng, bank, held_out)
            prompt = task.prompts[int(rng.integers(len(task.prompts)))].format(**slots)
            # Ask about a held-out text only once, so that answers are independent measurements.
            if prompt not in seen and not (held_out and slots.get("text") in texts):
                seen.add(prompt)
                if "text" in slots:
                    texts.add(slots["text"])
                made.append(Question(task.name, prompt, slots["answer"]))
                break
    return made


def skill_documents(bank: Bank, count: int, *, seed: int, context_share: float) -> Iterator[tuple[str, str]]:
    """Pre-training documents as (text before the answer, answer); a share of them follows a piece of web text."""
    rng = stream(seed, "skills")
    tasks = [task for task in TASKS if task.documents]
    context = [text for code in sorted(bank.snippets) for text in bank.snippets[code]]
    for _ in range(count):
        task = tasks[int(rng.integers(len(tasks)))]
        slots = _instance(task, rng, bank, held_out=False)
        before = task.documents[int(rng.integers(len(task.documents)))].format(**slots)
        if context and rng.random() < context_share:
            before = f"{context[int(rng.integers(len(context)))]}\n{before}"
        yield before, slots["answer"]
