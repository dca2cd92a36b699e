"""What the server and a worker process say to each other: one JSON document a line, over a socket of their own.

To the worker: ``{"op": "submit" | "abort" | "embed", "id": ...}``. From it: ``ready`` or ``failed`` once, then
``accepted``, ``refused``, ``done`` with the request's id, and after each step one ``news`` for all samples it touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.request import Alternatives, SamplingParams
from herdlm.generate.sampling.grammar import Grammar

Row = list[Any]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker loads, and how: see :meth:`herdlm.generate.engine.Engine.load`."""

    folder: str
    device: str = "auto"
    dtype: str = "auto"
    cache_tokens: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    def to_json(self) -> dict[str, Any]:
        """As the worker's first message has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SampleOutput:
    """What became of a sample: since the last news in a stream, in all otherwise.

    Attributes:
        prompt, sample: which sample of the request.
        tokens, logprobs, top_logprobs, text: as in :class:`herdlm.generate.request.Event`.
        finish_reason: once the sample has ended.
        cached: tokens of the prompt that the prefix cache held.
        prompt_logprobs, prompt_top_logprobs: as in :class:`herdlm.generate.request.Completion`, with the last news.
    """

    prompt: int
    sample: int
    tokens: list[int]
    logprobs: list[float]
    top_logprobs: list[Alternatives]
    text: str
    finish_reason: str | None
    cached_tokens: int
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_top_logprobs: list[Alternatives] = field(default_factory=list)

    def row(self, id: int) -> Row:
        """As a message has it, with its request's id."""
        return [
            id,
            self.prompt,
            self.sample,
            self.tokens,
            self.logprobs,
            self.top_logprobs,
            self.text,
            self.finish_reason,
            self.cached_tokens,
            self.prompt_logprobs,
            self.prompt_top_logprobs,
        ]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Where an engine stands after a step.

    Attributes:
        running, waiting: samples in the batch, and behind it.
        held, pages: pages of the cache held by sequences, and in all.
        preemptions, reused: rows put back, and prompt tokens found in the prefix cache, since the start.
    """

    running: int = 0
    waiting: int = 0
    held_pages: int = 0
    total_pages: int = 0
    preemptions: int = 0
    reused_tokens: int = 0


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent. A log-probability may be minus infinity, which Python's JSON spells and reads."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def params_to_json(params: SamplingParams) -> dict[str, Any]:
    """Parameters as a message has them: those that differ from the default."""
    row = {f.name: value for f in fields(params) if (value := getattr(params, f.name)) != f.default}
    return row | {"grammar": params.grammar.text} if params.grammar else row


def params_from_json(row: dict[str, Any]) -> SamplingParams:
    """The parameters of a message."""
    grammar = Grammar(row["grammar"]) if "grammar" in row else None
    return SamplingParams(**{name: _to_tuples(value) for name, value in row.items()} | {"grammar": grammar})


def error_to_json(error: Exception) -> dict[str, Any]:
    """An error as a message has it."""
    if isinstance(error, HerdError):
        return {"input": isinstance(error, InputError), "what": error.what, "remedy": error.remedy}
    return {"input": False, "what": f"{type(error).__name__}: {error}", "remedy": ""}


def error_from_json(row: dict[str, Any]) -> HerdError:
    """The error of a message."""
    return (InputError if row["input"] else HerdError)(row["what"], row["remedy"])


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value
