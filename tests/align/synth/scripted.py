"""A teacher whose answers a function writes, and helpers of the tests of generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.align.synth.registry import GENERATORS
from herdlm.align.synth.setting import Made, Setting
from herdlm.align.synth.teacher import Teacher
from herdlm.base.own_parts import load_part
from herdlm.evaluate.requests import Answer, AnswerRequest

Reply = Callable[[list[dict[str, Any]], int], str]


class Scripted:
    """An EvaluatedModel that answers by ``reply(messages, sample)``. An answer that ends with "..." is cut off."""

    name = "scripted"
    chats = True
    context = 4096
    width = 1

    def __init__(self, reply: Reply, fingerprint: str = "scripted") -> None:
        self.reply = reply
        self.fingerprint = fingerprint
        self.asked: list[AnswerRequest] = []

    def answer(self, requests: Sequence[AnswerRequest]) -> Iterator[tuple[int, list[Answer]]]:
        for number in reversed(range(len(requests))):  # in another order than asked
            self.asked.append(requests[number])
            texts = [
                self.reply(list(requests[number].question.messages or ()), k) for k in range(requests[number].samples)
            ]
            yield (
                number,
                [Answer(text, len(text), -1.0, "length" if text.endswith("...") else "stop") for text in texts],
            )

    def close(self) -> None:
        pass


def make(
    name: str, options: Any, work: Path, reply: Reply | None = None, *, seed: int = 0, documents: Sequence[Path] = ()
) -> list[Made]:
    """What a generator makes."""
    model = Scripted(reply) if reply else None
    work.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(lambda: model, work / "answers.jsonl") if model else None
    setting = Setting(name, seed, work, teacher, documents)
    try:
        return list(load_part(GENERATORS[name], name)(setting, options))
    finally:
        setting.close()


def of_kind(made: Sequence[Made], kind: str) -> list[dict[str, Any]]:
    """The records of a kind."""
    return [each.record for each in made if each.kind == kind]


def reasons(made: Sequence[Made]) -> list[str]:
    """Why records were dropped."""
    return [each.reason for each in made if each.kind == "dropped"]
