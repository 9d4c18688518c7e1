"""axe-core finds nothing on any page, in any state, in either theme, on a desk and on a phone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.axe import JUDGE, source
from tests.browser.conftest import logged_in
from tests.browser.demo_hive import busy_hive
from tests.browser.mock_hive import MockHive

pytestmark = pytest.mark.browser

SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def axe() -> str:
    return source()


@pytest.fixture(scope="module")
def busy() -> Iterator[MockHive]:
    served = busy_hive()
    served.start()
    yield served
    served.stop()


def judged(page: Page, axe: str, part: str = "html") -> list[str]:
    """What axe objects to in a part of the page as it is now, dark and light."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    found: list[str] = page.evaluate(JUDGE, part)
    return found


def shown(page: Page, path: str) -> None:
    page.goto(path)
    if path != "/login":
        expect(page.locator("#connection")).to_have_attribute("data-kind", "live")


def refused_login(page: Page) -> None:
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#problem")).to_be_visible()


def whole_dashboard(page: Page) -> None:
    shown(page, "/")
    expect(page.locator("#flow-list li")).to_have_count(9)
    folds = "main details:not([open], .file) > summary"
    page.evaluate(f"document.querySelectorAll('{folds}').forEach((each) => each.click())")
    expect(page.locator(".unified .plus").first).to_be_visible()


def confirming(page: Page) -> None:
    purge = page.get_by_role("button", name="Purge alice")
    if not purge.is_visible():  # on a phone
        page.get_by_label("More for alice").click()
    purge.click()
    expect(page.locator("dialog")).to_be_visible()


def keys(page: Page) -> None:
    for key in ("Escape", "Escape", "?"):  # out of a dialog or a field first
        page.keyboard.press(key)
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def panel_of(button: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        page.keyboard.press("Escape")
        page.get_by_role("button", name=button).first.click()
        expect(page.locator("#panel-title")).to_be_visible()
        expect(page.locator("#panel-status")).not_to_have_text("loading…")

    return show


def refused_answer(page: Page) -> None:
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Answer question 4").click()
    expect(page.locator("#questions .form-error:visible")).to_have_count(1)


def cut_off(page: Page) -> None:
    page.route("**/*", lambda route: route.abort())
    page.locator("#connection").click()
    expect(page.locator("#connection")).to_have_attribute("data-kind", "waiting")
    page.get_by_role("button", name="Rebuild alice").click()
    expect(page.locator("#containers .form-error:visible")).to_have_count(1)
    page.evaluate("scrollTo(0, 0)")  # else the header lies over a row


def whole_tail(page: Page) -> None:
    shown(page, "/agents/alice/")
    page.evaluate(
        "for (const each of document.querySelectorAll('#rows details:not([open]) > summary')) each.click()"
    )


def searching(page: Page) -> None:
    page.keyboard.press("Escape")
    page.locator("#find-open").click()
    page.keyboard.type("notes")
    expect(page.locator("#find-count")).to_contain_text("of")


def asleep(page: Page) -> None:
    page.goto("/agents/frank/")
    expect(page.locator("#badge")).to_contain_text("stopped")


def nobody(page: Page) -> None:
    page.goto("/agents/nobody/")
    expect(page.locator("#gone")).to_be_visible()


# Step by step, each from where the one before ended. Where only a part is new, only that is judged: for a
# dashboard with everything on it axe takes seconds.
STORIES: dict[str, dict[str, tuple[Callable[[Page], None], str]]] = {
    "login": {
        "as it opens": (lambda page: shown(page, "/login"), "html"),
        "refused": (refused_login, "html"),
    },
    "dashboard": {
        "everything open": (whole_dashboard, "html"),
        "a dialog": (confirming, "dialog"),
        "keys": (keys, "dialog"),
        "a log": (panel_of("Logs of alice"), "#panel"),
        "a history": (panel_of("History of alice"), "#panel"),
        "a thread": (panel_of("Show the thread"), "#panel"),
        "notes": (panel_of("Notes of alice"), "#panel"),
        "rules": (panel_of("Permission rules of alice"), "#panel"),
        "sessions": (panel_of("Sessions"), "#panel"),
        "an answer refused": (refused_answer, "#questions"),
        "cut off": (cut_off, "header, #outage, #containers"),
    },
    "agent": {
        "everything open": (whole_tail, "html"),
        "keys": (keys, "dialog"),
        "searching": (searching, "#find, .found-row"),
    },
    "agents in trouble": {
        "needs login": (lambda page: shown(page, "/agents/bob/"), "html"),
        "nothing happened": (lambda page: shown(page, "/agents/carol/"), "html"),
        "stopped": (asleep, "html"),
        "unknown": (nobody, "html"),
    },
}


def opened(browser: Browser, hive: MockHive, size: str) -> Page:
    return logged_in(browser, hive, **SIZES[size], reduced_motion="reduce").new_page()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("story", STORIES)
def test_axe_objects_to_nothing(browser: Browser, busy: MockHive, axe: str, story: str, size: str) -> None:
    page = opened(browser, busy, size)
    objections = {}
    for state, (reach, part) in STORIES[story].items():
        reach(page)
        objections[state] = judged(page, axe, part)
    assert {state: found for state, found in objections.items() if found} == {}
    page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_axe_objects_to_nothing_on_an_empty_hive(
    browser: Browser, hive: MockHive, axe: str, size: str
) -> None:
    page = opened(browser, hive, size)
    shown(page, "/")
    assert judged(page, axe) == []
    page.context.close()


PLANTED: dict[str, Any] = {
    "button-name": "document.querySelector('#logout').replaceChildren();"
    " document.querySelector('#logout').removeAttribute('aria-label')",
    "label": "document.querySelector('#spawn-name').closest('label').replaceWith("
    "document.querySelector('#spawn-name'));"
    " ['title', 'placeholder'].forEach(each => document.querySelector('#spawn-name').removeAttribute(each))",
    "color-contrast": "document.querySelector('#no-tombstones').style.color = 'var(--line)'",
    "heading-order": "document.querySelector('h2').replaceWith(Object.assign(document.createElement('h4'), "
    "{textContent: 'deep'}))",
    "lacks what is seen": "document.querySelector('#logout + *, #connection').ariaLabel = 'something else'",
    "target-size": "document.querySelector('.jumps').style.gap = 0;"
    " for (const each of document.querySelectorAll('.jumps a')) { each.textContent = 'x';"
    " Object.assign(each.style, {minHeight: 0, fontSize: '6px', lineHeight: 1}); }",
    "aria-allowed-attr": "document.querySelector('main').setAttribute('aria-checked', 'true')",
}


def test_what_is_planted_is_found(browser: Browser, hive: MockHive, axe: str) -> None:
    page = opened(browser, hive, "desk")
    shown(page, "/")
    for script in PLANTED.values():
        page.evaluate(script)
    found = judged(page, axe)
    assert {rule for rule in PLANTED if not any(rule in each for each in found)} == set()
    page.context.close()
