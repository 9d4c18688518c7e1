"""The story, clicked through in Chromium with the real daemon and the real Claude Code CLI behind it.

The operator opens the one-time URL, asks for two agents, approves them, writes to one, and sees the answer of
the other arrive. Screenshots go to `HIVE_SCREENSHOTS` if that is set.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from hive_shared import wire
from tests.integration.test_story import claude_environment
from tests.support.hive import Hive, eventually, running_hive
from tests.support.scripted_api import ScriptedApi, story

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 90_000  # a guard against hanging

expect.set_options(timeout=WAIT_MS)


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def claude_hive(tmp_path: Path, claude_cli: Path) -> AsyncIterator[Hive]:
    async with (
        ScriptedApi(story) as api,
        running_hive(tmp_path / "hive", **claude_environment(api, claude_cli, tmp_path)) as hive,
    ):
        yield hive


@pytest.fixture
async def rehearsal_hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as hive:
        yield hive


class Watched:
    """A page whose console errors fail the test."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    async def shoot(self, name: str, size: ViewportSize = DESKTOP) -> None:
        await self.page.set_viewport_size(size)
        directory = os.environ.get("HIVE_SCREENSHOTS")
        if directory:
            await asyncio.sleep(0.5)  # animations come to rest
            await self.page.screenshot(path=Path(directory) / f"{name}.png", full_page=size is PHONE)
        wide = await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, f"{name} scrolls sideways at {size['width']} px"


async def logged_in(hive: Hive, browser: Browser) -> Watched:
    url = (await hive.call(wire.MakeLoginUrl())).url
    context = await browser.new_context(viewport=DESKTOP, color_scheme="dark")
    context.set_default_timeout(WAIT_MS)
    watched = Watched(await context.new_page())
    await watched.page.goto(url)
    await watched.page.wait_for_url(re.compile(r"/$"))
    await expect(watched.page.locator("#container-list")).to_contain_text("hm1nd")
    assert url.rsplit("#", 1)[1] not in watched.page.url
    return watched


async def grow(hive: Hive, page: Page, name: str) -> None:
    await page.get_by_label("new agent").fill(name)
    await page.get_by_role("button", name="Request spawn").click()
    await page.get_by_role("button", name=re.compile(rf"^Approve \d+: {name}$")).click()
    await expect(page.locator("#container-list")).to_contain_text(name)
    await eventually(lambda: hive.is_idle(name), f"{name} is up")


async def test_the_story_clicked_through_with_the_real_claude(claude_hive: Hive, browser: Browser) -> None:
    watched = await logged_in(claude_hive, browser)
    page = watched.page
    await watched.shoot("01-empty-hive")
    for name in ("alice", "bob"):
        await grow(claude_hive, page, name)

    await page.get_by_role("link", name="alice").first.click()
    await page.wait_for_url(re.compile("/agents/alice/"))
    prompt = page.locator("#prompt-text")
    await prompt.fill("Please ask bob how much is 6 times 7")
    await prompt.press("Enter")
    terminal = page.get_by_role("log")
    await expect(terminal).to_contain_text("TURN ← operator")
    await expect(terminal).to_contain_text("send → bob")
    await expect(terminal).to_contain_text("bob answered: 42")
    await watched.shoot("02-alice")
    await watched.shoot("03-alice-phone", PHONE)

    await page.goto(page.url.split("/agents/")[0] + "/")
    await expect(page.locator("#inbox-list")).to_contain_text("bob answered: 42")
    await expect(page.locator("#flow-list")).to_contain_text("Question: how much is 6 times 7")
    await expect(page.locator("#flow-list")).to_contain_text("Answer: 42")
    await watched.shoot("04-dashboard")
    await watched.shoot("05-dashboard-phone", PHONE)
    assert watched.errors == []


async def test_rehearsal_says_that_it_is_not_a_model_on_every_page(
    rehearsal_hive: Hive, browser: Browser
) -> None:
    watched = await logged_in(rehearsal_hive, browser)
    page = watched.page
    await expect(page.locator("#rehearsal-warning")).to_be_visible()
    await eventually(
        lambda: rehearsal_hive.is_idle("hm1nd"), "hm1nd is up"
    )  # before that, its page is told 503
    await page.get_by_role("link", name="hm1nd").first.click()
    await expect(page.locator("body")).to_contain_text("not a model")
    await watched.shoot("06-rehearsal-agent")
    assert watched.errors == []


async def test_a_change_clicked_through_to_its_end_and_back(rehearsal_hive: Hive, browser: Browser) -> None:
    """The manager asks, the operator reads and approves, a later change breaks, and the first comes back."""
    watched = await logged_in(rehearsal_hive, browser)
    page = watched.page
    await grow(rehearsal_hive, page, "alice")
    chip = page.locator('#container-list [data-key="alice"] .sha code')
    first = await chip.inner_text()

    await rehearsal_hive.send("hm1nd", "set variable GREETING=hello for alice because she is to be polite")
    card = page.locator("#approval-list .card.waits")
    await expect(card).to_contain_text("change the system of")
    await expect(card).to_contain_text("she is to be polite")
    await expect(card.locator(".unified .plus", has_text="GREETING")).to_be_visible()
    await watched.shoot("07-change")
    await watched.shoot("08-change-phone", PHONE)
    await page.get_by_role("button", name=re.compile(r"^Approve \d+: alice")).click()
    await expect(page.locator("#toasts")).to_contain_text("alice runs")
    await expect(chip).not_to_have_text(first)
    second = await chip.inner_text()

    await rehearsal_hive.send("hm1nd", "break alice because somebody has to")
    await expect(card).to_contain_text("somebody has to")
    await page.get_by_role("button", name=re.compile(r"^Approve \d+: alice")).click()
    failed = page.locator("#approval-list .card.tone-bad")
    await expect(failed).to_contain_text("failed")
    await expect(failed.locator(".build-log")).to_contain_text("agent.nix")
    await expect(chip).to_have_text(second)
    await watched.shoot("09-failed")
    await failed.get_by_role("button", name=re.compile("^Dismiss failed")).click()

    await page.get_by_role("button", name="History of alice").click()
    await expect(page.locator("#panel-history > li")).to_have_count(2)
    await watched.shoot("10-history")
    await page.get_by_role("button", name=f"Roll back alice to {first}").click()
    await page.get_by_role("button", name="Roll back", exact=True).click()
    await expect(page.locator("#panel-history > li").first).to_contain_text(first)
    await expect(page.locator("#panel-history > li").first).to_contain_text("runs now")
    await expect(chip).to_have_text(first)
    assert watched.errors == []


async def test_the_dashboard_follows_live_through_a_restart_of_the_daemon(
    rehearsal_hive: Hive, browser: Browser
) -> None:
    """The port changes on a restart here, so the page is pointed at a fixed one."""
    hive = Hive(rehearsal_hive.root.with_name("fixed"), {"HIVE_DASHBOARD_PORT": str(free_port())})
    await hive.start()
    try:
        watched = await logged_in(hive, browser)
        flow = watched.page.locator("#flow-list")
        await hive.send("hm1nd", "remember the first")
        await expect(flow).to_contain_text("remember the first")
        await hive.kill()
        await hive.start()
        await hive.send("hm1nd", "remember the second")
        await expect(flow).to_contain_text("remember the second")
        for body in ("remember the first", "remember the second"):
            assert await flow.get_by_text(body, exact=True).count() == 1
    finally:
        await hive.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
