"""Live updates over a connection that breaks: no event lost, none shown twice."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.demo_hive import say
from tests.browser.mock_hive import CODE, MockHive, agent_view, message, sse

pytestmark = pytest.mark.browser


def live(page: Page) -> None:
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")


def flow_ids(page: Page) -> list[int]:
    keys = page.locator("#flow-list li").evaluate_all("rows => rows.map(row => Number(row.dataset.key))")
    return sorted(keys)


def test_snapshot_and_stream_merge_and_a_cut_stream_resumes_where_it_was(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "a", "hm1nd", "before")]
    page.goto("/")
    live(page)
    hive.say(2, "a", "hm1nd", "second")
    expect(page.locator("#flow-list li")).to_have_count(2)
    # Half an event arrives, then the connection breaks; meanwhile the hive goes on.
    hive.drop_streams('id: e1-9\nevent: message\ndata: {"id": 99, "sen')
    for n in range(3, 9):
        hive.say(n, "a", "hm1nd", f"message {n}")
    expect(page.locator("#flow-list li")).to_have_count(8)
    live(page)
    assert flow_ids(page) == list(range(1, 9))
    assert hive.snapshots == 1
    assert hive.resumed_from[:1] == ["e1-0"]
    assert hive.resumed_from[-1] == "e1-1"


def test_many_drops_lose_and_double_nothing(hive: MockHive, page: Page) -> None:
    page.goto("/")
    live(page)
    for n in range(1, 41):
        hive.say(n, "a", "hm1nd", f"message {n}")
        if n % 10 == 0:
            hive.drop_streams()
    expect(page.locator("#flow-list li")).to_have_count(40)
    assert flow_ids(page) == list(range(1, 41))


def test_an_event_that_comes_again_changes_nothing(hive: MockHive, page: Page) -> None:
    page.goto("/")
    live(page)
    old, new = agent_view("bob"), agent_view("bob", state="stopped")
    hive.publish("agent", old)
    hive.publish("agent", new)
    hive.resend(sse("agent", old, "e1-1"))
    hive.say(1, "a", "hm1nd", "afterwards")
    expect(page.locator("#flow-list")).to_contain_text("afterwards")
    expect(page.locator('#container-list [data-key="bob"]')).to_contain_text("stopped")

    page.goto("/agents/hm1nd/")
    live(page)
    event = hive.live("hm1nd", "stream", say("once"))
    hive.resend(sse("live", event, event["seq"]))
    hive.live("hm1nd", "stream", say("last"))
    expect(page.locator("#rows")).to_contain_text("last")
    assert page.locator("#rows .row .cell").all_text_contents() == ["once", "last"]


def test_a_restarted_daemon_is_met_with_a_new_snapshot(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "a", "hm1nd", "old")]
    page.goto("/")
    live(page)
    hive.do(lambda: hive.messages.append(message(2, "a", "hm1nd", "said while away")))
    hive.forget_feed()
    expect(page.locator("#flow-list li")).to_have_count(2)
    live(page)
    hive.say(3, "a", "hm1nd", "after")
    expect(page.locator("#flow-list li")).to_have_count(3)
    assert flow_ids(page) == [1, 2, 3]
    assert hive.snapshots >= 2


def test_the_connection_is_told_and_comes_back_by_itself(hive: MockHive, page: Page) -> None:
    page.goto("/")
    live(page)
    hive.do(lambda: setattr(hive, "refuse_streams", True))
    hive.drop_streams()
    expect(page.locator("#connection")).to_have_attribute("data-kind", "waiting")
    expect(page.locator("#announcer")).to_contain_text("Connection lost")
    hive.do(lambda: setattr(hive, "refuse_streams", False))
    live(page)
    expect(page.locator("#announcer")).to_contain_text("Connected again")


def test_an_event_of_an_unknown_kind_or_shape_does_not_stop_the_stream(hive: MockHive, page: Page) -> None:
    page.goto("/")
    live(page)
    hive.publish("from_the_future", {"x": 1})
    hive.publish("message", None)
    hive.say(5, "a", "hm1nd", "still here")
    expect(page.locator("#flow-list")).to_contain_text("still here")


def test_an_expired_session_goes_to_login_and_comes_back(hive: MockHive, page: Page) -> None:
    page.goto("/agents/hm1nd/")
    live(page)
    page.context.clear_cookies()
    hive.drop_streams()
    page.wait_for_url("**/login?return=%2Fagents%2Fhm1nd%2F*")
    page.get_by_label("login URL or code").fill(f"{hive.url}/login#{CODE}")
    page.keyboard.press("Enter")
    page.wait_for_url("**/agents/hm1nd/")
    live(page)


def test_the_agent_page_resumes_without_loss_or_double(hive: MockHive, page: Page) -> None:
    for n in range(1, 6):
        hive.live("hm1nd", "stream", say(f"line {n}."))
    page.goto("/agents/hm1nd/")
    live(page)
    for n in range(6, 31):
        hive.live("hm1nd", "stream", say(f"line {n}."))
        if n % 8 == 0:
            hive.drop_streams()
    rows = page.locator("#rows .row-text .words")
    expect(rows).to_have_count(30)
    assert rows.all_text_contents() == [f"line {n}." for n in range(1, 31)]


def test_the_agent_page_takes_a_new_history_after_a_reset(hive: MockHive, page: Page) -> None:
    for n in range(1, 6):
        hive.live("hm1nd", "stream", say(f"old {n}"))
    page.goto("/agents/hm1nd/")
    expect(page.locator("#rows .row")).to_have_count(5)

    def lost_its_store() -> None:
        hive.harnesses["hm1nd"].events.clear()

    hive.do(lost_its_store)
    hive.drop_streams()
    expect(page.locator("#rows .row")).to_have_count(0)
    live(page)
    hive.live("hm1nd", "stream", say("new 1"))
    expect(page.locator("#rows")).to_contain_text("new 1")


def test_a_harness_that_goes_down_shows_offline_and_comes_back(hive: MockHive, page: Page) -> None:
    page.goto("/agents/hm1nd/")
    expect(page.locator("#badge")).to_contain_text("idle")
    hive.do(lambda: setattr(hive.harnesses["hm1nd"], "down", True))
    hive.drop_streams()
    expect(page.locator("#badge")).to_contain_text("offline")
    hive.do(lambda: setattr(hive.harnesses["hm1nd"], "down", False))
    expect(page.locator("#badge")).to_contain_text("idle")


PARSE: Any = """async chunks => {
  const { EventParser } = await import('/static/js/stream.js');
  const seen = [];
  const parser = new EventParser(event => seen.push([event.type, event.id, event.data]));
  for (const chunk of chunks) parser.push(chunk);
  return seen;
}"""


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_events_are_parsed_wherever_the_chunks_are_cut(page: Page, cut: int) -> None:
    page.goto("/login")
    text = (
        ": ping\r\n\r\nid: 7\r\nevent: live\r\ndata: a\r\ndata:  b\r\n\r\nid: 8\ndata\n\nid: 9\rdata: ü\r\r\n"
    )
    chunks = [text[at : at + cut] for at in range(0, len(text), cut)]
    seen = page.evaluate(PARSE, chunks)
    assert seen == [["live", "7", "a\n b"], ["message", "8", ""], ["message", "9", "ü"]]
