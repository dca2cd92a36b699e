"""A loaded model with what turns requests into prompts and answers into text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.generate.engine import Engine
from herdlm.model.hf import generation_of
from herdlm.serve.resolve import model_folder, model_name
from herdlm.tokens.chat import Message, render_prompt
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN, Tokenizer


class ContextError(InputError):
    """A prompt and what it asks for do not fit into the model's context."""


@dataclass(slots=True)
class ServedModel:
    """One model, ready to answer.

    Attributes:
        stop_tokens: end an answer: the ends of turn, message and text, and what generation_config.json names.
        created: when the model was written, in seconds since 1970.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    stop_tokens: tuple[int, ...]
    created: int

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
    ) -> ServedModel:
        """Load the model that ``path`` (a model folder or a run) means.

        Raises:
            InputError, DamagedError: there is no usable model, or device or dtype is unknown.
        """
        folder = model_folder(path)
        engine = Engine.load(
            folder, device=device, dtype=dtype, tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel
        )
        assert engine.tokenizer is not None
        stop_tokens = _stop_tokens(engine.tokenizer, folder, engine.config.vocab_size)
        created = int((folder / "config.json").stat().st_mtime)
        return cls(model_name(folder), engine, engine.tokenizer, stop_tokens, created)

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its answer together: the model's own limit, or what the cache holds."""
        return min(self.engine.config.max_seq_len, self.engine.pool.count * self.engine.pool.page_size)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """A dialog as tokens, up to where the answer begins.

        Raises:
            InputError: a role is unknown, or the tokenizer knows no dialogs.
        """
        return render_prompt(self.tokenizer, messages)

    def text_prompt(self, text: str) -> list[int]:
        """A text to continue, as tokens behind the begin-of-text token."""
        return [self.tokenizer.special(BEGIN_OF_TEXT), *self.tokenizer.encode(text)]

    def answer_text(self, text: str) -> str:
        """An answer without the space that the dialog format, not the model's meaning, puts first."""
        return text.removeprefix(" ") if self.tokenizer.leading_space else text

    def room(self, prompt: Sequence[int], max_tokens: int | None) -> int:
        """How many tokens the answer may have: ``max_tokens``, or all the context leaves where it is None.

        Raises:
            ContextError: that is more than the context leaves.
        """
        left = self.context - len(prompt)
        if left < 1:
            raise ContextError(f"the prompt of {len(prompt)} tokens fills the context of {self.context} tokens",
                               "Shorten it")  # fmt: skip
        if max_tokens is not None and max_tokens > left:
            raise ContextError(
                f"{len(prompt)} tokens of prompt and {max_tokens} of answer are {len(prompt) + max_tokens}, "
                f"the context is {self.context} tokens", f"Shorten the prompt or ask for at most {left} tokens",
            )  # fmt: skip
        return max_tokens or left

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; empty for special ones and for padding of the vocabulary."""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.vocab_size else b""


def _stop_tokens(tokenizer: Tokenizer, folder: Path, vocab_size: int) -> tuple[int, ...]:
    known = [
        id
        for name in (END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT)
        if (id := tokenizer.backend.token_to_id(name)) is not None
    ]
    named = (generation_of(folder) or {}).get("eos_token_id", [])
    named = named if isinstance(named, list) else [named]
    for id in named:
        if not isinstance(id, int) or not 0 <= id < vocab_size:
            raise InputError(f"{folder}: eos_token_id {id!r} is no token of a vocabulary of {vocab_size}", "Mend it")
    return tuple(dict.fromkeys([*known, *named]))
