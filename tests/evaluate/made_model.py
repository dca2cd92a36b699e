"""A model whose likelihoods a function decides; for tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from herdlm.evaluate.requests import Answer, AnswerRequest, Scored, ScoreRequest


class MadeModel:
    """Scores each continuation by ``likes(question's text, continuation)``; counts what it was asked."""

    def __init__(self, likes: Callable[[str, str], float], name: str = "made") -> None:
        self.name, self.fingerprint, self.chats, self.context, self.width = name, name, False, 4096, 1
        self.likes, self.asked = likes, list[str]()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        self.asked += [request.question.text for request in requests]
        return [Scored([self.likes(request.question.text, request.continuation)], False) for request in requests]

    def score_text(self, text: str) -> list[float]:
        return [self.likes("", text)]

    def answer(self, requests: Sequence[AnswerRequest]) -> Iterator[tuple[int, list[Answer]]]:
        for number, request in enumerate(requests):
            yield number, [Answer(request.question.text, 1, None, "stop")]

    def count(self, text: str) -> int:
        return len(text.split())

    def close(self) -> None:
        pass
