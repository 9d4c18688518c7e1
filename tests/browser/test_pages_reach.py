# ruff: noqa: E501 — scripts and events read best as they are sent
"""For everyone: a phone, a keyboard alone, a screen reader, reduced motion, light and dark."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import logged_in
from tests.browser.demo_hive import busy_hive
from tests.browser.mock_hive import MockHive, agent_view

pytestmark = pytest.mark.browser

PAGES = ["/", "/agents/alice/", "/agents/bob/", "/agents/frank/", "/login"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def busy() -> Iterator[MockHive]:
    served = busy_hive()
    served.start()
    yield served
    served.stop()


def settled(page: Page, path: str) -> None:
    page.goto(path)
    if path == "/":
        expect(page.locator("#flow-list li")).to_have_count(9)
    elif path == "/agents/frank/":
        expect(page.locator("#badge")).to_contain_text("stopped")
    elif path != "/login":
        expect(page.locator("#connection")).to_have_attribute("data-kind", "live")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [320, 390])
def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, busy: MockHive, path: str, width: int) -> None:
    context = logged_in(browser, busy, **(PHONE | {"viewport": {"width": width, "height": 844}}))
    page = context.new_page()
    settled(page, path)
    for summary in page.locator("main details > summary").all()[:12]:
        summary.click()
    too_wide = page.evaluate("""() => [...document.querySelectorAll('body *')]
      .filter(each => each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1
        && !each.closest('.chips, .sr, .panel-log'))
      .map(each => each.outerHTML.slice(0, 120))""")
    assert too_wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_touch_targets_on_a_phone_are_44_pixels(browser: Browser, busy: MockHive, path: str) -> None:
    context = logged_in(browser, busy, **PHONE)
    page = context.new_page()
    settled(page, path)
    small = page.evaluate("""() => [...document.querySelectorAll('button, select, textarea, input:not([type=hidden], [type=radio], [type=checkbox]), label.option')]
      .filter(each => each.checkVisibility())
      .map(each => [each.outerHTML.slice(0, 100), each.getBoundingClientRect().height])
      .filter(([, height]) => height < 43.5)""")
    assert small == []
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_every_control_has_a_name_and_every_page_its_landmarks(
    browser: Browser, busy: MockHive, path: str
) -> None:
    context = logged_in(browser, busy)
    page = context.new_page()
    settled(page, path)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, a, input:not([type=hidden]), select, textarea, summary')]
      .filter(each => each.checkVisibility())
      .filter(each => !(each.getAttribute('aria-label') || each.labels?.length || visibleText(each)))
      .map(each => each.outerHTML.slice(0, 120));
      function visibleText(element) {
        const copy = element.cloneNode(true);
        copy.querySelectorAll('[aria-hidden=true]').forEach(each => each.remove());
        return copy.textContent.trim();
      }""")
    assert nameless == []
    assert page.locator("main").count() == 1
    assert page.locator("h1").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    context.close()


CONTRAST = """() => {
  const channel = value => { const part = value / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; };
  const paint = (colour, under) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d');
    for (const each of [...under, colour]) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(each => each instanceof Text && each.data.trim());
    if (!own || !element.checkVisibility() || element.matches('.banner-word, .banner-edge, :disabled, option, .sr, .sr *')) continue;
    const grounds = [];
    for (let each = element; each; each = each.parentElement) grounds.unshift(getComputedStyle(each).backgroundColor);
    const style = getComputedStyle(element);
    const [front, back] = [light(paint(style.color, grounds)), light(paint('transparent', grounds))];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) bad.push([element.className, element.textContent.slice(0, 40), ratio.toFixed(2)]);
  }
  return bad;
}"""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_has_aa_contrast(browser: Browser, busy: MockHive, path: str, scheme: str) -> None:
    context = logged_in(browser, busy, color_scheme=scheme, reduced_motion="reduce")
    context.add_init_script("localStorage.setItem('hive.theme', 'auto')")
    page = context.new_page()
    settled(page, path)
    for summary in page.locator("main details > summary").all()[:12]:
        summary.click()
    assert page.evaluate(CONTRAST) == []
    context.close()


def test_reduced_motion_moves_nothing(browser: Browser, busy: MockHive) -> None:
    context = logged_in(browser, busy, reduced_motion="reduce")
    page = context.new_page()
    for path in ("/", "/agents/alice/"):
        settled(page, path)
        assert page.evaluate("document.getAnimations().length") == 0
    context.close()


def test_an_approval_by_keyboard_alone(hive: MockHive, page: Page) -> None:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "spawn-name":
            break
    page.keyboard.type("zoe")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Asked.")
    assert hive.posts == [("/request-spawn", {"name": "zoe", "note": ""})]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_dialog_holds_the_focus_and_escape_means_no(hive: MockHive, page: Page) -> None:
    page.goto("/")
    restart = page.get_by_role("button", name="Restart hm1nd")
    restart.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep as is")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(restart).to_be_focused()
    assert hive.posts == []


def test_on_a_phone_what_is_pressed_seldom_is_folded_and_stays_as_it_was_left(
    browser: Browser, busy: MockHive
) -> None:
    context = logged_in(browser, busy, **PHONE)
    page = context.new_page()
    page.goto("/")
    row = page.locator('#container-list [data-key="alice"]')
    expect(row.get_by_role("button", name="Restart alice")).to_be_visible()
    expect(row.get_by_role("button", name="Purge alice")).to_be_hidden()
    page.get_by_label("More for alice").click()
    expect(row.get_by_role("button", name="Purge alice")).to_be_visible()
    busy.publish("agent", agent_view("alice", note="something new"))
    expect(row).to_contain_text("something new")
    expect(row.get_by_role("button", name="Notes of alice")).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 844})
    expect(page.get_by_label("More for alice")).to_have_count(0)
    expect(row.get_by_role("button", name="Purge alice")).to_be_visible()
    context.close()
