"""Chats in the words of other APIs: OpenAI's Responses and Anthropic's Messages."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError

from herdlm.serve.access.request_log import record_of
from herdlm.serve.access.responses import json_response
from herdlm.serve.api.chat import ChatBody
from herdlm.serve.api.messages import CountBody, MessagesBody, MessagesForm
from herdlm.serve.api.reading import BodyRoute
from herdlm.serve.api.responses import Conversations, ResponseBody, ResponseForm, messages_of
from herdlm.serve.api.service import Service, texts_of
from herdlm.serve.api.tools import to_dialog


def dialects(service: Service) -> APIRouter:
    """Routes of the other APIs."""
    router, conversations = APIRouter(route_class=BodyRoute), Conversations()

    @router.post("/v1/responses")
    async def responses(body: ResponseBody, request: Request) -> Response:
        """Answer in OpenAI's Responses API."""
        usage = record_of(request).key_usage
        owner = usage.key.name if usage else None
        before = conversations.find(body.previous_response_id, owner)

        def keep(id: str, answer: list[dict[str, Any]]) -> None:
            conversations.keep(id, owner, [*before, *messages_of(body.input), *answer])

        return await service.chat(_chat(body.chat(before)), request, ResponseForm(body, keep))

    @router.post("/v1/messages")
    async def messages(body: MessagesBody, request: Request) -> Response:
        """Answer in Anthropic's Messages API."""
        return await service.chat(_chat(body.chat()), request, MessagesForm(body.model))

    @router.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountBody, request: Request) -> Response:
        """Count the tokens of a prompt in Anthropic's Messages API."""
        chat, text = _chat(body.chat()), service.text_of(body.model)
        dialog, tools = to_dialog(chat.messages, chat.offered)
        text.check_length(texts_of(dialog))
        tokens = await asyncio.to_thread(
            text.chat_prompt, dialog, tools, continue_final_message=chat.continue_final_message
        )
        return json_response({"input_tokens": len(tokens)})

    return router


def _chat(made: dict[str, Any]) -> ChatBody:
    try:
        return ChatBody.model_validate(made)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
