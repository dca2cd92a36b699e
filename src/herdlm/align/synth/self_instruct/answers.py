"""Judges sampled answers by how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from herdlm.align.synth.words import alike, words
from herdlm.verifiers.refusals.classify import classify
from herdlm.verifiers.text import Text

SHORT = 8  # words of an answer that can be compared as a whole
ECHO = 0.9
PLAIN = Text()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The answer that was chosen, or why none was.

    Attributes:
        share: of the samples that say the same if it is short; else the mean share of common words with the others.
    """

    wrong: str
    number: int = -1
    share: float = 0.0
    short: bool = False


def usable(task: str, text: str) -> str:
    """What is wrong with an answer by itself."""
    if classify(text).kind != "compliance":
        return "refuses"
    if alike(task, text) >= ECHO or " ".join(words(text)).startswith(" ".join(words(task))):
        return "repeats the task"
    return ""


def choose(task: str, samples: Sequence[str], *, agree: float, common: float) -> Chosen:
    """The answer that the samples agree on.

    If most are short, more than ``agree`` of all must be equal but for case, punctuation and articles. Of long ones
    that is taken which has most words in common with the others.

    Args:
        samples: the answers; "" for one that was cut off.
    """
    wrongs = [usable(task, text) if text else "cut off" for text in samples]
    good = [number for number, wrong in enumerate(wrongs) if not wrong]
    if 2 * len(good) <= len(samples):
        return Chosen(f"most answers: {Counter(filter(None, wrongs)).most_common(1)[0][0]}")
    short = [number for number in good if len(words(samples[number])) <= SHORT]
    if 2 * len(short) > len(good):
        votes = Counter(PLAIN.normalize(samples[number]) for number in short)
        answer, count = min(votes.items(), key=lambda vote: (-vote[1], vote[0]))
        if count <= agree * len(samples) or not answer:
            return Chosen("the short answers do not agree")
        number = next(number for number in short if PLAIN.normalize(samples[number]) == answer)
        return Chosen("", number, count / len(samples), short=True)
    long = [number for number in good if number not in short]
    if len(long) < 2:
        return Chosen("the answers do not agree on a length")
    shares = {n: sum(alike(samples[n], samples[other]) for other in long if other != n) / (len(long) - 1) for n in long}
    best = max(long, key=lambda number: shares[number])
    if shares[best] < common:
        return Chosen("the answers have too little in common")
    return Chosen("", best, shares[best])
