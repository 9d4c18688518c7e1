"""A Chromium and a stand-in hive for the pages' tests. The browser is opened per module: Playwright's
synchronous interface keeps an event loop running, which tests of other modules must not meet."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.async_api import expect as expect_async
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.mock_hive import COOKIE, KEY, MockHive

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000  # a machine that builds other things at the same time is slow, and not wrong
expect.set_options(timeout=PATIENCE_MS)
expect_async.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as opened:
        yield opened


@contextmanager
def launched(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def hive() -> Iterator[MockHive]:
    served = MockHive()
    served.start()
    yield served
    served.stop()


def logged_in(browser: Browser, hive: MockHive, **options: object) -> BrowserContext:
    """A browser window whose session the stand-in hive knows."""
    cookie = {"name": "hive_session", "value": COOKIE, "url": hive.url}
    storage = {"origin": hive.url, "localStorage": [{"name": "hive.key", "value": KEY}]}
    state = {"cookies": [], "origins": [storage]}
    context = browser.new_context(base_url=hive.url, storage_state=state, **options)  # type: ignore[arg-type]
    context.add_cookies([cookie])  # type: ignore[list-item]
    context.set_default_timeout(PATIENCE_MS)
    return context


def watch_for_faults(page: Page) -> list[str]:
    """What goes wrong in the page from now on: exceptions, and anything the content policy refused."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
    )
    return faults


@pytest.fixture
def context(browser: Browser, hive: MockHive) -> Iterator[BrowserContext]:
    opened = logged_in(browser, hive, viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A logged-in page that fails its test if an exception or a policy violation happened in it."""
    opened = context.new_page()
    faults = watch_for_faults(opened)
    yield opened
    assert faults == []
