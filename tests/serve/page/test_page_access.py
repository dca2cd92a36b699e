"""The page for everyone: judged by axe, used by keyboard, read aloud, light and dark, on a phone."""

import threading

import pytest
from playwright.sync_api import expect

from tests.serve.page.conftest import WAIT
from tests.serve.page.test_page_chat import logprob
from tests.serve.scripted import delta, failure

pytestmark = pytest.mark.browser

ANSWER = """# Title

Text with **bold**, *italics*, `code`, ~~old~~, a [link](https://example.org/x) and https://example.org.

### Part

1. one
   - two

> quoted

| a | b |
|:--|--:|
| 1 | 2 |

```python
print("a line that is so long that it has to be scrolled sideways on every telephone that there is, and then more")
```

---
"""
TOKENS = [
    logprob(text, p, (text, p))
    for text, p in [("Very", 0.99), (" likely", 0.7), (" and", 0.4), (" ", 0.2), ("\n", 0.1), ("not", 0.01)]
]


def answer(body):
    question = body["messages"][-1]["content"]
    if question == "fail":
        return failure(500, "it broke")
    if body.get("logprobs"):
        return [delta(token["token"], [token]) for token in TOKENS]
    return [ANSWER[at : at + 5] for at in range(0, len(ANSWER), 5)]


def fill(seen):
    """A conversation with everything that the page can show."""
    seen.say("Hello\nthere")
    seen.finished()
    seen.page.get_by_label("Compare with").select_option("small")
    seen.say("Both")
    seen.finished(3)
    seen.page.locator("input[name=probabilities]").evaluate("(box) => box.click()")
    seen.say("Tokens")
    seen.finished(5)
    seen.say("fail")
    seen.finished(7)
    expect(seen.page.get_by_role("button", name="Retry")).to_have_count(2)


def violations(seen):
    from axe_core_python.sync_playwright import Axe

    found = Axe().run(seen.page)["violations"]
    return [(rule["id"], [node["html"][:160] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_to_object_to(visit, scripted, scheme, width):
    scripted.answer = answer
    seen = visit(scripted.url, takes=("500",), color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(seen) == []
    fill(seen)
    assert violations(seen) == []
    seen.page.get_by_role("button", name="Edit").first.click()
    seen.page.locator(".token").first.focus()
    expect(seen.page.get_by_role("tooltip")).to_be_visible()
    assert violations(seen) == []
    if width < 960:
        seen.page.get_by_role("button", name="Settings").click()
    seen.page.locator("#temperature").fill("9")
    assert violations(seen) == []
    seen.page.get_by_role("button", name="New chat").evaluate("(button) => button.click()")
    assert violations(seen) == []


def test_axe_does_object_where_there_is_something_to_object_to(visit, scripted):
    """The control of the test above."""
    seen = visit(scripted.url)
    seen.page.evaluate("""() => {
        const field = document.createElement("input");
        const pale = document.createElement("p");
        pale.append("pale");
        pale.style.setProperty("color", "#ddd");
        pale.style.setProperty("background", "#fff");
        document.querySelector("main").append(field, pale);
    }""")
    assert {rule for rule, _ in violations(seen)} >= {"label", "color-contrast"}


def test_finished_answers_are_announced_once_and_not_token_by_token(visit, scripted):
    scripted.answer = lambda body: ["One", 0.2, " two", 0.2, " **three**"]
    seen = visit(scripted.url)
    region = seen.page.locator("#announcer")
    assert region.get_attribute("aria-live") == "polite"
    seen.page.evaluate("""() => {
        window.said = [];
        const live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]";
        new MutationObserver((changes) => {
            for (const { target, addedNodes } of changes) {
                const element = target.nodeType === 1 ? target : target.parentElement;
                if (element?.closest(live)) for (const node of addedNodes) window.said.push(node.textContent);
            }
        }).observe(document.body, { subtree: true, childList: true, characterData: true });
    }""")
    seen.say("Hello")
    expect(seen.answers()).to_contain_text("One")
    expect(seen.answers().locator(".body")).to_have_attribute("aria-busy", "true")
    seen.finished()
    expect(region).to_have_text("Answer of flagship: One two three")
    assert seen.page.evaluate("said") == ["Answer of flagship: One two three"]
    expect(seen.answers().locator(".body")).to_have_attribute("aria-busy", "false")


def test_the_whole_page_is_reached_and_left_by_tab_in_the_order_of_reading(visit, scripted):
    scripted.answer = answer
    seen = visit(scripted.url)
    seen.say("Hello")
    seen.finished()
    seen.page.locator(".skip").focus()
    order = []
    for _ in range(60):
        name, outlined, again = seen.page.evaluate("""() => {
            const element = document.activeElement;
            const again = element === document.body || element.matches("[data-seen]");
            element.setAttribute("data-seen", "");
            const style = getComputedStyle(element);
            const label = element.id || element.name || element.getAttribute("aria-label") || element.textContent;
            const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
            return [label.trim().slice(0, 30), outlined, again];
        }""")
        if again:
            break
        assert outlined, f"{name} shows no focus"
        order.append(name)
        seen.page.keyboard.press("Tab")
    named = [
        "Skip to the question",
        "model",
        "compare",
        "new",
        "export",
        "theme",
        "settings-toggle",
        "conversation",
        "Edit",
        "question",
        "send",
        "system",
        "temperature",
        "key",
        "reset",
    ]
    assert [name for name in order if name in named] == named
    assert "Code, python" in order and "Table" in order and "link" in order


def test_enter_sends_and_shift_enter_begins_a_line_and_composing_does_neither(visit, scripted):
    seen = visit(scripted.url)
    field = seen.page.get_by_label("Your message")
    expect(field).to_be_focused()
    seen.page.keyboard.type("one")
    seen.page.keyboard.press("Shift+Enter")
    seen.page.keyboard.type("two")
    assert scripted.asked == []
    field.evaluate(
        "(e) => e.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true }))"
    )
    assert scripted.asked == []
    seen.page.keyboard.press("Enter")
    seen.finished()
    assert scripted.asked[0][0]["messages"][-1]["content"] == "one\ntwo"
    expect(field).to_be_focused()
    expect(field).to_have_value("")
    seen.page.keyboard.press("Enter")  # nothing to send
    seen.page.wait_for_timeout(100)
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_sticks_out_of_the_window(visit, scripted, width):
    scripted.answer = lambda body: [f"{ANSWER}\n{'longword' * 60} `{'code' * 60}`\n\n|{'cell|' * 30}\n|{'-|' * 30}"]
    seen = visit(scripted.url, viewport={"width": width, "height": 800})
    seen.page.get_by_label("Compare with").select_option("small")
    seen.say("x" * 300)
    seen.finished(2)
    for selector in ("html", "#conversation", "header", "#composer"):
        over = seen.page.locator(selector).evaluate("(e) => e.scrollWidth - e.clientWidth")
        assert over <= 0, f"{selector} sticks out by {over}"
    send = seen.page.locator("#send").bounding_box()
    assert send["x"] + send["width"] <= width and send["y"] + send["height"] <= 800


def test_the_theme_follows_the_system_until_it_is_chosen(visit, scripted):
    seen = visit(scripted.url, color_scheme="dark")
    page = seen.page
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(back)
    assert light == "rgb(255, 255, 255)" != dark
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(back) == dark
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(back) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(back) == light


def test_the_page_follows_a_growing_answer_unless_the_reader_has_scrolled_up(visit, scripted):
    lines = [f"line {number}\n\n" for number in range(60)]
    further, on = threading.Event(), threading.Event()

    def slowly(body):
        for gate in (None, further, on):
            while gate and not gate.is_set():
                yield 0.02
            yield from lines

    scripted.answer = slowly
    seen = visit(scripted.url)
    area = seen.page.locator("#conversation")
    seen.say("Hello")
    expect(seen.page.locator(".markdown p")).to_have_count(60, timeout=WAIT)
    assert area.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight") < 60
    further.set()
    expect(seen.page.locator(".markdown p")).to_have_count(120, timeout=WAIT)
    area.evaluate("(e) => { e.scrollTop = 0 }")
    on.set()
    seen.finished()
    expect(seen.page.locator(".markdown p")).to_have_count(180)
    assert area.evaluate("(e) => e.scrollTop") == 0
