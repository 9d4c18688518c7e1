"""What the live tail offers: searching, copying, links, colours, and that none of it is disturbed."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import logged_in, watch_for_faults
from tests.browser.demo_hive import STATS, assistant, result, say, tool, turn_of_alice
from tests.browser.mock_hive import MockHive, harness_state

pytestmark = pytest.mark.browser

NUMBERS = "\n".join(f"number {n}" for n in range(1, 61))


def opened(page: Page) -> Page:
    page.goto("/agents/hm1nd/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def stream(hive: MockHive, *lines: dict[str, Any]) -> None:
    for line in lines:
        hive.live("hm1nd", "stream", line)


def row(page: Page, text: str) -> Locator:
    return page.locator("#rows .row").filter(has_text=text)


def in_view(place: Locator) -> bool:
    return bool(
        place.evaluate("""(element) => {
          const frame = document.querySelector('#terminal').getBoundingClientRect();
          const box = element.getBoundingClientRect();
          return box.bottom > frame.top && box.top < frame.bottom;
        }""")
    )


def test_searching_finds_what_is_folded_and_leads_there(hive: MockHive, page: Page) -> None:
    stream(hive, tool("1", "Bash", command="seq"), result("1", NUMBERS), say("number 7 is a good one"))
    stream(hive, *(say(f"line {n}") for n in range(60)))
    opened(page)
    page.locator("#terminal").focus()
    page.keyboard.press("/")
    field = page.get_by_label("Search in the tail", exact=True).and_(page.locator("input"))
    expect(field).to_be_focused()
    field.fill("NUMBER 7")
    count = page.locator("#find-count")
    expect(count).to_have_text("2 of 2")  # the newest first
    expect(row(page, "a good one")).to_have_class(r"row row-text found-row")
    assert in_view(row(page, "a good one"))
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text("1 of 2")
    expect(page.locator("#rows details")).to_have_attribute("open", "")
    marked = page.evaluate("() => [...CSS.highlights.get('found-now')].map(String)")
    assert marked == ["number 7"]
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(count).to_have_text("1 of 2")  # round and round
    stream(hive, say("and number 7 again"))
    expect(count).to_have_text("1 of 3")  # the reader stays where they are
    page.keyboard.press("Escape")
    expect(page.locator("#find")).to_be_hidden()
    expect(page.locator("#terminal")).to_be_focused()
    assert page.evaluate("() => CSS.highlights.size") == 0


def test_searching_goes_on_in_older_events_until_there_are_none(hive: MockHive, page: Page) -> None:
    harness = hive.harnesses["hm1nd"]
    hive.do(lambda: [harness.add("stream", say(f"needle {n}")) for n in range(1, 2301)])
    hive.do(lambda: setattr(harness, "first", 101))
    opened(page)
    page.get_by_role("button", name="Search in the tail").click()
    page.locator("#find-text").fill("needle 2")
    expect(page.locator("#find-count")).to_have_text("301 of 301")
    page.get_by_role("button", name="older", exact=True).click()
    expect(page.locator("#find-count")).to_have_text("401 of 401")
    expect(page.get_by_role("button", name="older", exact=True)).to_be_hidden()
    expect(page.get_by_role("button", name="↑ older")).to_be_hidden()  # what is not stored is not offered


# "copied" is there for a second only: a test that looks now and then may miss it.
NOTE_WHAT_IT_SAYS = """() => {
  window.said = [];
  const copy = document.querySelector("button.copy");
  new MutationObserver(() => window.said.push(copy.textContent)).observe(copy, { childList: true });
}"""


def copied(page: Page, whole: str) -> None:
    page.wait_for_function("async whole => await navigator.clipboard.readText() === whole", arg=whole)


def test_copying_takes_the_whole_of_a_row_and_not_its_decoration(hive: MockHive, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    coloured = NUMBERS.replace("number 5\n", "\x1b[31mnumber 5\x1b[0m\n")
    stream(hive, tool("1", "Bash", command="ls -la", description="look"), result("1", coloured))
    stream(hive, tool("2", "mcp__hyperhive__send", to="bob", body="hi\nthere"))
    stream(hive, tool("3", "Edit", file_path="/a", old_string="one\ntwo", new_string="one\n2"))
    opened(page)
    copy = page.get_by_role("button", name="Copy this row")
    row(page, "Edit").hover()
    page.evaluate(NOTE_WHAT_IT_SAYS)
    for text, whole in (
        ("ls -la", "ls -la"),
        ("60 lines", NUMBERS),
        ("hi ⏎ there", "hi\nthere"),
        ("Edit", "  one\n- two\n+ 2"),
    ):
        row(page, text).hover()
        expect(copy).to_have_count(1)
        copy.click()
        copied(page, whole)
    page.locator("#terminal").focus()
    page.keyboard.press("j")
    expect(row(page, "ls -la")).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(row(page, "60 lines").locator("details")).to_have_attribute("open", "")
    page.keyboard.press("c")
    copied(page, NUMBERS)
    page.keyboard.press("k")
    expect(row(page, "ls -la")).to_be_focused()
    assert page.evaluate("() => window.said.includes('copied')")
    expect(copy).to_have_text("copy")


ADDRESSES = [
    ("see https://a.example/x(1), or http://b.example.", ["https://a.example/x(1)", "http://b.example/"]),
    ("(https://a.example/y)", ["https://a.example/y"]),
    ("javascript:alert(1) ftp://a.example data:text/html,x //a.example", []),
    ("https://bank.example@evil.example/ https://b\u0430nk.example https://a\u202e.example", []),
    ("https:// https://-x https://[zz] http://a.example:99999999/", []),
]


def test_addresses_are_links_that_lead_where_they_say_and_give_nothing_away(
    hive: MockHive, page: Page
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    stream(hive, *(say(text) for text, _ in ADDRESSES))
    opened(page)
    for at, (_, targets) in enumerate(ADDRESSES):
        links = page.locator("#rows .row").nth(at).locator("a")
        assert links.evaluate_all("links => links.map(link => link.href)") == targets
    for link in page.locator("#rows a").all():
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(link).to_have_attribute("target", "_blank")
    assert [url for url in asked if not url.startswith(hive.url)] == []


def test_every_colour_can_be_read_and_none_hides_text(hive: MockHive, page: Page) -> None:
    text = "\x1b[38;5;208mpalette\x1b[0m \x1b[38;2;20;20;60mnavy\x1b[0m \x1b[48;5;22;38;5;22mhidden\x1b[0m \x1b[8mconcealed\x1b[0m \x1b[7;3mturned\x1b[0m"  # noqa: E501
    stream(hive, tool("1", "Bash", command="x"), result("1", text))
    opened(page)
    expect(page.locator(".row-result .cell")).to_have_text("palette navy hidden concealed turned")
    expect(page.locator(".ansi-ink")).to_have_text(["palette", "navy"])
    expect(page.locator(".ansi-paper.ansi-italic")).to_have_text("turned")
    hidden = page.locator(".ansi-paper", has_text="hidden")
    colours = hidden.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert colours == ["rgb(255, 255, 255)", "rgb(0, 95, 0)"]
    navy = page.locator(".ansi-ink", has_text="navy").evaluate("e => getComputedStyle(e).color")
    assert navy != "rgb(20, 20, 60)"  # as light as it takes on a dark page


def test_results_name_their_tool_when_several_ran_and_helpers_are_set_in(hive: MockHive, page: Page) -> None:
    within = tool("c", "Read", file_path="/x") | {"parent_tool_use_id": "b"}
    stream(hive, tool("a", "Bash", command="one"), tool("b", "Task", description="look", prompt="at it"))
    stream(
        hive, within, result("a", "first"), result("c", "     1\talpha\n     2\tbeta"), result("b", "second")
    )
    opened(page)
    texts = page.locator(".row-result .cell").all_text_contents()
    assert [texts[0], texts[2]] == ["Bashfirst", "Tasksecond"]
    expect(page.locator(".row-sub")).to_have_count(1)
    expect(page.locator(".numbered .num")).to_have_text(["1", "2"])


def test_what_is_open_selected_and_searched_survives_a_busy_agent(hive: MockHive, page: Page) -> None:
    stream(hive, *(say(f"line {n}") for n in range(50)))
    stream(hive, tool("1", "Bash", command="seq"), result("1", NUMBERS), say("choose these words"))
    opened(page)
    page.locator("#rows summary").click()
    page.locator("#rows .row", has_text="choose these words").locator(".words").select_text()
    page.locator("#terminal").evaluate("t => { t.scrollTop -= 300 }")
    top = "() => document.querySelector('#rows details').getBoundingClientRect().top"
    page.wait_for_function("() => !document.querySelector('#new-rows').hidden || true")
    before = page.evaluate(top)
    for _ in range(3):
        stream(hive, *turn_of_alice())
    hive.drop_streams()
    stream(hive, say("after the cut"))
    expect(row(page, "after the cut")).to_have_count(1)
    expect(page.locator("#rows details").first).to_have_attribute("open", "")
    assert page.evaluate("() => String(getSelection())") == "choose these words"
    assert abs(page.evaluate(top) - before) <= 1


def test_context_is_the_last_prompt_and_cost_is_told_apart(hive: MockHive, page: Page) -> None:
    totals = {"turns": 12, "tokens": 1, "cost_usd": 3.5}
    harness = hive.harnesses["hm1nd"]
    harness.state = harness_state("hm1nd", last_turn=STATS, context_tokens=31_400, totals=totals)
    opened(page)
    context = page.locator("#context")
    expect(context).to_have_text("ctx 31.4k")
    line = assistant({"type": "text", "text": "x"})
    line["message"]["usage"] = {"input_tokens": 1000, "cache_read_input_tokens": 169_000}
    stream(hive, line)
    expect(context).to_have_text("ctx 170k")
    stream(hive, {"type": "result", "modelUsage": {"opus": {"inputTokens": 1, "contextWindow": 200_000}}})
    expect(context).to_have_text("ctx 170k / 200k · 85 %")
    expect(context).to_have_class("chip warn filling")
    helper = line | {"parent_tool_use_id": "t"}
    helper["message"] = line["message"] | {"usage": {"input_tokens": 5000}}
    boundary = {"type": "system", "subtype": "compact_boundary", "compact_metadata": {"post_tokens": 20_000}}
    stream(hive, helper, boundary)
    expect(context).to_have_text("ctx 20.0k / 200k · 10 %")
    expect(page.locator("#cost")).to_have_text("last turn · 41.2 s · 225k tok · $0.18")
    expect(page.locator("#total")).to_have_text("total · 12 turns · $3.50")


def test_on_a_phone_all_of_it_works_without_scrolling_sideways(browser: Browser, hive: MockHive) -> None:
    stream(hive, *turn_of_alice())
    stream(hive, tool("1", "WebFetch", url="https://docs.example/" + "long/" * 40), result("1", "x" * 3000))
    login = {
        "needed": True,
        "stage": "awaiting_code",
        "url": "https://a.example/o?" + "x" * 200,
        "message": "",
    }
    hive.harnesses["hm1nd"].state = harness_state("hm1nd", badge="needs_login", login=login)
    context = logged_in(browser, hive, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page = context.new_page()
    faults = watch_for_faults(page)
    opened(page)
    expect(page.locator("#agent-login")).to_be_visible()
    at_end = "() => { const t = document.querySelector('#terminal'); return t.scrollHeight - t.scrollTop - t.clientHeight < 3 }"  # noqa: E501
    page.wait_for_function(at_end)  # although the login took its room
    page.locator("#rows .row").last.tap()
    expect(page.get_by_role("button", name="Copy this row")).to_be_visible()
    page.get_by_role("button", name="Search in the tail").tap()
    page.locator("#find-text").fill("parser")
    expect(page.locator("#find-count")).to_contain_text(" of ")
    page.get_by_role("button", name="Previous place").tap()
    closed = page.locator("#rows details:not([open]) > summary")
    while closed.count():
        closed.first.tap()
    widths = page.evaluate("""() => {
      const terminal = document.querySelector('#terminal');
      return [document.documentElement.scrollWidth - innerWidth, terminal.scrollWidth - terminal.clientWidth];
    }""")
    assert widths == [0, 0]
    assert faults == []
    context.close()
