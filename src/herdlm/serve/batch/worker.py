"""One engine that answers prompts, in a process or as an actor of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.generate.request import Alternatives, Completion
from herdlm.generate.workers.worker import Finished, Running, WorkerConfig
from herdlm.serve.batch.prompts import PromptRequest, sampling_params
from herdlm.serve.workers.model_text import LoadedModel
from herdlm.serve.workers.protocol import MIN_LOGPROB
from herdlm.tokens.chat import Message


@dataclass(slots=True)
class _RunningPrompt:
    """A running prompt."""

    request: PromptRequest
    tokens: list[int]
    chat: bool


class EngineWorker:
    """Loads the model and answers prompts in rounds; prompts of earlier rounds stay in the batch.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, config: WorkerConfig) -> None:
        config.limit_threads()
        self.config = config
        self.model = LoadedModel.load(
            Path(config.model),
            device=config.device,
            dtype=config.dtype,
            tensor_parallel=config.tensor_parallel,
            pipeline_parallel=config.pipeline_parallel,
        )
        self._running = Running(self.model.engine)
        self._prompts: dict[int, _RunningPrompt] = {}  # by their numbers

    def work(self, requests: Sequence[PromptRequest]) -> list[Finished]:
        """Add prompts and run until some prompts are finished; returns those."""
        finished = [refused for request in requests if (refused := self._begin(request)) is not None]
        for number, completions in self._running.round(finished=bool(finished)):
            finished.append((number, self._format(self._prompts.pop(number), completions)))
        return finished

    def _begin(self, request: PromptRequest) -> Finished | None:
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
            self._running.submit(request["number"], tokens, params)
        except InputError as error:
            return request["number"], {"error": str(error)}
        self._prompts[request["number"]] = _RunningPrompt(request, tokens, messages is not None)
        return None

    def _format(self, running: _RunningPrompt, samples: Sequence[Completion]) -> dict[str, Any]:
        options = running.request["options"]
        answer: dict[str, Any] = {"prompt_tokens": len(running.tokens)}
        if options.get("prompt_logprobs"):
            answer["prompt_token_ids"] = running.tokens
            answer["prompt_logprobs"] = _clamp(samples[0].prompt_logprobs)
            if options.get("top_logprobs"):
                answer["prompt_top_logprobs"] = _clamp_all(samples[0].prompt_top_logprobs)
        answer["completions"] = [self._completion(sample, options, running.chat) for sample in samples]
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
