"""A model folder, evaluated by engines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from herdlm.base.artifact import hash_file
from herdlm.base.errors import InputError
from herdlm.evaluate.engines import EngineOptions, Tokens, open_engines
from herdlm.evaluate.requests import Answer, AnswerRequest, Question, Scored, ScoreRequest
from herdlm.evaluate.windows import text_windows
from herdlm.generate.request import Completion, SamplingParams
from herdlm.model.folders import CONFIG, model_folder, model_name
from herdlm.model.weights import read_json
from herdlm.tokens.chat_format import ChatFormat


class LocalModel:
    """A model folder; see :class:`herdlm.evaluate.requests.EvaluatedModel`.

    Attributes:
        prefix: what stands before a text that has no context: what the tokenizer puts there, else the token that the
            folder names as the begin, or the end, of a text.

    Raises:
        InputError, DamagedError: the model is unusable.
    """

    def __init__(self, path: Path, options: EngineOptions, engines: Tokens | None = None) -> None:
        folder = model_folder(path)
        self.name = model_name(folder)
        self.format = ChatFormat.load(folder)
        self.tokenizer = self.format.tokenizer
        named = (self.tokenizer.bos, self.tokenizer.eos, *self.format.stop_tokens, self.tokenizer.pad)
        self.prefix = self.tokenizer.begin or (next(token for token in named if token is not None),)
        self.context = int(read_json(folder / CONFIG)["max_position_embeddings"])
        self.chats = bool(self.format.templates)
        self.engines = engines or open_engines(folder, options)
        self.width = self.engines.count
        self.fingerprint = hashlib.sha256(f"{_content(folder)} {self.engines.compute}".encode()).hexdigest()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """The likelihood of each continuation, in order. A context that is too long loses its beginning.

        Raises:
            InputError: a continuation is longer than the model's context.
        """
        return self.score_pairs([self._encode(request) for request in requests])

    def score_pairs(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        """As :meth:`score`, of tokens."""
        cuts, kept = [], []
        for context, continuation in pairs:
            # The last token is scored, but not computed.
            cut = max(len(context) + len(continuation) - self.context - 1, 0)
            if cut >= len(context):
                raise InputError(
                    f"a continuation of {len(continuation)} tokens does not fit into the context of {self.context}",
                    "Leave the task out for this model",
                )
            kept.append((context[cut:], continuation))
            cuts.append(cut)
        return [Scored(s.logprobs, s.greedy, cut) for s, cut in zip(self.engines.score(kept), cuts, strict=True)]

    def score_text(self, text: str) -> list[float]:
        """The log-probability of each token of a text. Each window but the first starts where the one before ended."""
        return self.score_tokens(self.tokenizer.encode(text))

    def score_tokens(self, text: Sequence[int]) -> list[float]:
        """As :meth:`score_text`, of a text's tokens without a begin token."""
        # The last token of a window is scored, but not computed.
        pairs = text_windows([*self.prefix, *text], len(self.prefix), self.context + 1)
        return [value for each in self.engines.score(pairs) for value in each.logprobs]

    def answer(self, requests: Sequence[AnswerRequest]) -> Iterator[tuple[int, list[Answer]]]:
        """The answers to each request with its number, as they are finished.

        A question that leaves no room for an answer loses its beginning, as far as it must.
        """
        prompts, params = [], []
        for request in requests:
            tokens = self._question(request.question)
            prompts.append(tokens[-self._most(request.max_tokens) :])
            params.append(
                SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    n=request.samples,
                    seed=request.seed,
                    stop=request.stop,
                    stop_tokens=self.format.stop_tokens,
                )
            )
        for number, completions in self.engines.generate(prompts, params):
            chat = requests[number].question.messages is not None
            yield number, [self._answer(completion, chat) for completion in completions]

    def fits(self, question: Question, max_tokens: int) -> bool:
        """Whether :meth:`answer` would leave a question whole.

        Raises:
            InputError: the chat template refuses it.
        """
        return len(self._question(question)) <= self._most(max_tokens)

    def count(self, text: str) -> int:
        """A text's length in tokens."""
        return len(self.tokenizer.encode(text))

    def close(self) -> None:
        """End the engines."""
        self.engines.close()

    def _most(self, max_tokens: int) -> int:
        """The most tokens of a question that leave room for an answer."""
        return max(self.context - min(max_tokens, max(self.context // 2, 1)), 1)

    def _question(self, question: Question) -> list[int]:
        if question.messages is not None:
            return self.format.prompt(question.messages, tools=question.tools or None)  # type: ignore[arg-type]
        return self._with_begin(question.text) or list(self.prefix)

    def _with_begin(self, text: str) -> list[int]:
        """A text's tokens after the begin token; never after two."""
        begin = self.tokenizer.begin
        for token in begin:
            name = self.tokenizer.backend.id_to_token(token)
            text = text.removeprefix(name) if name else text
        return [*begin, *self.tokenizer.encode(text)]

    def _encode(self, request: ScoreRequest) -> tuple[list[int], list[int]]:
        """Context and continuation, encoded together and divided where the context's own tokens end.

        Spaces at the context's end belong to the continuation, since tokens begin with a space.
        """
        question, continuation = request.question, request.continuation
        if question.messages is not None:
            return self._question(question), self._some(continuation)
        context = question.text.rstrip()
        continuation = question.text[len(context) :] + continuation
        if not context:
            return list(self.prefix), self._some(continuation)
        before, whole = self._with_begin(context), self._with_begin(context + continuation)
        if len(whole) <= len(before):
            raise InputError(f"the continuation {continuation!r} has no tokens", "Correct the task")
        return before, whole[len(before) :]

    def _some(self, continuation: str) -> list[int]:
        if not (tokens := self.tokenizer.encode(continuation)):
            raise InputError("a continuation is empty", "Correct the task")
        return tokens

    def _answer(self, completion: Completion, chat: bool) -> Answer:
        text = completion.text
        if chat and (self.tokenizer.leading_space or self.tokenizer.strips_space):
            text = text.removeprefix(" ")
        return Answer(text, len(completion.tokens), sum(completion.logprobs), completion.finish_reason)


def _content(folder: Path) -> str:
    """A hash of what decides a model's answers."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name != "manifest.json":
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return digest.hexdigest()
