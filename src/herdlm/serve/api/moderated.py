"""Moderated answers: the guard judges prompts before they are answered, and answers before any of them is sent.

A guarded stream arrives at once, when the whole answer has passed. What was sent cannot be taken back, and a guard is
not trained to judge half sentences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from fastapi.responses import Response

from herdlm.generate.request import SamplingParams
from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.api.answers import Answer, ChatAnswer, Usage
from herdlm.serve.api.forms import Form
from herdlm.serve.api.stream import count_tokens
from herdlm.serve.guard.guard import Verdict
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.generation import Generation
from herdlm.serve.workers.outputs import joined
from herdlm.serve.workers.protocol import SampleOutput
from herdlm.tokens.chat import Message

REFUSAL = "I can't help with that."
CONTENT_FILTER = "content_filter"

Requests = Sequence[tuple[Sequence[int], SamplingParams]]
Submit = Callable[[Requests], Awaitable[Generation]]


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
    """Answer a request and mark each choice with the guard's verdict. A refusal replaces what the guard flags.

    A flagged prompt is not answered at all.

    Args:
        dialogs: the prompts as dialogs for the guard.
        samples: choices per prompt.

    Raises:
        GuardError, WorkerFailedError: the guard gave no verdict.
        InputError: a prompt is invalid.
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
            outputs = await _whole(generation)
        finally:
            generation.close()

        async def judged(output: SampleOutput) -> Verdict:
            prompt = passed[output.prompt]
            if not output.text.strip():
                return verdicts[prompt]
            return await moderator.judge([*dialogs[prompt], {"role": "assistant", "content": output.text}], "answer")

        for output, verdict in zip(outputs, await asyncio.gather(*map(judged, outputs)), strict=True):
            count_tokens(answer, output, usage, record)
            index = passed[output.prompt] * samples + output.sample
            choice = answer.choice(index, output) | {"guard": verdict.to_json()}
            choices[index] = _refused(answer, index, verdict) if verdict.flagged else choice
    return [choices[index] for index in sorted(choices)]


async def _whole(generation: Generation) -> list[SampleOutput]:
    found: dict[tuple[int, int], SampleOutput] = {}
    async for output in generation:
        key = output.prompt, output.sample
        found[key] = joined(found.get(key), output)
    return list(found.values())


def as_stream(answer: Answer, choices: Sequence[dict[str, Any]], usage: Usage, form: Form) -> Response:
    """Complete choices as the server-sent events of a stream."""
    chunks = [form.chunk(answer.chunk([part]), usage) for choice in choices for part in _parts(choice)]
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    text = "".join([*chunks, form.end(answer.chunk([]), usage)])
    return Response(text, headers=headers, media_type="text/event-stream")


def _parts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split a choice over chunks: a chat's message, then its end. A text completion stays one chunk."""
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
    """The choice that replaces a flagged one. Clients that do not know refusals show a chat's content."""
    content: dict[str, Any] = {"text": ""}
    if isinstance(answer, ChatAnswer):
        content = {"message": {"role": "assistant", "content": REFUSAL, "refusal": REFUSAL}}
    return {"index": index, **content, "logprobs": None, "finish_reason": CONTENT_FILTER, "guard": verdict.to_json()}
