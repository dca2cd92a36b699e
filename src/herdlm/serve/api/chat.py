"""Request body of chats: messages with text and tool calls, tools, and the response format."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from herdlm.serve.api.body import FIRST_ONLY, Body, Neutral, Text, invalid_parameter
from herdlm.serve.api.requests import MAX_ALTERNATIVES, SamplingBody
from herdlm.serve.errors import shown

# Bounds of lists, which are checked while they are read: the first entry that is wrong or too many ends that.
MAX_MESSAGES = 8192
MAX_CONTENT_PARTS = 1024
MAX_PAST_CALLS = 128

PART_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content that are text, and the key that holds it."""
OTHER_PARTS = {
    **dict.fromkeys(("image_url", "input_image", "image"), "images are"),
    **dict.fromkeys(("file", "input_file", "document"), "files are"),
    **dict.fromkeys(("input_audio", "audio", "audio_url"), "audio is"),
    **dict.fromkeys(("video", "video_url"), "video is"),
}


def _content(content: Any) -> Any:
    """The content of a message as one text; of a list, the texts of its parts."""
    if not isinstance(content, list):
        return content
    if len(content) > MAX_CONTENT_PARTS:
        raise ValueError(f"has {len(content)} parts, and at most {MAX_CONTENT_PARTS} are read")
    return "".join(_part_text(number, part) for number, part in enumerate(content))


def _part_text(number: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise invalid_parameter(str(number), f"{shown(part)} is no part of a message's content")
    kind = part.get("type")
    if kind is None and "text" in part:
        kind = "text"
    key = PART_TEXTS.get(kind) if isinstance(kind, str) else None
    if key is None:
        what = OTHER_PARTS.get(kind) if isinstance(kind, str) else None
        problem = f"{what or 'it is'} not supported by this server, which reads text"
        raise invalid_parameter(f"{number}.type", f"type = {shown(kind)}: {problem}")
    text = part.get(key)
    if not isinstance(text, str):
        raise invalid_parameter(f"{number}.{key}", f"{shown(text)} is not a string")
    return text


class CalledFunction(Body):
    """A function's name, and its arguments as the string of a JSON object."""

    name: Text
    arguments: Text = ""

    @property
    def values(self) -> dict[str, Any] | str:
        """The arguments; as they were written if they are not a JSON object, as in a call that was cut."""
        if not self.arguments.strip():
            return {}
        try:
            values = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return self.arguments
        return values if isinstance(values, dict) else self.arguments


class ToolCall(Body):
    """A call that the assistant made."""

    hints: ClassVar[frozenset[str]] = frozenset({"index"})

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """One message of a chat."""

    hints: ClassVar[frozenset[str]] = frozenset(
        {"name", "annotations", "cache_control", "reasoning", "reasoning_content", "refusal"}
    )
    neutral: ClassVar[Neutral] = {"function_call": (), "audio": ()}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Text | None, BeforeValidator(_content, json_schema_input_type=str | list[dict[str, Any]])] = None
    tool_calls: Annotated[list[ToolCall], FIRST_ONLY] = Field(
        [], max_length=MAX_PAST_CALLS, description="in assistant messages"
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
        if self.content is None and self.role != "assistant":
            raise invalid_parameter("content", "content is missing")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content or ""


class Function(Body):
    """A function that the model may call; ``parameters`` is a JSON schema of an object."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: Text | None = None
    parameters: dict[str, Any] = Field({}, description="none: the function takes no arguments")
    strict: bool = Field(False, description="arguments obey the schema even when the model is free to call")


class Tool(Body):
    """A tool. Functions named brave_search, wolfram_alpha and code_interpreter are Llama 3.1's own."""

    hints: ClassVar[frozenset[str]] = frozenset({"cache_control"})

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """A function's name."""

    name: Text


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Body):
    """Of the tools, those that the model may or must call."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=128)


class AllowedToolsChoice(Body):
    """A choice of tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice(choice: Any) -> Any:
    """The choice in the form that its type asks for, so that a problem in it is told of that form alone."""
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise ValueError("must be none, auto, required, or an object that names a function or allowed tools")
    if not isinstance(choice, dict):
        return choice
    form = AllowedToolsChoice if choice.get("type") == "allowed_tools" else NamedTool
    return form.model_validate(choice)


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


def _limit(limit: Any) -> Any:
    """Some clients write -1 for no limit."""
    return None if type(limit) is int and limit == -1 else limit


Limit = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_limit)]
MAX_CALLS = 16


class ChatBody(SamplingBody):
    """The body of ``POST /v1/chat/completions``."""

    neutral: ClassVar[Neutral] = {"echo": (False,), "best_of": (1,), "suffix": ()}

    messages: Annotated[list[ChatMessage], FIRST_ONLY] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: Limit = Field(None, description="deprecated name of max_completion_tokens")
    max_completion_tokens: Limit = Field(None, description="most tokens of the answer; -1 for what the context leaves")
    logprobs: bool = Field(False, description="return the log-probability of each sampled token")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] = 0
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], FIRST_ONLY] = Field([], max_length=128)
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice | None, BeforeValidator(_choice)
    ] = None
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
        if missing := next((name for name in self._chosen if name not in names), None):
            raise invalid_parameter("tool_choice", f"tool_choice names {shown(missing)}, which is not among the tools")
        if self.tool_choice == "required" and not names:
            raise invalid_parameter("tool_choice", "tool_choice = 'required' without tools")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise invalid_parameter("continue_final_message", "the last message is not the assistant's")
        if self.add_generation_prompt is self.continue_final_message:
            raise invalid_parameter(
                "add_generation_prompt",
                "an answer begins a message with add_generation_prompt = true, or goes on with the last one with "
                "continue_final_message = true",
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
    def _chosen(self) -> list[str]:
        """The names of functions that tool_choice gives."""
        if isinstance(self.tool_choice, NamedTool):
            return [self.tool_choice.function.name]
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return [tool.function.name for tool in self.tool_choice.allowed_tools.tools]
        return []

    @property
    def functions(self) -> list[Function]:
        """The functions that the answer may call."""
        if self.tool_choice == "none":
            return []
        chosen = self._chosen
        return [tool.function for tool in self.tools if not chosen or tool.function.name in chosen]

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told of: all, but for those that allowed tools leave out."""
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return [tool for tool in self.tools if tool.function.name in self._chosen]
        return self.tools if self.functions else []

    @property
    def must_call(self) -> bool:
        """Whether the answer must be a call."""
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return self.tool_choice.allowed_tools.mode == "required"
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def most_calls(self) -> int:
        """The most calls of an answer."""
        alone = isinstance(self.tool_choice, NamedTool) or not self.parallel_tool_calls
        return 1 if alone else MAX_CALLS


class TokenizeBody(Body):
    """The body of ``POST /tokenize``: a text, or a dialog up to where the answer begins."""

    neutral: ClassVar[Neutral] = {"add_generation_prompt": (True,)}

    model: Text | None = Field(None, description="may be left out if the server's models have one tokenizer")
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
