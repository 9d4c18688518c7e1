"""Builds in a real browser: the live log without gap or double, states, failures, and the way back."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.demo_hive import SHA
from tests.browser.mock_hive import MockHive, agent_view, deployment, now_ms
from tests.browser.test_pages_approvals import card, change, opened
from tests.browser.test_pages_safety import HIDDEN, MARKUP, assert_harmless

pytestmark = pytest.mark.browser


def building(**more: Any) -> dict[str, Any]:
    return change(status="building", **({"step": "build"} | more))


def log(page: Page) -> Locator:
    return card(page).locator(".build-log")


def lines(page: Page) -> Locator:
    return log(page).locator("> div")


def counted(first: int, after: int) -> list[str]:
    return [f"line {n}" for n in range(first, after)]


def test_a_build_is_followed_from_approval_to_its_end(hive: MockHive, page: Page) -> None:
    hive.approvals = [change(status="approved")]
    opened(page)
    expect(card(page).get_by_role("status")).to_contain_text("approved")
    expect(log(page)).to_be_hidden()
    hive.change(building())
    expect(card(page).get_by_role("status")).to_contain_text("building its system")
    hive.build_line(7, "one", "\x1b[32mtwo\x1b[0m")
    hive.build_line(7, "three")
    expect(lines(page)).to_have_text(["one", "two", "three"])
    expect(log(page).locator(".ansi-green")).to_have_text("two")
    hive.change(building(step="switch"))
    expect(card(page).get_by_role("status")).to_contain_text("switching to it")
    expect(lines(page)).to_have_count(3)
    hive.change(change(status="deployed", resolved_at_ms=now_ms()))
    expect(card(page)).to_have_count(0)
    expect(page.locator("#toasts")).to_contain_text("alice runs")
    expect(page.locator("#announcer")).to_have_text("Approval 7 for alice: deployed")


def test_snapshot_and_events_make_one_log(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    hive.build_line(7, *counted(0, 5), told=False)
    hive.hold_gets()
    opened(page)
    hive.build_line(7, *counted(5, 8))  # news while the log is on its way
    hive.build_line(7, *counted(8, 9))
    hive.release_gets()
    expect(lines(page)).to_have_text(counted(0, 9))
    hive.build_line(7, *counted(9, 10))
    expect(lines(page)).to_have_text(counted(0, 10))


def test_events_in_any_order_again_and_with_gaps(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    opened(page)
    hive.build_line(7, *counted(0, 3))
    expect(lines(page)).to_have_text(counted(0, 3))
    hive.build_line(7, *counted(0, 3), first=0)  # again
    hive.build_line(7, *counted(2, 3), first=2)
    hive.build_line(7, *counted(1, 5), first=1)  # partly known
    expect(lines(page)).to_have_text(counted(0, 5))
    hive.do(lambda: hive.build_logs[7].extend(counted(3, 5)))
    assert len(hive.gets) == 1  # when the card came
    hive.build_line(7, *counted(5, 6), told=False)  # lost on the way
    hive.build_line(7, *counted(6, 7))  # a gap: the log is asked for
    hive.build_line(7, *counted(4, 7), first=4)
    hive.build_line(7, *counted(7, 9))
    expect(lines(page)).to_have_text(counted(0, 9))


def test_a_log_that_is_behind_the_feed_is_asked_for_again(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    opened(page)
    hive.build_line(7, "line 0")
    expect(lines(page)).to_have_count(1)
    hive.build_line(7, "line 4", first=4)  # the disk has not got that far
    expect(lines(page)).to_have_count(1)
    hive.build_line(7, *counted(1, 5), told=False)
    expect(lines(page)).to_have_text(counted(0, 5))


def test_a_build_that_begins_again_begins_again_here(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    opened(page)
    hive.build_line(7, "--- building", "first try", "cut short")
    expect(lines(page)).to_have_text(["--- building", "first try", "cut short"])
    hive.do(lambda: hive.build_logs.update({7: []}))
    hive.build_line(7, "--- building")
    hive.build_line(7, "second try")
    expect(lines(page)).to_have_text(["--- building", "second try"])


def test_a_broken_stream_and_a_restarted_daemon_lose_no_line(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    opened(page)
    for n in range(30):
        hive.build_line(7, f"line {n}")
        if n % 10 == 9:
            hive.drop_streams()
    expect(lines(page)).to_have_text(counted(0, 30))
    hive.build_line(7, *counted(30, 33), told=False)
    hive.forget_feed()
    expect(lines(page)).to_have_text(counted(0, 33))


def test_a_long_log_is_bounded_and_sticks_to_its_end(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    hive.build_line(7, *counted(0, 1000), told=False)
    opened(page)
    expect(lines(page)).to_have_count(300)
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 3"
    assert log(page).evaluate(at_end)
    for n in range(1000, 1400, 100):
        hive.build_line(7, *counted(n, n + 100))
    expect(lines(page).last).to_have_text("line 1399")
    expect(lines(page)).to_have_count(300)
    assert log(page).evaluate(at_end)
    log(page).evaluate("e => { e.scrollTop = 40 }")
    page.wait_for_function("() => document.querySelector('.build-log').scrollTop === 40")
    hive.build_line(7, "the last")
    expect(lines(page).last).to_have_text("the last")
    assert not log(page).evaluate(at_end)
    page.get_by_role("button", name="Build log of approval 7").click()
    expect(page.locator("#panel-status")).to_have_text("1401 lines")


def test_a_failure_stays_in_sight_with_its_last_lines_until_it_was_seen(hive: MockHive, page: Page) -> None:
    hive.approvals = [building()]
    opened(page)
    hive.build_line(7, *counted(0, 40))
    expect(lines(page)).to_have_count(40)
    hive.build_line(7, "agent.nix:3: there is no such option", told=False)
    why = "the build failed: agent.nix:3"
    hive.change(change(status="failed", outcome=why, resolved_at_ms=now_ms()))
    expect(card(page)).to_contain_text("✗ failed")
    expect(card(page)).to_contain_text(why)
    expect(lines(page).last).to_have_text("agent.nix:3: there is no such option")
    expect(page.locator("#announcer")).to_have_text("Approval 7 for alice: failed")
    expect(page.locator("#approvals-count")).to_have_text("0")
    page.get_by_role("button", name="Dismiss failed approval 7").click()
    expect(card(page)).to_have_count(0)
    expect(page.locator("#no-approvals")).to_be_visible()
    page.get_by_text("recently decided").click()
    expect(page.locator("#resolved-list")).to_contain_text(why)


def test_hostile_lines_stay_text(hive: MockHive, page: Page) -> None:
    hive.approvals = [building(step=MARKUP)]
    opened(page)
    hive.build_line(7, MARKUP, HIDDEN, "x" * 100_000, "\x1b]0;t\x07\x1b[2Jclean", "10%\r50%\rdone", "")
    expect(lines(page)).to_have_count(6)
    expect(lines(page).nth(0)).to_have_text(MARKUP)
    expect(lines(page).nth(1)).to_contain_text("‹U+202E›")
    assert len(lines(page).nth(2).inner_text()) < 2100
    expect(lines(page).nth(3)).to_have_text("clean")
    expect(lines(page).nth(4)).to_have_text("done")
    hive.publish("build_log", {"approval_id": {}, "first": "x", "lines": 5})
    hive.publish("build_log", None)
    hive.build_line(7, "still here")
    expect(lines(page).last).to_have_text("still here")
    assert_harmless(page)


# --- histories and the way back


def test_a_history_tells_what_ran_and_leads_back(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob", commit=SHA[3])
    hive.deployments["bob"] = [
        deployment(9, SHA[3], MARKUP, running=True, approved_by=MARKUP),
        deployment(5, SHA[2], "agent: jq\n\nand more", operator_note=f"until friday {MARKUP}"),
        deployment(2, SHA[1], ""),
    ]
    opened(page)
    row = page.locator('#container-list [data-key="bob"]')
    expect(row.get_by_role("button", name=f"runs {SHA[3][:12]}")).to_contain_text(SHA[3][:12])
    button = row.get_by_role("button", name="History of bob")
    button.click()
    panel = page.get_by_role("complementary", name="History of bob")
    rows = panel.get_by_role("listitem")
    expect(rows).to_have_count(3)
    expect(panel.locator("#panel-status")).to_have_text("3 deployments")
    expect(rows.nth(0)).to_contain_text("runs now")
    expect(rows.nth(0).get_by_role("button", name="Roll")).to_have_count(0)
    expect(rows.nth(0)).to_contain_text(MARKUP)
    expect(rows.nth(1)).to_contain_text("agent: jq")
    expect(rows.nth(1)).to_contain_text(f"said with the yes until friday {MARKUP}")
    expect(panel.get_by_text("said with the yes")).to_have_count(1)
    expect(rows.nth(2)).to_contain_text("The configuration it began with, written by the hive.")
    page.get_by_role("button", name=f"Roll back bob to {SHA[2][:12]}").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Roll bob back to {SHA[2][:12]} (approval #5)?")
    page.get_by_role("button", name="Roll back", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("bob is being rolled back")
    assert hive.posts == [("/rollback/bob", {"approval_id": "5"})]
    # When it is done, the open history tells.
    now = [deployment(12, SHA[2], "agent: jq", running=True), *hive.deployments["bob"][1:]]
    hive.do(lambda: hive.deployments.update(bob=now))
    hive.publish("approval", change(12, "bob", "deployed", rollback=True))
    expect(rows.nth(0)).to_contain_text("#12")
    assert_harmless(page)
    assert page.locator("#panel img, #panel b, #panel script").count() == 0
    page.get_by_role("button", name="Close the panel").focus()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_a_refused_rollback_says_why_and_an_empty_history_too(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    hive.deployments["bob"] = [deployment(5, SHA[2], "agent: jq")]
    hive.refusals["/rollback/bob"] = (409, {"code": "conflict", "message": "bob is being built"})
    opened(page)
    page.get_by_role("button", name="History of bob").click()
    page.get_by_role("button", name="Roll back bob").click()
    page.get_by_role("button", name="Roll back", exact=True).click()
    expect(page.locator("#panel-history .form-error")).to_have_text("bob is being built")
    page.get_by_role("button", name="Close the panel").click()
    page.get_by_role("button", name="History of hm1nd").click()
    expect(page.locator("#panel-history")).to_contain_text("hm1nd has run nothing but its first")
    hive.refusals["/api/agents/bob/history"] = (404, {"code": "unknown_agent", "message": "there is no bob"})
    page.get_by_role("button", name="Close the panel").click()
    page.get_by_role("button", name="History of bob").click()
    expect(page.locator("#panel-status")).to_have_text("there is no bob")


def test_the_panel_shows_one_thing_at_a_time(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    hive.logs["bob"] = ["bob's log"]
    hive.deployments["bob"] = [deployment(5, SHA[2], "agent: jq")]
    opened(page)
    page.get_by_role("button", name="History of bob").click()
    expect(page.get_by_role("log", name=re.compile("of bob"))).to_be_hidden()
    page.get_by_role("button", name="Close the panel").click()
    page.get_by_role("button", name="Logs of bob").click()
    expect(page.get_by_role("log", name="Log of bob")).to_have_text("bob's log")
    expect(page.locator("#panel-history")).to_be_hidden()
