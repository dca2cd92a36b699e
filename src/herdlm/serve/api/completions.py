"""Responses of ``/v1/completions``, which ``echo`` starts with the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.serve.api.answers import Answer
from herdlm.serve.api.logprobs import Alternatives, CompletionLogprobs
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import SampleOutput


@dataclass(slots=True)
class Echo:
    """A prompt to return before its continuation."""

    text: str
    tokens: list[int]


class CompletionAnswer(Answer):
    """An answer of ``/v1/completions``.

    Args:
        top: alternatives to return with each log-probability; None for no log-probabilities.
        samples: choices per prompt.
        echoes: one per prompt, or none.
        echo_alone: return only the prompts, without the one token that the engine samples at least.
    """

    whole_object, chunk_object, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(
        self,
        model: ModelText,
        *,
        top: int | None,
        samples: int = 1,
        echoes: Sequence[Echo] = (),
        echo_alone: bool = False,
    ) -> None:
        super().__init__(model)
        self.top, self.samples, self.echoes, self.echo_alone = top, samples, echoes, echo_alone
        self._logprobs: dict[int, CompletionLogprobs] = {}

    def choice(self, index: int, output: SampleOutput) -> dict[str, Any]:
        text, logprobs = "", None
        if self.echoes:
            echo = self.echoes[index // self.samples]
            text, logprobs = (
                echo.text,
                self._format(index, echo.tokens, [None, *output.prompt_logprobs], [None, *output.prompt_top_logprobs]),
            )
        if self.echo_alone:
            return self._to_choice(index, text, logprobs, "length")
        sampled = self._format(index, output.tokens, output.logprobs, output.top_logprobs)
        return self._to_choice(index, text + output.text, _joined(logprobs, sampled), output.finish_reason)

    def first_chunks(self, index: int) -> Iterator[dict[str, Any]]:
        if self.echoes:
            yield self._to_choice(index, self.echoes[index // self.samples].text, None, None)

    def chunks(self, index: int, output: SampleOutput) -> Iterator[dict[str, Any]]:
        if self.echo_alone:
            yield self._to_choice(index, "", None, "length")
        elif output.text or output.finish_reason or (self.top is not None and output.tokens):
            logprobs = self._format(index, output.tokens, output.logprobs, output.top_logprobs)
            yield self._to_choice(index, output.text, logprobs, output.finish_reason)

    def completion_tokens(self, output: SampleOutput) -> int:
        return 0 if self.echo_alone else len(output.logprobs)

    def _format(
        self,
        index: int,
        tokens: Sequence[int],
        logprobs: Sequence[float | None],
        alternatives: Sequence[Alternatives | None],
    ) -> dict[str, Any] | None:
        if self.top is None:
            return None
        formatter = self._logprobs.setdefault(index, CompletionLogprobs(self.model))
        return formatter.add(tokens, logprobs, alternatives, self.top)

    def _to_choice(self, index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _joined(first: dict[str, Any] | None, then: dict[str, Any] | None) -> dict[str, Any] | None:
    if first is None or then is None:
        return first or then
    return {key: None if value is None else value + (then[key] or []) for key, value in first.items()}
