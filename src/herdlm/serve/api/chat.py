"""Request body of chats: messages with text and tool calls, tools, and the response format."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MaxLen
from pydantic import Field, model_validator

from herdlm.serve.api.body import FIRST_ONLY, Body, Neutral, Text, invalid_parameter, unsupported_parameter
from herdlm.serve.api.requests import MAX_ALTERNATIVES, SamplingBody
from herdlm.serve.errors import shown

# Bounds of lists, which are checked while they are read: the first entry that is wrong or too many ends that.
MAX_MESSAGES = 8192
MAX_CONTENT_PARTS = 1024
MAX_CALLS = 128


class ContentPart(Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class CalledFunction(Body):
    """A function's name, and its arguments as the string of a JSON object."""

    name: Text
    arguments: Text

    @property
    def values(self) -> dict[str, Any]:
        """The arguments. Empty if they are not a JSON object, which the validator refuses."""
        values = json.loads(self.arguments)
        return values if isinstance(values, dict) else {}

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> CalledFunction:
        try:
            values = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise invalid_parameter("arguments", f"the arguments of {shown(self.name)} are not valid JSON") from error
        if not isinstance(values, dict):
            raise invalid_parameter("arguments", f"the arguments of {shown(self.name)} are not a JSON object")
        return self


class ToolCall(Body):
    """A call that the assistant made."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """One message of a chat."""

    neutral: ClassVar[Neutral] = {"name": (), "function_call": (), "audio": (), "refusal": (), "annotations": ([],)}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], FIRST_ONLY, MaxLen(MAX_CONTENT_PARTS)] | None = None
    tool_calls: Annotated[list[ToolCall], FIRST_ONLY] = Field(
        [], max_length=MAX_CALLS, description="in assistant messages"
    )
    tool_call_id: Text | None = Field(None, description="in tool messages: the call that the message answers")

    @model_validator(mode="after")
    def _fits_its_role(self) -> ChatMessage:
        if self.tool_calls and self.role != "assistant":
            raise invalid_parameter("tool_calls", "tool_calls belong to messages of role assistant")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise invalid_parameter(
                "tool_call_id", "messages of role tool need tool_call_id, and no others may have it"
            )
        if self.content is None and not self.tool_calls:
            raise invalid_parameter("content", "content is missing")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class Function(Body):
    """A function that the model may call; ``parameters`` is a JSON schema of an object."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: Text | None = None
    parameters: dict[str, Any] = Field(default={"type": "object", "properties": {}})
    strict: bool = Field(False, description="arguments obey the schema even when the model is free to call")


class Tool(Body):
    """A tool. Functions named brave_search, wolfram_alpha and code_interpreter are Llama 3.1's own."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """A function's name."""

    name: Text


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    """A JSON schema for the answer, which always obeys it whatever ``strict`` says."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: Text | None = None
    body: dict[str, Any] = Field(alias="schema")
    strict: bool = True


class ResponseFormat(Body):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise invalid_parameter("json_schema", "type json_schema needs json_schema, and no other type may have it")
        return self


class ChatBody(SamplingBody):
    """The body of ``POST /v1/chat/completions``."""

    neutral: ClassVar[Neutral] = {
        **SamplingBody.neutral,
        "modalities": (["text"],),
        "functions": ([],),
        "function_call": ("none",),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "reasoning_effort": ("none",),
        **dict.fromkeys(
            (
                "audio",
                "metadata",
                "moderation",
                "prediction",
                "prompt_cache_key",
                "prompt_cache_options",
                "prompt_cache_retention",
                "safety_identifier",
                "verbosity",
                "web_search_options",
            ),
            (),
        ),
    }

    messages: Annotated[list[ChatMessage], FIRST_ONLY] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, description="deprecated name of max_completion_tokens")
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = Field(False, description="return the log-probability of each sampled token")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] = 0
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], FIRST_ONLY] = Field([], max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool = Field(True, description="allow more than one call in an answer")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="further variables for the model's chat template, such as enable_thinking"
    )
    continue_final_message: bool = Field(False, description="go on with the last message, which is the assistant's")
    add_generation_prompt: bool | None = Field(None, description="false goes with continue_final_message")

    @model_validator(mode="after")
    def _check_consistency(self) -> ChatBody:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            limits = f"max_tokens = {self.max_tokens} and max_completion_tokens = {self.max_completion_tokens}"
            raise ValueError(f"{limits} differ: give only one")
        if self.top_logprobs and not self.logprobs:
            raise invalid_parameter(
                "top_logprobs", f"top_logprobs = {self.top_logprobs} without logprobs: set logprobs to true"
            )
        names = [tool.function.name for tool in self.tools]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise invalid_parameter("tools", f"two tools are called {twice}")
        choice = self.tool_choice
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise invalid_parameter(
                "tool_choice", f"tool_choice names {shown(choice.function.name)}, which is not among the tools"
            )
        if choice in ("auto", "required") and not names:
            raise invalid_parameter("tool_choice", f"tool_choice = {choice!r} without tools")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise invalid_parameter("continue_final_message", "the last message is not the assistant's")
        if self.add_generation_prompt is self.continue_final_message:
            raise invalid_parameter(
                "add_generation_prompt",
                "an answer begins a message with add_generation_prompt = true, or goes on with the last one with "
                "continue_final_message = true",
            )
        if self.forms_answer and self.may_call:
            kind = self.response_format.type if self.response_format else ""
            raise unsupported_parameter(
                "response_format", kind, "An answer in that format cannot call tools: drop one of the two"
            )
        return self

    @property
    def completion_limit(self) -> int | None:
        """The maximum tokens of the answer, by either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def forms_answer(self) -> bool:
        """Whether the answer must be JSON."""
        return self.response_format is not None and self.response_format.type != "text"

    @property
    def may_call(self) -> bool:
        """Whether the answer may call tools."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def strict(self) -> bool:
        """Whether optional calls must obey a schema."""
        return self.may_call and not self.must_call and any(tool.function.strict for tool in self.tools)

    @property
    def must_call(self) -> list[Function]:
        """The functions of which the answer must call one; empty if it need not call any."""
        if isinstance(self.tool_choice, NamedTool):
            return [tool.function for tool in self.tools if tool.function.name == self.tool_choice.function.name]
        return [tool.function for tool in self.tools] if self.tool_choice == "required" else []


class TokenizeBody(Body):
    """The body of ``POST /tokenize``: a text, or a dialog up to where the answer begins."""

    neutral: ClassVar[Neutral] = {"add_generation_prompt": (True,)}

    model: Text | None = Field(None, description="by default the first model of the server")
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], FIRST_ONLY] = Field([], max_length=MAX_MESSAGES)
    tools: Annotated[list[Tool], FIRST_ONLY] = Field([], max_length=128, description="of a dialog")
    add_special_tokens: bool = Field(
        True, description="start a text with the begin-of-text token, as prompts do; a dialog is as its template says"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeBody:
        if (self.prompt is None) == (not self.messages):
            raise invalid_parameter("prompt", "give either prompt or messages")
        return self
