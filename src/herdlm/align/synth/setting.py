"""What a generator is given, and what it yields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from herdlm.align.synth.teacher import Teacher
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed, stream
from herdlm.data.documents import Corpus, read_corpora
from herdlm.evaluate.requests import Answer, AnswerRequest, Question
from herdlm.sandbox.sandbox import Sandbox, open_sandbox
from herdlm.tokens.documents import Document

Kind = Literal["dialogs", "prompts", "pairs", "dropped"]
REPEATED = "repeats an earlier one"
WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Made:
    """One thing that a generator made.

    Attributes:
        kind: which file it is written to.
        record: a record as :mod:`herdlm.align.synth.records` builds them.
        reason: of what is dropped: why, in a few words, so that reasons can be counted.
    """

    kind: Kind
    record: dict[str, Any]
    reason: str = ""


def dropped(record: dict[str, Any], reason: str) -> Made:
    """What a verifier rejected."""
    return Made("dropped", record, reason)


@dataclass
class Setting:
    """What a generator works with. It draws all randomness from :meth:`random`, so equal seeds give equal data.

    Attributes:
        name: of the generator.
        seed: its own seed.
        teacher: the model that is asked; None if the recipe names none.
        work: a folder that survives interruptions.
        documents: files and folders of text.
        isolation: how the sandbox isolates programs.
    """

    name: str
    seed: int
    work: Path
    teacher: Teacher | None = None
    documents: Sequence[Path] = ()
    isolation: str = "auto"
    _seen: set[str] = field(default_factory=set, repr=False)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def random(self, *names: str | int) -> np.random.Generator:
        """The random stream with a name; one for each item keeps items independent of each other."""
        return stream(self.seed, *names)

    def is_new(self, text: str) -> bool:
        """Whether no text with the same words, without regard to case and punctuation, was asked about before."""
        key = " ".join(WORDS.findall(text.lower()))
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def need_teacher(self, what: str) -> Teacher:
        """The teacher.

        Raises:
            InputError: there is none, but ``what`` needs one.
        """
        if self.teacher is None:
            raise InputError(f"{self.name}: {what} needs a teacher", "Name a model folder or URL with --teacher")
        return self.teacher

    def need_documents(self, what: str) -> Iterator[Document]:
        """The documents, one after the other.

        Raises:
            InputError: there are none, but ``what`` needs some, or they cannot be read.
        """
        if not self.documents:
            raise InputError(f"{self.name}: {what} needs documents", "Name files or folders in documents")
        return read_corpora([Corpus(path) for path in self.documents], "text")

    def ask(
        self,
        dialogs: Sequence[Sequence[dict[str, Any]]],
        *names: str | int,
        samples: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        tools: Sequence[dict[str, Any]] = (),
    ) -> list[list[Answer]]:
        """The teacher's answers to each dialog, in order. Answers that an earlier, killed call got are not asked again.

        Args:
            names: which draw this is: the same dialog is answered otherwise under another name.
            samples: answers to each.

        Raises:
            InputError: there is no teacher.
        """
        teacher = self.need_teacher("asking")
        requests = [
            AnswerRequest(
                Question(messages=tuple(messages), tools=tuple(tools)),
                max_tokens,
                temperature=temperature,
                samples=samples,
                seed=derive_seed(self.seed, "ask", *names, json.dumps(list(messages), sort_keys=True)),
            )
            for messages in dialogs
        ]
        return teacher.ask(requests)

    @cached_property
    def sandbox(self) -> Sandbox:
        """Where generated code runs; opened when it is first used."""
        return self._stack.enter_context(open_sandbox(self.isolation, workers=1))

    def close(self) -> None:
        """Close the sandbox."""
        self._stack.close()
