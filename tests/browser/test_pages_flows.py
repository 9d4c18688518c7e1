"""The dashboard's flows in Chromium with the real daemon behind it, as one operator and as two."""

import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from hive_shared import wire
from tests.support.hive import Hive, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
WAIT_MS = 90_000  # a guard against hanging


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        await opened.close()


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    """On a port that stays, so that a page finds the daemon again after a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"HIVE_DASHBOARD_PORT": port, "HIVE_AUTO_UPDATE": "false"}
    running = Hive(tmp_path / "hive", settings)
    try:
        await running.start()
        await eventually(lambda: running.is_idle("hm1nd"), "hm1nd is up")
        yield running
        assert await running.stop() == 0, running.log()
    except BaseException:
        print(running.log())
        raise
    finally:
        await running.kill()


async def operator(hive: Hive, browser: Browser) -> Page:
    """The dashboard in a browser window of its own, logged in by a one-time URL."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"an exception in the page: {error}"))
    await page.goto((await hive.call(wire.MakeLoginUrl())).url)
    await page.wait_for_url(re.compile(r"/$"))
    await expect(page.locator("#connection")).to_have_text("live")
    return page


def row(page: Page, name: str) -> Locator:
    return page.locator(f'#container-list > [data-key="{name}"]')


async def press(page: Page, name: str, accept: str = "") -> None:
    """By its name, or by how that begins: some go on with a number."""
    await page.get_by_role("button", name=re.compile(f"^{re.escape(name)}( ?\\(|$)")).click()
    if accept:
        await page.get_by_role("dialog").get_by_role("button", name=accept, exact=True).click()


async def test_the_life_of_an_agent_from_the_first_visit_to_its_purge(hive: Hive, browser: Browser) -> None:
    page = await operator(hive, browser)
    tour = page.locator("#tour")
    await expect(tour).to_be_visible()
    await page.get_by_label("message", exact=True).fill("remember the first")
    await press(page, "Send message")
    await expect(tour.locator("[aria-current=step]")).to_contain_text("Ask for a first agent")
    await page.get_by_label("new agent").fill("bob")
    await press(page, "Request spawn")
    await press(page, "Approve 1: bob")
    await expect(tour.locator("[aria-current=step]")).to_contain_text("Look over its shoulder")
    bob = row(page, "bob")
    await expect(bob).to_contain_text("idle")

    await press(page, "Stop bob", "Stop")
    await expect(bob).to_contain_text("stopped")
    await expect(bob.locator(".deed-line")).to_contain_text("you stopped bob")
    await press(page, "Start bob")
    await expect(bob).to_contain_text("idle")
    await press(page, "Restart bob", "Restart")
    await expect(bob.locator(".deed-line")).to_contain_text("you restarted bob")
    await expect(bob).to_contain_text("idle")
    await press(page, "Rebuild bob")
    await expect(bob.locator(".deed-line")).to_contain_text("you rebuilt bob")

    await press(page, "Logs of bob")
    lines = page.locator("#panel-log > div")
    await expect(lines.filter(has_text="starts, bubblewrap").first).to_be_attached()
    await expect(page.locator("#panel-status")).to_contain_text("live")
    await page.get_by_label("unit", exact=True).select_option("container")
    await hive.call(wire.Restart(name="bob"))
    await expect(lines.filter(has_text="starts, bubblewrap").nth(1)).to_be_attached()
    await expect(page.locator("#panel-log").get_by_text("uvicorn")).to_have_count(0)
    await press(page, "Close the panel")
    await expect(bob.locator(".deed-line")).to_contain_text("operator · command line restarted bob")

    await press(page, "History of bob")
    history = page.locator("#panel-history > li")
    await expect(history).to_contain_text("The configuration it began with, written by the hive.")
    await press(page, "Diff of approval 1")
    await expect(page.locator("#panel-body")).to_contain_text("agent.nix")
    await expect(page.locator("#panel-body")).to_contain_text("The system of agent bob")
    await press(page, "Close the panel")

    await expect(bob).to_contain_text("idle")
    await press(page, "Destroy bob", "Destroy")
    tomb = page.locator('#tombstone-list > [data-key="bob"]')
    await expect(tomb).to_contain_text("KiB")
    await expect(tomb).to_contain_text("destroyed")
    await press(page, "Revive bob")
    await expect(tomb).to_contain_text("revival waits for your approval")
    await press(page, "Approve 2: bob")
    await expect(bob).to_contain_text("idle")
    await expect(tomb).to_have_count(0)
    await press(page, "Purge bob")
    await page.get_by_role("dialog").get_by_role("textbox").fill("bob")
    await page.get_by_role("dialog").get_by_role("button", name="Delete everything").click()
    await expect(bob).to_have_count(0)
    await expect(tomb).to_have_count(0)
    await expect(page.locator("#activity-list > li").first).to_contain_text("you")
    await expect(page.locator("#activity-list > li").first).to_contain_text("purged bob")


async def test_two_operators_at_once_see_the_same_hive(hive: Hive, browser: Browser) -> None:
    ann, ben = await operator(hive, browser), await operator(hive, browser)
    bens = await ben.evaluate("fetch('/api/state').then((reply) => reply.status)")
    assert bens == 401  # the cookie alone is worth nothing
    await hive.send("hm1nd", "ask the operator whether to go left or right (options: left, right)")
    for page in (ann, ben):
        await expect(page.locator("#question-list > li")).to_have_count(1)
    await ben.get_by_label("or in your own words").fill("half a thought of ben")
    await ann.get_by_role("radio", name="left").check()
    await ann.get_by_label("or in your own words").fill("and slowly")
    await ann.get_by_role("button", name=re.compile("^Answer question")).click()
    for page in (ann, ben):
        await expect(page.locator("#question-list > li")).to_have_count(0)
    await expect(ben.locator("#toasts")).to_contain_text(
        re.compile(r"Operator · session \w+ answered question 1")
    )
    await expect(ann.locator("#toasts")).not_to_contain_text("Operator ·")
    await expect(ann.locator("#activity-list > li").first).to_contain_text("you")

    # Both press at the same time: one is told that it was too late, and both see one outcome.
    await ann.get_by_label("new agent").fill("carol")
    await press(ann, "Request spawn")
    await expect(ben.get_by_role("button", name="Approve 1: carol")).to_be_visible()
    await ben.get_by_placeholder("note with your decision").fill("two is a crowd")
    await ben.get_by_role("button", name="Deny 1: carol").click()
    await expect(ann.get_by_role("button", name="Approve 1: carol")).to_have_count(0)
    await expect(ann.locator("#toasts")).to_contain_text(
        re.compile(r"Operator · session \w+ denied #1 \(carol\)")
    )
    for page in (ann, ben):
        await page.get_by_text("recently decided").click()
        await expect(page.locator("#resolved-list")).to_contain_text("two is a crowd")

    # Replying in place in one window; the message arrives in the flow and in the search of the other.
    await hive.send("hm1nd", "send operator Shall I paint the Shed?")
    mail = ann.locator("#inbox-list > li").filter(has_text="paint the Shed")
    await mail.get_by_text("R3PLY").click()
    await mail.get_by_role("textbox").fill("remember the shed is to be blue")
    await mail.get_by_role("textbox").press("Control+Enter")
    found = ben.locator("#flow-list > li")
    await ben.get_by_role("searchbox", name="words to look for").fill("SHED blue")
    await expect(found).to_have_count(1)
    await expect(found.locator("mark")).to_have_text(["shed", "blue"])
    await ben.get_by_label("only", exact=True).select_option("operator")
    await expect(found).to_have_count(1)

    # One logs the other out: its page leaves, and says why.
    await ann.locator("[data-action=sessions]").click()
    sessions = ann.locator("#panel-history > li").filter(has_not_text="this browser")
    await sessions.first.get_by_role("button").click()
    await ann.get_by_role("dialog").get_by_role("button", name="Log out").click()
    await ben.wait_for_url(re.compile("/login"))
    await expect(ben.locator("#progress")).to_contain_text("Your session has ended")
    await expect(ann.locator("#connection")).to_have_text("live")


async def test_a_restart_is_told_and_outlived_and_what_is_stale_is_updated(
    hive: Hive, browser: Browser
) -> None:
    await hive.spawn("alice")
    page = await operator(hive, browser)
    await page.get_by_label("message", exact=True).fill("half a sentence")
    await hive.stop()
    await expect(page.locator("#outage")).to_contain_text("hive-c0re")
    await press(page, "Rebuild alice")
    await expect(row(page, "alice").locator(".form-error")).to_contain_text("cannot be reached")
    await expect(page.get_by_role("button", name="Rebuild alice")).to_be_enabled()
    hive.paths.revision_file("alice").write_text("an older revision\n")
    await hive.start()
    await expect(page.locator("#outage")).to_be_hidden()
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.get_by_label("message", exact=True)).to_have_value("half a sentence")
    alice = row(page, "alice")
    await expect(alice).to_contain_text("needs update")
    await expect(alice).to_contain_text("idle")
    await press(page, "Update all", "Rebuild all")
    await expect(alice).not_to_contain_text("needs update")
    await expect(page.locator("#update-all")).to_be_hidden()
    await expect(alice.locator(".deed-line")).to_contain_text("you updated alice")
