"""One engine that answers prompts, in a process or as an actor of a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.generate.request import Alternatives, Completion
from herdlm.serve.batch.prompts import PromptRequest, sampling_params
from herdlm.serve.workers.model_text import LoadedModel
from herdlm.serve.workers.protocol import MIN_LOGPROB
from herdlm.tokens.chat import Message

ROUND_SECONDS = 0.2

FinishedPrompt = tuple[int, dict[str, Any]]  # a prompt's number and its answer, as it is written


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker's settings; ``seed`` is the run's."""

    model: str
    device: str
    dtype: str
    seed: int
    threads: int | None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def processes(self) -> int:
        """Number of processes that share the worker's model."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(slots=True)
class _RunningPrompt:
    """A running prompt."""

    request: PromptRequest
    tokens: list[int]
    chat: bool
    samples: int
    completions: dict[int, Completion] = field(default_factory=dict)


class EngineWorker:
    """Loads the model and answers prompts in rounds; prompts of earlier rounds stay in the batch.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, config: WorkerConfig) -> None:
        import torch

        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.model = LoadedModel.load(
            Path(config.model),
            device=config.device,
            dtype=config.dtype,
            tensor_parallel=config.tensor_parallel,
            pipeline_parallel=config.pipeline_parallel,
        )
        self._running: dict[int, _RunningPrompt] = {}  # by the engine's request id

    def work(self, requests: Sequence[PromptRequest]) -> list[FinishedPrompt]:
        """Add prompts and run until some prompts are finished; returns those."""
        finished = [refused for request in requests if (refused := self._begin(request)) is not None]
        until = time.monotonic() + ROUND_SECONDS
        engine = self.model.engine
        while engine.busy and not (finished and time.monotonic() > until):
            for event in engine.step():
                running = self._running[event.request_id]
                assert event.completion is not None
                running.completions[event.sample] = event.completion
                if len(running.completions) == running.samples:
                    del self._running[event.request_id]
                    finished.append((running.request["number"], self._format(running)))
        return finished

    def _begin(self, request: PromptRequest) -> FinishedPrompt | None:
        """Submit a prompt. An invalid prompt is answered with the error."""
        model, messages = self.model, request["messages"]
        try:
            if messages is None:
                assert request["prompt"] is not None
                tokens = model.text_prompt(request["prompt"])
            else:
                tokens = model.chat_prompt([Message(role=m["role"], content=m["content"]) for m in messages])
            params = sampling_params(
                {"seed": derive_seed(self.config.seed, "batch", request["id"]), **request["options"]}
            )
            room = model.room(tokens, None)
            params = replace(
                params,
                max_tokens=min(params.max_tokens, room),
                min_tokens=min(params.min_tokens, room),
                stop_tokens=tuple(dict.fromkeys((*model.stop_tokens, *params.stop_tokens))),
            )
            request_id = model.engine.submit(tokens, params, stream=False)
        except InputError as error:
            return request["number"], {"error": str(error)}
        self._running[request_id] = _RunningPrompt(request, tokens, messages is not None, params.n)
        return None

    def _format(self, running: _RunningPrompt) -> dict[str, Any]:
        options, samples = running.request["options"], running.completions
        answer: dict[str, Any] = {"prompt_tokens": len(running.tokens)}
        if options.get("prompt_logprobs"):
            answer["prompt_token_ids"] = running.tokens
            answer["prompt_logprobs"] = _clamp(samples[0].prompt_logprobs)
            if options.get("top_logprobs"):
                answer["prompt_top_logprobs"] = _clamp_all(samples[0].prompt_top_logprobs)
        answer["completions"] = [self._completion(samples[i], options, running.chat) for i in range(len(samples))]
        return answer

    def _completion(self, completion: Completion, options: dict[str, Any], chat: bool) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "text": self.model.answer_text(completion.text) if chat else completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.tokens),
        }
        if options.get("logprobs"):
            answer |= {"token_ids": completion.tokens, "logprobs": _clamp(completion.logprobs)}
        if options.get("top_logprobs"):
            answer["top_logprobs"] = _clamp_all(completion.top_logprobs)
        return answer


def _clamp(logprobs: Sequence[float]) -> list[float]:
    return [max(logprob, MIN_LOGPROB) for logprob in logprobs]


def _clamp_all(top: Sequence[Alternatives]) -> list[list[tuple[int, float]]]:
    return [[(token, max(logprob, MIN_LOGPROB)) for token, logprob in alternatives] for alternatives in top]
