"""Tool calls that wait, as cards on the dashboard: all of it as text, and the four answers."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive, agent_view, now_ms, permission

pytestmark = pytest.mark.browser


def opened(page: Page) -> Page:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def test_a_call_is_shown_whole_as_text_and_answered(hive: MockHive, page: Page) -> None:
    command = "rm -rf old\n<img src=x onerror=alert(1)>"
    hive.permissions = [permission(5, "Bash", {"command": command}, rule="Bash(rm -rf old)")]
    opened(page)
    card = page.locator('#permission-list > [data-key="5"]')
    for text in ("alice", "Bash", "/state", "to tidy up", "Bash(rm -rf old)"):
        expect(card).to_contain_text(text)
    expect(card.locator("pre")).to_have_text(f"command: {command}")
    expect(card.locator("img")).to_have_count(0)
    card.get_by_role("button", name="Allow once").click()
    expect(page.locator("#toasts, .toast").first).to_contain_text("allowed")
    assert hive.posts.pop() == ("/answer-permission/5", {"message": "", "scope": "once"})
    card.get_by_label("if you deny it").fill("not today")
    card.get_by_role("button", name="Deny").click()
    page.wait_for_function("() => document.querySelector('#permission-list form:not([data-busy])')")
    assert hive.posts.pop() == ("/answer-permission/5", {"message": "not today", "scope": ""})


def test_always_asks_first_and_says_which_rule_it_writes(hive: MockHive, page: Page) -> None:
    hive.permissions = [permission(5, "Bash", {"command": "make"}, rule="Bash(make)")]
    opened(page)
    page.get_by_role("button", name="Always allow").click()
    expect(page.get_by_role("dialog")).to_contain_text("Bash(make)")
    assert hive.posts == []
    page.get_by_role("button", name="Write the rule").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#toasts, .toast").first).to_contain_text("allowed")
    assert hive.posts == [("/answer-permission/5", {"message": "", "scope": "always"})]


def test_an_edit_is_a_diff_and_long_arguments_are_folded(hive: MockHive, page: Page) -> None:
    edit = {"file_path": "/state/a.md", "old_string": "one\ntwo", "new_string": "one\nthree"}
    long = permission(6, "Write", {"file_path": "/state/b", "content": "x" * 5000}, truncated=True)
    hive.permissions = [permission(5, "Edit", edit), long]
    opened(page)
    call = page.locator('#permission-list > [data-key="5"] pre')
    expect(call).to_contain_text("- two")
    expect(call).to_contain_text("+ three")
    folded = page.locator('#permission-list > [data-key="6"]')
    expect(folded.locator("pre")).to_be_hidden()
    folded.locator("summary").click()
    expect(folded.locator("pre")).to_contain_text("cut: it is longer")
    # What no rule can tell is allowed once or not at all.
    expect(page.get_by_role("button", name="Always allow")).to_have_count(0)


def test_rows_say_who_waits_and_who_is_let_do_everything(hive: MockHive, page: Page) -> None:
    report = {"badge": "waiting_for_you", "since_ms": now_ms(), "backend": "claude"}
    hive.agents["alice"] = agent_view("alice", report=report, bypass=True)
    hive.permissions = [permission(5, "Bash", {"command": "make"})]
    opened(page)
    row = page.locator('#container-list [data-key="alice"]')
    expect(row).to_contain_text("waiting for you")
    expect(row.locator('[data-key="bypass"]')).to_have_text("bypass")
