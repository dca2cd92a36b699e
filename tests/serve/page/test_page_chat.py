"""Talking on the page, with a real server of a tiny model and with one that says what the test has written."""

import json
import math
import re
import time

import pytest
from playwright.sync_api import expect

from tests.serve.page.conftest import WAIT
from tests.serve.scripted import delta, event, failure

pytestmark = pytest.mark.browser


@pytest.fixture
def address(server):
    return server.url.removesuffix("/v1")


def settings_of(visit, **values):
    for name, value in values.items():
        visit.page.locator(f"#{name}").fill(str(value))


def test_an_answer_of_the_real_server_is_the_models_own(visit, address, client):
    seen = visit(address)
    settings_of(seen, temperature=0, max_tokens=24, system="Be brief.")
    seen.say("Hello there")
    seen.finished()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    asked = dict(model="flagship", temperature=0, max_tokens=24)
    told = client.chat.completions.create(messages=messages, **asked).choices[0]
    seen.page.evaluate(
        """async (text) => {
        const { MarkdownView } = await import("/page/markdown.js");
        const root = document.createElement("div");
        new MarkdownView(root).update(text);
        window.expected = root.innerText.trim();
    }""",
        told.message.content,
    )
    answer = seen.answers().first
    assert answer.locator(".markdown").evaluate("(e) => e.cloneNode(true).innerText.trim() === window.expected")
    expect(answer.locator(".facts")).to_have_text(
        re.compile(r"^24 tokens · .*tokens/s · first after .* s · cut at the token limit")
    )
    seen.say("And again")
    seen.finished(2)
    kept = json.loads(seen.page.evaluate("localStorage.getItem('herdlm.conversation')"))
    assert kept["turns"][0]["lanes"][0]["answers"][0]["text"] == told.message.content
    messages += [{"role": "assistant", "content": told.message.content}, {"role": "user", "content": "And again"}]
    second = client.chat.completions.create(messages=messages, **asked).choices[0]
    assert kept["turns"][1]["lanes"][0]["answers"][0]["text"] == second.message.content


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stopping_keeps_what_came_and_frees_the_engine(visit, address, engine, how):
    step = engine.step

    def slowly():
        time.sleep(0.02)
        return step()

    engine.step = slowly
    try:
        seen = visit(address)
        seen.say("Hello there")
        expect(seen.page.locator(".streaming .body:not(.empty)")).to_have_count(1, timeout=WAIT)
        if how == "button":
            seen.page.get_by_role("button", name="Stop", exact=True).first.click()
        else:
            seen.page.keyboard.press("Escape")
        seen.finished()
        expect(seen.answers().locator(".facts")).to_contain_text("stopped")
        assert seen.answers().locator(".markdown").inner_text().strip()
        for _ in range(100):
            if not engine.busy:
                break
            time.sleep(0.05)
        assert not engine.busy and (engine.pool.references > 0).sum() == 0
    finally:
        engine.step = step


def test_an_answer_can_be_drawn_again_and_both_be_compared(visit, scripted):
    counts = iter(range(1, 10))
    scripted.answer = lambda body: [f"Answer {next(counts)}"]
    seen = visit(scripted.url)
    seen.say("Hello")
    seen.finished()
    seen.page.get_by_role("button", name="Regenerate").click()
    seen.finished()
    answer = seen.answers().first
    expect(answer.locator(".markdown")).to_have_text("Answer 2")
    expect(answer.locator(".versions")).to_contain_text("2 of 2")
    seen.page.get_by_role("button", name="Previous answer").click()
    expect(answer.locator(".markdown")).to_have_text("Answer 1")
    seen.say("Go on")
    seen.finished(2)
    assert [message["content"] for message in scripted.asked[-1][0]["messages"]] == ["Hello", "Answer 1", "Go on"]


def test_an_edited_message_drops_what_came_after_and_is_asked_again(visit, scripted):
    scripted.answer = lambda body: [f"You said {body['messages'][-1]['content']}"]
    seen = visit(scripted.url)
    for number, text in enumerate(("one", "two", "three"), 1):
        seen.say(text)
        seen.finished(number)
    seen.page.get_by_role("button", name="Edit").nth(1).click()
    field = seen.page.get_by_label("Edit your message")
    expect(field).to_be_focused()
    expect(field).to_have_value("two")
    field.press("Escape")
    expect(seen.page.get_by_role("button", name="Edit").nth(1)).to_be_focused()
    expect(seen.answers()).to_have_count(3)
    seen.page.get_by_role("button", name="Edit").nth(1).click()
    field.fill("2")
    field.press("Enter")
    seen.finished(2)
    expect(seen.answers().last).to_contain_text("You said 2")
    assert [m["content"] for m in scripted.asked[-1][0]["messages"]] == ["one", "You said one", "2"]


def test_two_models_answer_side_by_side_each_in_its_own_dialog(visit, scripted):
    scripted.answer = lambda body: [0.2, f"{body['model']} {len(body['messages'])}"]
    seen = visit(scripted.url)
    seen.say("Alone")
    seen.finished()
    seen.page.get_by_label("Compare with").select_option("small")
    seen.say("Both")
    seen.finished(3)
    expect(seen.answers().nth(1)).to_contain_text("flagship 3")
    expect(seen.answers().nth(2)).to_contain_text("small 3")
    left, right = (seen.answers().nth(number).bounding_box() for number in (1, 2))
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    seen.say("And on")
    seen.finished(5)
    by_model = {body["model"]: [m["content"] for m in body["messages"]] for body, _ in scripted.asked}
    assert by_model["flagship"] == ["Alone", "flagship 1", "Both", "flagship 3", "And on"]
    assert by_model["small"] == ["Alone", "flagship 1", "Both", "small 3", "And on"]


def test_one_of_two_answers_is_stopped_alone(visit, scripted):
    scripted.answer = lambda body: ["begun", 30] if body["model"] == "small" else ["done", 0.5, " fully"]
    seen = visit(scripted.url)
    seen.page.get_by_label("Compare with").select_option("small")
    seen.say("Both")
    expect(seen.answers().nth(1)).to_contain_text("begun")
    seen.answers().nth(1).get_by_role("button", name="Stop").click()
    expect(seen.answers().nth(1).locator(".facts")).to_contain_text("stopped")
    seen.finished(2)
    expect(seen.answers().nth(0)).to_contain_text("done fully")


def test_the_same_model_of_a_real_server_can_stand_beside_itself(visit, address):
    seen = visit(address)
    settings_of(seen, temperature=0, max_tokens=8)
    seen.page.get_by_label("Compare with").select_option("flagship")
    seen.say("Hello")
    seen.finished(2)
    texts = seen.page.locator(".markdown").all_inner_texts()
    assert texts[0] == texts[1] != ""


def test_every_setting_reaches_the_server_and_empty_ones_do_not(visit, scripted):
    seen = visit(scripted.url)
    seen.say("Plain")
    seen.finished()
    settings_of(
        seen,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        max_tokens=99,
        seed=-7,
        system=" Be kind. ",
        stop="END\n\\n\\n\n\\\\n",
    )
    seen.page.get_by_label("Show token probabilities").check()
    seen.say("Set")
    seen.finished(2)
    plain, whole = (body for body, _ in scripted.asked)
    stream = {"model": "flagship", "stream": True, "stream_options": {"include_usage": True}}
    assert plain == {"messages": [{"role": "user", "content": "Plain"}], **stream}
    assert whole.pop("messages")[0] == {"role": "system", "content": "Be kind."}
    assert whole == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "max_completion_tokens": 99,
        "seed": -7,
        "stop": ["END", "\n\n", "\\n"],
        "logprobs": True,
        "top_logprobs": 5,
        **stream,
    }
    seen.page.reload()
    expect(seen.page.locator("#min_p")).to_have_value("0.05")
    seen.page.get_by_role("button", name="Reset settings").click()
    seen.say("Plain again")
    seen.finished(3)
    assert set(scripted.asked[-1][0]) == set(plain)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("temperature", "2.5", "Enter at most 2."),
        ("temperature", "warm", "Enter a number."),
        ("top_p", "0", "Enter a number above 0."),
        ("top_k", "1.5", "Enter a whole number"),
        ("max_tokens", "0", "Enter at least 1."),
        ("seed", "9" * 20, "Enter at most"),
        ("stop", "x\n" * 17, "Enter at most 16"),
    ],
)
def test_a_setting_out_of_range_is_told_beside_it_and_nothing_is_sent(visit, scripted, field, value, says):
    seen = visit(scripted.url)
    settings_of(seen, **{field: value})
    expect(seen.page.locator(f"#{field}-problem")).to_contain_text(says)
    seen.say("Hello")
    expect(seen.page.locator(f"#{field}")).to_be_focused()
    assert scripted.asked == []
    expect(seen.page.get_by_label("Your message")).to_have_value("Hello")


def logprob(text, probability, *others):
    told = {"token": text, "logprob": math.log(probability), "bytes": list(text.encode())}
    return told | {"top_logprobs": [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in others]}


def test_tokens_tell_their_probability_and_what_else_was_likely(visit, scripted):
    told = [
        logprob("The", 0.97, ("The", 0.97), ("<b>A", 0.02)),
        logprob(" cat", 0.5, (" cat", 0.5), (" dog", 0.4)),
        logprob("\n", 0.01, (".", 0.9)),
    ]
    scripted.answer = lambda body: [delta(token["token"], [token]) for token in told]
    seen = visit(scripted.url)
    seen.page.get_by_label("Show token probabilities").check()
    seen.say("Hello")
    seen.finished()
    tokens = seen.page.locator(".token")
    expect(tokens).to_have_text(["The", " cat", "↵"])
    tints = [re.search(r"tint(\d)", tokens.nth(number).get_attribute("class"))[1] for number in range(3)]
    assert tints == ["4", "2", "0"]
    tokens.nth(1).hover()
    facts = seen.page.get_by_role("tooltip")
    expect(facts).to_contain_text("50.0%")
    expect(facts).to_contain_text("log −0.693")
    expect(facts.locator("tr")).to_have_text([" cat50.0%", " dog40.0%"])
    seen.page.keyboard.press("Escape")
    expect(facts).to_be_hidden()
    tokens.nth(0).focus()  # and by keyboard
    expect(facts.locator("tr")).to_have_text(["The97.0%", "<b>A2.0%"])
    assert tokens.nth(0).get_attribute("aria-describedby") == "token-details"
    seen.page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    seen.page.keyboard.press("End")
    expect(facts).to_contain_text("1.0%")
    assert tokens.nth(2).get_attribute("aria-label") == "new line, 1.0%"
    seen.page.keyboard.press("Escape")
    seen.page.get_by_role("button", name="Probabilities").click()
    expect(seen.page.locator(".markdown")).to_contain_text("The cat")


def test_a_server_without_alternatives_is_asked_for_the_drawn_tokens_alone(visit, scripted):
    def answer(body):
        if "top_logprobs" in body:
            return failure(400, "top_logprobs = 5 is not supported by this server", param="top_logprobs")
        return [delta("Hi", [logprob("Hi", 0.5)])]

    scripted.answer = answer
    seen = visit(scripted.url, takes=("400",))
    seen.page.get_by_label("Show token probabilities").check()
    seen.say("Hello")
    seen.finished()
    expect(seen.page.locator(".token")).to_have_text("Hi")


def test_the_real_server_tells_probabilities(visit, address):
    seen = visit(address, takes=("400",))
    settings_of(seen, temperature=0, max_tokens=6)
    seen.page.get_by_label("Show token probabilities").check()
    seen.say("Hello")
    seen.finished()
    tokens = seen.page.locator(".token")
    expect(tokens).to_have_count(6)
    assert all(re.search(r"\d%$", tokens.nth(n).get_attribute("aria-label")) for n in range(6))


FAILURES = {
    "busy": (failure(429, "8 requests are under way", {"retry-after": "3"}), "Try again in 3 s."),
    "too long": (
        failure(400, "the prompt of 9 tokens fills the context of 8"),
        "The prompt of 9 tokens fills the context",
    ),
    "broken": (failure(503, "the engine failed: out of memory"), "The engine failed: out of memory."),
    "no words": (failure(500, None), "The server answered with status 500."),
    "in the stream": (["Begun ", b'data: {"error": {"message": "the worker died"}}\n\n'], "The worker died."),
    "cut off": (["Begun ", b"data: [DO"], "is not JSON"),
    "no JSON": ([b"data: {\n\n"], "is not JSON"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_in_words_and_can_be_retried(visit, scripted, name):
    found, says = FAILURES[name]
    answers = iter([found, ["Better"]])
    scripted.answer = lambda body: next(answers)
    if name == "cut off":
        found.append(b"")
        says = "closed the connection"
        scripted._stream = lambda pieces: raw(pieces) if pieces is found else type(scripted)._stream(scripted, pieces)
    seen = visit(scripted.url, takes=("Failed to load",))
    seen.say("Hello")
    problem = seen.page.get_by_role("alert").filter(has_text=says)
    expect(problem).to_be_visible()
    if name in ("in the stream", "cut off"):
        expect(seen.answers()).to_contain_text("Begun")
    seen.page.get_by_role("button", name="Retry").click()
    expect(seen.answers().locator(".markdown")).to_have_text("Better")
    expect(problem).to_have_count(0)
    assert [len(body["messages"]) for body, _ in scripted.asked] == [1, 1]


async def raw(pieces):
    for piece in pieces:
        yield piece if isinstance(piece, bytes) else event(delta(piece))


def test_a_server_that_is_gone_is_told_and_its_return_is_found(visit, scripted):
    seen = visit(scripted.url, takes=("ERR_", "Failed to load"))
    seen.page.route("**/v1/**", lambda route: route.abort())
    seen.say("Hello")
    expect(seen.page.get_by_role("alert").filter(has_text="cannot be reached")).to_be_visible()
    seen.page.unroute("**/v1/**")
    expect(seen.page.locator("#notice")).to_contain_text("cannot be reached")
    seen.answers().get_by_role("button", name="Retry").click()
    expect(seen.answers().locator(".markdown")).to_have_text("Hello")
    expect(seen.page.locator("#notice")).to_be_empty()


def test_a_key_is_asked_for_sent_as_bearer_and_forgotten_with_the_tab(visit, scripted):
    scripted.key = "sk-test"
    seen = visit(scripted.url, takes=("401",), models=False, viewport={"width": 900, "height": 700})
    page = seen.page
    expect(page.locator("#notice")).to_contain_text("asks for an API key")
    page.get_by_role("button", name="Enter the key").click()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("sk-test")
    field.press("Tab")
    expect(page.locator("#model option")).to_have_text(["flagship", "small"])
    page.get_by_role("button", name="Close").click()
    seen.say("Hello")
    expect(seen.answers().locator(".markdown")).to_have_text("Hello")
    assert scripted.asked[-1][1]["authorization"] == "Bearer sk-test"
    assert page.evaluate("sessionStorage.getItem('herdlm.key')") == "sk-test"
    assert "sk-test" not in page.evaluate("JSON.stringify(localStorage)")
    scripted.key = "sk-other"
    seen.say("Again")
    expect(page.get_by_role("alert").filter(has_text="asks for an API key")).to_be_visible()


def test_the_conversation_outlives_the_page_is_exported_and_cleared_with_a_way_back(visit, scripted):
    scripted.answer = lambda body: [delta("Hi **you**", [logprob("Hi", 0.5)])]
    seen = visit(scripted.url)
    settings_of(seen, system="Be kind.", temperature=0.5)
    seen.page.get_by_label("Compare with").select_option("small")
    seen.page.get_by_label("Show token probabilities").check()
    seen.say("Hello")
    seen.finished(2)
    with seen.page.expect_download() as download:
        seen.page.get_by_role("button", name="Export").click()
    assert re.fullmatch(r"herdlm-chat-[\dT-]+\.json", download.value.suggested_filename)
    export = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert export["settings"] == {"system": "Be kind.", "temperature": 0.5}
    assert [dialog["model"] for dialog in export["dialogs"]] == ["flagship", "small"]
    assert export["dialogs"][1]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi **you**"},
    ]
    assert export["turns"][0]["lanes"][0]["answers"][0]["tokens"][0]["token"] == "Hi"
    seen.page.reload()
    expect(seen.answers().locator("strong")).to_have_text(["you", "you"])
    seen.page.get_by_role("button", name="New chat").click()
    expect(seen.answers()).to_have_count(0)
    assert json.loads(seen.page.evaluate("localStorage.getItem('herdlm.conversation')"))["turns"] == []
    seen.page.get_by_role("button", name="Undo").click()
    expect(seen.answers()).to_have_count(2)


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "[]",
        '{"version": 1, "turns": [null, {"question": 3}]}',
        '{"version": 1, "turns": [{"question": "ok", "lanes": [{"answers": [{"text": 5}], "shown": 99}]}]}',
    ],
)
def test_a_damaged_store_does_not_break_the_page(visit, scripted, stored):
    seen = visit(scripted.url)
    seen.page.evaluate("(text) => { localStorage.clear(); localStorage.setItem('x', 1) }", stored)
    seen.page.add_init_script(f"localStorage.setItem('herdlm.conversation', {json.dumps(stored)})")
    seen.page.goto(f"{scripted.url}/?again")
    before = seen.answers().filter(visible=True).count()
    seen.say("Hello")
    expect(seen.answers().last.locator(".markdown")).to_have_text("Hello")
    assert before == 0


def test_events_are_read_however_the_bytes_are_cut(visit, scripted):
    """Every split into two, and into single bytes, of a stream with all three line ends and letters of many bytes."""
    stream = 'data: {"a": "é🎉"}\r\n\r\n: note\n\ndata:two\rdata: lines\r\rid: 5\ndata: [DONE]\n\ndata: open'
    seen = visit(scripted.url)
    told = seen.page.evaluate(
        """async (text) => {
            const { eventsOf } = await import("/page/server.js");
            const bytes = new TextEncoder().encode(text);
            const read = async (pieces) => {
                const stream = new ReadableStream({ start(c) { pieces.forEach((p) => c.enqueue(p)); c.close(); } });
                const found = [];
                for await (const data of eventsOf(stream)) found.push(data);
                return JSON.stringify(found);
            };
            const results = new Set([await read([...bytes].map((byte) => new Uint8Array([byte])))]);
            for (let at = 0; at <= bytes.length; at += 1) {
                results.add(await read([bytes.slice(0, at), bytes.slice(at)]));
            }
            return [...results];
        }""",
        stream,
    )
    assert [json.loads(found) for found in told] == [['{"a": "é🎉"}', "two\nlines", "[DONE]"]]
