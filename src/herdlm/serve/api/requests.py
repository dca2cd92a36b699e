"""Request bodies of completions, embeddings and the tokenizer, and the sampling options shared with chats."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MaxLen
from pydantic import BeforeValidator, Field, model_validator

from herdlm.serve.api.body import FIRST_ONLY, Body, Neutral, Text, TokenId, invalid_parameter, unsupported_parameter

MAX_STOP_STRINGS = 16
MAX_ALTERNATIVES = 20
MAX_BIASES = 1024
MAX_SAMPLES = 128
MAX_INPUTS = 2048
MAX_TOKENS = 2**20  # of a list in a body; a model's context is usually far less
UsageChunks = Literal["none", "last", "all"]


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
        if len(prompt) > MAX_TOKENS or (len(prompt) > MAX_INPUTS and not isinstance(prompt[0], int)):
            raise ValueError(f"a list of {len(prompt)} is too long: give at most {MAX_INPUTS} prompts")
        if all(isinstance(part, int) for part in prompt):
            return [prompt]
        if all(isinstance(part, str) for part in prompt):
            return prompt
        if all(isinstance(part, list) and all(isinstance(id, int) for id in part) for part in prompt):
            return prompt
    raise ValueError("must be a string, a list of strings, a list of token ids, or a list of such lists")


def _token_biases(biases: Any) -> Any:
    """Convert the keys of {"token id": bias} to numbers, as JSON keys are strings."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"has {len(biases)} entries: give at most {MAX_BIASES}")
    if not isinstance(biases, dict) or not all(
        isinstance(key, str) and key.isdecimal() and len(key) < 20 for key in biases
    ):
        raise ValueError('must be an object such as {"1234": -100}, of token ids and biases')
    return {int(key): value for key, value in biases.items()}


def _all_as_zero(top_k: Any) -> Any:
    """vLLM and SGLang write -1 for all tokens."""
    return 0 if type(top_k) is int and top_k == -1 else top_k


class StreamOptions(Body):
    """Options of a stream; without a stream they have no effect."""

    hints: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})

    include_usage: bool = Field(False, description="end the stream with a chunk of token counts")
    continuous_usage_stats: bool = Field(False, description="beyond the OpenAI API: token counts in every chunk")


# What describes the caller, or advises a server how to work, and leaves the answer as it is.
HINTS = frozenset(
    {
        "cache_prompt",
        "cache_salt",
        "extra_body",
        "extra_headers",
        "guided_decoding_backend",
        "keep_alive",
        "metadata",
        "prediction",
        "priority",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "reasoning_effort",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "user_id",
        "verbosity",
    }
)


class SamplingBody(Body):
    """Sampling options of completions and chats."""

    hints: ClassVar[frozenset[str]] = HINTS

    model: Text
    n: int = Field(1, ge=1, le=MAX_SAMPLES)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    frequency_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]],
        BeforeValidator(_token_biases, json_schema_input_type=dict[str, float]),
        Field(max_length=MAX_BIASES),
    ] = Field({})
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Text], FIRST_ONLY, BeforeValidator(_one_or_more_strings), Field(max_length=MAX_STOP_STRINGS)
    ] = Field([])
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, BeforeValidator(_all_as_zero), Field(ge=0, lt=2**31)] = Field(
        0, description="beyond the OpenAI API: sample from the k likeliest; 0 or -1 for all"
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="beyond the OpenAI API: drop tokens less likely than this fraction of the likeliest",
    )
    repetition_penalty: float = Field(
        1.0,
        ge=0.1,
        le=10,
        allow_inf_nan=False,
        description="beyond the OpenAI API: above 1, makes tokens of the prompt and the answer less likely",
    )
    min_tokens: int = Field(0, ge=0, lt=2**31, description="beyond the OpenAI API: minimum length of the answer")
    ignore_eos: bool = Field(False, description="beyond the OpenAI API: go on after the tokens that end an answer")
    stop_token_ids: Annotated[list[TokenId], FIRST_ONLY] = Field(
        [], max_length=256, description="beyond the OpenAI API: further tokens that end an answer"
    )

    @property
    def usage_chunks(self) -> UsageChunks:
        """In which chunks of a stream token counts are sent."""
        options = self.stream_options or StreamOptions()
        if options.include_usage:
            return "all" if options.continuous_usage_stats else "last"
        return "none"


PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}, "minItems": 1},
    ]
}
TokenList = Annotated[list[TokenId], FIRST_ONLY, MaxLen(MAX_TOKENS)]
PromptList = Annotated[list[Text | TokenList], FIRST_ONLY, BeforeValidator(_prompts)]


class CompletionBody(SamplingBody):
    """The body of ``POST /v1/completions``."""

    neutral: ClassVar[Neutral] = {"suffix": ()}

    prompt: PromptList = Field(json_schema_extra=PROMPT_SCHEMA, max_length=MAX_INPUTS)
    max_tokens: int = Field(16, ge=0)
    logprobs: int | None = Field(
        None, ge=0, le=MAX_ALTERNATIVES, description="log-probability of each token, and of this many alternatives"
    )
    echo: bool = Field(False, description="start the answer with the prompt")
    best_of: int | None = Field(None, ge=1, le=MAX_SAMPLES, description="sample this many and return the n likeliest")

    @model_validator(mode="after")
    def _check_consistency(self) -> CompletionBody:
        if self.best_of is not None and self.best_of < self.n:
            raise invalid_parameter("best_of", f"best_of = {self.best_of} is less than n = {self.n}")
        if self.best_of is not None and self.best_of > self.n and self.stream:
            raise unsupported_parameter("best_of", self.best_of, "The best are known at the end: set stream to false")
        if self.echo and self.logprobs is not None and self.stream:
            raise unsupported_parameter(
                "stream", self.stream, "A stream has no prompt log-probabilities: set stream to false"
            )
        if not self.max_tokens and not self.echo:
            raise invalid_parameter(
                "max_tokens", "max_tokens = 0: ask for at least 1 token, or set echo to get the prompt only"
            )
        return self

    @property
    def samples(self) -> int:
        """Samples per prompt."""
        return max(self.n, self.best_of or 0)


class EmbeddingBody(Body):
    """The body of ``POST /v1/embeddings``."""

    hints: ClassVar[frozenset[str]] = HINTS

    model: Text
    input: PromptList = Field(json_schema_extra=PROMPT_SCHEMA, max_length=MAX_INPUTS)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="keep this many entries, scaled to length 1 again")


class DetokenizeBody(Body):
    """The body of ``POST /detokenize``."""

    model: Text | None = Field(None, description="may be left out if the server's models have one tokenizer")
    tokens: TokenList
