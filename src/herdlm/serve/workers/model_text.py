"""A model's tokenizer, dialog format and limits, with its engine in this process or in a worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.folders import CONFIG, model_folder, model_name
from herdlm.serve.errors import ContextError
from herdlm.tokens.chat import Message, render_prompt
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN, Tokenizer

if TYPE_CHECKING:
    from herdlm.generate.engine import Engine

GENERATION = "generation_config.json"


@dataclass(slots=True)
class ModelText:
    """Turns requests into prompts and tokens into text: a model without its weights.

    Attributes:
        stop_tokens: tokens that end an answer: the ends of turn, message and text, and the folder's eos_token_id.
        created: when the model was written, in seconds since 1970.
        context: maximum tokens of a prompt and its answer together, by the model's limit or the size of the cache.
    """

    name: str
    folder: Path
    tokenizer: Tokenizer
    stop_tokens: tuple[int, ...]
    created: int
    context: int

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> ModelText:
        """Read the model of a folder or a run. Its name is ``name``, or else comes from the folder.

        Raises:
            InputError, DamagedError: the model is unusable.
        """
        folder = model_folder(path)
        tokenizer = Tokenizer.load(folder)
        config = _settings(folder / CONFIG)
        context, vocabulary = (config.get(key) for key in ("max_position_embeddings", "vocab_size"))
        if not isinstance(context, int) or not isinstance(vocabulary, int):
            raise DamagedError(
                f"{folder / CONFIG} has no max_position_embeddings or vocab_size", "Export the model again"
            )
        created = int((folder / CONFIG).stat().st_mtime)
        stop_tokens = _stop_tokens(tokenizer, folder, config, vocabulary)
        return cls(name or model_name(folder), folder, tokenizer, stop_tokens, created, context)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """A dialog as tokens, up to where the answer begins.

        Raises:
            InputError: a role is unknown, or the tokenizer has no chat tokens.
        """
        return render_prompt(self.tokenizer, messages)

    def text_prompt(self, text: str) -> list[int]:
        """A text to continue, as tokens after the begin-of-text token."""
        return [self.tokenizer.special(BEGIN_OF_TEXT), *self.tokenizer.encode(text)]

    def answer_text(self, text: str) -> str:
        """An answer without the leading space that the dialog format adds."""
        return text.removeprefix(" ") if self.tokenizer.leading_space else text

    def room(self, prompt: Sequence[int], max_tokens: int | None) -> int:
        """The maximum tokens of the answer: ``max_tokens``, or what the context leaves if that is None.

        Raises:
            ContextError: the context leaves less.
        """
        left = self.context - len(prompt)
        if left < 1:
            raise ContextError(
                f"the prompt of {len(prompt)} tokens fills the context of {self.context} tokens", "Shorten it"
            )
        if max_tokens is not None and max_tokens > left:
            raise ContextError(
                f"{len(prompt)} tokens of prompt and {max_tokens} of answer are {len(prompt) + max_tokens}, "
                f"the context is {self.context} tokens",
                f"Shorten the prompt or ask for at most {left} tokens",
            )
        return max_tokens or left

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; empty for special tokens and for padding of the vocabulary."""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.vocab_size else b""

    def token_name(self, token: int) -> str:
        """A special token's name; empty for other tokens."""
        if self.token_bytes(token) or token >= self.tokenizer.vocab_size:
            return ""
        return self.tokenizer.backend.id_to_token(token) or ""


@dataclass(slots=True)
class LoadedModel(ModelText):
    """A model with its engine in this process."""

    engine: Engine = field(kw_only=True)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
    ) -> LoadedModel:
        """Load the model of a folder or a run; see :meth:`herdlm.generate.engine.Engine.load` for the options.

        Raises:
            InputError, DamagedError: the model is unusable, or device or dtype is unknown.
        """
        from herdlm.generate.engine import Engine

        text = ModelText.read(path)
        engine = Engine.load(
            text.folder,
            device=device,
            dtype=dtype,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
        )
        context = engine_context(engine)
        return cls(text.name, text.folder, text.tokenizer, text.stop_tokens, text.created, context, engine=engine)


def engine_context(engine: Engine) -> int:
    """The maximum tokens of one sequence in ``engine``."""
    return min(engine.config.max_seq_len, engine.pool.count * engine.pool.page_size)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}", "Restore it from its source") from error
    if not isinstance(settings, dict):
        raise DamagedError(f"{path} is not a JSON object", "Restore it from its source")
    return settings


def _stop_tokens(tokenizer: Tokenizer, folder: Path, config: dict[str, Any], vocabulary: int) -> tuple[int, ...]:
    known = [
        id
        for name in (END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT)
        if (id := tokenizer.backend.token_to_id(name)) is not None
    ]
    settings = _settings(folder / GENERATION) if (folder / GENERATION).is_file() else config
    named = settings.get("eos_token_id")
    named = named if isinstance(named, list) else [] if named is None else [named]
    for id in named:
        if not isinstance(id, int) or not 0 <= id < vocabulary:
            source = GENERATION if (folder / GENERATION).is_file() else CONFIG
            raise InputError(
                f"{folder / source}: eos_token_id {id!r} is outside the vocabulary of {vocabulary} tokens",
                f"Set eos_token_id to ids from 0 to {vocabulary - 1}",
            )
    return tuple(dict.fromkeys([*known, *named]))
