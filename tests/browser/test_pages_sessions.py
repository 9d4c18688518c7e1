"""The panel with the browsers that are logged in."""

from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive, now_ms

EVIL = '<img src=x onerror="document.title=1"> \u202eexe'


def _sessions() -> list[dict[str, object]]:
    times = {
        "created_at_ms": now_ms() - 7_200_000,
        "last_seen_ms": now_ms(),
        "ends_at_ms": now_ms() + 86_400_000,
    }
    return [
        {"id": "0a1b2c3d", "client": "Firefox", **times},
        {"id": "deadbeef", "client": EVIL, **times},
    ]


def test_the_panel_lists_the_browsers_and_logs_one_out(hive: MockHive, page: Page) -> None:
    hive.sessions = _sessions()
    page.goto(hive.url)
    page.get_by_role("button", name="Browsers that are logged in").click()
    panel = page.get_by_role("complementary", name="Browsers that are logged in")
    expect(panel.locator("#panel-status")).to_have_text("2 browsers")
    rows = panel.get_by_role("listitem")
    expect(rows.nth(0)).to_contain_text("this browser")
    expect(rows.nth(1)).to_contain_text("<img src=x")
    expect(rows.nth(1)).not_to_contain_text("this browser")
    assert panel.locator("img").count() == 0
    panel.get_by_role("button", name="Log out session deadbeef").click()
    hive.sessions = hive.sessions[:1]
    page.get_by_role("button", name="Log out", exact=True).last.click()
    expect(panel.locator("#panel-status")).to_have_text("1 browser")
    assert hive.posts == [("/end-session/deadbeef", {})]


def test_all_browsers_are_logged_out_at_once(hive: MockHive, page: Page) -> None:
    hive.sessions = _sessions()
    page.goto(hive.url)
    page.get_by_role("button", name="Browsers that are logged in").click()
    page.get_by_role("button", name="Log out all browsers").click()
    page.get_by_role("button", name="Log out all", exact=True).click()
    expect(page.get_by_text("Logged out.")).to_be_visible()
    assert hive.posts == [("/logout-all", {})]
