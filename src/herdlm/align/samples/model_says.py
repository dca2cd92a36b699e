"""Judges samples by a model: points by a rubric, or comparisons of two answers. Each is asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from herdlm.align.samples.asking import Asked, answers_to
from herdlm.align.samples.rows import JudgeRow, SampledRow
from herdlm.align.samples.rubric import TIE, Rubric, better, comparing, marking, marks
from herdlm.base.ledger import Ledger
from herdlm.base.seeds import stream
from herdlm.evaluate.requests import AnswerRequest, Question

KEPT_CHARS = 1000  # of a reply


@dataclass(slots=True)
class Said:
    """What became of what a judge was asked.

    Attributes:
        asked: answers to mark, or pairs to compare.
        read: those of which a reply to either order could be read.
        both: those of which the replies to both orders could be read.
        agree: those of ``both`` in which they say the same.
        tied: compared pairs that end in a tie.
        too_long: those that the judge cannot read.
    """

    asked: int = 0
    read: int = 0
    both: int = 0
    agree: int = 0
    tied: int = 0
    too_long: int = 0


def mark(
    rows: Sequence[SampledRow], model: Asked, rubric: Rubric, ledger: Ledger, *, max_tokens: int, quiet: bool = False
) -> Said:
    """Put a ``judge`` with points into each sample; without one where no reply can be read. Equal answers are one."""
    asked = [
        (number, answer)
        for number, row in enumerate(rows)
        for answer in dict.fromkeys(sample["answer"] for sample in row["samples"])
    ]
    texts = [
        (marking(rubric, rows[number], answer, reverse=False), marking(rubric, rows[number], answer, reverse=True))
        for number, answer in asked
    ]
    replies, said = _replies(model, texts, ledger, max_tokens, quiet)
    judged: dict[tuple[int, str], JudgeRow] = {}
    for (number, answer), both in zip(asked, replies, strict=True):
        task = rows[number].get("task")
        given = [points for reply in both if (points := marks(rubric, task, reply)) is not None]
        if not given:
            continue
        agrees = len(given) == len(both) and given[0] == given[1]
        said.read, said.both, said.agree = said.read + 1, said.both + (len(given) == 2), said.agree + agrees
        points = {name: sum(each[name] for each in given) / len(given) for name in given[0]}
        judged[number, answer] = {
            "score": sum(points.values()),
            "best": float(rubric.best(task)),
            "agrees": agrees,
            "by": model.name,
            "points": points,
            "said": [reply[:KEPT_CHARS] for reply in both],
        }
    _put(rows, judged)
    return said


def compare(
    rows: Sequence[SampledRow],
    model: Asked,
    rubric: Rubric,
    ledger: Ledger,
    *,
    meets: int,
    seed: int,
    max_tokens: int,
    quiet: bool = False,
) -> Said:
    """Put a ``judge`` into each sample: the share of its comparisons that its answer won, a tie counting half.

    A pair ends in a tie if the judge says something else in the other order.

    Args:
        meets: the next answers, in an order that the seed draws, that each is compared with.
    """
    pairs = [(n, *pair) for n, row in enumerate(rows) for pair in pairs_of(row, meets, seed)]
    texts = [(comparing(rubric, rows[n], a, b), comparing(rubric, rows[n], b, a)) for n, a, b in pairs]
    replies, said = _replies(model, texts, ledger, max_tokens, quiet)
    judged: dict[tuple[int, str], JudgeRow] = {}
    for (number, a, b), both in zip(pairs, replies, strict=True):
        votes = [better(reply) for reply in both]
        if not votes or None in votes:
            said.read += any(vote is not None for vote in votes)
            continue
        first, second = votes[0], 1 - (votes[1] or 0.0)
        agrees = first == second
        result = first if agrees and first is not None else TIE
        said.read, said.both, said.agree = said.read + 1, said.both + 1, said.agree + agrees
        said.tied += result == TIE
        for answer, won in ((a, result), (b, 1 - result)):
            _count(judged.setdefault((number, answer), _unmet(model.name)), won, agrees)
    for each in judged.values():
        each["score"] = (each["won"] + each["tied"] / 2) / (each["won"] + each["tied"] + each["lost"])
    _put(rows, judged)
    return said


def pairs_of(row: SampledRow, meets: int, seed: int) -> list[tuple[str, str]]:
    """The pairs of different answers to compare: in a drawn order around a circle, each with the next ``meets``."""
    answers = list(dict.fromkeys(sample["answer"] for sample in row["samples"]))
    order = stream(seed, "pairs", row["id"]).permutation(len(answers)).tolist()
    found: dict[frozenset[int], tuple[str, str]] = {}
    for step in range(1, min(meets, len(order) - 1) + 1):
        for place, here in enumerate(order):
            there = order[(place + step) % len(order)]
            found.setdefault(frozenset((here, there)), (answers[here], answers[there]))
    return list(found.values())


def _replies(
    model: Asked, texts: Sequence[tuple[str, str]], ledger: Ledger, max_tokens: int, quiet: bool
) -> tuple[list[list[str]], Said]:
    """The replies to each pair of requests, or none where one is too long for the judge."""
    requests: list[AnswerRequest] = []
    fitting: list[bool] = []
    for both in texts:
        questions = [Question(messages=({"role": "user", "content": text},)) for text in both]
        fitting.append(all(model.fits(question, max_tokens) for question in questions))
        requests += [AnswerRequest(question, max_tokens) for question in questions] if fitting[-1] else []
    found = answers_to(model, requests, ledger, title=f"judge {model.name}", quiet=quiet)
    texts_found = iter([answers[0].text for answers in found])
    replies = [[next(texts_found), next(texts_found)] if fits else [] for fits in fitting]
    return replies, Said(asked=len(texts), too_long=fitting.count(False))


def _unmet(name: str) -> JudgeRow:
    return {"score": TIE, "best": 1.0, "agrees": True, "by": name, "won": 0, "tied": 0, "lost": 0}


def _count(judged: JudgeRow, won: float, agrees: bool) -> None:
    judged["agrees"] = judged["agrees"] and agrees
    judged["won"] += won == 1
    judged["tied"] += won == TIE
    judged["lost"] += won == 0


def _put(rows: Sequence[SampledRow], judged: dict[tuple[int, str], JudgeRow]) -> None:
    for number, row in enumerate(rows):
        for sample in row["samples"]:
            sample.pop("judge", None)
            if (found := judged.get((number, sample["answer"]))) is not None:
                sample["judge"] = {**found}
