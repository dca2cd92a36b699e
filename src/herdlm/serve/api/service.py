"""Handles each kind of request."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from herdlm.base.seeds import derive_seed
from herdlm.generate.request import SamplingParams
from herdlm.generate.sampling.grammar import Grammar
from herdlm.serve.access.limits import ConcurrencyLimiter, ServerLimits
from herdlm.serve.access.request_log import RequestRecord, record_of
from herdlm.serve.access.responses import json_response
from herdlm.serve.api.answers import Answer, ChatAnswer, Usage
from herdlm.serve.api.chat import ChatBody, TokenizeBody
from herdlm.serve.api.completions import CompletionAnswer, Echo
from herdlm.serve.api.moderated import as_stream, moderated
from herdlm.serve.api.requests import CompletionBody, DetokenizeBody, EmbeddingBody, SamplingBody
from herdlm.serve.api.stream import ClientLeftError, EventStream, count_tokens, unless_client_leaves
from herdlm.serve.api.tools import call_schema, free_grammar, to_dialog
from herdlm.serve.errors import RefusedError, TooLongError
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Lease, Models
from herdlm.tokens.chat import Message

Prompts = list[tuple[list[int], int]]  # tokens, and the maximum of new tokens

Result = TypeVar("Result")


class Service:
    """Answers the requests for all models.

    Args:
        seed: a request without a seed samples with one derived from this and the number of such requests before it.
        log_texts: keep prompts in the records for the access log.
        moderator: judges prompts and answers, if given.
    """

    def __init__(
        self,
        models: Models,
        concurrency: ConcurrencyLimiter,
        limits: ServerLimits,
        seed: int,
        log_texts: bool,
        *,
        moderator: Moderator | None = None,
    ) -> None:
        self.moderator = moderator
        self.models, self.concurrency, self.limits, self.seed, self.log_texts = (
            models,
            concurrency,
            limits,
            seed,
            log_texts,
        )
        self._unseeded = 0

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """``POST /v1/chat/completions``."""
        record = self._start_record(request, body, [message.text for message in body.messages])
        dialog, tools = to_dialog(body.messages, body.tools if body.may_call else [])
        with ExitStack() as stack:
            lease = await self._lease(stack, request, body.model, body.n)
            lease.text.check_length(_texts_of(dialog))
            # Encoding a long text takes a while and must not block other requests.
            tokens = await asyncio.to_thread(
                lease.text.chat_prompt, dialog, tools, body.chat_template_kwargs, body.continue_final_message
            )
            prompts = [(tokens, lease.text.room(tokens, body.completion_limit))]
            names = frozenset(tool.function.name for tool in body.tools) if body.may_call else frozenset[str]()
            answer = ChatAnswer(
                lease.text,
                logprobs=body.logprobs,
                functions=names,
                parallel=body.parallel_tool_calls,
                continues=body.continue_final_message,
            )
            params = self._params(body, lease.text, body.top_logprobs, grammar=_grammar(body))
            record.add_prompt(len(tokens))
            return await self._answer(
                answer, body, request, stack, lease=lease, prompts=prompts, params=params, dialogs=[dialog]
            )

    async def complete(self, body: CompletionBody, request: Request) -> Response:
        """``POST /v1/completions``."""
        record = self._start_record(request, body, body.prompt)
        with ExitStack() as stack:
            lease = await self._lease(stack, request, body.model, len(body.prompt) * body.samples)
            prompts = [(await self._tokens(lease.text, prompt), body.max_tokens or 1) for prompt in body.prompt]
            for tokens, max_tokens in prompts:
                lease.text.room(tokens, max_tokens)
            record.add_prompt(sum(len(tokens) for tokens, _ in prompts))
            echoes = (
                [self._echo(lease.text, *each) for each in zip(body.prompt, prompts, strict=True)] if body.echo else []
            )
            answer = CompletionAnswer(
                lease.text, top=body.logprobs, samples=body.n, echoes=echoes, echo_alone=not body.max_tokens
            )
            params = self._params(
                body,
                lease.text,
                body.logprobs or 0,
                best_of=body.best_of,
                prompt_logprobs=body.echo and body.logprobs is not None,
            )
            dialogs = [self._as_dialog(lease.text, prompt) for prompt in body.prompt]
            return await self._answer(
                answer, body, request, stack, lease=lease, prompts=prompts, params=params, dialogs=dialogs
            )

    async def embed(self, body: EmbeddingBody, request: Request) -> Response:
        """``POST /v1/embeddings``."""
        record = self._start_record(request, body, body.input)
        with ExitStack() as stack:
            lease = await self._lease(stack, request, body.model, len(body.input))
            prompts = [await self._tokens(lease.text, text) for text in body.input]
            for tokens in prompts:
                lease.text.room(tokens, None)
            record.add_prompt(sum(map(len, prompts)))
            try:
                vectors = await unless_client_leaves(request, self._within_limit(record, lease.backend.embed(prompts)))
            except ClientLeftError:
                return Response(status_code=499)
        data = [
            {"object": "embedding", "index": index, "embedding": _embedding(vector, body)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": record.prompt_tokens, "total_tokens": record.prompt_tokens}
        return json_response({"object": "list", "model": body.model, "data": data, "usage": usage})

    async def tokenize(self, body: TokenizeBody, request: Request) -> Response:
        """``POST /tokenize``. Needs no loaded model."""
        text = self._text(body.model)
        if body.prompt is None:
            dialog, tools = to_dialog(body.messages, body.tools)
            text.check_length(_texts_of(dialog))
            tokens = await asyncio.to_thread(text.chat_prompt, dialog, tools)
        else:
            text.check_length([body.prompt])
            encode = text.text_prompt if body.add_special_tokens else text.tokenizer.encode
            tokens = await asyncio.to_thread(encode, body.prompt)
        return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": text.context})

    async def detokenize(self, body: DetokenizeBody, request: Request) -> Response:
        """``POST /detokenize``. Needs no loaded model."""
        text = self._text(body.model)
        if len(body.tokens) > text.context:
            raise RefusedError(
                f"{len(body.tokens)} tokens exceed the context of {text.context}",
                "Send fewer at once",
                param="tokens",
                code="context_length_exceeded",
            )
        if wrong := next((token for token in body.tokens if token >= text.tokenizer.vocab_size), None):
            raise RefusedError(
                f"token id {wrong} is outside the vocabulary of {text.tokenizer.vocab_size} tokens",
                "Check the ids",
                param="tokens",
                code="invalid_value",
            )
        return json_response({"prompt": await asyncio.to_thread(text.tokenizer.decode, body.tokens, keep_special=True)})

    def _text(self, name: str | None) -> ModelText:
        return self.models.default.text if name is None else self.models.find(name).text

    def _start_record(
        self, request: Request, body: SamplingBody | EmbeddingBody, texts: Sequence[Any]
    ) -> RequestRecord:
        record = record_of(request)
        record.stream = isinstance(body, SamplingBody) and body.stream
        if self.log_texts:
            record.texts = list(texts)
        return record

    async def _lease(self, stack: ExitStack, request: Request, name: str, samples: int) -> Lease:
        """Acquire room for ``samples`` and the loaded model until ``stack`` is closed."""
        record = record_of(request)
        record.model = self.models.find(name).text.name
        self.concurrency.acquire(samples)
        stack.callback(self.concurrency.release, samples)
        waiting = self._within_limit(record, self.models.lease(name))
        lease = await (waiting if self.models.find(name).backend.ready else unless_client_leaves(request, waiting))
        stack.callback(lease.close)
        return lease

    async def _within_limit(self, record: RequestRecord, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with asyncio.timeout(self._seconds_left(record)):
                return await work
        except TimeoutError:
            raise TooLongError("the request took longer than this server allows", "Send fewer texts at once") from None

    def _seconds_left(self, record: RequestRecord) -> float:
        return record.started_at + self.limits.request_seconds - time.monotonic()

    async def _tokens(self, text: ModelText, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        text.check_length([prompt])
        return await asyncio.to_thread(text.text_prompt, prompt)

    def _as_dialog(self, text: ModelText, prompt: str | list[int]) -> list[Message]:
        """A text prompt as a dialog for the guard."""
        return [{"role": "user", "content": prompt if isinstance(prompt, str) else text.tokenizer.decode(prompt)}]

    def _echo(self, text: ModelText, prompt: str | list[int], encoded: tuple[list[int], int]) -> Echo:
        return Echo(prompt if isinstance(prompt, str) else text.tokenizer.decode(prompt), encoded[0])

    async def _answer(
        self,
        answer: Answer,
        body: SamplingBody,
        request: Request,
        stack: ExitStack,
        *,
        lease: Lease,
        prompts: Prompts,
        params: dict[str, Any],
        dialogs: Sequence[Sequence[Message]],
    ) -> Response:
        record, usage = record_of(request), Usage(sum(len(tokens) for tokens, _ in prompts))
        requests = [
            (tokens, SamplingParams(**params, max_tokens=max_tokens, seed=self._seed(body)))
            for tokens, max_tokens in prompts
        ]
        if self.moderator:
            work = moderated(
                self.moderator,
                answer,
                dialogs,
                requests,
                partial(lease.backend.submit, stream=False),
                samples=body.n,
                usage=usage,
                record=record,
            )
            try:
                choices = await unless_client_leaves(request, self._within_limit(record, work))
            except ClientLeftError:
                return Response(status_code=499)  # seen by the access log only
            if body.stream:
                return as_stream(answer, choices, usage, include_usage=body.include_usage)
            return json_response(answer.response(choices, usage))
        generation = await lease.backend.submit(requests, stream=body.stream)
        generation.set_deadline(self._seconds_left(record))
        if body.stream:
            return EventStream(
                answer,
                generation,
                record,
                prompts=len(prompts),
                samples=body.n,
                usage=usage,
                include_usage=body.include_usage,
                close=stack.pop_all().close,
            )

        async def collect() -> dict[int, dict[str, Any]]:
            collected = {}
            async for output in generation:
                count_tokens(answer, output, usage, record)
                index = output.prompt * body.n + output.sample
                collected[index] = answer.choice(index, output)
            return collected

        try:
            by_index = await unless_client_leaves(request, collect())
        except ClientLeftError:
            return Response(status_code=499)  # seen by the access log only
        finally:
            generation.close()
        return json_response(answer.response([by_index[index] for index in sorted(by_index)], usage))

    def _seed(self, body: SamplingBody) -> int:
        if body.seed is not None:
            return body.seed
        self._unseeded += 1
        return derive_seed(self.seed, "request", self._unseeded - 1)

    def _params(self, body: SamplingBody, text: ModelText, top_logprobs: int, **more: Any) -> dict[str, Any]:
        return {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "min_p": body.min_p,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "repetition_penalty": body.repetition_penalty,
            "logit_bias": tuple(body.logit_bias.items()),
            "min_tokens": body.min_tokens,
            "n": body.n,
            "stop": tuple(body.stop),
            "stop_tokens": text.stop_tokens,
            "top_logprobs": top_logprobs,
            **more,
        }


def _texts_of(dialog: Sequence[Message]) -> Iterator[str]:
    return (message["content"] for message in dialog if isinstance(message.get("content"), str))


def _grammar(body: ChatBody) -> Grammar | None:
    """The grammar that the answer must obey; the worker compiles and checks it."""
    if body.must_call:
        return Grammar.json_schema(call_schema(body.must_call), check=False)
    if body.strict:
        return free_grammar([tool.function for tool in body.tools], body.parallel_tool_calls)
    if body.response_format is None or body.response_format.type == "text":
        return None
    schema = body.response_format.json_schema
    return Grammar.json_schema(schema.body, check=False) if schema else Grammar.json_object(check=False)


def _embedding(vector: list[float], body: EmbeddingBody) -> Any:
    values = np.array(vector)
    if body.dimensions is not None:
        if body.dimensions > len(values):
            raise RefusedError(
                f"dimensions = {body.dimensions}, the model's embeddings have {len(values)}",
                "Ask for at most that many",
                param="dimensions",
                code="invalid_value",
            )
        values = values[: body.dimensions]
        values = values / max(float(np.linalg.norm(values)), 1e-12)
    if body.encoding_format == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return values.tolist()
