"""How each kind of task asks a model about some items, and what record it makes of each.

A record holds the item's number, what was asked, what the model said, and ``values``: for each metric a number, a list
of numbers, or a pair of sums [numerator, denominator] under ``ratios``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from herdlm.base.seeds import derive_seed
from herdlm.evaluate.asking import Asking, Settings
from herdlm.evaluate.judging import Judges
from herdlm.evaluate.model_judge import Judged
from herdlm.evaluate.requests import Answer, AnswerRequest, EvaluatedModel, Question, Scored, ScoreRequest
from herdlm.evaluate.task import Task

Record = dict[str, Any]


class Kind(Protocol):
    """Asks about items of one task."""

    window: int  # items that are asked about together

    def ask(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[Record]:
        """The records of items, as they are finished."""


class Choice:
    """The answer is the choice with the highest likelihood.

    acc compares the choices' log-probabilities, acc_norm these per character, acc_bytes per byte of UTF-8. mc2 is the
    right choices' share of the probability (Lin et al., arXiv 2109.07958).
    """

    window = 128

    def __init__(self, task: Task, asking: Asking, chat: bool) -> None:
        self.task, self.asking, self.chat = task, asking, chat
        given = (metric.partition("=") for metric in task.config.metrics or ("acc", "acc_norm"))
        self.metrics = {name: formula or name for name, _, formula in given}

    def ask(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[Record]:
        """See :class:`Kind`."""
        asked = [self._requests(number) for number in numbers]
        scores = iter(model.score([request for requests, _ in asked for request in requests]))
        for number, (requests, choices) in zip(numbers, asked, strict=True):
            yield self._record(number, requests, choices, [next(scores) for _ in requests])

    def _requests(self, number: int) -> tuple[list[ScoreRequest], list[str]]:
        """The questions, and the texts by whose length likelihoods are normalized."""
        asking, prompt = self.asking, self.task.config.prompt
        row = asking.rows[number]
        if prompt.contexts is not None:
            contexts, continuation = asking.contexts(number), prompt.separator + asking.target(row)
            return [ScoreRequest(Question(text), continuation) for text in contexts], contexts
        choices = asking.choices(row)
        if self.chat:
            question = asking.chat(number)
            return [ScoreRequest(question, choice) for choice in choices], choices
        question = Question(asking.plain(number))
        return [ScoreRequest(question, prompt.separator + choice) for choice in choices], choices

    def _record(self, number: int, requests: list[ScoreRequest], choices: list[str], scores: list[Scored]) -> Record:
        row = self.asking.rows[number]
        sums = [score.logprob for score in scores]
        right = self.asking.right_ones(row, len(choices))
        chosen = {
            "acc": _best(sums),
            "acc_norm": _best([value / max(len(text), 1) for value, text in zip(sums, choices, strict=True)]),
            "acc_bytes": _best([v / max(len(text.encode()), 1) for v, text in zip(sums, choices, strict=True)]),
        }
        values = {name: float(index in right) for name, index in chosen.items()}
        top = max(sums)
        shares = [math.exp(value - top) for value in sums]
        values["mc2"] = sum(shares[i] for i in right) / sum(shares)
        values = {name: values[formula] for name, formula in self.metrics.items()}
        picked = chosen.get(next(iter(self.metrics.values())), chosen["acc"])
        passed = picked in right
        return {
            "id": number,
            "prompt": requests[0].question.shown(),
            "choices": [request.continuation for request in requests]
            if self.task.config.prompt.contexts is None
            else choices,
            "expected": right if self.task.config.prompt.labels else right[0],
            "answer": picked,
            "logprobs": sums,
            "token_logprobs": [score.logprobs for score in scores],
            "tokens": [len(score.logprobs) for score in scores],
            **({"cut": cut} if (cut := max(score.cut for score in scores)) else {}),
            "values": values,
            "passed": passed,
            "reason": "the right choice is the likeliest" if passed else "another choice is likelier",
        }


class Continuation:
    """The answer is right if greedy decoding gives each token of the target."""

    window = 128

    def __init__(self, task: Task, asking: Asking, chat: bool) -> None:
        self.task, self.asking, self.chat = task, asking, chat

    def ask(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[Record]:
        """See :class:`Kind`."""
        asking, requests = self.asking, []
        for number in numbers:
            target = asking.target(asking.rows[number])
            if self.chat:
                requests.append(ScoreRequest(asking.chat(number), target.lstrip()))
            else:
                requests.append(
                    ScoreRequest(Question(asking.plain(number)), self.task.config.prompt.separator + target)
                )
        for number, request, score in zip(numbers, requests, model.score(requests), strict=True):
            yield {
                "id": number,
                "prompt": request.question.shown(),
                "expected": request.continuation,
                "logprobs": [score.logprob],
                "token_logprobs": [score.logprobs],
                "tokens": [len(score.logprobs)],
                **({"cut": score.cut} if score.cut else {}),
                "values": {"acc": float(score.greedy)},
                "ratios": {"perplexity": [-score.logprob, 1.0]},
                "passed": score.greedy,
                "reason": "each token is the likeliest" if score.greedy else "another token is likelier",
            }


class Text:
    """Perplexity of whole texts, by words and bytes, and bits per byte."""

    window = 8

    def __init__(self, task: Task, asking: Asking, chat: bool) -> None:
        self.asking = asking

    def ask(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[Record]:
        """See :class:`Kind`."""
        for number in numbers:
            text = self.asking.plain(number)
            logprobs = model.score_text(text)
            nats, words, size = -sum(logprobs), len(re.split(r"\s+", text)), len(text.encode())
            yield {
                "id": number,
                "prompt": text,
                "logprobs": [-nats],
                "tokens": [len(logprobs)],
                "values": {},
                "ratios": {
                    "word_perplexity": [nats, words],
                    "byte_perplexity": [nats, size],
                    "bits_per_byte": [nats / math.log(2), size],
                },
                "passed": None,
                "reason": "",
            }


class Generation:
    """The model writes answers, which judges judge."""

    window = 512

    def __init__(self, task: Task, asking: Asking, chat: bool, settings: Settings, judges: Judges) -> None:
        self.task, self.asking, self.chat, self.settings, self.judges = task, asking, chat, settings, judges

    def ask(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[Record]:
        """See :class:`Kind`."""
        turns = [self.asking.value("turns", self.asking.rows[number]) for number in numbers]
        answered = self._talk(model, numbers, turns) if any(turns) else self._answered(model, numbers)
        if self.judges.model is None:
            for each in answered:
                yield from self._records([each])
        else:  # a model judges all of them faster together
            yield from self._records(list(answered))

    def _answered(self, model: EvaluatedModel, numbers: Sequence[int]) -> Iterator[_Answered]:
        """Single questions, as they are answered."""
        asking = self.asking
        questions = [asking.chat(number) if self.chat else Question(asking.plain(number)) for number in numbers]
        for index, answers in model.answer([self._request(n, q) for n, q in zip(numbers, questions, strict=True)]):
            yield _Answered(numbers[index], questions[index], [[answer] for answer in answers])

    def _talk(
        self, model: EvaluatedModel, numbers: Sequence[int], turns: Sequence[Sequence[str]]
    ) -> Iterator[_Answered]:
        """Dialogs of several turns, one sample each."""
        dialogs = [list(self.asking.chat(number).messages or ()) for number in numbers]
        said: list[list[Answer]] = [[] for _ in numbers]
        for turn in range(max(map(len, turns))):
            here = [i for i in range(len(numbers)) if turn < len(turns[i])]
            if turn:
                for i in here:
                    dialogs[i].append({"role": "user", "content": turns[i][turn]})
            requests = [
                replace(self._request(numbers[i], Question(messages=tuple(dialogs[i]))), samples=1) for i in here
            ]
            for index, answers in model.answer(requests):
                dialogs[here[index]].append({"role": "assistant", "content": answers[0].text})
                said[here[index]].append(answers[0])
        for number, dialog, answers in zip(numbers, dialogs, said, strict=True):
            yield _Answered(number, Question(messages=tuple(dialog[:-1])), [answers])

    def _request(self, number: int, question: Question) -> AnswerRequest:
        sampling = self.settings.applied_to(self.task.config.sampling)
        return AnswerRequest(
            question,
            sampling.max_tokens,
            sampling.stop,
            sampling.temperature,
            sampling.top_p,
            sampling.samples,
            derive_seed(self.settings.seed, "evaluate", self.task.name, number) % 2**63,
        )

    def _records(self, answered: Sequence[_Answered]) -> Iterator[Record]:
        judged = [
            Judged(
                self.asking.rows[each.number],
                each.question,
                [[answer.whole for answer in turns] for turns in each.samples],
            )
            for each in answered
        ]
        for each, judgment in zip(answered, self.judges(judged), strict=True):
            last = [turns[-1] for turns in each.samples]
            yield {
                "id": each.number,
                "prompt": each.question.shown(),
                "answers": [answer.whole for answer in last],
                "expected": judgment.expected,
                "logprobs": [answer.logprob for answer in last],
                "tokens": [answer.tokens for answer in last],
                "finish": [answer.finish for answer in last],
                "values": judgment.values,
                "passed": judgment.passed,
                "reason": judgment.reason,
                "details": judgment.details,
            }


@dataclass(frozen=True, slots=True)
class _Answered:
    """The answers to an item; each sample is the answers of a dialog's turns."""

    number: int
    question: Question
    samples: list[list[Answer]]


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
