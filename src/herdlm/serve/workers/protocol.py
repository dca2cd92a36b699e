"""Protocol between the server and a worker process: one JSON document per line over a socket.

The server sends :class:`WorkerOptions` first, then ``{"op": "submit" | "abort" | "embed", "id": ...}``, and now and
then ``{"op": "ping"}``, which the worker answers with ``pong``. The worker sends ``ready`` or ``failed`` once, then
``accepted``, ``refused`` or ``done`` with a request's id, and after each step one line of ``outputs`` for all samples
of the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from herdlm.generate.request import Alternatives

Row = list[Any]
MIN_LOGPROB = -9999.0  # stands for minus infinity in answers, as JSON has no infinities


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker loads; see :meth:`herdlm.generate.engine.Engine.load`."""

    folder: str
    device: str = "auto"
    dtype: str = "auto"
    cache_tokens: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first message to the worker."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker reports of its model when it is ready.

    Attributes:
        context: maximum tokens of one sequence.
        bytes: memory of weights, cache and processes.
    """

    context: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SampleOutput:
    """Output of one sample: in a stream since its previous output, otherwise the whole.

    Attributes:
        prompt, sample: index of the prompt in the request, and of the sample of that prompt.
        tokens, logprobs, top_logprobs, text: as in :class:`herdlm.generate.request.Event`.
        finish_reason: set when the sample has ended.
        cached_tokens: prompt tokens that the prefix cache held.
        prompt_logprobs, prompt_top_logprobs: as in :class:`herdlm.generate.request.Completion`, with the last output.
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
        """The output as a row of a message, with its request's id."""
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
    """An engine's counters after a step.

    Attributes:
        running, waiting: samples in the batch and in the queue.
        held_pages, total_pages: cache pages that sequences hold, and all.
        preemptions, reused_tokens: preempted sequences, and prompt tokens found in the prefix cache, since the start.
    """

    running: int = 0
    waiting: int = 0
    held_pages: int = 0
    total_pages: int = 0
    preemptions: int = 0
    reused_tokens: int = 0


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a line. A log-probability may be minus infinity, which Python's JSON writes and reads."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
