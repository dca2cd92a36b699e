"""The guard at the server's door: prompts are judged before they are answered, answers before any of them is sent.

The guard is a model with a worker of its own. A stream is judged whole as well: with a guard its text comes at once, as
soon as the answer is finished and has passed. What has been sent cannot be taken back, and a guard that judges half
sentences judges what its training never held.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastapi.responses import Response

from herdlm.base.errors import InputError
from herdlm.generate.request import SamplingParams
from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.api.answers import Answer, ChatAnswer, Usage
from herdlm.serve.api.stream import count_tokens
from herdlm.serve.guard.guard import PROBE, GuardError, GuardOutput, GuardProtocol, Subject, Verdict
from herdlm.serve.workers.backend import Backend, Launch, launch_process
from herdlm.serve.workers.generation import Generation
from herdlm.serve.workers.memory import estimate_memory
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import SampleOutput, WorkerOptions
from herdlm.tokens.chat import Message

REFUSAL = "I can't help with that."
CONTENT_FILTER = "content_filter"

Requests = Sequence[tuple[Sequence[int], SamplingParams]]
Submit = Callable[[Requests], Awaitable[Generation]]


class Moderator:
    """Asks a guard in a worker of its own. All methods belong to the asyncio thread.

    Raises:
        InputError, DamagedError: ``path`` holds no model, or the threshold is no probability.
    """

    def __init__(
        self,
        path: Path,
        threshold: float = 0.5,
        *,
        device: str = "auto",
        dtype: str = "auto",
        launch: Launch = launch_process,
    ) -> None:
        self.text = ModelText.read(path)
        self.protocol = GuardProtocol.read(self.text.folder, self.text.tokenizer, self.text.context, threshold)
        options = WorkerOptions(str(self.text.folder), device, dtype)
        self.backend = Backend(f"guard {self.text.name}", options, launch)

    @property
    def bytes(self) -> int:
        """Memory of its worker, told or estimated."""
        return int(self.backend.info.get("bytes") or estimate_memory(self.text, self.backend.options))

    async def start(self) -> None:
        """Load the guard and see that it answers as one.

        Raises:
            InputError: it does not.
        """
        await self.backend.start()
        # What the cache holds may be less than the model knows.
        protocol, context = self.protocol, self.backend.info["context"]
        self.protocol = GuardProtocol(protocol.tokenizer, context, protocol.threshold, protocol.template)
        try:
            await self.judge(PROBE, "prompt")
        except GuardError as error:
            raise InputError(
                f"{self.text.folder} is no guard: {error.what}", "Give a model trained on the protocol"
            ) from error

    async def stop(self) -> None:
        """End the guard's worker."""
        await self.backend.stop()

    async def judge(self, messages: Sequence[Message], subject: Subject) -> Verdict:
        """What the guard says of the last user turn, or with "answer" of the assistant's answer that comes last.

        Raises:
            InputError: nothing is there to judge.
            GuardError, WorkerFailedError: the guard gave no verdict; nothing may pass.
        """
        prompts = await asyncio.to_thread(self.protocol.prompts, messages, subject)
        verdict = self.protocol.verdict(await self._ask(prompts), subject)
        if self.protocol.needs_codes(verdict):
            verdict = self.protocol.with_codes(verdict, await self._ask(self.protocol.forced_prompts(prompts)))
        return verdict

    async def _ask(self, prompts: Sequence[Sequence[int]]) -> list[GuardOutput]:
        params = self.protocol.params
        generation = await self.backend.submit([(prompt, params) for prompt in prompts], stream=False)
        try:
            outputs = {output.prompt: GuardOutput(output.logprobs, output.text) async for output in generation}
        finally:
            generation.close()
        return [outputs[index] for index in range(len(prompts))]


async def moderated(
    moderator: Moderator,
    answer: Answer,
    dialogs: Sequence[Sequence[Message]],
    requests: Requests,
    submit: Submit,
    *,
    samples: int,
    usage: Usage,
    record: RequestRecord,
) -> list[dict[str, Any]]:
    """The choices of a request, each marked with the guard's verdict; what it flags is replaced by a refusal.

    A prompt that is flagged is not answered at all.

    Args:
        dialogs: the prompts as the guard is to see them.
        samples: choices of each prompt.

    Raises:
        GuardError, WorkerFailedError: there is no verdict.
        InputError: a prompt is at fault.
    """
    verdicts = await asyncio.gather(*(moderator.judge(dialog, "prompt") for dialog in dialogs))
    choices = {
        prompt * samples + sample: _refused(answer, prompt * samples + sample, verdict)
        for prompt, verdict in enumerate(verdicts)
        if verdict.flagged
        for sample in range(samples)
    }
    passed = [prompt for prompt, verdict in enumerate(verdicts) if not verdict.flagged]
    if passed:
        generation = await submit([requests[prompt] for prompt in passed])
        try:
            told = [output async for output in generation]
        finally:
            generation.close()

        async def judged(output: SampleOutput) -> Verdict:
            prompt = passed[output.prompt]
            if not output.text.strip():
                return verdicts[prompt]
            return await moderator.judge([*dialogs[prompt], {"role": "assistant", "content": output.text}], "answer")

        for output, verdict in zip(told, await asyncio.gather(*map(judged, told)), strict=True):
            count_tokens(answer, output, usage, record)
            index = passed[output.prompt] * samples + output.sample
            whole = answer.choice(index, output) | {"guard": verdict.to_json()}
            choices[index] = _refused(answer, index, verdict) if verdict.flagged else whole
    return [choices[index] for index in sorted(choices)]


def as_stream(answer: Answer, choices: Sequence[dict[str, Any]], usage: Usage, *, include_usage: bool) -> Response:
    """Choices that are whole, as the server-sent events of a stream."""
    more = {"usage": None} if include_usage else {}
    chunks = [answer.chunk([part]) | more for choice in choices for part in _parts(choice)]
    if include_usage:
        chunks.append(answer.chunk([]) | {"usage": usage.to_json()})
    lines = [f"data: {json.dumps(chunk, allow_nan=False, ensure_ascii=False)}\n\n" for chunk in chunks]
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response("".join([*lines, "data: [DONE]\n\n"]), headers=headers, media_type="text/event-stream")


def _parts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A choice as the choices of its chunks: a chat's message first, then its end; a continuation as it is."""
    if "message" not in choice:
        yield choice
        return
    message = {key: value for key, value in choice["message"].items() if value is not None}
    if "tool_calls" in message:
        message["tool_calls"] = [call | {"index": index} for index, call in enumerate(message["tool_calls"])]
    yield {"index": choice["index"], "delta": message, "logprobs": choice["logprobs"], "finish_reason": None}
    yield {
        "index": choice["index"],
        "delta": {},
        "logprobs": None,
        "finish_reason": choice["finish_reason"],
        "guard": choice["guard"],
    }


def _refused(answer: Answer, index: int, verdict: Verdict) -> dict[str, Any]:
    """The choice that stands for what was flagged. Clients that know no refusals show a chat's content."""
    outputs: dict[str, Any] = {"text": ""}
    if isinstance(answer, ChatAnswer):
        outputs = {"message": {"role": "assistant", "content": REFUSAL, "refusal": REFUSAL}}
    return {"index": index, **outputs, "logprobs": None, "finish_reason": CONTENT_FILTER, "guard": verdict.to_json()}
