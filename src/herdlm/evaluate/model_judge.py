"""A model that rates the answers of another one, all answers of a window together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from herdlm.base.recipe import Section, parse
from herdlm.evaluate.requests import AnswerRequest, EvaluatedModel, Question
from herdlm.evaluate.templates import Template
from herdlm.verifiers.verdict import Verdict

MODEL = "model"  # the name of this judge in task files


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers to an item that are to be judged.

    Attributes:
        question: the last one asked, with all that came before it.
        samples: each the answers of its turns, of which most tasks have one.
    """

    row: Mapping[str, Any]
    question: Question
    samples: Sequence[Sequence[str]]

    def turns(self, sample: Sequence[str]) -> list[dict[str, str]]:
        """A sample's turns, each with ``question`` and ``answer``."""
        messages = self.question.messages
        asked = [self.question.text] if messages is None else [m["content"] for m in messages if m["role"] == "user"]
        return [
            {"question": question, "answer": answer}
            for question, answer in zip(asked[-len(sample) :], sample, strict=True)
        ]


class ModelJudgeOptions(Section):
    """Options of a judge with ``verifier = "model"``."""

    prompt: str = Field(
        description="a Jinja template of what the judge is asked, over the item's fields, question, answer, and turns: "
        "all turns up to the judged one, each with question and answer"
    )
    pattern: str = Field(r"\[\[(\d+(?:\.\d+)?)\]\]", description="its first group is the rating; the last match counts")
    scale: float = Field(gt=0, description="the best rating; a score is the rating divided by it")
    passing: float | None = Field(None, description="the rating from which an answer passes; the best one if absent")
    each_turn: bool = Field(False, description="rate each turn of a dialog, not only the last")
    max_tokens: int = Field(1024, ge=1, description="of what the judge says")

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if not groups:
            raise ValueError("needs a group, which is the rating")
        return pattern


class ModelJudge:
    """Rates answers by what a model says of them."""

    def __init__(self, options: Mapping[str, Any], where: str, model: EvaluatedModel) -> None:
        self.options = parse(ModelJudgeOptions, dict(options), f"{where}.options")
        self.model = model
        self._prompt = Template(self.options.prompt, f"{where}.options.prompt")
        self._pattern = re.compile(self.options.pattern)

    def verdicts(self, items: Sequence[Judged]) -> list[list[Verdict]]:
        """The verdict on each sample of each item. A score is the mean over its rated turns.

        Details hold ``ratings``, of which one is None where the judge gave none, and ``judge``, what it said.
        """
        prompts = [[list(self._prompts(item, sample)) for sample in item.samples] for item in items]
        requests = [self._request(text) for samples in prompts for turns in samples for text in turns]
        said = {number: answers[0].text for number, answers in self.model.answer(requests)}
        texts = iter([said[number] for number in range(len(requests))])
        return [[self._verdict([next(texts) for _ in turns]) for turns in samples] for samples in prompts]

    def metrics(self, name: str, verdicts: Sequence[Verdict]) -> dict[str, float | list[float]]:
        """An item's values; none where the judge gave no rating."""
        values: dict[str, float | list[float]] = {}
        if rated := [v.score for v in verdicts if any(r is not None for r in v.details["ratings"])]:
            values[name] = sum(rated) / len(rated)
        for turn in range(len(verdicts[0].details["ratings"]) if self.options.each_turn else 0):
            ratings = [v.details["ratings"][turn] for v in verdicts if v.details["ratings"][turn] is not None]
            if ratings:
                values[f"{name}_turn_{turn + 1}"] = sum(ratings) / len(ratings) / self.options.scale
        return values

    def _prompts(self, item: Judged, sample: Sequence[str]) -> Iterator[str]:
        turns = item.turns(sample)
        for end in range(1 if self.options.each_turn else len(turns), len(turns) + 1):
            yield self._prompt({**item.row, **turns[end - 1], "turns": turns[:end]})

    def _request(self, text: str) -> AnswerRequest:
        question = Question(messages=({"role": "user", "content": text},)) if self.model.chats else Question(text)
        return AnswerRequest(question, self.options.max_tokens)

    def _verdict(self, said: Sequence[str]) -> Verdict:
        ratings = [self._rating(text) for text in said]
        given = [rating for rating in ratings if rating is not None]
        details = {"ratings": ratings, "judge": list(said)}
        if not given:
            return Verdict(False, 0.0, "the judge gives no rating", details)
        mean, passing = sum(given) / len(given), self.options.passing or self.options.scale
        reason = "rated well enough" if mean >= passing else "rated too low"
        return Verdict(mean >= passing, mean / self.options.scale, reason, details)

    def _rating(self, text: str) -> float | None:
        """The rating in a judge's answer; None if there is none on the scale."""
        try:
            rating = float([match[1] for match in self._pattern.finditer(text)][-1])
        except (IndexError, TypeError, ValueError):
            return None
        return rating if 0 <= rating <= self.options.scale else None
