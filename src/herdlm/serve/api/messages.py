"""The Messages API of Anthropic: ``POST /v1/messages`` as a chat, and a chat's answer as content blocks and events."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from herdlm.serve.api.answers import Usage
from herdlm.serve.api.body import Body, Neutral, Text, invalid_parameter
from herdlm.serve.api.chat import PART_TEXTS
from herdlm.serve.api.forms import event
from herdlm.serve.api.requests import HINTS
from herdlm.serve.errors import RefusedError, anthropic_error, shown

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Blocks = Annotated[list[dict[str, Any]], BeforeValidator(_blocks, json_schema_input_type=str | list[dict[str, Any]])]


class MessageItem(Body):
    """One message."""

    role: Literal["user", "assistant"]
    content: Blocks


class MessageTool(Body):
    """A tool."""

    hints: ClassVar[frozenset[str]] = frozenset({"cache_control"})
    neutral: ClassVar[Neutral] = {"type": ("custom",)}

    name: Text
    description: Text | None = None
    input_schema: dict[str, Any] = Field({})

    def chat(self) -> dict[str, Any]:
        """The tool as one of chats."""
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema}
        return {"type": "function", "function": function}


class ToolChoice(Body):
    """Which tools the answer calls."""

    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    disable_parallel_tool_use: bool = False


class MessagesBody(Body):
    """The body of ``POST /v1/messages``."""

    hints: ClassVar[frozenset[str]] = HINTS | {"thinking", "context_management", "betas", "anthropic_version"}
    neutral: ClassVar[Neutral] = {"container": (), "mcp_servers": ()}

    model: Text
    messages: list[MessageItem] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    system: Blocks = Field([])
    stop_sequences: list[Text] = Field([], max_length=16)
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = None
    top_k: int | None = None
    tools: list[MessageTool] = Field([], max_length=128)
    tool_choice: ToolChoice | None = None

    @model_validator(mode="after")
    def _a_tool_is_named(self) -> MessagesBody:
        if self.tool_choice and self.tool_choice.type == "tool" and self.tool_choice.name is None:
            raise invalid_parameter("tool_choice.name", "tool_choice of type tool needs a name")
        return self

    def chat(self) -> dict[str, Any]:
        """The request as one of chats."""
        system = "\n\n".join(_text_of(block, f"system.{n}") for n, block in enumerate(self.system))
        messages = [{"role": "system", "content": system}] if system else []
        for number, message in enumerate(self.messages):
            messages += _chat_messages(message, f"messages.{number}.content")
        choice: Any = None
        if self.tool_choice:
            choice = CHOICES.get(self.tool_choice.type)
            choice = choice or {"type": "function", "function": {"name": self.tool_choice.name}}
        return {
            "model": self.model,
            "messages": messages,
            "max_completion_tokens": self.max_tokens,
            "stop": [text for text in self.stop_sequences if text] or None,
            "stream": self.stream,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "tools": [tool.chat() for tool in self.tools],
            "tool_choice": choice,
            "parallel_tool_calls": not (self.tool_choice and self.tool_choice.disable_parallel_tool_use),
            # A conversation that ends with the assistant's words is gone on with.
            "continue_final_message": self.messages[-1].role == "assistant",
        }


class CountBody(MessagesBody):
    """The body of ``POST /v1/messages/count_tokens``."""

    max_tokens: int = Field(1, ge=1)


def _chat_messages(message: MessageItem, place: str) -> list[dict[str, Any]]:
    """A message as those of a chat, in which results of tools are messages of their own."""
    texts, calls, results = [], [], []
    for number, block in enumerate(message.content):
        kind, at = block.get("type"), f"{place}.{number}"
        if kind == "tool_use":
            call = {"name": block.get("name"), "arguments": json.dumps(block.get("input", {}), ensure_ascii=False)}
            calls.append({"id": block.get("id"), "type": "function", "function": call})
        elif kind == "tool_result":
            content = _blocks(block.get("content", ""))
            text = "".join(_text_of(part, f"{at}.content.{n}") for n, part in enumerate(content))
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
        elif kind not in ("thinking", "redacted_thinking"):
            texts.append(_text_of(block, at))
    made: list[dict[str, Any]] = list(results)
    if texts or calls or not results:
        made.append({"role": message.role, "content": "".join(texts)} | ({"tool_calls": calls} if calls else {}))
    return made


def _text_of(block: dict[str, Any], place: str) -> str:
    kind = block.get("type")
    key = PART_TEXTS.get(kind) if isinstance(kind, str) else None
    if key is None or not isinstance(block.get(key), str):
        raise RefusedError(
            f"{place}: a block of type {shown(kind)} is not supported by this server, which reads text",
            "Leave it out",
            param=place,
            code="unsupported_parameter",
        )
    return str(block[key])


class MessagesForm:
    """Writes a chat's answer as a message. See :class:`herdlm.serve.api.forms.Form`."""

    ping = 'event: ping\ndata: {"type": "ping"}\n\n'

    def __init__(self, model: str) -> None:
        self.id = f"msg_{secrets.token_hex(12)}"
        self._model, self._at, self._reason = model, -1, "end_turn"
        self._kind: str | None = None
        self._begun = False

    def whole(self, response: dict[str, Any]) -> dict[str, Any]:
        """The complete message."""
        choice = response["choices"][0]
        message = choice["message"]
        content: list[dict[str, Any]] = []
        if message["content"]:
            content.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls", []):
            content.append(_tool_use(call) | {"input": _arguments(call["function"]["arguments"])})
        return self._message(content, REASONS[choice["finish_reason"]], _usage(response["usage"]))

    def chunk(self, chunk: dict[str, Any], usage: Usage) -> str:
        """The events of a chunk."""
        made = self._begin(usage)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                made += self._block("text", {"type": "text", "text": ""}) if self._kind != "text" else ""
                made += self._delta({"type": "text_delta", "text": text})
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    made += self._block("tool_use", _tool_use(call) | {"input": {}})
                if arguments := call["function"].get("arguments"):
                    made += self._delta({"type": "input_json_delta", "partial_json": arguments})
            self._reason = REASONS.get(choice["finish_reason"], self._reason)
        return made

    def end(self, empty: dict[str, Any], usage: Usage) -> str:
        """The last events."""
        made = self._begin(usage) + self._close()
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        last = {"type": "message_delta", "delta": delta, "usage": _usage(usage.to_json())}
        return made + event(last) + event({"type": "message_stop"})

    def failed(self, error: dict[str, Any]) -> str:
        """The event of a failure."""
        return event(anthropic_error(error, 500))

    def _begin(self, usage: Usage) -> str:
        if self._begun:
            return ""
        self._begun = True
        counts = _usage(usage.to_json()) | {"output_tokens": 0}
        return event({"type": "message_start", "message": self._message([], None, counts)})

    def _block(self, kind: str, block: dict[str, Any]) -> str:
        """The events that end the open block and begin another."""
        made = self._close()
        self._kind, self._at = kind, self._at + 1
        return made + event({"type": "content_block_start", "index": self._at, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> str:
        return event({"type": "content_block_delta", "index": self._at, "delta": delta})

    def _close(self) -> str:
        if self._kind is None:
            return ""
        self._kind = None
        return event({"type": "content_block_stop", "index": self._at})

    def _message(self, content: list[dict[str, Any]], reason: str | None, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"]}


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; empty for one that was cut, as the API has no form for it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _usage(counts: dict[str, Any]) -> dict[str, Any]:
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": counts["prompt_tokens"] - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": counts["completion_tokens"],
    }
