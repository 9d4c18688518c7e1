"""An agent's notes in the side panel, and how full its conversation is, in its row and on its page."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import Harness, MockHive, agent_view, note, now_ms

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="document.title=1"> \u202eexe'


def with_context(tokens: int, window_tokens: int = 200_000) -> dict[str, Any]:
    report = {"badge": "idle", "since_ms": now_ms(), "backend": "claude", "model": "sonnet"}
    return agent_view("alice", report=report | {"context_tokens": tokens, "window_tokens": window_tokens})


def opened(page: Page, hive: MockHive) -> Page:
    page.goto(hive.url)
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def test_notes_are_listed_and_read_as_text(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = agent_view("alice")
    hive.notes["alice"] = [
        note("notes.md", f"I build the bridge. {EVIL}"),
        note("notes/plan.md", "second", truncated=True),
    ]
    opened(page, hive).get_by_role("button", name="Notes of alice").click()
    panel = page.get_by_role("complementary", name="Notes of alice")
    expect(panel.locator("#panel-status")).to_have_text("2 notes · 2 not shown")
    text = panel.get_by_role("region", name="The note")
    expect(text).to_contain_text(f"I build the bridge. {EVIL[:36]}")
    assert panel.locator("img").count() == 0
    expect(panel.get_by_role("button", name="notes.md")).to_have_attribute("aria-pressed", "true")

    panel.get_by_role("button", name="notes/plan.md").click()
    expect(text).to_contain_text("second")
    expect(text).to_contain_text("cut: the file has 6 B")
    expect(panel.get_by_role("button", name="notes.md")).to_have_attribute("aria-pressed", "false")

    hive.do(lambda: hive.notes["alice"].pop())
    panel.get_by_role("button", name="notes/plan.md").click()
    expect(text).to_contain_text("is not read")
    panel.get_by_role("button", name="Close the panel").click()
    expect(page.get_by_role("button", name="Notes of alice")).to_be_focused()


def test_an_open_note_is_current_where_its_reader_is(hive: MockHive, page: Page) -> None:
    long = "\n".join(f"line {number}" for number in range(400))
    hive.agents["alice"] = agent_view("alice")
    hive.notes["alice"] = [note("notes.md", long), note("notes/plan.md", "second")]
    opened(page, hive).get_by_role("button", name="Notes of alice").click()
    text = page.get_by_role("region", name="The note")
    expect(text).to_contain_text("line 399")
    text.evaluate("it => it.scrollTop = 700")
    page.get_by_role("button", name="notes/plan.md").focus()

    # A file tells nobody that it changes; its agent, at work, is told of.
    now = [
        note("notes.md", long + "\nand more"),
        note("notes/new.md", "third"),
        note("notes/plan.md", "second"),
    ]
    hive.do(lambda: hive.notes.update(alice=now))
    hive.publish("agent", with_context(9_000))
    expect(page.get_by_role("button", name="notes/new.md")).to_be_visible()
    expect(text).to_contain_text("and more")
    assert text.evaluate("it => it.scrollTop") == 700
    expect(page.get_by_role("button", name="notes/plan.md")).to_be_focused()
    expect(page.get_by_role("button", name="notes.md")).to_have_attribute("aria-pressed", "true")

    hive.do(lambda: hive.notes.update(alice=now[1:]))
    hive.publish("agent", agent_view("hm1nd"))  # another's work
    hive.publish("agent", with_context(10_000))
    expect(page.locator("#panel-status")).to_contain_text("2 notes")
    expect(text).to_have_text("third")


def test_an_agent_without_notes_says_where_they_would_be(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = agent_view("alice")
    opened(page, hive).get_by_role("button", name="Notes of alice").click()
    expect(page.locator("#panel-notes")).to_contain_text("alice has written nothing down yet")


def test_the_row_says_how_full_the_conversation_is(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = with_context(142_300)
    row = opened(page, hive).locator('#container-list > [data-key="alice"]')
    chip = row.locator('[data-key="context"]')
    expect(chip).to_have_text("ctx 142k / 200k")
    expect(chip).to_have_class("chip")
    for tokens, window, words in ((171_000, 200_000, "ctx 171k / 200k"), (9_000, 0, "ctx 9.0k")):
        hive.publish("agent", with_context(tokens, window))
        expect(chip).to_have_text(words)
        expect(chip).to_have_class("chip warn" if window else "chip")
    hive.publish("agent", with_context(0))
    expect(chip).to_have_count(0)


def test_a_new_conversation_empties_the_chip_of_the_page(hive: MockHive, page: Page) -> None:
    harness = Harness("hm1nd")
    hive.harnesses["hm1nd"] = harness
    usage = {"input_tokens": 2_300, "cache_read_input_tokens": 140_000, "cache_creation_input_tokens": 0}
    harness.add(
        "stream", {"type": "assistant", "message": {"model": "sonnet", "content": [], "usage": usage}}
    )
    harness.state |= {"context_tokens": 142_300, "window_tokens": 200_000}
    page.goto("/agents/hm1nd/")
    expect(page.locator("#context")).to_have_text("ctx 142k / 200k · 71 %")
    hive.do(lambda: harness.set_state(context_tokens=0))
    hive.live("hm1nd", "note", {"text": "a new session", "fresh": True})
    expect(page.locator("#context")).to_be_hidden()
