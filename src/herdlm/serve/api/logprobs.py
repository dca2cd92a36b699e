"""Log-probabilities in the OpenAI API's two shapes: for chats, and the older one for completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import MIN_LOGPROB, SampleOutput

Alternatives = Sequence[tuple[int, float]]


def chat_logprobs(model: ModelText, output: SampleOutput) -> dict[str, Any]:
    """The ``logprobs`` of a chat's choice."""
    content = []
    # A stop token has a log-probability but is not among the tokens.
    for i, (token, logprob) in enumerate(zip(output.tokens, output.logprobs, strict=False)):
        alternatives = output.top_logprobs[i] if i < len(output.top_logprobs) else []
        content.append(
            _entry(model, token, logprob) | {"top_logprobs": [_entry(model, *each) for each in alternatives]}
        )
    return {"content": content, "refusal": None}


def _entry(model: ModelText, token: int, logprob: float) -> dict[str, Any]:
    content = model.token_bytes(token)
    text = content.decode(errors="replace") or model.token_name(token)
    return {"token": text, "logprob": max(logprob, MIN_LOGPROB), "bytes": list(content)}


class CompletionLogprobs:
    """Builds the ``logprobs`` of a completion's choice in pieces. Offsets count characters from its first token."""

    def __init__(self, model: ModelText) -> None:
        self.model = model
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def add(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float | None],
        alternatives: Sequence[Alternatives | None],
        top: int,
    ) -> dict[str, Any]:
        """Format the next tokens.

        Args:
            logprobs, alternatives: per token; None for a prompt's first.
            top: number of alternatives; 0 for none.
        """
        return {
            "tokens": [completion_token(self.model, token) for token in tokens],
            "token_logprobs": [None if each is None else max(each, MIN_LOGPROB) for each in logprobs[: len(tokens)]],
            "top_logprobs": [self._top(each) for each in alternatives[: len(tokens)]] if top else None,
            "text_offset": [self._offset(self.model.token_bytes(token)) for token in tokens],
        }

    def _top(self, alternatives: Alternatives | None) -> dict[str, float] | None:
        if alternatives is None:
            return None
        return {completion_token(self.model, id): max(value, MIN_LOGPROB) for id, value in alternatives}

    def _offset(self, content: bytes) -> int:
        begin = self._characters
        self._characters += len(self._decoder.decode(content))
        return begin


def completion_token(model: ModelText, token: int) -> str:
    """A token's name in completions: its text, ``bytes:`` and hex if that is not UTF-8, or a special token's name."""
    content = model.token_bytes(token)
    if not content:
        return model.token_name(token) or f"token:{token}"
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
