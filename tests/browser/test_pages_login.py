"""Logging in: by the printed address, by a pasted one, and being told what is wrong."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS, watch_for_faults
from tests.browser.mock_hive import CODE, KEY, MockHive

pytestmark = pytest.mark.browser


@pytest.fixture
def visitor(browser: Browser, hive: MockHive) -> Iterator[Page]:
    """A page of someone who has not logged in."""
    context = browser.new_context(base_url=hive.url)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    faults = watch_for_faults(opened)
    yield opened
    context.close()
    assert faults == []


def test_the_printed_address_logs_in_and_leaves_no_code_behind(hive: MockHive, visitor: Page) -> None:
    visitor.goto(f"/login#{CODE}")
    visitor.wait_for_url(f"{hive.url}/")
    expect(visitor.locator("#connection")).to_have_attribute("data-kind", "live")
    assert visitor.evaluate("localStorage.getItem('hive.key')") == KEY
    assert CODE not in visitor.evaluate("document.cookie")
    visitor.go_back()
    assert CODE not in visitor.url


def test_without_a_session_every_page_leads_to_login_and_back(hive: MockHive, visitor: Page) -> None:
    visitor.goto("/agents/hm1nd/")
    visitor.wait_for_url("**/login?return=%2Fagents%2Fhm1nd%2F")
    visitor.get_by_label("login URL or code").fill(f"  {hive.url}/login#{CODE}\n")
    visitor.get_by_role("button", name="Log in").click()
    visitor.wait_for_url("**/agents/hm1nd/")


def test_a_wrong_code_is_explained_and_can_be_replaced(hive: MockHive, visitor: Page) -> None:
    visitor.goto("/login#stale-code")
    problem = visitor.get_by_role("alert")
    expect(problem).to_contain_text("wrong, used or expired")
    expect(problem).to_contain_text("hive-c0re url")
    assert "stale-code" not in visitor.url
    expect(visitor.get_by_label("login URL or code")).to_be_focused()
    visitor.get_by_label("login URL or code").fill(CODE)
    visitor.keyboard.press("Enter")
    visitor.wait_for_url(f"{hive.url}/")


def test_an_empty_code_and_an_unreachable_hive_are_told_apart(visitor: Page) -> None:
    visitor.goto("/login")
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor.get_by_role("alert")).to_contain_text("Paste the login URL")
    visitor.route("**/login", lambda route: route.abort())
    visitor.get_by_label("login URL or code").fill("x")
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor.get_by_role("alert")).to_contain_text("Is it running?")
    expect(visitor.get_by_role("button", name="Log in")).to_be_enabled()


def test_a_fresh_address_opened_over_the_login_page_is_taken(hive: MockHive, visitor: Page) -> None:
    visitor.goto("/login")
    visitor.evaluate(f"location.hash = '{CODE}'")
    visitor.wait_for_url(f"{hive.url}/")
