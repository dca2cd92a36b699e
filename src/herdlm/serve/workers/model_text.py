"""A model's tokenizer, dialog format and limits, with its engine in this process or in a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object
from herdlm.model.folders import CONFIG, model_folder, model_name
from herdlm.serve.errors import ContextError, shown
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from herdlm.generate.engine import Engine


GENERATION_CONFIG = "generation_config.json"
# Options of sampling that a model may recommend, and their ranges.
DEFAULTS = {
    "temperature": (0, 2),
    "top_p": (1e-6, 1),
    "top_k": (0, 2**31 - 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.1, 10),
}


@dataclass(slots=True)
class ModelText:
    """Turns requests into prompts and tokens into text: a model without its weights.

    Attributes:
        created: when the model was written, in seconds since 1970.
        context: maximum tokens of a prompt and its answer together, by the model's limit or the size of the cache.
        sampling: the options of sampling that its generation_config.json recommends; a request's own come first.
    """

    name: str
    folder: Path
    format: ChatFormat
    created: int
    context: int
    sampling: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> ModelText:
        """Read the model of a folder or a run. Its name is ``name``, or else comes from the folder.

        Raises:
            InputError, DamagedError: the model is unusable.
        """
        folder = model_folder(path)
        format = ChatFormat.load(folder)
        config = read_object(folder / CONFIG, "Restore it from its source")
        context, vocabulary = (config.get(key) for key in ("max_position_embeddings", "vocab_size"))
        if type(context) is not int or type(vocabulary) is not int or not (0 < context < 2**31 and vocabulary > 0):
            raise DamagedError(
                f"{folder / CONFIG} has no max_position_embeddings or vocab_size", "Export the model again"
            )
        created = int((folder / CONFIG).stat().st_mtime)
        _ = format.tokenizer.longest_token  # computed now, and not for the first request
        if outside := [id for id in format.stop_tokens if id >= vocabulary]:
            raise InputError(
                f"{folder}: eos_token_id {outside[0]} is outside the vocabulary of {vocabulary} tokens",
                f"Set eos_token_id to ids from 0 to {vocabulary - 1}, in generation_config.json or config.json",
            )
        return cls(name or model_name(folder), folder, format, created, context, recommended_sampling(folder))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the format."""
        return self.format.tokenizer

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.format.stop_tokens

    def chat_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        arguments: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
    ) -> list[int]:
        """A dialog as tokens, up to where the answer begins; see :meth:`ChatFormat.prompt`.

        Raises:
            InputError: the model has no chat template, or it refuses the dialog.
        """
        return self.format.prompt(
            messages, tools=tools, arguments=arguments, continue_final_message=continue_final_message
        )

    def text_prompt(self, text: str) -> list[int]:
        """A text to continue, as tokens after the begin-of-text token."""
        return [*self.tokenizer.begin, *self.tokenizer.encode(text)]

    def answer_text(self, text: str) -> str:
        """An answer without the leading space that the dialog format adds."""
        return text.removeprefix(" ") if self.tokenizer.leading_space or self.tokenizer.strips_space else text

    def check_length(self, texts: Iterable[str]) -> None:
        """Refuse texts that cannot fit into the context, before they are encoded.

        Raises:
            ContextError: they have more tokens than the context, whatever their tokens are.
        """
        least = sum(self.tokenizer.least_tokens(text) for text in texts)
        if least > self.context:
            raise ContextError(
                f"the text has at least {least} tokens, the context is {self.context} tokens", "Shorten it"
            )

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
        return cls(text.name, text.folder, text.format, text.created, context, text.sampling, engine=engine)


def recommended_sampling(folder: Path) -> dict[str, Any]:
    """The options of sampling in a model's generation_config.json, if there are any.

    Raises:
        InputError: one of them is not a number in its range.
    """
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return {}
    settings = read_object(path, "Restore it from its source")
    found = {key: value for key, value in settings.items() if key in DEFAULTS and value is not None}
    for key, value in found.items():
        low, high = DEFAULTS[key]
        kinds = int if key == "top_k" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise InputError(
                f"{path}: {key} = {shown(value)} is not a number from {low} to {high}", "Correct it, or drop it"
            )
    return found


def engine_context(engine: Engine) -> int:
    """The maximum tokens of one sequence in ``engine``."""
    return min(engine.config.max_seq_len, engine.pool.count * engine.pool.page_size)
