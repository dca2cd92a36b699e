"""One engine that answers prompts as they come, in a process of its own or as an actor of a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from herdlm.base.errors import HerdError, InputError
from herdlm.base.seeds import derive_seed
from herdlm.generate.request import Alternatives, Completion
from herdlm.serve.batch.prompts import Ask, sampling_params
from herdlm.serve.workers.model_text import ServedModel
from herdlm.tokens.chat import Message

ROUND_SECONDS = 0.2
LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON has not

Answered = tuple[int, dict[str, Any]]  # a prompt's number and its answer, as it is written


@dataclass(frozen=True, slots=True)
class Setting:
    """What a worker is started with; ``seed`` is the run's."""

    model: str
    device: str
    dtype: str
    seed: int
    threads: int | None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def processes(self) -> int:
        """How many hold a worker's model between them."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(slots=True)
class _Open:
    """A prompt under way."""

    ask: Ask
    tokens: list[int]
    chat: bool
    samples: int
    completions: dict[int, Completion] = field(default_factory=dict)


class EngineWorker:
    """Loads the model and works on prompts in rounds, with those of earlier rounds in the same batch.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, setting: Setting) -> None:
        import torch

        if setting.threads:
            torch.set_num_threads(setting.threads)
        self.setting = setting
        self.model = ServedModel.load(
            Path(setting.model),
            device=setting.device,
            dtype=setting.dtype,
            tensor_parallel=setting.tensor_parallel,
            pipeline_parallel=setting.pipeline_parallel,
        )
        self._open: dict[int, _Open] = {}  # by the engine's request id

    def work(self, asks: Sequence[Ask]) -> list[Answered]:
        """Take prompts on and go on with all until some are finished; returns those."""
        finished = [refused for ask in asks if (refused := self._begin(ask)) is not None]
        until = time.monotonic() + ROUND_SECONDS
        engine = self.model.engine
        while engine.busy and not (finished and time.monotonic() > until):
            for event in engine.step():
                under_way = self._open[event.request_id]
                assert event.completion is not None
                under_way.completions[event.sample] = event.completion
                if len(under_way.completions) == under_way.samples:
                    del self._open[event.request_id]
                    finished.append((under_way.ask["number"], self._told(under_way)))
        return finished

    def _begin(self, ask: Ask) -> Answered | None:
        """Start on a prompt; what is wrong with it becomes its answer."""
        model, messages = self.model, ask["messages"]
        try:
            if messages is None:
                assert ask["prompt"] is not None
                tokens = model.text_prompt(ask["prompt"])
            else:
                tokens = model.chat_prompt([Message(role=m["role"], content=m["content"]) for m in messages])
            params = sampling_params({"seed": derive_seed(self.setting.seed, "batch", ask["id"]), **ask["options"]})
            room = model.room(tokens, None)
            params = replace(
                params,
                max_tokens=min(params.max_tokens, room),
                min_tokens=min(params.min_tokens, room),
                stop_tokens=tuple(dict.fromkeys((*model.stop_tokens, *params.stop_tokens))),
            )
            request = model.engine.submit(tokens, params, stream=False)
        except InputError as error:
            return ask["number"], {"error": str(error)}
        self._open[request] = _Open(ask, tokens, messages is not None, params.n)
        return None

    def _told(self, under_way: _Open) -> dict[str, Any]:
        options, samples = under_way.ask["options"], under_way.completions
        answer: dict[str, Any] = {"prompt_tokens": len(under_way.tokens)}
        if options.get("prompt_logprobs"):
            answer["prompt_token_ids"] = under_way.tokens
            answer["prompt_logprobs"] = _finite(samples[0].prompt_logprobs)
            if options.get("top_logprobs"):
                answer["prompt_top_logprobs"] = _finite_all(samples[0].prompt_top_logprobs)
        answer["completions"] = [self._completion(samples[i], options, under_way.chat) for i in range(len(samples))]
        return answer

    def _completion(self, completion: Completion, options: dict[str, Any], chat: bool) -> dict[str, Any]:
        told: dict[str, Any] = {
            "text": self.model.answer_text(completion.text) if chat else completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.tokens),
        }
        if options.get("logprobs"):
            told |= {"token_ids": completion.tokens, "logprobs": _finite(completion.logprobs)}
        if options.get("top_logprobs"):
            told["top_logprobs"] = _finite_all(completion.top_logprobs)
        return told


def rethrown(told: dict[str, Any]) -> HerdError:
    """An error that a worker met when it started, as :func:`as_told` put it."""
    return (InputError if told["input"] else HerdError)(told["what"], told["remedy"])


def as_told(error: HerdError) -> dict[str, Any]:
    """An error as JSON."""
    return {"what": error.what, "remedy": error.remedy, "input": error.exit_code == InputError.exit_code}


def _finite(logprobs: Sequence[float]) -> list[float]:
    return [max(logprob, LOWEST_LOGPROB) for logprob in logprobs]


def _finite_all(top: Sequence[Alternatives]) -> list[list[tuple[int, float]]]:
    return [[(token, max(logprob, LOWEST_LOGPROB)) for token, logprob in alternatives] for alternatives in top]
