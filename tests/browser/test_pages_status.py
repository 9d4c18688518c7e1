"""What an agent is doing, in a real browser: as core says, the same on the dashboard and on its own page."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from hive_shared.status_words import WORDS
from hive_shared.wire import AgentStatus
from tests.browser.mock_hive import MockHive, agent_view, now_ms

pytestmark = pytest.mark.browser


def told(name: str, status: AgentStatus, **more: Any) -> dict[str, Any]:
    return agent_view(name, status=status, status_since_ms=now_ms() - 5000, **more)


def test_the_dashboard_says_every_status_as_core_does(hive: MockHive, page: Page) -> None:
    names = {f"a{number}": status for number, status in enumerate(AgentStatus)}
    hive.agents = {name: told(name, status) for name, status in names.items()}
    page.goto("/")
    for name, status in names.items():
        pill = page.locator(f'#container-list [data-key="{name}"] [data-key="state"]')
        expect(pill).to_contain_text(f"{WORDS[status]} · ")


def test_a_row_says_until_when_and_why(hive: MockHive, page: Page) -> None:
    at_ms = now_ms() + 3_600_000
    hive.agents["bob"] = told(
        "bob", AgentStatus.PARKED, status_until_ms=at_ms, status_note="all tokens spent"
    )
    hive.agents["carol"] = told(
        "carol", AgentStatus.OFFLINE, status_note="its harness does not answer at all"
    )
    page.goto("/")
    bob, carol = (page.locator(f'#container-list [data-key="{name}"]') for name in ("bob", "carol"))
    clock = page.evaluate("async (ms) => (await import('/static/js/text.js')).clock(ms)", at_ms)
    expect(bob).to_contain_text(f"parked until {clock} · ")
    expect(bob).to_contain_text("Held back: all tokens spent.")
    expect(carol).to_contain_text("its harness does not answer at all")


def test_the_page_of_an_agent_shows_what_core_says_of_it(hive: MockHive, page: Page) -> None:
    page.goto("/agents/hm1nd/")
    badge, harness = page.locator("#badge"), hive.harnesses["hm1nd"]
    hive.do(lambda: harness.set_state(badge="thinking"))
    expect(badge).to_contain_text("thinking")
    view = told("hm1nd", AgentStatus.OFFLINE, status_note="its harness runs and does not answer")
    hive.do(lambda: harness.tell(view))
    expect(badge).to_contain_text("offline · ")  # while what the harness said last is that it thinks
    expect(badge).to_have_attribute("title", "its harness runs and does not answer")
    hive.do(lambda: harness.set_state(badge="idle"))
    expect(badge).to_contain_text("idle · ")
