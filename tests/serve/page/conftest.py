"""The page in headless Chromium, before a real server of a tiny model or one that says what a test has written."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.serve.scripted import Scripted, served

WAIT = 15_000  # milliseconds for whatever must come


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server whose answers the test writes."""
    script = Scripted()
    with served(script.app()) as url:
        script.url = url
        yield script


@pytest.fixture
def engine(server):
    """The engine of the real server."""
    return server.engine


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this test needs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and what happened on it."""

    page: Any
    requests: list[str]
    problems: list[str]

    def say(self, text: str) -> None:
        """Send a message."""
        self.page.get_by_label("Your message").fill(text)
        self.page.get_by_label("Your message").press("Enter")

    def answers(self):
        return self.page.locator("article.answer")

    def finished(self, count: int = 1) -> None:
        """Wait until so many answers are there and none grows."""
        from playwright.sync_api import expect

        expect(self.answers()).to_have_count(count, timeout=WAIT)
        expect(self.page.locator("article.streaming")).to_have_count(0, timeout=WAIT)


@pytest.fixture
def visit(browser):
    """Opens an address in a new profile; the test fails if the page logged an error that it does not take."""
    contexts, visits = [], []

    def open_(url: str, *, takes: tuple[str, ...] = (), models: bool = True, **options: Any) -> Visit:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        found = Visit(page, [], [])
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and found.problems.append(line.text))
        visits.append((found, takes))
        page.goto(url)
        if models:
            page.locator("#model option").first.wait_for(state="attached")
        return found

    yield open_
    for context in contexts:
        context.close()
    for found, takes in visits:
        left = [problem for problem in found.problems if not any(part in problem for part in takes)]
        assert left == [], left
