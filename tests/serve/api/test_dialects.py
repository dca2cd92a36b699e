"""The Responses and Messages APIs by their own makers' clients, unmodified."""

import json

import anthropic
import httpx
import openai
import pytest

from herdlm.serve.api.responses import MAX_KEPT, Conversations

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}
ASK = {"model": "flagship", "input": "Hello", "max_output_tokens": 6, "temperature": 0}
CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}, "strict": True}


@pytest.fixture
def server(roomy):
    return roomy


@pytest.fixture
def client(server):
    return server.client


@pytest.fixture
def claude(server):
    return anthropic.Anthropic(base_url=server.url.removesuffix("/v1"), api_key="none", max_retries=0, timeout=60)


def chat_text(client, messages, **more):
    body = {"model": "flagship", "max_tokens": 6, "temperature": 0} | more
    return client.chat.completions.create(messages=messages, **body).choices[0].message.content


USER = {"role": "user", "content": "Hello"}


def test_a_response_has_the_text_of_a_chat(client):
    made = client.responses.create(**ASK, instructions="Be brief.", reasoning={"effort": "low"}, metadata={"a": "b"})
    assert made.output_text == chat_text(client, [{"role": "system", "content": "Be brief."}, USER])
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.usage.output_tokens == 6 and made.usage.total_tokens == made.usage.input_tokens + 6
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
    assert client.responses.create(**{**ASK, "input": parts}).output_text == chat_text(client, [USER])


def test_events_of_a_response_add_up_to_it(client):
    body = {**ASK, "max_output_tokens": 120, "text": {"format": {"type": "json_schema", "name": "c", "schema": CITY}}}
    whole = client.responses.create(**body)
    with client.responses.stream(**body) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed" and "response.output_item.done" in kinds
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == list(range(len(kinds)))
    with client.responses.create(**ASK, stream=True) as cut:
        assert [event.type for event in cut][-1] == "response.incomplete"


def test_a_response_calls_tools_and_takes_their_results(client):
    body = {**ASK, "max_output_tokens": 80, "tools": [CLOCK], "tool_choice": {"type": "function", "name": "clock"}}
    made = client.responses.create(**body)
    (call,) = made.output
    assert (call.type, call.name, call.arguments, made.status) == ("function_call", "clock", "{}", "completed")
    with client.responses.stream(**body) as stream:
        streamed = stream.get_final_response().output[0]
    assert (streamed.name, streamed.arguments) == ("clock", "{}")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
    after = client.responses.create(**{**ASK, "input": [USER, call.model_dump(), result]})
    again = client.responses.create(**{**ASK, "input": [result]}, previous_response_id=made.id)
    assert after.output_text == again.output_text != ""


def test_a_response_obeys_a_schema(client):
    text = {"format": {"type": "json_schema", "name": "c", "schema": CITY, "strict": True}}
    made = client.responses.create(**{**ASK, "max_output_tokens": 120}, text=text)
    assert made.status == "completed" and set(json.loads(made.output_text)) == {"city"}


def test_a_conversation_goes_on_in_memory(client):
    first = client.responses.create(**ASK)
    second = client.responses.create(**{**ASK, "input": "And?"}, previous_response_id=first.id)
    said = {"role": "assistant", "content": first.output_text}
    assert second.output_text == chat_text(client, [USER, said, {"role": "user", "content": "And?"}])
    unkept = client.responses.create(**ASK, store=False)
    for id in (unkept.id, "resp_none"):
        with pytest.raises(openai.BadRequestError, match="there is no response"):
            client.responses.create(**ASK, previous_response_id=id)


def test_conversations_belong_to_their_key_and_are_forgotten():
    kept = Conversations()
    for number in range(MAX_KEPT + 1):
        kept.keep(str(number), "ann", [USER])
    assert kept.find("1", "ann") == [USER]
    for id, owner in (("0", "ann"), ("1", "bob"), ("1", None)):
        with pytest.raises(Exception, match="there is no response"):
            kept.find(id, owner)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
    ],
)
def test_what_a_response_cannot_do_is_refused(client, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{**ASK, **changes})
    assert caught.value.param == param


MESSAGE = {"model": "flagship", "max_tokens": 6, "extra_body": {"temperature": 0}, "messages": [USER]}
TOOL = {"name": "clock", "description": "The time.", "input_schema": {"type": "object", "properties": {}}}


def test_a_message_has_the_text_of_a_chat(client, claude):
    made = claude.messages.create(**MESSAGE, system="Be brief.", metadata={"user_id": "u"})
    assert made.content[0].text == chat_text(client, [{"role": "system", "content": "Be brief."}, USER])
    assert (made.stop_reason, made.usage.output_tokens) == ("max_tokens", 6)
    counted = claude.messages.count_tokens(model="flagship", messages=[USER], system="Be brief.")
    cached = made.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == made.usage.input_tokens + cached


def test_events_of_a_message_add_up_to_it(claude):
    whole = claude.messages.create(**MESSAGE)
    with claude.messages.stream(**MESSAGE) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 6)


def test_a_message_calls_tools_and_takes_their_results(claude):
    body = {**MESSAGE, "max_tokens": 80, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "clock"}}
    made = claude.messages.create(**body)
    (use,) = made.content
    assert (use.type, use.name, use.input, made.stop_reason) == ("tool_use", "clock", {}, "tool_use")
    with claude.messages.stream(**body) as stream:
        assert stream.get_final_message().content[0].name == "clock"
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "noon"}]}
    said = {"role": "assistant", "content": [block.model_dump() for block in made.content]}
    dialog = [USER, said, {"role": "user", "content": [result, {"type": "text", "text": "So?"}]}]
    assert claude.messages.create(**{**MESSAGE, "messages": dialog, "tools": [TOOL]}).content


def test_a_message_goes_on_with_words_of_the_assistant(client, claude):
    begun = [USER, {"role": "assistant", "content": "The answer is"}]
    more = chat_text(client, begun, extra_body={"continue_final_message": True})
    assert claude.messages.create(**{**MESSAGE, "messages": begun}).content[0].text == more


def test_errors_are_in_that_apis_form(claude, server):
    image = [{"role": "user", "content": [{"type": "image", "source": {}}]}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(**{**MESSAGE, "messages": image})
    assert "messages.0.content.0" in caught.value.body["error"]["message"]
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**{**MESSAGE, "model": "other"})
    answer = httpx.post(
        f"{server.url}/messages", content=b"{", headers={"content-type": "application/json"}, timeout=20
    )
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
