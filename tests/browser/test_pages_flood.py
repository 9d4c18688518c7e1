"""What a flood of events does to the live tail: how much is built, when, and that a reader is left alone.

Frames are drawn when a test says so, and the page's clock goes on by one millisecond each time it is asked.
"""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.mock_hive import MockHive, message

pytestmark = pytest.mark.browser

# The tail by itself, without a stream: `take` is what the page does with each event.
TAIL = """async () => {
  const { Terminal } = await import('/static/js/terminal.js');
  const { Transcript } = await import('/static/js/transcript.js');
  const held = [];
  const transcript = new Transcript();
  let clockMs = 0;
  window.requestAnimationFrame = (work) => held.push(work);
  performance.now = () => clockMs += window.stepMs;
  Object.assign(window, { stepMs: 1, built: [], terminal: new Terminal() });
  window.take = (first, last) => {
    for (let seq = first; seq <= last; seq += 1) {
      const content = [{ type: 'text', text: `line ${seq}` }];
      const data = { type: 'assistant', message: { content } };
      const make = transcript.see({ seq, at_ms: 0, kind: 'stream', data });
      terminal.take(seq, () => { built.push(seq); return make(); });
    }
  };
  window.draw = (frames = 1) => {
    for (; frames > 0 && held.length > 0; frames -= 1) held.splice(0).forEach(work => work());
  };
  window.drawAll = () => { stepMs = 0.05; draw(Infinity); stepMs = 1; };
  const cells = () => [...document.querySelectorAll('#rows .cell')];
  window.shown = () => cells().map(cell => Number(cell.textContent.slice(5)));
}"""
IN_VIEW = """() => {
  const frame = document.querySelector('#terminal').getBoundingClientRect();
  const rows = [...document.querySelectorAll('#rows .row')];
  const placed = rows.map(row => [Number(row.dataset.seq), Math.round(row.getBoundingClientRect().top)]);
  return placed.filter(([, top]) => top >= frame.top && top < frame.bottom);
}"""
FROM_THE_END = "terminal.scroller.scrollHeight - terminal.scroller.scrollTop - terminal.scroller.clientHeight"
Ask = Callable[[str], Any]


@pytest.fixture
def ask(page: Page) -> Ask:
    """Asks a page that has the tail and nothing that feeds it."""

    def nothing(route: Route) -> None:
        route.fulfill(content_type="text/javascript", body="")

    page.route("**/static/js/agent.js", nothing)
    page.emulate_media(reduced_motion="reduce")  # rows are where they are at once
    page.goto("/agents/hm1nd/")
    page.evaluate(TAIL)
    return page.evaluate


def scroll(page: Page, by: int) -> None:
    page.locator("#terminal").hover()
    page.mouse.wheel(0, by)


def read_further_up(page: Page) -> None:
    """The reader scrolls to the top of what is there."""
    scroll(page, -1_000_000)
    page.wait_for_function("() => terminal.scroller.scrollTop === 0 && !terminal.sticky", polling=50)


def test_of_a_burst_only_what_stays_is_built_the_newest_first_and_a_slice_each_frame(ask: Ask) -> None:
    ask("take(1, 20000)")
    assert ask("built") == []  # events are taken as they come, and nothing is done for them yet
    ask("draw()")
    assert ask("built") == list(range(20_000, 19_992, -1))  # 8 ms
    assert ask("shown()") == list(range(19_993, 20_001))
    ask("draw(3)")
    assert len(ask("built")) == 4 * 8
    assert ask("document.querySelector('#rows').getAttribute('aria-busy')") == "true"
    ask("drawAll()")
    shown = ask("shown()")
    assert 4900 < len(shown) <= 5000
    assert shown == list(range(20_001 - len(shown), 20_001))
    assert sorted(ask("built")) == shown  # and no other
    assert ask("document.querySelector('#rows').hasAttribute('aria-busy')") is False
    assert ask(
        "[...document.querySelectorAll('#rows .block')].every(block => !block.hasAttribute('data-seq'))"
    )


def test_who_follows_a_flood_sees_the_newest_in_every_frame(ask: Ask) -> None:
    for first in range(1, 3001, 300):
        ask(f"take({first}, {first + 299})")
        ask("draw()")
        assert ask("shown()")[-1] == first + 299
        assert ask(FROM_THE_END) < 3
    ask("drawAll()")
    assert ask("shown()") == list(range(1, 3001))


def test_a_reader_further_up_is_not_moved_and_what_came_is_there_when_they_return(
    ask: Ask, page: Page
) -> None:
    ask("take(1, 200)")
    ask("drawAll()")
    read_further_up(page)
    before = ask(IN_VIEW)
    ask("take(201, 26000)")  # more than a page holds
    ask("draw(5)")
    assert ask(IN_VIEW) == before
    assert ask("shown()") == [*range(1, 201), *range(211, 251)]  # the block that this reader comes to first
    expect(page.locator("#new-rows")).to_have_text("↓ 25800 new")
    assert 300 < ask("document.querySelectorAll('#rows .block').length") <= 20_000 / 50
    page.locator("#new-rows").click()
    ask("draw()")
    assert ask("shown()")[-1] == 26_000
    ask("drawAll()")
    shown = ask("shown()")
    assert 4900 < len(shown) <= 5000
    assert shown == list(range(26_001 - len(shown), 26_001))
    assert ask("terminal.wasTrimmed ? terminal.takeTrimmed() : terminal.firstSeq") == shown[0]


def test_what_is_looked_at_is_built_before_the_rest(ask: Ask, page: Page) -> None:
    ask("take(1, 200)")
    ask("drawAll()")
    read_further_up(page)
    ask("take(201, 5000)")
    ask("draw()")
    ask("() => { terminal.scroller.scrollTop = terminal.scroller.scrollHeight / 2 }")
    ask("draw(7)")
    in_view = [seq for seq, _ in ask(IN_VIEW)]
    assert len(in_view) > 5
    assert set(in_view) <= set(ask("built")[-56:])
    assert 2000 < in_view[0] < 3000


def test_who_scrolls_a_little_in_a_flood_is_not_pulled_back_and_follows_again_at_the_end(
    ask: Ask, page: Page
) -> None:
    ask("take(1, 400)")
    ask("drawAll()")
    scroll(page, -20)
    page.wait_for_function("() => !terminal.sticky", polling=50)
    for first in range(401, 1001, 100):
        ask(f"take({first}, {first + 99})")
        ask("draw()")
    ask("drawAll()")
    expect(page.locator("#new-rows")).to_have_text("↓ 600 new")
    assert ask(FROM_THE_END) > 1000
    scroll(page, 1_000_000)
    page.wait_for_function("() => terminal.sticky", polling=50)
    expect(page.locator("#new-rows")).to_be_hidden()


def test_a_row_that_has_the_focus_keeps_it_while_its_block_fills(ask: Ask) -> None:
    ask("take(1, 3)")
    ask("draw()")
    ask("() => { const row = document.querySelector('#rows .row'); row.tabIndex = -1; row.focus() }")
    ask("take(4, 6)")
    ask("draw()")
    assert ask("shown()") == [1, 2, 3, 4, 5, 6]
    assert ask("document.querySelectorAll('#rows .block').length") == 1
    assert ask("document.activeElement === document.querySelector('#rows .row')")


COUNT_MESSAGES = """() => {
  let clockMs = 0;
  performance.now = () => clockMs += 1;
  window.built = [];
  const added = (records) => records.reduce((sum, record) => sum + record.addedNodes.length, 0);
  const watcher = new MutationObserver(records => built.push(added(records)));
  watcher.observe(document.querySelector('#flow-list'), { childList: true });
}"""
NUMBERS = """() => [...document.querySelectorAll('#flow-list > li')].map(each => Number(each.dataset.key))"""


def test_many_messages_at_once_are_shown_over_several_frames_the_newest_first(
    hive: MockHive, page: Page
) -> None:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    page.evaluate(COUNT_MESSAGES)

    def say_much() -> None:
        for number in range(1, 121):
            hive._say(message(number, "alice", "bob", f"what there is to say, for the {number}th time"))

    hive.do(say_much)
    expect(page.locator("#flow-list > li")).to_have_count(120)
    assert page.evaluate(NUMBERS) == list(range(120, 0, -1))
    built = page.evaluate("built")
    assert sum(built) == 120
    assert max(built) <= 8  # milliseconds, of which each row takes one
