"""Themes, keys, live regions, high contrast and zoom: the parts of access that axe cannot see."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import logged_in
from tests.browser.demo_hive import busy_hive
from tests.browser.mock_hive import MockHive, question

pytestmark = pytest.mark.browser

DARK, LIGHT = "rgb(17, 17, 27)", "rgb(239, 241, 245)"
GROUND = "getComputedStyle(document.documentElement).backgroundColor"
PAGES = ["/", "/agents/alice/", "/login"]


@pytest.fixture(scope="module")
def busy() -> Iterator[MockHive]:
    served = busy_hive()
    served.start()
    yield served
    served.stop()


def live(page: Page, path: str) -> None:
    page.goto(path)
    if path != "/login":
        expect(page.locator("#connection")).to_have_attribute("data-kind", "live")


def keys(page: Page, *pressed: str) -> None:
    for key in pressed:
        page.keyboard.press(key)


# --- themes


@pytest.mark.parametrize(
    ("system", "chosen"),
    [
        ("light", None),
        ("light", "nonsense"),
        ("light", "dark"),
        ("dark", "light"),
        ("dark", "auto"),
        ("light", "auto"),
    ],
)
def test_a_theme_is_dark_until_another_is_chosen(
    browser: Browser, busy: MockHive, system: str, chosen: str | None
) -> None:
    context = logged_in(browser, busy, color_scheme=system)
    if chosen:
        context.add_init_script(f"localStorage.setItem('hive.theme', '{chosen}')")
    page = context.new_page()
    page.goto("/login")
    light = chosen == "light" or (chosen == "auto" and system == "light")
    assert page.evaluate(GROUND) == (LIGHT if light else DARK)
    expect(page.locator("meta[name=theme-color]")).to_have_attribute("content", LIGHT if light else DARK)
    context.close()


def test_the_toggle_goes_round_is_remembered_and_told_to_other_tabs(browser: Browser, busy: MockHive) -> None:
    context = logged_in(browser, busy, color_scheme="light")
    page, other = context.new_page(), context.new_page()
    other.goto("/agents/alice/")
    live(page, "/")
    toggle = page.get_by_role("button", name="Theme")
    for words, ground in (("light", LIGHT), ("as the system", LIGHT), ("dark", DARK), ("light", LIGHT)):
        toggle.click()
        assert (toggle.get_attribute("aria-label") or "").startswith(f"Theme: {words}.")
        assert page.evaluate(GROUND) == ground
    other.wait_for_function(f"{GROUND} === '{LIGHT}'")
    page.reload()
    assert page.evaluate(GROUND) == LIGHT
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "auto"
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_painted_before_the_theme_is_known(browser: Browser, busy: MockHive, path: str) -> None:
    """The root has its theme when the first element of the body is parsed, which is before any paint."""
    context = logged_in(browser, busy)
    context.add_init_script("""
      localStorage.setItem('hive.theme', 'light');
      new MutationObserver((_, watch) => {
        if (!document.body) return;
        window.themeAtBody = document.documentElement.dataset.theme ?? 'none';
        watch.disconnect();
      }).observe(document, { childList: true, subtree: true });""")
    page = context.new_page()
    page.goto(path)
    assert page.evaluate("window.themeAtBody") == "light"
    context.close()


def test_a_browser_that_keeps_nothing_still_has_a_theme(browser: Browser, busy: MockHive) -> None:
    context = browser.new_context(base_url=busy.url)
    context.add_init_script("""for (const name of ['getItem', 'setItem'])
      Storage.prototype[name] = () => { throw new DOMException('refused', 'SecurityError'); };""")
    page = context.new_page()
    page.goto("/login")
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(GROUND) == LIGHT
    context.close()


# --- keys


SECTIONS = {
    "c": "containers",
    "k": "tombstones",
    "q": "questions",
    "i": "inbox",
    "a": "approvals",
    "m": "flow",
}


def test_two_keys_lead_to_every_section_from_both_pages(page: Page) -> None:
    live(page, "/")
    for key, section in SECTIONS.items():
        keys(page, "g", key)
        expect(page.locator(f"#{section}-title")).to_be_focused()
    live(page, "/agents/hm1nd/")
    keys(page, "Escape", "g", "a")
    expect(page.locator("#approvals-title")).to_be_focused()


def test_no_key_is_taken_from_somebody_who_types(hive: MockHive, page: Page) -> None:
    live(page, "/")
    field = page.get_by_label("message", exact=True)
    field.focus()
    page.keyboard.type("g a ? / j k t o w")
    expect(field).to_have_value("g a ? / j k t o w")
    expect(field).to_be_focused()
    expect(page.locator("dialog")).to_have_count(0)
    keys(page, "Escape")
    expect(field).not_to_be_focused()
    keys(page, "Control+a", "Alt+g", "Control+j")
    assert page.evaluate("document.activeElement === document.body")
    keys(page, "w")
    expect(field).to_be_focused()
    keys(page, "Escape", "/")
    expect(page.locator("#flow-search")).to_be_focused()


def test_the_help_tells_the_keys_of_this_page_and_gives_the_focus_back(page: Page) -> None:
    live(page, "/")
    opener = page.get_by_role("button", name="Log out")
    opener.focus()
    keys(page, "?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("approvals")
    expect(dialog).not_to_contain_text("slash command")
    keys(page, "g", "a")  # nothing behind a dialog moves
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    keys(page, "Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()
    live(page, "/agents/hm1nd/")
    page.get_by_role("button", name="Keys").click()
    expect(dialog).to_contain_text("slash command")
    expect(dialog).not_to_contain_text("history of the row")


def test_single_keys_can_be_turned_off(page: Page) -> None:
    live(page, "/")
    keys(page, "?")
    page.get_by_role("checkbox", name="Single keys work").press("Space")
    keys(page, "Escape", "?", "g", "a", "t")
    expect(page.locator("dialog")).to_have_count(0)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.activeElement.tagName") != "H2"
    page.get_by_role("button", name="Keys").click()
    page.get_by_role("checkbox", name="Single keys work").press("Space")
    keys(page, "Escape", "t")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_a_row_keeps_the_focus_when_it_changes_and_leads_into_itself(hive: MockHive, page: Page) -> None:
    hive.questions = [question(1, "hm1nd", "Shall I?", ["yes", "no"]), question(2, "hm1nd", "And then?")]
    live(page, "/")
    keys(page, "g", "q", "j")
    first = page.locator("#question-list > li").first
    expect(first).to_be_focused()
    hive.publish("question", question(1, "hm1nd", "Shall I really?", ["yes", "no"]))
    expect(first).to_contain_text("Shall I really?")
    expect(first).to_be_focused()
    keys(page, "Enter")
    expect(first.get_by_role("radio", name="yes")).to_be_focused()
    keys(page, "j")
    expect(page.locator("#question-list > li").nth(1)).to_be_focused()
    keys(page, "r")
    expect(page.locator("#question-list > li").nth(1).get_by_role("textbox")).to_be_focused()
    keys(page, "Escape")
    expect(page.locator("#question-list > li").nth(1)).to_be_focused()
    keys(page, "k", "k", "k")
    keys(page, "l")
    expect(page.get_by_role("heading", name="Log of hm1nd")).to_be_visible()
    keys(page, "Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.get_by_role("button", name="Logs of hm1nd")).to_be_focused()


def test_rows_of_the_tail_are_stepped_through_from_anywhere(browser: Browser, busy: MockHive) -> None:
    context = logged_in(browser, busy)
    page = context.new_page()
    live(page, "/agents/alice/")
    keys(page, "Escape", "j")
    assert page.evaluate("document.activeElement.matches('#rows .row')")
    before = page.evaluate("document.activeElement.innerText")
    keys(page, "k")
    assert page.evaluate("document.activeElement.innerText") != before
    keys(page, "g", "q")
    page.wait_for_url("**/#questions")
    context.close()


# --- what is said aloud


CHANGES = """() => {
  window.changes = [];
  const regions = '[aria-live]:not([aria-live=off]), [role=status], [role=alert]';
  new MutationObserver((records) => {
    for (const { target } of records) {
      const region = (target instanceof Element ? target : target.parentElement)?.closest(regions);
      if (region) window.changes.push(region.id + ': ' + region.textContent);
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""


@pytest.mark.parametrize("path", ["/", "/agents/alice/", "/agents/bob/"])
def test_a_page_on_which_nothing_happens_says_nothing(browser: Browser, busy: MockHive, path: str) -> None:
    context = logged_in(browser, busy)
    page = context.new_page()
    live(page, path)
    page.wait_for_timeout(1000)
    page.evaluate(CHANGES)
    page.wait_for_timeout(2500)  # ages are counted each second
    assert page.evaluate("window.changes") == []
    context.close()


def test_much_at_once_is_said_in_one_breath(hive: MockHive, page: Page) -> None:
    live(page, "/")
    page.evaluate(CHANGES)
    for n in range(1, 21):
        hive.say(n, "hm1nd", "operator", f"line {n}")
    expect(page.locator("#inbox-count")).to_contain_text("20")
    expect(page.locator("#announcer")).to_contain_text("more events")
    expect(page.locator("#announcer")).to_contain_text("line 20")
    said = [each for each in page.evaluate("window.changes") if each.startswith("announcer")]
    assert len(said) <= 4


def test_the_tail_is_a_log_that_is_read_at_will_while_turns_are_told(hive: MockHive, page: Page) -> None:
    live(page, "/agents/hm1nd/")
    assert page.get_by_role("log").get_attribute("aria-live") == "off"
    hive.live("hm1nd", "turn_start", {"from": "operator", "body": "hello", "unread": 0, "message_id": 1})
    expect(page.locator("#announcer")).to_contain_text("Turn from operator: hello")


# --- sight


@pytest.mark.parametrize("path", PAGES)
def test_with_forced_colours_nothing_stays_invisible(browser: Browser, busy: MockHive, path: str) -> None:
    context = logged_in(browser, busy, forced_colors="active", reduced_motion="reduce")
    page = context.new_page()
    live(page, path)
    word = page.locator(".banner-word").first
    assert word.evaluate("each => getComputedStyle(each).webkitTextFillColor") == word.evaluate(
        "each => getComputedStyle(each).color"
    )
    assert word.evaluate("each => getComputedStyle(each).backgroundImage") == "none"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_at_twice_the_size_nothing_is_cut_or_needs_scrolling_sideways(
    browser: Browser, busy: MockHive, path: str
) -> None:
    """A window of 1280 by 1024 at 200 % has 640 by 512 CSS pixels; text alone twice as large, too."""
    context = logged_in(browser, busy, viewport={"width": 640, "height": 512}, device_scale_factor=2)
    page = context.new_page()
    live(page, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    context.close()
    context = logged_in(browser, busy, viewport={"width": 1280, "height": 1024})
    page = context.new_page()
    live(page, path)
    before = page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    page.evaluate("document.documentElement.style.fontSize = '187.5%'")
    assert page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)") == 2 * before
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    context.close()


def test_the_size_of_text_follows_the_browser(context: BrowserContext) -> None:
    """No text has a size in pixels, so whoever reads larger letters gets them (WCAG 1.4.4)."""
    page = context.new_page()
    page.goto("/login")
    sizes: Any = page.evaluate("""async () => {
      const styles = [...document.styleSheets].map((each) => fetch(each.href).then((reply) => reply.text()));
      return (await Promise.all(styles)).join('').match(/font(-size)?:[^;]*\\dpx/g);
    }""")
    assert sizes is None


# What a finger or a pointer has to hit; a link within a sentence is as high as its line (WCAG 2.5.8).
TARGETS = """(least) => [...document.querySelectorAll('button, select, textarea, summary, a, label.option')]
  .filter((each) => each.checkVisibility() && !each.closest('p, .words, .sr, .skip'))
  .map((each) => [each.outerHTML.slice(0, 120), Math.round(each.getBoundingClientRect().height * 10) / 10])
  .filter(([, height]) => height > 0 && height < least - 0.5)"""


@pytest.mark.parametrize("path", ["/", "/agents/alice/", "/agents/bob/", "/login"])
@pytest.mark.parametrize(("coarse", "least"), [(True, 44), (False, 24)], ids=["finger", "pointer"])
def test_everything_that_is_pressed_can_be_hit(
    browser: Browser, busy: MockHive, path: str, coarse: bool, least: int
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    context = logged_in(browser, busy, **(phone if coarse else {}))
    page = context.new_page()
    live(page, path)
    if path == "/":
        expect(page.locator("#flow-list li")).to_have_count(9)
    assert page.evaluate(TARGETS, least) == []
    context.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_all_of_the_help_can_be_reached(browser: Browser, busy: MockHive, width: int) -> None:
    context = logged_in(browser, busy, viewport={"width": width, "height": 640})
    page = context.new_page()
    live(page, "/")
    keys(page, "?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    groups = page.locator(".key-groups")
    assert groups.evaluate("each => each.scrollWidth <= each.clientWidth")
    groups.locator("table").last.scroll_into_view_if_needed()
    expect(groups.locator("table").last).to_be_in_viewport()
    context.close()
