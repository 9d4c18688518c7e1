"""What the content policy does when a line of the front end is wrong after all (SECURITY 3 and 4)."""

import pytest
from playwright.sync_api import BrowserContext, Error, Page

from hive_core.web import headers
from tests.browser.mock_hive import MockHive

pytestmark = pytest.mark.browser

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
MARKUP = "<img src=x onerror='window.pwned=1'>"
SINKS = {
    "innerHTML": "(text) => { document.body.innerHTML = text; }",
    "outerHTML": "(text) => { document.body.firstElementChild.outerHTML = text; }",
    "insertAdjacentHTML": "(text) => document.body.insertAdjacentHTML('beforeend', text)",
    "document.write": "(text) => document.write(text)",
    "DOMParser": "(text) => new DOMParser().parseFromString(text, 'text/html')",
    "a script's text": "(text) => { document.createElement('script').text = text; }",
    "a timer's text": "() => { setTimeout('window.pwned = 1'); }",
}


@pytest.fixture
def opened(hive: MockHive, context: BrowserContext, request: pytest.FixtureRequest) -> Page:
    page = context.new_page()
    if not request.getfixturevalue("in_force"):

        def without_policy(route):  # type: ignore[no-untyped-def]
            reply = route.fetch()
            kept = {name: value for name, value in reply.headers.items() if name != "content-security-policy"}
            route.fulfill(response=reply, headers=kept)

        page.route("**/login", without_policy)
    page.goto("/login")
    return page


@IN_FORCE
@pytest.mark.parametrize("sink", SINKS)
def test_a_text_becomes_neither_markup_nor_code(opened: Page, sink: str, in_force: bool) -> None:
    refused = False
    try:
        opened.evaluate(SINKS[sink], MARKUP)
    except Error as error:
        refused = "TrustedHTML" in str(error) or "Trusted" in str(error) or "eval" in str(error).lower()

    assert refused is in_force


def test_the_pages_under_test_have_the_policy_that_core_sends(
    hive: MockHive, context: BrowserContext
) -> None:
    reply = context.new_page().goto("/login")

    assert reply is not None
    assert reply.headers["content-security-policy"] == headers.CONTENT_SECURITY_POLICY
