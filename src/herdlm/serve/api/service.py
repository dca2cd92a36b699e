"""Handles each kind of request."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
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
from herdlm.serve.api.forms import CompletionForm, Form
from herdlm.serve.api.moderated import as_stream, moderated
from herdlm.serve.api.requests import CompletionBody, DetokenizeBody, EmbeddingBody, SamplingBody
from herdlm.serve.api.schemas import bounded
from herdlm.serve.api.stream import ClientLeftError, EventStream, count_tokens, unless_client_leaves
from herdlm.serve.api.tools import answer_grammar, to_dialog
from herdlm.serve.errors import RefusedError, TooLongError
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.model_text import DEFAULTS, ModelText
from herdlm.serve.workers.models import Lease, Models
from herdlm.serve.workers.outputs import joined
from herdlm.serve.workers.protocol import SampleOutput
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

    async def chat(self, body: ChatBody, request: Request, form: Form | None = None) -> Response:
        """``POST /v1/chat/completions``, or another API of chats, whose ``form`` writes the answer."""
        record = self._start_record(request, body, [message.text for message in body.messages])
        dialog, tools = to_dialog(body.messages, body.offered)
        with ExitStack() as stack:
            lease = await self._lease(stack, request, body.model, body.n)
            lease.text.check_length(texts_of(dialog))
            # Encoding a long text takes a while and must not block other requests.
            tokens = await asyncio.to_thread(
                lease.text.chat_prompt, dialog, tools, body.chat_template_kwargs, body.continue_final_message
            )
            prompts = [(tokens, lease.text.room(tokens, body.completion_limit))]
            names = frozenset(function.name for function in body.functions)
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
                answer, body, request, stack, lease=lease, prompts=prompts, params=params, dialogs=[dialog], form=form
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
        text = self.text_of(body.model)
        if body.prompt is None:
            dialog, tools = to_dialog(body.messages, body.tools)
            text.check_length(texts_of(dialog))
            tokens = await asyncio.to_thread(text.chat_prompt, dialog, tools)
        else:
            text.check_length([body.prompt])
            encode = text.text_prompt if body.add_special_tokens else text.tokenizer.encode
            tokens = await asyncio.to_thread(encode, body.prompt)
        return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": text.context})

    async def detokenize(self, body: DetokenizeBody, request: Request) -> Response:
        """``POST /detokenize``. Needs no loaded model."""
        text = self.text_of(body.model)
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

    def text_of(self, name: str | None) -> ModelText:
        """The text side of a model; without a name, of the first one.

        Raises:
            RefusedError: there is no such model, or no name was given and the models have different tokenizers, so that
                the first one's token ids would be wrong for others without anybody noticing.
        """
        if name is not None:
            return self.models.find(name).text
        if not self.models.share_tokenizer:
            names = ", ".join(model.text.name for model in self.models)
            raise RefusedError(
                f"model is missing, and the models of this server have different tokenizers: {names}",
                "Name one",
                param="model",
                code="missing_required_parameter",
            )
        return self.models.default.text

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
        form: Form | None = None,
    ) -> Response:
        form = form or CompletionForm(body.usage_chunks)
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
                return as_stream(answer, choices, usage, form)
            return json_response(form.whole(answer.response(choices, usage)))
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
                form=form,
                close=stack.pop_all().close,
            )

        async def collect() -> dict[int, dict[str, Any]]:
            found: dict[int, SampleOutput] = {}
            try:
                async for output in generation:
                    count_tokens(answer, output, usage, record)
                    index = output.prompt * body.n + output.sample
                    found[index] = joined(found.get(index), output)
            except TooLongError:
                if not found:
                    raise
                found = _cut(found, len(prompts), body.n)
                record.error = "timeout"
            return {index: answer.choice(index, output) for index, output in found.items()}

        try:
            by_index = await unless_client_leaves(request, collect())
        except ClientLeftError:
            return Response(status_code=499)  # seen by the access log only
        finally:
            generation.close()
        return json_response(form.whole(answer.response([by_index[index] for index in sorted(by_index)], usage)))

    def _seed(self, body: SamplingBody) -> int:
        if body.seed is not None:
            return body.seed
        self._unseeded += 1
        return derive_seed(self.seed, "request", self._unseeded - 1)

    def _params(self, body: SamplingBody, text: ModelText, top_logprobs: int, **more: Any) -> dict[str, Any]:
        own = {key: getattr(body, key) for key in DEFAULTS if key in body.model_fields_set}
        return {
            **{key: getattr(body, key) for key in DEFAULTS},
            **text.sampling,
            **own,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "logit_bias": tuple(body.logit_bias.items()),
            "min_tokens": body.min_tokens,
            "n": body.n,
            "stop": tuple(body.stop),
            "stop_tokens": (*(() if body.ignore_eos else text.stop_tokens), *body.stop_token_ids),
            "top_logprobs": top_logprobs,
            **more,
        }


def texts_of(dialog: Sequence[Message]) -> Iterator[str]:
    """The contents of a dialog's messages."""
    return (message["content"] for message in dialog if isinstance(message.get("content"), str))


def _cut(found: dict[int, SampleOutput], prompts: int, samples: int) -> dict[int, SampleOutput]:
    """All samples of a request as they are at its time limit: those that had not ended were cut."""
    empty = {
        prompt * samples + sample: SampleOutput(prompt, sample, [], [], [], "", None, 0)
        for prompt in range(prompts)
        for sample in range(samples)
    }
    return {
        index: output if output.finish_reason else replace(output, finish_reason="length")
        for index, output in (empty | found).items()
    }


def _grammar(body: ChatBody) -> Grammar | None:
    """The grammar that the answer must obey; the worker compiles and checks it."""
    given = body.response_format
    answer = None
    if given and given.type != "text":
        answer = bounded(given.json_schema.body) if given.json_schema else {"type": "object"}
    functions = body.functions
    if functions and (body.must_call or answer or any(function.strict for function in functions)):
        return answer_grammar(functions, calls=body.most_calls, must=body.must_call, answer=answer)
    return Grammar.json_schema(answer, check=False) if answer else None


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
