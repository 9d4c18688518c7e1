"""Threads on the dashboard: what a message answers, the whole thread, and asks between agents."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive, message, now_ms, question

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='owned'> \u202egnp.exe"


def talk(hive: MockHive) -> None:
    """alice asks bob, who asks back, and both tell the operator; and something else in between."""
    hive.messages = [
        message(1, "operator", "alice", "Please find out whether we can merge."),
        message(2, "alice", "bob", f"Is the build green? {HOSTILE}", asks=5),
        message(3, "carol", "hm1nd", "Nothing to do with it"),
        message(4, "bob", "alice", "Which branch?", in_reply_to=2),
        message(5, "alice", "bob", "main", in_reply_to=4),
        message(6, "bob", "alice", "yes", in_reply_to=2, answers=5),
        message(7, "alice", "operator", "We can merge.", in_reply_to=1),
    ]


def test_a_reply_says_what_it_answers_and_leads_to_the_whole_thread(page: Page, hive: MockHive) -> None:
    talk(hive)
    page.goto("/")
    flow = page.locator("#flow-list")
    answer = flow.locator("> [data-key='6']")
    expect(answer).to_contain_text("answers question #5")
    expect(answer.locator(".thread-go")).to_contain_text("↩ alice: Is the build green?")
    expect(flow.locator("> [data-key='2']")).to_contain_text("asks question #5")
    expect(flow.locator("> [data-key='2'] .thread-go")).to_have_text("↪ 2 answers")
    expect(flow.locator("> [data-key='3'] .thread-go")).to_have_count(0)

    answer.locator(".thread-go").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#panel-title")).to_have_text("Thread of #2")
    rows = page.locator("#panel-history > li")
    expect(rows).to_have_count(4)
    assert [rows.nth(n).get_attribute("data-key") for n in range(4)] == ["2", "4", "5", "6"]
    expect(rows.nth(0)).to_have_attribute("aria-current", "true")
    expect(rows.nth(0)).to_contain_text("<img src=x onerror=")
    expect(rows.nth(2)).to_have_class("message thread-row depth-2")
    expect(rows.nth(2)).to_contain_text("↩ bob: Which branch?")
    assert page.title() != "owned"

    hive.say(8, "alice", "bob", "thank you", in_reply_to=6)
    hive.say(9, "carol", "bob", "something else")
    expect(rows).to_have_count(5)
    expect(rows.nth(4)).to_contain_text("thank you")
    expect(flow.locator("> [data-key='6'] .thread-go").nth(1)).to_have_text("↪ 1 answer")

    rows.nth(2).locator(".thread-go").click()
    expect(page.locator("#panel-title")).to_have_text("Thread of #4")
    expect(page.locator("#panel-history [aria-current]")).to_have_attribute("data-key", "4")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()


def test_the_inbox_says_what_an_agent_answers_and_a_thread_that_is_gone_is_told(
    page: Page, hive: MockHive
) -> None:
    talk(hive)
    said = {"code": "not_found", "message": "message 1 does not exist, or is so old that it was removed"}
    hive.refusals["/api/threads/1"] = (404, said)
    page.goto("/")
    opening = page.locator("#inbox-list > [data-key='7'] .thread-go")
    expect(opening).to_contain_text("↩ operator: Please find out")
    opening.click()
    expect(page.locator("#panel-status")).to_contain_text("so old that it was removed")
    del hive.refusals["/api/threads/1"]
    opening.click()
    expect(page.locator("#panel-history > li")).to_have_count(2)


def test_what_agents_ask_each_other_is_seen_and_can_be_closed(page: Page, hive: MockHive) -> None:
    talk(hive)
    ask = question(5, "alice", HOSTILE, answerer="bob", message_id=2, expires_at_ms=now_ms() + 3_600_000)
    hive.asks = [ask]
    page.goto("/")
    expect(page.locator("#asks-summary")).to_have_text("1 open question between agents")
    expect(page.locator("#nav-questions .amount")).to_have_text("0")
    page.locator("#asks-summary").click()
    row = page.locator("#ask-list > li")
    expect(row).to_contain_text("alice asks bob")
    expect(row).to_contain_text("<img src=x")
    row.get_by_role("button", name="Thread").click()
    expect(page.locator("#panel-history > li")).to_have_count(4)
    page.keyboard.press("Escape")
    row.get_by_role("button", name="Cancel question 5").click()
    page.get_by_role("button", name="Close it").click()
    expect(page.get_by_text("Question 5 is closed.")).to_be_visible()
    assert ("/cancel-question/5", {}) in hive.posts
    hive.publish("ask", {**ask, "closed": "cancelled"})
    expect(page.locator("#asks")).to_be_hidden()
