"""Y0UR C4LL, and the notifications of a browser: in Chromium, with the permission granted and denied."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import launched, logged_in, watch_for_faults
from tests.browser.mock_hive import MockHive, agent_view, approval, now_ms, question, waiting

pytestmark = pytest.mark.browser

# What the page shows of notifications, without a desktop that could show them. Whether it is allowed to,
# and what it may know of that, is the browser's own answer.
RECORDER = """
(() => {
  const Real = window.Notification;
  window.shown = [];
  class Recorded extends EventTarget {
    constructor(title, options) {
      super();
      Object.assign(this, { title, ...options, closed: false });
      window.shown.push(this);
    }
    close() { this.closed = true; this.dispatchEvent(new Event("close")); }
    static get permission() { return window.granted ?? Real.permission; }
    static requestPermission() { window.asked = (window.asked ?? 0) + 1; return Real.requestPermission(); }
  }
  window.Notification = Recorded;
  Object.defineProperty(document, "hidden", { get: () => window.away === true });
})();
"""


@pytest.fixture(scope="module")
def browser(whole_chromium: str) -> Iterator[Browser]:
    with launched(whole_chromium) as opened:
        yield opened


def open_page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.add_init_script(RECORDER)
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def shown(page: Page) -> list[dict[str, Any]]:
    told = page.evaluate("window.shown.map(({ title, body, tag, closed }) => ({ title, body, tag, closed }))")
    return list(told)


def leave(page: Page, *, away: bool = True) -> None:
    page.evaluate("(away) => { window.away = away; }", away)


def settled(page: Page, count: int) -> None:
    expect(page.locator("#waiting-count")).to_have_text(str(count))


@pytest.fixture
def granted(browser: Browser, hive: MockHive) -> Iterator[BrowserContext]:
    context = logged_in(browser, hive, permissions=["notifications"])
    yield context
    context.close()


def test_the_queue_stands_on_top_in_the_order_of_core_and_leads_to_each_card(
    page: Page, hive: MockHive
) -> None:
    hive.agents["bob"] = agent_view("bob")
    hive.questions = [question(3, "bob", "which colour?")]
    hive.approvals = [
        approval(7, "grace"),
        approval(8, "frank", "failed", resolved_by="operator", resolved_at_ms=now_ms()),
    ]
    hive.waiting = [
        waiting("login", "bob", "bob", summary="bob needs a login"),
        waiting("question", 3, "bob", "which colour?", expires_at_ms=now_ms() + 3_600_000),
        waiting("approval", 7, "hm1nd", summary="spawn grace"),
        waiting("failure", 8, "hm1nd", "no disk", summary="change frank failed", blocked=[]),
    ]
    page.goto("/")
    rows = page.locator("#waiting-list > li")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text(re.compile("bob asks.*which colour.*holds up bob.*in 59m"))
    expect(page).to_have_title("(4) hyperhive")
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", "static/favicon-waiting.svg")
    expect(rows.nth(0).get_by_role("link")).to_have_attribute("href", "/agents/bob/")

    for row, card in (
        (1, "#question-list > [data-key='3']"),
        (2, "#approval-list > [data-key='7']"),
        (3, "#resolved-list > [data-key='8']"),
    ):
        rows.nth(row).get_by_role("link").focus()
        page.keyboard.press("Enter")
        expect(page.locator(card)).to_be_focused()
        expect(page.locator(card)).to_be_in_viewport()

    page.get_by_role("button", name="Dismiss failed approval 8").click()
    hive.wait_for(*hive.waiting[:3])
    expect(rows).to_have_count(3)
    assert ("/dismiss/8", {}) in hive.posts
    hive.wait_for()
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", "static/favicon.svg")


def test_a_link_from_elsewhere_leads_to_its_card_once_that_is_there(page: Page, hive: MockHive) -> None:
    hive.questions = [question(n, "bob", f"question {n}") for n in range(1, 30)]
    page.goto("/#question-29")
    expect(page.locator("#question-list > [data-key='29']")).to_be_focused()
    page.goto("/#question-1")
    expect(page.locator("#question-list > [data-key='1']")).to_be_focused()
    page.goto("/#approval-99")  # settled meanwhile, or never there
    expect(page.locator("#question-list > [data-key='29']")).to_be_visible()


def test_a_link_leads_to_its_card_over_the_login(browser: Browser, hive: MockHive) -> None:
    hive.questions = [question(5, "bob", "which colour?")]
    context = browser.new_context(base_url=hive.url)
    page = context.new_page()
    page.goto("/#question-5")
    expect(page).to_have_url(re.compile(r"/login\?return="))
    page.locator("#code").fill("one-time-code")
    page.keyboard.press("Enter")
    expect(page.locator("#question-list > [data-key='5']")).to_be_focused()
    context.close()


def test_a_long_queue_is_short_until_it_is_asked_for(page: Page, hive: MockHive) -> None:
    hive.waiting = [waiting("question", n, "bob") for n in range(1, 31)]
    page.goto("/")
    expect(page.locator("#waiting-list > li")).to_have_count(6)
    page.get_by_role("button", name="show 24 more").click()
    expect(page.locator("#waiting-list > li")).to_have_count(30)


def test_what_an_agent_wrote_is_text_in_the_queue(page: Page, hive: MockHive) -> None:
    said = '<img src=x onerror="document.title=1">\u202egnp.exe [a](https://evil.example)'
    hive.waiting = [waiting("question", 1, "bob", said)]
    page.goto("/")
    told = page.locator(".waiting-said")
    expect(told).to_contain_text("<img src=x")
    expect(told).to_contain_text("‹U+202E›")
    assert page.locator("#waiting-list img, #waiting-list a[href*=evil]").count() == 0


def test_nobody_is_asked_before_the_bell_is_pressed_and_the_choice_is_kept(granted: BrowserContext) -> None:
    page = open_page(granted)
    bell = page.locator("#bell")
    expect(bell).to_have_accessible_name("Notifications are off")
    assert page.evaluate("window.asked") is None
    bell.click()
    expect(bell).to_have_accessible_name("Notifications are on")
    expect(bell).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(bell).to_have_accessible_name("Notifications are on")
    other = open_page(granted)
    other.locator("#bell").click()
    expect(other.locator("#bell")).to_have_accessible_name("Notifications are off")
    expect(bell).to_have_accessible_name("Notifications are off")  # the other tab, too


def test_what_is_new_is_told_while_nobody_looks_and_leads_to_its_card(
    granted: BrowserContext, hive: MockHive
) -> None:
    hive.questions = [question(2, "bob", "which colour?")]
    hive.waiting = [waiting("question", 1, "bob", "an old one")]
    page = open_page(granted)
    faults = watch_for_faults(page)
    page.locator("#bell").click()
    hive.wait_for(waiting("question", 1, "bob"), waiting("approval", 4, "hm1nd"))
    settled(page, 2)
    assert shown(page) == [], "the page is looked at"
    leave(page)
    second = waiting("question", 2, "bob", "which\u202e colour?")
    hive.wait_for(waiting("question", 1, "bob"), waiting("approval", 4, "hm1nd"), second)
    settled(page, 3)
    (told,) = shown(page)
    assert (told["title"], told["body"]) == ("bob asks", "which‹U+202E› colour?")
    assert told["tag"] == "hive.question:2"
    page.evaluate("window.shown[0].dispatchEvent(new Event('click'))")
    expect(page.locator("#question-list > [data-key='2']")).to_be_focused()
    assert shown(page)[0]["closed"]
    assert page.url.endswith("#question-2")
    assert faults == []


def test_many_at_once_are_one_and_what_is_settled_disappears(granted: BrowserContext, hive: MockHive) -> None:
    page = open_page(granted)
    page.locator("#bell").click()
    leave(page)
    hive.wait_for(waiting("question", 1, "bob"))
    settled(page, 1)
    hive.wait_for(*(waiting("question", n, "bob") for n in range(1, 101)))
    settled(page, 100)
    assert [told["title"] for told in shown(page)] == ["bob asks", "99 things wait for you"]
    hive.wait_for()
    settled(page, 0)
    assert all(told["closed"] for told in shown(page))


def test_two_tabs_and_a_daemon_that_starts_again_tell_nothing_twice(
    granted: BrowserContext, hive: MockHive
) -> None:
    pages = [open_page(granted), open_page(granted)]
    pages[0].locator("#bell").click()
    for page in pages:
        expect(page.locator("#bell")).to_have_attribute("aria-pressed", "true")
        leave(page)
    hive.wait_for(waiting("login", "bob", "bob"))
    for page in pages:
        settled(page, 1)
    assert {json.dumps(told) for page in pages for told in shown(page)} == {json.dumps(shown(pages[0])[0])}
    snapshots = hive.snapshots
    hive.forget_feed()
    for page in pages:
        expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    pages[0].wait_for_function("() => true")
    hive.wait_for(waiting("login", "bob", "bob"), waiting("question", 2, "bob"))
    for page in pages:
        settled(page, 2)
        assert len(shown(page)) == 2
    assert hive.snapshots > snapshots


def test_a_browser_that_refuses_says_so_and_nothing_is_told(context: BrowserContext, hive: MockHive) -> None:
    page = open_page(context)  # nobody granted anything: Chromium without a desktop denies
    page.evaluate("window.granted = 'denied'")
    page.locator("#bell").click()
    expect(page.locator("#bell")).to_have_accessible_name("Notifications are blocked by the browser")
    expect(page.locator("#toasts")).to_contain_text("settings for this site")
    leave(page)
    hive.wait_for(waiting("question", 1, "bob"))
    settled(page, 1)
    assert shown(page) == []
    expect(page).to_have_title("(1) hyperhive")


def test_a_browser_without_notifications_for_pages_says_so(context: BrowserContext, hive: MockHive) -> None:
    """Those of phones throw where a page makes one itself."""
    page = open_page(context)
    page.evaluate("window.granted = 'granted'")
    page.locator("#bell").click()
    expect(page.locator("#bell")).to_have_attribute("aria-pressed", "true")
    page.evaluate("""() => {
      const refuse = () => { throw new TypeError("Illegal constructor"); };
      window.Notification = class { static permission = "granted"; constructor() { refuse(); } };
      window.away = true;
    }""")
    hive.wait_for(waiting("question", 1, "bob"))
    expect(page.locator("#bell")).to_have_accessible_name("Notifications are not possible here")
    expect(page.locator("#waiting-list > li")).to_have_count(1)
