"""A model behind a server of the OpenAI API; see :class:`herdlm.evaluate.requests.EvaluatedModel`."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from herdlm.base.errors import InputError
from herdlm.base.openai_api import OpenAIServer, StatusError
from herdlm.evaluate.requests import Answer, AnswerRequest, Question, Scored, ScoreRequest
from herdlm.evaluate.windows import text_windows

CONCURRENCY = 16  # pending requests
MAX_SAMPLES = 128  # of one request
MAX_REPLY_BYTES = 1 << 28  # log-probabilities of a long prompt
UNKNOWN_CONTEXT = 4096  # tokens, where the server does not say
REFUSED = (400, 422)
NO_SUCH_ROUTE = (*REFUSED, 404, 405, 501)
NOT_OURS = re.compile(r"[^A-Za-z0-9_-]")  # characters that OpenAI's names of functions cannot have

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How a server is asked.

    Attributes:
        concurrency: pending requests at a time.
        key: sent as bearer token; over plain http to other machines only with ``key_over_http``.
        timeout: seconds of a try.
        tries, first_wait: of a request, and seconds after the first failed one, which double.
    """

    concurrency: int = CONCURRENCY
    key: str = ""
    key_over_http: bool = False
    timeout: float = 600.0
    tries: int = 6
    first_wait: float = 1.0


def is_address(model: str) -> bool:
    """Whether a model is named by a server's address."""
    return model.startswith(("http://", "https://"))


class RemoteModel:
    """The model at ``URL``, or the one called NAME at ``URL#NAME``.

    Raises:
        HerdError: the address is invalid, the server cannot be asked, or it is not clear which model is meant.
    """

    width = 1

    def __init__(self, address: str, options: RemoteOptions | None = None) -> None:
        options = options or RemoteOptions()
        url, _, name = address.partition("#")
        url = url.rstrip("/")
        url = url if url.count("/") > 2 else f"{url}/v1"
        self._server, self._root = (
            OpenAIServer(
                where,
                key=options.key,
                key_over_http=options.key_over_http,
                tries=options.tries,
                first_wait=options.first_wait,
                timeout=options.timeout,
                max_bytes=MAX_REPLY_BYTES,
            )
            for where in (url, url.removesuffix("/v1"))
        )
        self.address = url
        self.name, described = self._find(name)
        self.fingerprint = f"server {url}, model {self.name}"
        context = next((described[key] for key in ("max_model_len", "context_length") if described.get(key)), None)
        self._says_context = context is not None
        self.context = int(context or UNKNOWN_CONTEXT)
        self._limit, self._tokenizes, self._rename = "max_tokens", True, False
        self._model, self._tokenized = self.name, dict[str, list[int]]()
        self.chats = self._has_chats()
        self._threads = ThreadPoolExecutor(options.concurrency, thread_name_prefix="evaluate")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """The likelihood of each continuation, in order.

        Raises:
            InputError: the server does not give log-probabilities of prompts, or a prompt is too long for it.
        """
        self._tokenized.clear()
        done = dict(self._all(self._score, requests))
        return [done[i] for i in range(len(requests))]

    def score_text(self, text: str) -> list[float]:
        """The log-probability of each token of a text, without the first where no begin token comes before it.

        Raises:
            InputError: as for :meth:`score`.
        """
        tokens = self._plain_tokens(text)
        if tokens is None:
            echo = self._echo(text)
            return echo.logprobs[1:]
        begin = len(tokens) - len(self._tokens({"prompt": text, "add_special_tokens": False}) or tokens)
        pairs = text_windows(tokens, max(begin, 1), self.context - 1)
        done = dict(self._all(lambda pair: self._score_tokens(*pair), pairs))
        return [value for i in range(len(pairs)) for value in done[i].logprobs]

    def answer(self, requests: Sequence[AnswerRequest]) -> Iterator[tuple[int, list[Answer]]]:
        """The answers to each request with its number, as they are finished."""
        return self._all(self._answers, requests)

    def fits(self, question: Question, max_tokens: int) -> bool:
        """Whether :meth:`answer` would leave a question whole, as far as the server tells."""
        if not self._says_context:
            return True
        tokens = (
            self._tokens(_as_dialog(question)) if question.messages is not None else self._plain_tokens(question.text)
        )
        return tokens is None or len(tokens) <= max(self.context - min(max_tokens, max(self.context // 2, 1)), 1)

    def count(self, text: str) -> int:
        """A text's length in tokens; with a begin token where only prompts are counted."""
        tokens = self._tokens({"prompt": text, "add_special_tokens": False})
        if tokens is not None:
            return len(tokens)
        body = {"model": self._model, "prompt": text, "max_tokens": 1}
        return self._server.ask("/completions", body, lambda reply: int(reply["usage"]["prompt_tokens"]))

    def close(self) -> None:
        """End pending requests."""
        self._server.stop()
        self._root.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _all(self, ask: Callable[[Any], T], requests: Sequence[Any]) -> Iterator[tuple[int, T]]:
        """Ask about all at once, as far as concurrency allows."""
        places: dict[Future[T], int] = {self._threads.submit(ask, each): i for i, each in enumerate(requests)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        finally:
            for future in places:
                future.cancel()

    def _find(self, name: str) -> tuple[str, dict[str, Any]]:
        """The model's name and the server's description of it, which may be empty."""
        try:
            models = self._server.ask(
                "/models", None, lambda reply: {str(each["id"]): dict(each) for each in reply["data"]}
            )
        except StatusError as error:
            if error.status not in NO_SUCH_ROUTE:
                raise
            models = {}
        if name:
            if models and name not in models:
                raise InputError(f"{self.address} has no model {name!r}", f"It has {', '.join(models)}")
            return name, models.get(name, {})
        if len(models) != 1:
            has = f"{len(models)} models: {', '.join(models)}" if models else "no list of models"
            raise InputError(f"{self.address} has {has}", f"Name one, as in {self.address}#NAME")
        return next(iter(models.items()))

    def _has_chats(self) -> bool:
        body = {"model": self._model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            return self._server.ask("/chat/completions", body, lambda reply: bool(reply["choices"]))
        except StatusError as error:
            if "max_completion_tokens" in error.what:
                self._limit = "max_completion_tokens"
                return True
            if error.status in NO_SUCH_ROUTE:
                return False
            raise

    # Likelihood

    def _score(self, request: ScoreRequest) -> Scored:
        question, continuation = request.question, request.continuation
        if question.messages is not None:
            before = self._tokens(_as_dialog(question))
            after = self._tokens({"prompt": continuation, "add_special_tokens": False})
            if before is None or after is None:
                raise InputError(
                    f"{self.address} has no /tokenize for dialogs, so that likelihoods in a chat cannot be asked",
                    "Add --plain, or use a server such as herdlm serve or vLLM",
                )
            return self._score_tokens(before, after)
        context = question.text.rstrip()
        continuation = question.text[len(context) :] + continuation
        try:
            echo = self._echo(context + continuation)
        except InputError:
            tokens = self._plain_tokens(context + continuation) if context and self._says_context else None
            if tokens is None or len(tokens) < self.context:
                raise
            begin = len(self._plain_tokens(context) or ())  # too long: the context loses its beginning
            return self._score_tokens(tokens[:begin], tokens[begin:])
        at = echo.token_at(len(context), context + continuation)
        begin = at if at is not None else len(self._plain_tokens(context) or ()) if context else 0
        if not 0 < begin < len(echo.logprobs):
            raise InputError(
                f"{self.address} does not say where {continuation!r} begins in its prompt, or puts no token before it",
                "Evaluate the model's folder, or use a server such as herdlm serve or vLLM",
            )
        return echo.scored(begin)

    def _score_tokens(self, context: list[int], continuation: list[int]) -> Scored:
        cut = max(len(context) + len(continuation) + 1 - self.context, 0) if self._says_context else 0
        if cut >= len(context):
            raise InputError(
                f"a continuation of {len(continuation)} tokens does not fit into the context of {self.context}",
                "Leave the task out for this model",
            )
        scored = self._echo([*context[cut:], *continuation]).scored(len(context) - cut)
        return Scored(scored.logprobs, scored.greedy, cut)

    def _echo(self, prompt: str | list[int]) -> _Echo:
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        try:
            echo = self._server.ask("/completions", body, _read_echo)
        except StatusError as error:
            if error.status in NO_SUCH_ROUTE:
                raise self._no_likelihood(error.what) from error
            raise
        if echo is None:
            raise self._no_likelihood(f"{self.address} answers without log-probabilities of the prompt")
        return echo

    def _no_likelihood(self, what: str) -> InputError:
        return InputError(
            f"likelihoods cannot be asked of {self.name}: {what}",
            "They need /completions with echo and logprobs, as herdlm serve and vLLM have; or evaluate the model's "
            "folder, or leave out tasks of choices and continuations",
        )

    def _plain_tokens(self, text: str) -> list[int] | None:
        """A text's tokens as in a prompt, with a begin token if the model has one."""
        return self._tokens({"prompt": text, "add_special_tokens": True})

    def _tokens(self, body: dict[str, Any]) -> list[int] | None:
        """Tokens by the server's ``/tokenize``; None if it has none."""
        key = json.dumps(body)
        if key not in self._tokenized and self._tokenizes:
            try:
                tokens = self._root.ask(
                    "/tokenize", {"model": self._model, **body}, lambda reply: [int(each) for each in reply["tokens"]]
                )
            except StatusError as error:
                if error.status not in NO_SUCH_ROUTE:
                    raise
                self._tokenizes = error.status in REFUSED
                return None
            if not tokens:  # a route of the same name that reads other keys, as llama.cpp's
                return None
            self._tokenized[key] = tokens
        return self._tokenized.get(key)

    # Generation

    def _answers(self, request: AnswerRequest) -> list[Answer]:
        """All samples; a server that gives one at a time is asked again, with other seeds."""
        answers: list[Answer] = []
        while len(answers) < request.samples:
            left = request.samples - len(answers)
            answers += self._some_answers(request, min(left, MAX_SAMPLES), request.seed + len(answers))[:left]
        return answers

    def _some_answers(self, request: AnswerRequest, count: int, seed: int) -> list[Answer]:
        most, prompt = request.max_tokens, None
        while True:
            chat = prompt is None and request.question.messages is not None
            body: dict[str, Any] = {
                "model": self._model,
                self._limit if chat else "max_tokens": most,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "n": count,
                "seed": seed % 2**63,
            }
            body |= self._dialog(request.question) if chat else {"prompt": prompt or request.question.text}
            if request.stop:
                body["stop"] = list(request.stop)
            path = "/chat/completions" if chat else "/completions"
            try:
                return self._server.ask(path, body, lambda reply: self._read_answers(reply, request))
            except StatusError as error:
                if error.status not in REFUSED:
                    raise
                if self._learned(error, request.question):
                    continue
                fitting = self._fitting(request, most) if prompt is None else None
                if fitting is None:
                    raise
                prompt, most = fitting

    def _learned(self, error: StatusError, question: Question) -> bool:
        """Whether a refusal tells how the server wants requests, so that the same one can be sent again."""
        if "max_completion_tokens" in error.what and self._limit == "max_tokens":
            self._limit = "max_completion_tokens"
            return True
        if not self._rename and any(NOT_OURS.search(tool["function"]["name"]) for tool in _tools(question)):
            self._rename = True
            return True
        return False

    def _fitting(self, request: AnswerRequest, most: int) -> tuple[list[int], int] | None:
        """A question's tokens, and the most tokens of its answer, that fit into the context as for a local model.

        None if they did before, or if the server does not tell.
        """
        question = request.question
        if not self._says_context:
            return None
        dialog = question.messages is not None
        tokens = self._tokens(_as_dialog(question)) if dialog else self._plain_tokens(question.text)
        if tokens is None or len(tokens) + most <= self.context:
            return None
        kept = tokens[-max(self.context - min(most, max(self.context // 2, 1)), 1) :]
        return kept, self.context - len(kept)

    def _dialog(self, question: Question) -> dict[str, Any]:
        tools = _tools(question)
        if self._rename:
            for tool in tools:
                tool["function"] = {**tool["function"], "name": NOT_OURS.sub("_", tool["function"]["name"])}
        return {"messages": list(question.messages or ()), **({"tools": tools} if tools else {})}

    def _read_answers(self, reply: Any, request: AnswerRequest) -> list[Answer]:
        choices = reply["choices"]
        if not choices:
            raise ValueError("no choice")
        total = (reply.get("usage") or {}).get("completion_tokens") or 0
        names = {NOT_OURS.sub("_", name): name for name in (_function(tool)["name"] for tool in request.question.tools)}
        answers = []
        for choice in choices:
            message = choice.get("message") or {}
            text = message.get("content") if "message" in choice else choice["text"]
            calls = [_call(call["function"], names) for call in message.get("tool_calls") or ()]
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            answers.append(Answer(_cut(text or "", request.stop), total // len(choices), None, finish, calls))
        return answers


@dataclass(frozen=True, slots=True)
class _Echo:
    """What a server says about the tokens of a prompt.

    Attributes:
        tokens, offsets: their texts, and where each begins; also of tokens behind the prompt.
        logprobs: of the prompt's tokens; 0 for the first, which has none.
        likeliest: the highest log-probability at each place.
    """

    tokens: list[str]
    offsets: list[int]
    logprobs: list[float]
    likeliest: list[float]

    def scored(self, begin: int) -> Scored:
        """The likelihood of the tokens from ``begin`` on."""
        logprobs = self.logprobs[begin:]
        return Scored(logprobs, all(a >= b for a, b in zip(logprobs, self.likeliest[begin:], strict=True)))

    def token_at(self, place: int, text: str) -> int | None:
        """The number of the token at a place of the prompt's text; None if the offsets do not fit the text.

        The begin token, if there is one, is no part of the text. Some servers count its name in offsets, others do not.
        """
        count, first = len(self.logprobs), self.tokens[0]
        begin = 0 if first and (text.startswith(first) or first.startswith("bytes:")) else 1
        if begin >= count:
            return None
        base = self.offsets[begin]
        if len(self.offsets) > count and self.offsets[count] - base != len(text):
            return None
        found = bisect_left(self.offsets, base + place, begin, count)
        return found if found < count and self.offsets[found] == base + place else found - 1


def _read_echo(reply: Any) -> _Echo | None:
    """The echoed prompt; None if its tokens have no log-probabilities."""
    logprobs = reply["choices"][0].get("logprobs") or {}
    values, tokens, top = (logprobs.get(key) or [] for key in ("token_logprobs", "tokens", "top_logprobs"))
    count = int(reply["usage"]["prompt_tokens"])
    if not count or min(len(values), len(tokens), len(top)) < count or None in values[1:count] or None in top[1:count]:
        return None
    offsets = logprobs.get("text_offset") or list(accumulate(map(len, tokens), initial=0))[:-1]
    likeliest = [0.0, *(max(map(float, each.values())) for each in top[1:count])]
    return _Echo(tokens, offsets, [0.0, *map(float, values[1:count])], likeliest)


def _as_dialog(question: Question) -> dict[str, Any]:
    tools = _tools(question)
    return {
        "messages": list(question.messages or ()),
        "add_generation_prompt": True,
        "add_special_tokens": False,
        **({"tools": tools} if tools else {}),
    }


def _tools(question: Question) -> list[dict[str, Any]]:
    return [{"type": "function", "function": _function(tool)} for tool in question.tools]


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool's function, in OpenAI's form or bare."""
    function: dict[str, Any] = tool.get("function", tool)
    return function


def _call(function: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    arguments = function.get("arguments") or "{}"
    with suppress(ValueError):  # a judge says that they are no JSON
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"name": names.get(function["name"], function["name"]), "arguments": arguments}


def _cut(text: str, stop: Sequence[str]) -> str:
    """A text up to the first stop string, which some servers leave in."""
    return text[: min((at for each in stop if (at := text.find(each)) >= 0), default=len(text))]
