"""A working day without a pointer: every step is a key, in Chromium, with the real daemon behind it."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from hive_shared import wire
from tests.browser.axe import JUDGE, source
from tests.browser.conftest import ARGUMENTS
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WAIT_MS = 60_000  # a guard against hanging
TABS_MAX = 60


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as hive:
        yield hive


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def tab_to(page: Page, name: str) -> None:
    """Tab until the focus is on the control of that name; and it is seen that it is there."""
    for _ in range(TABS_MAX):
        await press(page, "Tab")
        if re.search(name, await page.evaluate("document.activeElement.ariaLabel ?? ''")):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"nothing shows that {name} has the focus"
            return
    raise AssertionError(f"Tab never reaches {name}")


async def focused_text(page: Page) -> str:
    text: str = await page.evaluate("document.activeElement.innerText")
    return text


async def go_to_row(page: Page, section: str, text: str) -> None:
    """`g` and the section's key, then `j` until the row that says `text`."""
    await press(page, "g", section)
    for _ in range(TABS_MAX):
        await press(page, "j")
        if text in await focused_text(page):
            return
    raise AssertionError(f"j never reaches a row with {text!r}")


async def log_in(page: Page, hive: Hive) -> None:
    url = (await hive.call(wire.MakeLoginUrl())).url
    await page.goto(url.split("#")[0])
    await expect(page.get_by_label("login URL or code")).to_be_focused()
    await page.keyboard.insert_text(url)
    await press(page, "Enter")
    await expect(page.locator("#container-list")).to_contain_text("hm1nd")


async def decide(page: Page, hive: Hive) -> None:
    """One agent is refused, with a word why; the other is approved."""
    await hive.send("hm1nd", "spawn mallory because I like the name")
    await hive.send("hm1nd", "spawn alice because of the notes")
    await expect(page.locator("#approval-list")).to_contain_text("of the notes")
    await go_to_row(page, "a", "mallory")
    await press(page, "r")
    await page.keyboard.type("a name is no reason")
    await tab_to(page, r"^Deny \d+: mallory")
    await press(page, "Enter")
    await expect(page.locator("#toasts")).to_contain_text("Denied")
    await go_to_row(page, "a", "alice")
    await press(page, "Enter")
    if not re.search("^Approve", await page.evaluate("document.activeElement.ariaLabel ?? ''")):
        await tab_to(page, r"^Approve \d+: alice")
    await press(page, "Enter")
    await expect(page.locator("#container-list")).to_contain_text("alice")
    await eventually(lambda: hive.is_idle("alice"), "alice is up")


async def answer(page: Page, hive: Hive) -> None:
    await hive.send("hm1nd", "ask the operator whether we ship (options: yes, no)")
    await expect(page.locator("#question-list")).to_contain_text("ship")
    await go_to_row(page, "q", "ship")
    await press(page, "Enter", "Space")
    await tab_to(page, r"^Answer question")
    await press(page, "Enter")
    await expect(page.locator("#question-list li")).to_have_count(0)
    await expect(page.locator("#activity-list")).to_contain_text("answered")


async def command(page: Page) -> None:
    """From the agent's row to its page, a prompt, and an end to the turn it began."""
    await go_to_row(page, "c", "alice")
    await press(page, "Enter")
    await page.wait_for_url(re.compile("/agents/alice/"))
    await expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    await press(page, "w")
    await expect(page.locator("#prompt-text")).to_be_focused()
    await page.keyboard.type("wait 600")
    await press(page, "Enter")
    await expect(page.locator("#cancel")).to_be_visible()
    await press(page, "Escape")
    await expect(page.locator("#prompt-text")).not_to_be_focused()
    await tab_to(page, "^Cancel the turn")
    await press(page, "Enter")
    await expect(page.locator("#badge")).to_contain_text("idle")
    await expect(page.get_by_role("log")).to_contain_text("cancelled")


async def look_at_figures(page: Page) -> None:
    """The stats pages after real turns: in both themes and both widths, axe has nothing against them."""
    for path in ("/stats", "/agents/alice/stats"):
        for width in (1280, 390):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.goto(page.url.split("/agents/")[0].split("/stats")[0].split("/#")[0] + path)
            await expect(page.locator("#stats-charts svg").first).to_be_visible()
            await page.evaluate(source())
            assert await page.evaluate(JUDGE, "html") == [], f"{path} at {width} px"
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_working_day_without_a_pointer(hive: Hive, browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page = await context.new_page()
    await log_in(page, hive)
    await eventually(lambda: hive.is_idle("hm1nd"), "hm1nd is up")
    await decide(page, hive)
    await answer(page, hive)
    await command(page)
    await press(page, "g", "q")
    await page.wait_for_url(re.compile("/#questions$"))
    await expect(page.locator("#questions-title")).to_be_focused()
    await look_at_figures(page)
