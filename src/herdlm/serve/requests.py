"""The bodies of requests. A parameter is obeyed, or the request is refused naming it; nothing is ignored.

``None`` means "not given" for every known parameter, as in OpenAI's clients. A parameter of the API that is not offered
here may stand at a value that asks for nothing (``frequency_penalty`` of 0), which ``neutral`` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from herdlm.serve.failures import nearest, shown
from herdlm.tokens.chat import Message

MAX_STOP_STRINGS = 16


def _valid_unicode(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no encoding of text can hold.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start}") from error
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


def _one_or_more_strings(stop: Any) -> Any:
    if isinstance(stop, str):
        stop = [stop]
    if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
        raise ValueError("must be a string or a list of strings, none of them empty")
    return stop


def _prompts(prompt: Any) -> Any:
    """One prompt or several, strings or token ids, as a list of prompts."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, int) for part in prompt):
            return [prompt]
        if all(isinstance(part, str) for part in prompt):
            return prompt
        if all(isinstance(part, list) and all(isinstance(id, int) for id in part) for part in prompt):
            return prompt
    raise ValueError("must be a string, a list of strings, a list of token ids, or a list of such lists")


class Body(BaseModel):
    """Knows which parameters it does not offer."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"additionalProperties": False})

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, body: Any) -> Any:
        return {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _refuse_what_is_not_offered(self) -> Body:
        for field, value in (self.model_extra or {}).items():
            if field not in self.neutral:
                known = [*type(self).model_fields, *self.neutral]
                raise PydanticCustomError(
                    "unknown_parameter", "unknown parameter {name}. {remedy}",
                    {"field": field, "name": shown(field), "remedy": nearest(field, known)},
                )  # fmt: skip
            if not any(type(value) is type(neutral) and value == neutral for neutral in self.neutral[field]):
                raise refusal(field, value)
        return self


def refusal(field: str, value: Any, remedy: str = "Drop it") -> PydanticCustomError:
    """The error for a parameter of the API that this server does not offer."""
    return PydanticCustomError(
        "unsupported_parameter", "{name} = {value} is not supported by this server. {remedy}",
        {"field": field, "name": field, "value": shown(value), "remedy": remedy},
    )  # fmt: skip


class StreamOptions(Body):
    """What a stream tells besides."""

    neutral = {"include_obfuscation": (False,)}

    include_usage: bool = Field(False, description="end the stream with a chunk that counts tokens")


class SamplingBody(Body):
    """What completions and chats have in common."""

    neutral = {
        "frequency_penalty": (0, 0.0),
        "presence_penalty": (0, 0.0),
        "logit_bias": ({},),
        "user": (),
    }

    model: Text
    n: int = Field(1, ge=1, le=128)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, lt=2**31, description="beyond OpenAI's API: draw from so many tokens; 0 for all")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[Text], BeforeValidator(_one_or_more_strings), Field(max_length=MAX_STOP_STRINGS)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> SamplingBody:
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", self.stream_options.model_dump(), "Set stream to true or drop it")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(SamplingBody):
    """The body of ``POST /v1/completions``."""

    neutral = {**SamplingBody.neutral, "echo": (False,), "suffix": ()}

    prompt: Annotated[list[Text | list[TokenId]], BeforeValidator(_prompts)] = Field(
        json_schema_extra={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
                {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "minItems": 1,
                },
            ]
        }
    )
    max_tokens: int = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, description="0: the log-probability of each token drawn")
    best_of: int | None = None

    @model_validator(mode="after")
    def _only_what_is_drawn(self) -> CompletionBody:
        if self.logprobs:
            raise refusal("logprobs", self.logprobs, "Ask for 0: the tokens drawn, without those that were not")
        if self.best_of not in (None, self.n):
            raise refusal("best_of", self.best_of, "Ask for n samples and choose among them")
        return self


class ContentPart(Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    """One message of a chat."""

    neutral = {
        "name": (), "tool_calls": ([],), "tool_call_id": (), "function_call": (), "audio": (), "refusal": (),
        "annotations": ([],),
    }  # fmt: skip

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ContentPart]

    def message(self) -> Message:
        """The message as the model's dialog format has it. OpenAI's "developer" is what it called "system" before."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(SamplingBody):
    """The body of ``POST /v1/chat/completions``."""

    neutral = {
        **SamplingBody.neutral,
        "top_logprobs": (0,),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "tools": ([],),
        "tool_choice": ("none",),
        "functions": ([],),
        "function_call": ("none",),
        "parallel_tool_calls": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "reasoning_effort": ("none",),
        **dict.fromkeys(
            (
                "audio", "metadata", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
                "prompt_cache_retention", "safety_identifier", "verbosity", "web_search_options",
            ), (),
        ),
    }  # fmt: skip

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, description="older name of max_completion_tokens")
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = Field(False, description="the log-probability of each token drawn")

    @model_validator(mode="after")
    def _one_limit(self) -> ChatBody:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            limits = f"max_tokens = {self.max_tokens} and max_completion_tokens = {self.max_completion_tokens}"
            raise ValueError(f"{limits} differ: give one")
        return self

    @property
    def most_tokens(self) -> int | None:
        """The limit on the answer, by whichever name it was given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
