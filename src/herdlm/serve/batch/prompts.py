"""The file of prompts. Every line is checked before the run starts, and read again when it is submitted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.request import SamplingParams
from herdlm.generate.sampling.grammar import Grammar

Id = str | int


class PromptRequest(TypedDict):
    """One prompt for a worker, as JSON.

    ``number`` counts the prompts from 0, ``options`` are those of :class:`Options`. Either ``prompt`` or ``messages``
    is None.
    """

    number: int
    id: Id
    prompt: str | None
    messages: list[dict[str, str]] | None
    options: dict[str, Any]


class GrammarOption(BaseModel):
    """A grammar in one of four forms."""

    model_config = ConfigDict(strict=True, extra="forbid")

    json_schema: dict[str, Any] | None = None
    json_object: Literal[True] | None = None
    regex: str | None = None
    lark: str | None = None

    @model_validator(mode="after")
    def _one(self) -> GrammarOption:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of json_schema, json_object, regex and lark")
        return self


class Options(BaseModel):
    """Sampling options of one line or of all lines, as in SamplingParams. None means not given."""

    model_config = ConfigDict(strict=True, extra="forbid")

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(None, description="by token id")
    n: int | None = None
    best_of: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_tokens: list[int] | None = Field(None, description="in addition to the model's")
    logprobs: bool | None = None
    top_logprobs: int | None = None
    prompt_logprobs: bool | None = None
    grammar: GrammarOption | None = None

    def given(self) -> dict[str, Any]:
        """The given options as JSON."""
        return self.model_dump(include=set(Options.model_fields), exclude_none=True)


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant", "ipython"]
    content: str


class _Line(Options):
    id: Id | None = None
    prompt: str | None = None
    messages: list[_Message] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_prompt(self) -> _Line:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


def sampling_params(options: dict[str, Any]) -> SamplingParams:
    """Sampling parameters for ``options``, without the model's own stop tokens.

    Raises:
        InputError: a value is out of range, or a grammar is invalid.
    """
    given = {"logprobs": False, **options}
    if "logit_bias" in given:
        try:
            given["logit_bias"] = tuple((int(token), bias) for token, bias in given["logit_bias"].items())
        except ValueError as error:
            raise InputError(f"logit_bias: {error}", "Give token ids") from error
    if "stop" in given:
        stop = given["stop"]
        given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    if "stop_tokens" in given:
        given["stop_tokens"] = tuple(given["stop_tokens"])
    if "grammar" in given:
        ((form, value),) = given["grammar"].items()
        given["grammar"] = Grammar.json_object() if form == "json_object" else getattr(Grammar, form)(value)
    return SamplingParams(**given)


class Prompts:
    """The lines of ``path``, with ``defaults`` for the options they do not give.

    Args:
        chat: treat a line's ``prompt`` as a user message.

    Raises:
        InputError: a line is invalid, or two lines share an id. The message names file and line.
    """

    def __init__(self, path: Path, defaults: Options, *, chat: bool = False) -> None:
        self.path, self.defaults, self.chat = path, defaults.given(), chat
        self.ids: list[Id] = []
        self._offsets: list[int] = []
        lines: dict[str, int] = {}
        digest = hashlib.sha256()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", "Give a JSONL file of prompts") from error
        offset = 0
        for number, raw in enumerate(self._file, start=1):
            if raw.strip():
                id = self._checked(raw, number)
                key = json.dumps(id)
                if key in lines:
                    raise InputError(
                        f"{path}:{number}: id {key} is also on line {lines[key]}", "Give each line its own id"
                    )
                lines[key] = number
                self.ids.append(id)
                self._offsets.append(offset)
            offset += len(raw)
            digest.update(raw)
        self.content = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def request(self, number: int) -> PromptRequest:
        """Prompt ``number``, counted from 0."""
        self._file.seek(self._offsets[number])
        line = _Line.model_validate_json(self._file.readline())
        messages = [message.model_dump() for message in line.messages] if line.messages else None
        prompt = line.prompt
        if self.chat and prompt is not None:
            prompt, messages = None, [{"role": "user", "content": prompt}]
        return {
            "number": number,
            "id": self.ids[number],
            "prompt": prompt,
            "messages": messages,
            "options": self.defaults | line.given(),
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _checked(self, raw: bytes, number: int) -> Id:
        try:
            line = _Line.model_validate_json(raw)
            sampling_params(self.defaults | line.given())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(
                f"{self.path}:{number}: {where}: {first['msg']}", "See docs/generate.md for the format of a line"
            ) from error
        except HerdError as error:
            raise InputError(f"{self.path}:{number}: {error.what}", error.remedy) from error
        return number if line.id is None else line.id
