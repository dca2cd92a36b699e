"""Turns items into questions: the task's templates, its worked examples, as plain text or as a chat."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.base.errors import InputError
from herdlm.evaluate.items import with_right_at
from herdlm.evaluate.requests import Question
from herdlm.evaluate.task import Sampling, Task
from herdlm.evaluate.templates import Expression, Template

SHOT_SEED = 1234  # of the examples that are drawn, as in the lm-evaluation-harness


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides an evaluation's results, beside model, task and data.

    Attributes:
        shots: worked examples; None for as many as the task says.
        chat: whether to ask in a chat; None for as the task says.
        limit: the first items only.
        seed: of examples and of what is drawn.
        samples, max_tokens, temperature: of generation, in place of the task's.
    """

    shots: int | None = None
    chat: bool | None = None
    limit: int | None = None
    seed: int = SHOT_SEED
    samples: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None

    def applied_to(self, sampling: Sampling) -> Sampling:
        """A task's sampling, with what these settings say in its place."""
        given = {"samples": self.samples, "max_tokens": self.max_tokens, "temperature": self.temperature}
        return sampling.model_copy(update={key: value for key, value in given.items() if value is not None})


Fields = Mapping[str, Any]


class Asking:
    """Makes the questions of one task.

    Args:
        rows: the items, all of them.
        pool: where examples come from; the items themselves if None.
    """

    def __init__(
        self, task: Task, rows: Sequence[dict[str, Any]], pool: Sequence[dict[str, Any]] | None, shots: int, seed: int
    ) -> None:
        self.task, self.rows = task, rows
        self._config = config = task.config
        self._pool = pool
        self._shots, self._seed = shots, seed
        prompt, where = config.prompt, f"task {task.name}, prompt"
        self._text, self._description, self._system, self._target = (
            Template(getattr(prompt, key), f"{where}.{key}") for key in ("text", "description", "system", "target")
        )
        self._shot_target = Template(config.shots.target or prompt.target, f"{where}.target")
        self._values = {
            key: Expression(text, f"{where}.{key}")
            for key in ("choices", "contexts", "answer", "labels", "turns", "tools")
            if (text := getattr(prompt, key)) is not None
        }
        self._examples = self._placed(self._draw())

    def value(self, key: str, row: Fields) -> Any:
        """One of the prompt's expressions for an item; None if the task has none."""
        return self._values[key](row) if key in self._values else None

    def choices(self, row: Fields) -> list[str]:
        """The texts of an item's choices."""
        found = self.value("choices", row)
        if not isinstance(found, list | tuple) or not found or not all(isinstance(c, str) for c in found):
            raise InputError(f"{row['place']}: choices are {found!r}", "Correct the task's prompt.choices")
        if "" in found:
            raise InputError(f"{row['place']}: choice {found.index('')} is empty", "Give each choice a text")
        return list(found)

    def right(self, row: Fields) -> int:
        """The number of an item's right choice."""
        answer = self.value("answer", row)
        try:
            number = int(answer)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or (isinstance(answer, float) and number != answer):
            raise InputError(
                f"{row['place']}: the answer is {answer!r}, not the number of a choice",
                "Correct the task's prompt.answer",
            )
        return number

    def right_ones(self, row: Fields, count: int) -> list[int]:
        """The numbers of an item's right choices, of ``count``.

        Raises:
            InputError: there is none, or one is out of range.
        """
        labels = self.value("labels", row)
        right = [i for i, label in enumerate(labels) if label] if labels else [self.right(row)]
        if not right or not all(0 <= i < count for i in right):
            raise InputError(f"{row['place']}: the right choice is {right} of {count}", "Correct the item")
        return right

    def check(self, numbers: Sequence[int]) -> None:
        """Refuse items that a model could not be asked about, before it is loaded.

        Raises:
            InputError: a field is missing or wrong; the error names the item's file and line.
        """
        kind, prompt = self._config.kind, self._config.prompt
        for row in map(self.rows.__getitem__, numbers):
            self._text(row)
            if kind == "choice":
                count = len(self.value("contexts", row) if prompt.contexts is not None else self.choices(row))
                self.right_ones(row, count)
            elif kind == "continuation":
                self.target(row)

    def target(self, row: Fields) -> str:
        """The right continuation of an item."""
        return self._target(row)

    def plain(self, number: int) -> str:
        """A question as text, behind its examples."""
        return self._before(number) + self._text(self.rows[number])

    def contexts(self, number: int) -> list[str]:
        """The texts of which one is to be continued, each behind the examples."""
        before = self._before(number)
        return [before + context for context in self.value("contexts", self.rows[number])]

    def chat(self, number: int) -> Question:
        """A question as a dialog; examples are earlier turns."""
        row, messages = self.rows[number], []
        if system := "\n\n".join(filter(None, (self._system(row), self._description(row)))):
            messages.append({"role": "system", "content": system.strip()})
        for example in self._examples[number]:
            messages.append({"role": "user", "content": self._text(example)})
            messages.append({"role": "assistant", "content": self._shown_answer(example).strip()})
        turns = self.value("turns", row)
        messages.append({"role": "user", "content": turns[0] if turns else self._text(row)})
        tools = self.value("tools", row) or ()
        return Question(messages=tuple(messages), tools=tuple(tools))

    def whole(self, row: Fields) -> str:
        """An item's question with its right answer, as a text about it would have them."""
        turns = self.value("turns", row)
        question = "\n".join(turns) if turns else self._example_text(row)
        answer = self._right_choice(row) if "choices" in self._values else self._target(row)
        return question + self._config.prompt.separator + answer

    def _before(self, number: int) -> str:
        config, row = self._config, self.rows[number]
        examples = [
            self._example_text(example) + config.prompt.separator + self._shown_answer(example)
            for example in self._examples[number]
        ]
        return self._description(row) + "".join(example + config.shots.between for example in examples)

    def _example_text(self, example: Fields) -> str:
        if "contexts" in self._values:
            return str(self.value("contexts", example)[self.right(example)])
        return self._text(example)

    def _shown_answer(self, example: Fields) -> str:
        if "choices" in self._values and not self._config.shots.target:
            return self._right_choice(example)
        return self._shot_target(example)

    def _right_choice(self, row: Fields) -> str:
        labels = self.value("labels", row)
        return self.choices(row)[labels.index(1) if labels else self.right(row)]

    def _draw(self) -> list[list[dict[str, Any]]]:
        """The examples of each item."""
        shots, rng = self._config.shots, random.Random(self._seed)  # noqa: S311 - examples are no secret
        if not self._shots:
            return [[] for _ in self.rows]
        same = shots.same
        pools: dict[Any, list[dict[str, Any]]] = {}
        for example in self.rows if self._pool is None else self._pool:
            pools.setdefault(example.get(same) if same else None, []).append(example)
        drawn = []
        for row in self.rows:
            pool = pools.get(row.get(same) if same else None, [])
            if len(pool) < self._shots + (self._pool is None):
                raise InputError(
                    f"task {self.task.name} has {len(pool)} examples, not {self._shots}", "Ask for fewer with --shots"
                )
            if self._pool is None:
                few = pool[: self._shots + 1] if shots.pick == "first" else rng.sample(pool, self._shots + 1)
                drawn.append([example for example in few if example is not row][: self._shots])
            else:
                drawn.append(pool[: self._shots] if shots.pick == "first" else rng.sample(pool, self._shots))
        return drawn

    def _placed(self, drawn: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """The examples with their right choices where ``shots.answers`` wants them."""
        answers, items = self._config.shots.answers, self._config.items
        if not answers:
            return drawn
        made: dict[tuple[int, int], dict[str, Any]] = {}  # items often share their examples

        def placed(example: dict[str, Any], place: int) -> dict[str, Any]:
            key = (id(example), place)
            if key not in made:
                made[key] = with_right_at(example, items, place)
            return made[key]

        return [[placed(one, answers[at % len(answers)]) for at, one in enumerate(examples)] for examples in drawn]
