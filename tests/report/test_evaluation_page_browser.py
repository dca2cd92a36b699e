"""The page of an evaluation in headless Chromium, opened from a disk: filters, items, links, keyboard, phone, axe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from herdlm.report.evaluation_page import write_evaluation_page
from tests.report.made_up_evaluation import HOSTILE, MODELS, TITLES, many, records, results

pytestmark = pytest.mark.browser

WAIT = 15_000  # milliseconds for whatever must come
FIRST, SECOND = MODELS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this test needs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation_page(folder, results(), records(), TITLES)
    return (folder / "index.html").as_uri()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address without a network; the test fails if the page logs an error or runs an item's text."""
    contexts, problems = [], []

    def open_(address: str, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options), offline=True)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and problems.append(line.text))
        page.goto(address)
        contexts.append((context, page))
        return page

    yield open_
    for context, page in contexts:
        assert page.evaluate("window.ran") is None
        context.close()
    assert problems == []


def count_is(page: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#count")).to_have_text(text, timeout=WAIT)


def ids(page: Any) -> list[int]:
    return [int(text) for text in page.locator("#list .id").all_text_contents()]


def options(page: Any, label: str) -> list[str]:
    found: list[str] = page.get_by_label(label, exact=True).locator("option").all_text_contents()
    return found


def test_filters_by_verdict_of_each_model_and_by_disagreement(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation)
    count_is(page, "120 items, 1 to 50 shown")
    assert options(page, FIRST) == ["right or wrong", "right (90)", "wrong (30)"]
    assert options(page, "Agreement") == ["any", "models differ (30)", "all right (60)", "all wrong (30)"]
    page.get_by_label(FIRST, exact=True).select_option("right")
    page.get_by_label(SECOND, exact=True).select_option("wrong")
    count_is(page, "30 of 120 items")
    assert ids(page) == list(range(2, 120, 4))
    assert options(page, "Agreement") == ["any", "models differ (30)", "all right (0)", "all wrong (0)"]
    page.get_by_label("Agreement").select_option("wrong")
    count_is(page, "0 of 120 items")
    page.get_by_role("button", name="Show all items").click()
    page.get_by_label("Agreement").select_option("wrong")
    count_is(page, "30 of 120 items")
    assert ids(page) == list(range(0, 120, 4))
    page.get_by_label("Group", exact=True).select_option("<biology>")
    count_is(page, "15 of 120 items")
    page.get_by_label("Text in prompts").fill("Question: 44, IS")
    count_is(page, "1 of 120 items")
    assert ids(page) == [44]


def test_the_address_holds_the_filters(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation)
    page.get_by_label(SECOND, exact=True).select_option("wrong")
    page.get_by_label("Group", exact=True).select_option("chemistry & physics")
    page.get_by_label("Text in prompts").fill("odd?")
    count_is(page, "30 of 120 items")
    page.get_by_label("Text in prompts").fill("")
    page.get_by_label("Group", exact=True).select_option("")
    count_is(page, "60 of 120 items, 1 to 50 shown")
    page.get_by_role("button", name="Next").click()
    count_is(page, "60 of 120 items, 51 to 60 shown")
    again = visit(page.url)
    count_is(again, "60 of 120 items, 51 to 60 shown")
    assert again.get_by_label(SECOND, exact=True).input_value() == "wrong"
    assert ids(again) == ids(page) == list(range(100, 120, 2))
    again.get_by_label("Group", exact=True).select_option("chemistry & physics")
    again.get_by_label("Text in prompts").fill("7")
    count_is(again, "5 of 120 items")
    third = visit(again.url)
    count_is(third, "5 of 120 items")
    assert ids(third) == [70, 72, 74, 76, 78]
    assert third.get_by_label("Text in prompts").input_value() == "7"


def test_an_item_shows_choices_log_probabilities_and_verdicts_side_by_side(
    visit: Callable[..., Any], evaluation: str
) -> None:
    page = visit(evaluation)
    page.locator("#list .item").nth(2).click()
    body = page.locator("#list .item").nth(2).locator(".body")
    body.wait_for()
    rows = [[" ".join(cell.split()) for cell in row.split("\t")] for row in body.locator("tr").all_inner_texts()]
    minus = "\N{MINUS SIGN}"
    assert rows == [
        ["Choice", FIRST, SECOND],
        ["even it is ✓ right", f"chosen {minus}0.125", f"{minus}3.250"],
        ["odd it is", f"{minus}2.500", f"chosen {minus}0.125"],
    ]
    sides = body.locator(".answers > div").all_inner_texts()
    assert "✓ right: the right choice is the likeliest" in sides[0] and "acc 1" in sides[0]
    assert "✗ wrong: another choice is likelier" in sides[1] and "tokens of the choices: 3, 3" in sides[1]
    text = body.inner_text()
    assert "characters before the question" in text and "Question: 2, is it odd?" in text
    assert "Question: one?" not in text
    body.get_by_text("characters before the question").click()
    assert "Question: one?" in body.inner_text()


def test_a_link_to_an_item_shows_only_it_opened(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation + "#task=counting")
    page.locator("#list .item").nth(3).click()
    page.get_by_role("link", name="Link to this item").click()
    count_is(page, "1 of 4 items")
    again = visit(page.url)
    count_is(again, "1 of 4 items")
    assert again.locator(".item[open] .body").count() == 1
    assert "41 tokens, log-probability \N{MINUS SIGN}12.500, ended by length" in again.locator(".body").inner_text()
    again.get_by_role("button", name="Show all items").click()
    count_is(again, "4 items")


def test_links_of_the_figures_lead_to_their_items(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation)
    count_is(page, "120 items, 1 to 50 shown")
    page.get_by_role("link", name="30 only first gets right").click()
    count_is(page, "30 of 120 items")
    page.get_by_role("link", name="counting").click()
    count_is(page, "4 items")
    page.go_back()
    count_is(page, "30 of 120 items")
    assert page.get_by_label(FIRST, exact=True).input_value() == "right"


def test_nothing_that_a_model_or_an_item_says_becomes_markup(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation + "#task=counting")
    for item in page.locator("#list .item").all():
        item.locator("summary").first.click()
        item.locator(".body").wait_for()
    body = page.locator("#list .item").nth(1).locator(".body")
    assert HOSTILE in body.inner_text() and page.locator("#list img, #list script, #list b").count() == 0
    strange = page.locator("#list .item").nth(2).locator(".answers bdi.foreign").first
    assert strange.evaluate("e => getComputedStyle(e).unicodeBidi") in ("isolate", "plaintext", "isolate-override")
    text = strange.text_content()
    assert "\u2400\u241b[31m\ufffd" in text and "\x00" not in text and "😀" in text and "\\u003c" in text
    page.get_by_label("Text in prompts").fill("<IMG SRC=X")
    count_is(page, "1 of 4 items")


def test_a_task_without_verdicts_has_no_filters_of_them(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation)
    page.get_by_label("Task", exact=True).select_option("web")
    count_is(page, "3 items")
    assert page.locator("#filters select").count() == 1 and page.locator("#list .chip").count() == 0
    page.locator("#list .item").first.click()
    page.locator(".body").wait_for()
    text = page.locator(".body").inner_text()
    assert "word_perplexity 7.3891" in text and "All 2,800 characters" in text


def test_items_that_are_missing_are_said_to_be(browser: Any, tmp_path: Path) -> None:
    write_evaluation_page(tmp_path, results(), records(4), TITLES)
    (tmp_path / "items" / "counting.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri() + "#task=counting")
    count_is(page, "items/counting.js could not be loaded. It belongs beside this page: move or send the whole folder.")
    page.get_by_label("Task", exact=True).select_option("odd_even")
    count_is(page, "4 items")
    page.close()


def test_everything_can_be_done_with_the_keyboard(visit: Callable[..., Any], evaluation: str) -> None:
    page = visit(evaluation)
    count_is(page, "120 items, 1 to 50 shown")
    page.get_by_label(FIRST, exact=True).focus()
    page.keyboard.press("ArrowDown")
    count_is(page, "90 of 120 items, 1 to 50 shown")
    assert page.evaluate("document.activeElement.id") == "model0"
    for _ in range(6):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator(".item[open]").count() == 1
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    count_is(page, "90 of 120 items, 51 to 90 shown")
    assert page.evaluate("document.activeElement.textContent") == "Previous"


def test_twenty_thousand_items_are_searched_and_shown_a_page_at_a_time(
    visit: Callable[..., Any], tmp_path: Path
) -> None:
    write_evaluation_page(tmp_path, results(), many(20_000, 2), TITLES)
    page = visit((tmp_path / "index.html").as_uri())
    count_is(page, "20,000 items, 1 to 50 shown")
    assert page.locator("#list .item").count() == 50
    page.get_by_label("Text in prompts").fill("question: 19999,")
    count_is(page, "1 of 20,000 items")
    assert (tmp_path / "items" / "odd_even.js").stat().st_size < 12e6


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_and_nothing_sticks_out(
    visit: Callable[..., Any], evaluation: str, scheme: str, width: int
) -> None:
    from axe_core_python.sync_playwright import Axe

    page = visit(evaluation, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page.locator("#groups summary").click()
    for task in TITLES:
        page.get_by_label("Task", exact=True).select_option(task)
        page.locator("#list .item").nth(1).locator("summary").first.click()
        page.locator("#list .body").wait_for()
        found = Axe().run(page)["violations"]
        assert [(rule["id"], [node["html"][:160] for node in rule["nodes"]]) for rule in found] == []
        sticks = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert sticks == 0
