"""What a backend cannot do is said on its agent's page, on a phone too."""

import os
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive
from tests.browser.test_pages_agent import opened


def test_what_a_backend_cannot_do_stands_on_its_page(hive: MockHive, page: Page) -> None:
    opened(page)
    backend = page.locator("#backend")
    harness = hive.harnesses["hm1nd"]
    cannot = {"login": False, "compact": True, "models": False, "cost": False}
    page.set_viewport_size({"width": 390, "height": 800})
    hive.do(lambda: harness.set_state(backend="openai", backend_label="chat API", capabilities=cannot))
    expect(backend).to_have_text("chat API · no login here, list of models, costs")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if shots := os.environ.get("HIVE_SCREENSHOTS"):
        page.screenshot(path=Path(shots) / "backend-phone.png")
    hive.do(lambda: harness.set_state(capabilities=dict.fromkeys(cannot, True)))
    expect(backend).to_have_text("chat API")
