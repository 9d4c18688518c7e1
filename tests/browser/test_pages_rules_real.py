"""Rules, a call that waits, and notes, clicked through with the real daemon behind the pages."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import BadRequest
from hive_shared.names import MANAGER
from tests.browser.conftest import ARGUMENTS, PATIENCE_MS
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as running:
        await eventually(lambda: running.is_idle(MANAGER), "the manager is there")
        yield running


@pytest.fixture
async def page(chromium: str, hive: Hive) -> AsyncIterator[Page]:
    """Logged in, at the dashboard."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        opened = await browser.new_page()
        opened.set_default_timeout(PATIENCE_MS)
        await opened.goto((await hive.call(wire.MakeLoginUrl())).url)
        await opened.wait_for_url(re.compile(r"/$"))
        yield opened
        await browser.close()


async def rules(hive: Hive) -> list[tuple[str, str]]:
    return [(rule.decision, rule.rule) for rule in (await hive.call(wire.Permissions())).rules]


async def make_rules(hive: Hive, page: Page) -> None:
    await page.get_by_role("button", name=f"Permission rules of {MANAGER}").click()
    panel = page.get_by_role("complementary", name=f"Rules for {MANAGER}")
    field = panel.get_by_label("tool or tool(pattern)")
    await panel.get_by_label("from now on").select_option("deny")
    await field.fill("Bash(rm *)")
    await field.press("Enter")
    await expect(panel.locator("#panel-status")).to_have_text("1 rule")
    assert await rules(hive) == [("deny", "Bash(rm *)")]

    with pytest.raises(BadRequest) as at_the_terminal:
        await hive.call(wire.AddPermissionRule(name=MANAGER, decision="deny", rule="Bash("))
    await field.fill("Bash(")
    await field.press("Enter")
    await expect(panel.get_by_role("alert")).to_have_text(at_the_terminal.value.message)

    made = await hive.call(wire.AddPermissionRule(name=MANAGER, decision="allow", rule="Bash(ls *)"))
    await panel.get_by_role("button", name=f"Remove rule {made.id}: allow Bash(ls *)").click()
    await expect(panel.locator("#panel-status")).to_have_text("1 rule")
    assert await rules(hive) == [("deny", "Bash(rm *)")]


async def answer_on_its_page(hive: Hive, page: Page) -> None:
    asking = wire.AskPermission(
        key="7" * 64,
        session="a" * 32,
        message_id=999,
        tool="Bash",
        input='{"command": "make <b>"}',
        cwd="/state",
        wait_seconds=60,
    )
    asked = asyncio.create_task(call_once(hive.paths.socket(MANAGER), asking))
    card = page.locator("#permission-list > li")
    await expect(card.locator("pre")).to_have_text("command: make <b>")
    await expect(page.locator("#badge")).to_contain_text("waiting for you")
    await card.get_by_role("button", name="Always allow").click()
    await page.get_by_role("button", name="Write the rule").click()
    await expect(page.locator("#permissions")).to_be_hidden()
    answered = await asked
    assert (answered.closed, answered.scope) == ("allowed", "always")
    assert ("allow", "Bash(make <b>)") in await rules(hive)


async def test_rules_a_waiting_call_and_notes(hive: Hive, page: Page) -> None:
    await make_rules(hive, page)
    await page.get_by_role("link", name=MANAGER, exact=True).first.click()
    await expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    await answer_on_its_page(hive, page)

    notes = hive.paths.state(MANAGER) / "notes.md"
    notes.write_text("I keep the hive.")
    await page.get_by_role("link", name="Notes of this agent").click()
    text = page.get_by_role("region", name="The note")
    await expect(text).to_have_text("I keep the hive.")
    notes.write_text("I keep the hive tidy.")
    await hive.send(MANAGER, "send operator hello")
    await expect(text).to_have_text("I keep the hive tidy.")
