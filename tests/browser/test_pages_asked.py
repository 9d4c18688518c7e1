"""An agent's own page: the tool calls that wait, its budget, and the way to its notes and rules."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import Harness, MockHive, agent_view, note, permission
from tests.browser.test_pages_budgets import budget

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)>"


def opened(page: Page, hive: MockHive) -> Page:
    hive.agents["alice"] = agent_view("alice", budget=budget(180), bypass=True)
    hive.harnesses["alice"] = Harness("alice")
    page.goto("/agents/alice/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def test_a_call_that_waits_is_shown_and_answered_on_its_agents_page(hive: MockHive, page: Page) -> None:
    make = permission(5, "Bash", {"command": f"make {EVIL}"}, rule="Bash(make)")
    bobs = permission(6, "Bash", {"command": "ls"}, agent="bob")
    hive.permissions = [make, bobs]
    card = opened(page, hive).locator('#permission-list > [data-key="5"]')
    expect(card.locator("pre")).to_have_text(f"command: make {EVIL}")
    expect(card.locator("img")).to_have_count(0)
    expect(page.locator("#permission-list > li")).to_have_count(1)
    expect(page).to_have_title("✋ alice · hyperhive")

    page.keyboard.press("Escape")
    for key in ("g", "p"):
        page.keyboard.press(key)
    expect(page.locator("#permissions-title")).to_be_focused()

    card.get_by_label("if you deny it").fill("not to")
    hive.ask_for(make, permission(7, "Edit", {"file_path": "/state/a.md"}))
    expect(page.locator("#permission-list > li")).to_have_count(2)
    expect(page.locator("#announcer")).to_have_text("alice asks to use Edit")
    expect(card.get_by_label("if you deny it")).to_have_value("not to")
    card.get_by_role("button", name="Deny").click()
    expect(page.locator("#toasts")).to_contain_text("Permission 5: denied")
    assert hive.posts == [("/answer-permission/5", {"message": "not to", "scope": ""})]
    hive.ask_for()
    expect(page.locator("#permissions")).to_be_hidden()
    expect(page).to_have_title("alice · hyperhive")


def test_it_waits_though_the_harness_is_silent(hive: MockHive, page: Page) -> None:
    hive.permissions = [permission(5, "Bash", {"command": "make"}, rule="Bash(make)")]
    hive.agents["alice"] = agent_view("alice")
    hive.harnesses["alice"] = Harness("alice")
    hive.harnesses["alice"].down = True
    page.goto("/agents/alice/")
    page.get_by_role("button", name="Allow once: permission 5").click()
    expect(page.locator("#toasts")).to_contain_text("Permission 5: allowed")
    hive.do(lambda: hive.permissions.clear())
    page.locator("#connection").click()
    expect(page.locator("#permissions")).to_be_hidden()


def test_its_budget_its_notes_and_its_rules_are_at_hand(hive: MockHive, page: Page) -> None:
    hive.notes["alice"] = [note("notes.md", "I build the bridge.")]
    opened(page, hive)
    chip = page.locator("#budget")
    expect(chip).to_have_text("180 / 200 turns")
    expect(chip).to_have_class("chip warn")
    expect(chip).to_have_attribute("href", "stats")
    expect(page.locator("#bypass")).to_be_visible()
    hive.do(lambda: hive.harnesses["alice"].tell(agent_view("alice")))
    expect(chip).to_be_hidden()
    expect(page.locator("#bypass")).to_be_hidden()
    page.get_by_role("link", name="Notes of this agent").click()
    expect(page.get_by_role("region", name="The note")).to_contain_text("I build the bridge.")
    page.go_back()
    page.get_by_role("link", name="Permission rules for this agent").click()
    expect(page.get_by_role("complementary", name="Rules for alice")).to_be_visible()
