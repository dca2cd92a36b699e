"""The Responses API: ``POST /v1/responses`` as a chat, and a chat's answer as the API's items and events."""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from herdlm.serve.api.answers import Usage
from herdlm.serve.api.body import Body, Neutral, Text, invalid_parameter
from herdlm.serve.api.forms import PING, event
from herdlm.serve.api.requests import HINTS
from herdlm.serve.errors import RefusedError, shown

MAX_KEPT = 1000  # conversations that previous_response_id can go on with
MAX_KEPT_BYTES = 64 * 2**20
MESSAGE, CALL, RESULT, THOUGHT = "message", "function_call", "function_call_output", "reasoning"


def _items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class TextOptions(Body):
    """The format of the answer."""

    hints: ClassVar[frozenset[str]] = frozenset({"verbosity"})

    format: dict[str, Any] = Field({"type": "text"})


class ResponseBody(Body):
    """The body of ``POST /v1/responses``."""

    hints: ClassVar[frozenset[str]] = HINTS | {"include", "max_tool_calls", "stream_options"}
    neutral: ClassVar[Neutral] = {
        "background": (False,),
        "conversation": (),
        "prompt": (),
        "truncation": ("disabled",),
        "text_format": (),
    }

    model: Text
    input: Annotated[
        list[dict[str, Any]], BeforeValidator(_items, json_schema_input_type=str | list[dict[str, Any]])
    ] = Field(min_length=1)
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    stream: bool = False
    tools: list[dict[str, Any]] = Field([], max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    previous_response_id: Text | None = None
    store: bool = True
    metadata: dict[str, Any] = Field({})

    @model_validator(mode="after")
    def _tools_are_functions(self) -> ResponseBody:
        for number, tool in enumerate(self.tools):
            if tool.get("type") != "function":
                raise invalid_parameter(
                    f"tools.{number}.type", f"type = {shown(tool.get('type'))}: this server offers functions only"
                )
        return self

    def chat(self, before: list[dict[str, Any]]) -> dict[str, Any]:
        """The request as one of chats.

        Args:
            before: the messages of the conversation that the request goes on with.
        """
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        made: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *before, *messages_of(self.input)],
            "stream": self.stream,
            "parallel_tool_calls": self.parallel_tool_calls,
            "tools": [
                {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
                for tool in self.tools
            ],
            "tool_choice": _chat_choice(self.tool_choice),
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        if self.top_logprobs is not None:
            made |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        kind = self.text.format.get("type")
        if kind == "json_schema":
            schema = {key: value for key, value in self.text.format.items() if key != "type"}
            made["response_format"] = {"type": kind, "json_schema": schema}
        else:
            made["response_format"] = {"type": kind}
        return made


def messages_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of the API as messages of a chat. Calls belong to the assistant's message before them."""
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        kind = item.get("type", MESSAGE)
        if kind == MESSAGE:
            messages.append({key: item[key] for key in ("role", "content") if key in item})
        elif kind == CALL:
            call = {"id": item.get("call_id"), "type": "function"}
            call["function"] = {"name": item.get("name"), "arguments": item.get("arguments", "")}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == RESULT:
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output", "")})
        elif kind != THOUGHT:
            raise RefusedError(
                f"input.{number}.type = {shown(kind)} is not supported by this server",
                f"Use {MESSAGE}, {CALL} or {RESULT}",
                param=f"input.{number}.type",
                code="unsupported_parameter",
            )
    return messages


def _chat_choice(choice: str | dict[str, Any] | None) -> Any:
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "allowed_tools":
        tools = [{"type": "function", "function": {"name": tool.get("name")}} for tool in choice.get("tools", [])]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
    return {"type": choice.get("type"), "function": {"name": choice.get("name")}}


@dataclass(slots=True)
class Conversations:
    """The latest conversations, in memory: by a response's id the messages up to it. Each belongs to one key."""

    _kept: OrderedDict[str, tuple[str | None, list[dict[str, Any]], int]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def keep(self, id: str, owner: str | None, messages: list[dict[str, Any]]) -> None:
        """Keep a conversation, and forget the oldest beyond the limits."""
        size = len(json.dumps(messages))
        self._kept[id] = owner, messages, size
        self._bytes += size
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            _, (_, _, freed) = self._kept.popitem(last=False)
            self._bytes -= freed

    def find(self, id: str | None, owner: str | None) -> list[dict[str, Any]]:
        """The messages of a conversation; none without an id.

        Raises:
            RefusedError: there is no such conversation, or no more.
        """
        if id is None:
            return []
        kept_by, messages, _ = self._kept.get(id, (None, None, 0))
        if messages is None or kept_by != owner:
            raise RefusedError(
                f"there is no response {shown(id)}",
                f"Send the whole conversation: this server remembers the last {MAX_KEPT} until it stops",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return messages


class ResponseForm:
    """Writes a chat's answer as a response. See :class:`herdlm.serve.api.forms.Form`.

    Args:
        keep: receives the response's id and the messages that answer.
    """

    ping = PING

    def __init__(self, body: ResponseBody, keep: Callable[[str, list[dict[str, Any]]], None]) -> None:
        self.body, self._keep = body, keep
        self.id, self.created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self._number = 0
        self._model = body.model
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._reason: str | None = None
        self._begun = False

    def whole(self, response: dict[str, Any]) -> dict[str, Any]:
        """The complete response."""
        choice, counts = response["choices"][0], response["usage"]
        message = choice["message"]
        self._model, self._reason = response["model"], choice["finish_reason"]
        if message["content"]:
            self._items.append(self._message(message["content"], "completed"))
        self._items += [
            _call(call["id"], call["function"]["name"], call["function"]["arguments"], "completed")
            for call in message.get("tool_calls", [])
        ]
        self._finish()
        return self._response(_usage(counts))

    def chunk(self, chunk: dict[str, Any], usage: Usage) -> str:
        """The events of a chunk."""
        self._model = chunk["model"]
        made = self._begin()
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                made += self._text(delta["content"])
            for call in delta.get("tool_calls", []):
                made += self._called(call)
            self._reason = choice["finish_reason"] or self._reason
        return made

    def end(self, empty: dict[str, Any], usage: Usage) -> str:
        """The last events."""
        made = self._begin() + self._close()
        self._finish()
        response = self._response(_usage(usage.to_json()))
        return made + self._event(f"response.{response['status']}", response=response)

    def failed(self, error: dict[str, Any]) -> str:
        """The event of a failure."""
        problem = {"code": error["error"]["code"] or "server_error", "message": error["error"]["message"]}
        response = self._response(None) | {"status": "failed", "error": problem}
        return self._begin() + self._event("response.failed", response=response)

    def _begin(self) -> str:
        if self._begun:
            return ""
        self._begun = True
        response = self._response(None) | {"status": "in_progress"}
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _text(self, text: str) -> str:
        made = ""
        if self._open is None or self._open["type"] != MESSAGE:
            made = self._close()
            self._open = self._message("", "in_progress")
            made += self._event("response.output_item.added", output_index=len(self._items), item=self._without_text())
            made += self._event("response.content_part.added", **self._place(), part=_part(""))
        self._open["content"][0]["text"] += text
        return made + self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def _called(self, call: dict[str, Any]) -> str:
        made, function = "", call["function"]
        if "id" in call:
            made = self._close()
            self._open = _call(call["id"], function["name"], "", "in_progress")
            made += self._event("response.output_item.added", output_index=len(self._items), item=dict(self._open))
        assert self._open
        if function.get("arguments"):
            self._open["arguments"] += function["arguments"]
            made += self._event(
                "response.function_call_arguments.delta",
                item_id=self._open["id"],
                output_index=len(self._items),
                delta=function["arguments"],
            )
        return made

    def _close(self) -> str:
        """The events that end the open item."""
        item, self._open = self._open, None
        if item is None:
            return ""
        item["status"] = "incomplete" if self._reason == "length" else "completed"
        at = len(self._items)
        if item["type"] == MESSAGE:
            text, place = item["content"][0]["text"], {"item_id": item["id"], "output_index": at, "content_index": 0}
            made = self._event("response.output_text.done", **place, text=text, logprobs=[])
            made += self._event("response.content_part.done", **place, part=item["content"][0])
        else:
            made = self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=at,
                name=item["name"],
                arguments=item["arguments"],
            )
        made += self._event("response.output_item.done", output_index=at, item=item)
        self._items.append(item)
        return made

    def _finish(self) -> None:
        """Keep the conversation if it may be gone on with."""
        if self.body.store:
            self._keep(self.id, messages_of(self._items) or [{"role": "assistant", "content": ""}])

    def _response(self, usage: dict[str, Any] | None) -> dict[str, Any]:
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason, body = reasons.get(self._reason or ""), self.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "incomplete" if reason else "completed",
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": self._model,
            "output": list(self._items),
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": body.store,
            "temperature": body.temperature,
            "text": {"format": body.text.format},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools,
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": usage,
        }

    def _event(self, kind: str, **more: Any) -> str:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1, **more})

    def _message(self, text: str, status: str) -> dict[str, Any]:
        id = f"msg_{secrets.token_hex(12)}"
        return {"type": MESSAGE, "id": id, "status": status, "role": "assistant", "content": [_part(text)]}

    def _without_text(self) -> dict[str, Any]:
        return {**(self._open or {}), "content": []}

    def _place(self) -> dict[str, Any]:
        assert self._open
        return {"item_id": self._open["id"], "output_index": len(self._items), "content_index": 0}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    own = f"fc_{secrets.token_hex(12)}"
    return {"type": CALL, "id": own, "call_id": id, "name": name, "arguments": arguments, "status": status}


def _usage(counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": counts["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }
