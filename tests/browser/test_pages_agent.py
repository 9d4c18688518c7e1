# ruff: noqa: E501 — scripts and events read best as they are sent
"""The agent page in a real browser: the live tail, how events read, the prompt, the badges."""

from typing import Any

import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from tests.browser.demo_hive import STATS, result, say, think, tool, turn_of_alice
from tests.browser.mock_hive import MockHive, agent_view, now_ms

pytestmark = pytest.mark.browser


def opened(page: Page) -> Page:
    page.goto("/agents/hm1nd/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def stream(hive: MockHive, *lines: dict[str, Any]) -> None:
    for line in lines:
        hive.live("hm1nd", "stream", line)


def rows(page: Page) -> Locator:
    return page.locator("#rows .row .cell")


CALLS = [
    (tool("1", "Bash", command="ls -la", description="look"), "Bash $ ls -la  # look"),
    (tool("1", "Read", file_path="/a/b.py", offset=10, limit=5), "Read /a/b.py :10–14"),
    (tool("1", "Glob", pattern="**/*.md", path="/shared"), "Glob **/*.md  in /shared"),
    (tool("1", "Grep", pattern="TODO.*", glob="*.py"), "Grep TODO.*  in *.py"),
    (tool("1", "mcp__hyperhive__send", to="bob", body="hi\nthere"), "send → bob: hi ⏎ there"),
    (tool("1", "mcp__hyperhive__send", to="*", body="all"), "send → everyone: all"),
    (tool("1", "mcp__hyperhive__recv", wait_seconds=30), "recv  waits up to 30 s"),
    (
        tool("1", "mcp__hyperhive__ask_operator", question="Go?", options=["yes", "no"]),
        "ask operator: Go?  [ yes | no ]",
    ),
    (
        tool("1", "mcp__hyperhive__ask_operator", question="Go?", ttl_seconds=5400),
        "ask operator: Go?  closes in 1h 30m",
    ),
    (tool("1", "mcp__hyperhive__cancel_question", question_id=7), "cancel question #7"),
    (tool("1", "mcp__hyperhive__prepare_spawn", name="zoe"), "prepare spawn zoe"),
    (
        tool("1", "mcp__hyperhive__request_spawn", name="zoe", commit_ref="main", note="tests"),
        "request spawn zoe main  tests",
    ),
    (tool("1", "mcp__hyperhive__request_apply_commit", agent="bob"), "request apply commit bob HEAD"),
    (tool("1", "mcp__hyperhive__remind", body="tea", after_seconds=60), "remind in 60 s: tea"),
    (tool("1", "mcp__hyperhive__whoami"), "whoami"),
    (tool("1", "mcp__hyperhive__request_spawn", name="zoe", note="tests"), "request spawn zoe  tests"),
    (tool("1", "mcp__hyperhive__restart", name="bob"), "restart bob"),
    (tool("1", "mcp__hyperhive__logs", name="bob", lines=50), "logs bob  50 lines"),
    (
        tool("1", "mcp__hyperhive__request_apply_commit", agent="bob", commit_ref="HEAD", note="jq"),
        "request apply commit bob HEAD  jq",
    ),
    (tool("1", "mcp__forge__issue", title="x", n=3), "forge · issue title=x n=3"),
    (tool("1", "WebFetch", url="https://example.org"), "WebFetch https://example.org"),
]


def test_each_tool_call_reads_as_one_plain_line(hive: MockHive, page: Page) -> None:
    stream(hive, *(call for call, _ in CALLS))
    opened(page)
    assert rows(page).all_text_contents() == [told for _, told in CALLS]


def test_an_edit_shows_its_difference(hive: MockHive, page: Page) -> None:
    stream(
        hive, tool("1", "Edit", file_path="/a.py", old_string="one\ntwo\nthree", new_string="one\n2\nthree")
    )
    opened(page)
    expect(page.locator("#rows summary")).to_have_text("Edit /a.py +1 −1")
    assert page.locator(".diff > div").all_text_contents() == ["  one", "- two", "+ 2", "  three"]


def test_todos_are_a_list_and_their_result_is_not_repeated(hive: MockHive, page: Page) -> None:
    todos = [{"content": "done", "status": "completed"}, {"content": "next", "status": "pending"}]
    stream(hive, tool("1", "TodoWrite", todos=todos), result("1", "Todos have been modified"))
    opened(page)
    assert page.locator(".todos li").all_text_contents() == ["☑ done", "☐ next"]
    expect(rows(page)).to_have_count(1)


def test_short_results_are_flat_and_long_ones_open_on_demand(hive: MockHive, page: Page) -> None:
    long = "=====\n" + "\n".join(f"line {n}" for n in range(100))
    stream(hive, tool("1", "Bash", command="x"), result("1", "47"), result("1", long))
    stream(
        hive,
        result("1", long, is_error=True),
        result("1", [{"type": "text", "text": "a"}, {"type": "image"}]),
    )
    stream(hive, result("1", ""))
    opened(page)
    texts = rows(page).all_text_contents()
    assert texts[1] == "47"
    assert texts[2] == "101 lines · line 0"
    assert texts[3] == "101 lines · line 99"  # what failed says it last
    assert texts[4] == "a\n[image]"
    assert texts[5] == "done, no output"
    expect(page.locator(".row-fail")).to_have_count(1)
    page.get_by_text("101 lines").first.click()
    expect(page.locator(".fold-body").first).to_contain_text("line 57")


def test_noise_is_dropped_thinking_shown_and_the_unknown_kept(hive: MockHive, page: Page) -> None:
    stream(
        hive,
        {"type": "system", "subtype": "init", "tools": ["Bash"]},
        {"type": "rate_limit_event", "info": 1},
        {"type": "result", "subtype": "success"},
        think("Let me see."),
        think(""),
        {"type": "system", "subtype": "compact_boundary"},
        {"type": "brand_new", "x": 1},
    )
    opened(page)
    texts = rows(page).all_text_contents()
    assert texts[0] == "Let me see."
    assert texts[1] == "thinking …"
    assert texts[2].startswith("context compacted")
    assert texts[3] == "brand_new"
    assert len(texts) == 4


def test_a_turn_has_a_head_a_body_and_an_end(hive: MockHive, page: Page) -> None:
    hive.live(
        "hm1nd", "turn_start", {"from": "bob", "body": "please\nhelp", "unread": 3, "redelivered": True}
    )
    hive.live("hm1nd", "note", {"text": "a note"})
    hive.live("hm1nd", "turn_end", {"ok": True, "outcome": "ok", "note": "", "stats": STATS})
    hive.live("hm1nd", "turn_end", {"ok": False, "outcome": "failed", "note": "API is down"})
    hive.live("hm1nd", "turn_end", {"ok": False, "outcome": "cancelled", "note": ""})
    opened(page)
    expect(page.locator(".turn-head")).to_contain_text("TURN ← bob · 3 unread delivered again")
    expect(page.locator(".turn-body")).to_have_text("please\nhelp")
    expect(page.locator(".row-ok")).to_contain_text("turn ok · 41.2 s · 225k tokens · $0.18")
    expect(page.locator(".row-fail")).to_contain_text("turn failed — API is down")
    expect(rows(page).last).to_contain_text("turn cancelled")


HOSTILE_SHAPES: list[Any] = [
    {},
    {"type": "assistant"},
    {"type": "assistant", "message": None},
    {"type": "assistant", "message": {"content": 7}},
    {
        "type": "assistant",
        "message": {"content": [None, 3, [], {"type": "text"}, {"type": "text", "text": {}}]},
    },
    {"type": "assistant", "message": {"content": [{"type": "tool_use", "name": 5, "input": "x"}]}},
    {
        "type": "assistant",
        "message": {"content": [{"type": "tool_use", "name": "constructor", "input": None}]},
    },
    {
        "type": "assistant",
        "message": {"content": [{"type": "tool_use", "name": "Edit", "input": {"edits": [None]}}]},
    },
    {
        "type": "assistant",
        "message": {"content": [{"type": "tool_use", "name": "TodoWrite", "input": {"todos": [1]}}]},
    },
    {
        "type": "assistant",
        "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {"command": []}}]},
    },
    {
        "type": "user",
        "message": {"content": [{"type": "tool_result", "content": {"a": [1]}, "tool_use_id": {}}]},
    },
    {"type": {"a": 1}},
    {"type": "system", "subtype": ["x"]},
]


def test_no_shape_of_event_breaks_the_page(hive: MockHive, page: Page) -> None:
    stream(hive, *HOSTILE_SHAPES)
    for kind in ("turn_start", "turn_end", "note"):
        hive.live("hm1nd", kind, {"from": {}, "body": [], "text": None, "stats": "x"})
    opened(page)
    stream(hive, *HOSTILE_SHAPES, say("still alive"))
    expect(rows(page).last).to_have_text("still alive")


def test_a_whole_turn_is_shown_the_same_from_history_and_live(hive: MockHive, page: Page) -> None:
    stream(hive, *turn_of_alice())
    opened(page)
    backfilled = rows(page).all_text_contents()
    stream(hive, *turn_of_alice())
    expect(rows(page)).to_have_count(2 * len(backfilled))
    assert rows(page).all_text_contents() == backfilled * 2
    assert page.locator("#rows .arriving").count() == len(backfilled)  # only live rows are animated


def first_in_view(page: Page) -> str:
    """The first row that is wholly in view: what is read stays in its place, whatever comes."""
    return str(
        page.evaluate("""() => {
          const top = document.querySelector('#terminal').getBoundingClientRect().top;
          const rows = [...document.querySelectorAll('#rows .row')];
          return rows.find(row => row.getBoundingClientRect().top >= top).querySelector('.cell').textContent;
        }""")
    )


def test_the_tail_sticks_to_the_bottom_until_the_reader_scrolls_up(hive: MockHive, page: Page) -> None:
    stream(hive, *(say(f"line {n}") for n in range(100)))
    opened(page)
    at_end = "() => { const t = document.querySelector('#terminal'); return t.scrollHeight - t.scrollTop - t.clientHeight < 3 }"
    page.wait_for_function(at_end)
    stream(hive, say("one more"))
    expect(rows(page).last).to_have_text("one more")
    page.wait_for_function(at_end)
    page.locator("#terminal").hover()
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"() => !({at_end})()")
    before = first_in_view(page)
    stream(hive, say("a"), say("b"), say("c"))
    pill = page.locator("#new-rows")
    expect(pill).to_have_text("↓ 3 new")
    assert first_in_view(page) == before
    pill.click()
    page.wait_for_function(at_end)
    expect(pill).to_be_hidden()


def test_history_is_2000_events_with_older_on_demand_and_at_most_5000_rows(
    hive: MockHive, page: Page
) -> None:
    hive.do(lambda: [hive.harnesses["hm1nd"].add("stream", say(f"line {n}")) for n in range(1, 2701)])
    opened(page)
    expect(rows(page)).to_have_count(2000)
    expect(rows(page).first).to_have_text("line 701")
    older = page.get_by_role("button", name="↑ older")
    older.click()
    expect(rows(page)).to_have_count(2500)
    expect(rows(page).first).to_have_text("line 201")
    older.click()
    expect(rows(page)).to_have_count(2700)
    expect(older).to_be_hidden()
    page.locator("#terminal").evaluate("t => { t.scrollTop = 0 }")
    hive.do(lambda: [hive.harnesses["hm1nd"].add("stream", say(f"line {n}")) for n in range(2701, 5401)])
    expect(rows(page).last).to_have_text("line 5400")
    expect(rows(page)).to_have_count(5400)  # what is being read does not go
    expect(page.locator("#new-rows")).to_have_text("↓ 2700 new")
    page.locator("#new-rows").click()
    stream(hive, say("line 5401"))
    expect(rows(page).last).to_have_text("line 5401")
    assert 4900 < rows(page).count() <= 5000
    first = int(rows(page).first.text_content().removeprefix("line "))  # type: ignore[union-attr]
    older.click()  # what went can be had again
    expect(rows(page).first).to_have_text(f"line {max(1, first - 500)}")
    shown = [int(text.removeprefix("line ")) for text in rows(page).all_text_contents()]
    assert shown == list(range(max(1, first - 500), 5402))


def test_the_state_row_follows_the_harness(hive: MockHive, page: Page) -> None:
    opened(page)
    badge = page.locator("#badge")
    cancel = page.get_by_role("button", name="Cancel the turn")
    expect(badge).to_contain_text("💤 idle")
    expect(cancel).to_be_hidden()
    harness = hive.harnesses["hm1nd"]
    hive.do(lambda: harness.set_state(badge="thinking", context_tokens=31400, last_turn=STATS, model="opus"))
    expect(badge).to_contain_text("🧠 thinking")
    expect(page.locator("#context")).to_have_text("ctx 31.4k")
    expect(page.locator("#cost")).to_have_text("last turn · 41.2 s · 225k tok · $0.18")
    expect(page.locator("#model")).to_have_text("model · opus")
    cancel.click()
    expect(cancel).to_be_enabled()
    assert hive.posts == [("/agents/hm1nd/api/cancel", {})]
    resumes = now_ms() + 60_000
    hive.do(lambda: harness.set_state(badge="rate_limited", note="5-hour limit", resumes_at_ms=resumes))
    expect(badge).to_contain_text("waiting for limit")
    expect(page.locator("#limit")).to_contain_text("5-hour limit · goes on at")
    hive.do(lambda: harness.set_state(badge="compacting", is_model=False, backend="rehearsal"))
    expect(badge).to_contain_text("compacting")
    expect(page.locator("#backend")).to_have_text("rehearsal — not a model")


def test_an_answer_that_the_stream_overtook_does_not_turn_the_state_back(hive: MockHive, page: Page) -> None:
    opened(page)
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/api/state", lambda route: held.append((route, route.fetch())))
    page.get_by_label("Message or slash command").fill("/compact")
    page.keyboard.press("Enter")  # a command asks for the state afterwards
    while not held:
        page.wait_for_timeout(20)
    hive.do(lambda: hive.harnesses["hm1nd"].set_state(badge="compacting"))
    expect(page.locator("#badge")).to_contain_text("compacting")
    with page.expect_response("**/api/state"):
        held[0][0].fulfill(response=held[0][1])
    stream(hive, say("later"))
    expect(rows(page).last).to_contain_text("later")
    expect(page.locator("#badge")).to_contain_text("compacting")


def test_a_stopped_agent_says_how_to_start_it(hive: MockHive, page: Page) -> None:
    hive.agents["tom"] = agent_view("tom", state="stopped")
    page.goto("/agents/tom/")
    expect(page.locator("#badge")).to_contain_text("stopped")
    expect(page.locator("#asleep")).to_contain_text("tom is stopped. Press ▶ ST4RT")
    page.get_by_role("button", name="Start the agent").click()
    expect(page.locator("#toasts")).to_contain_text("Started.")
    assert hive.posts == [("/start/tom", {})]


def test_a_crashed_agent_is_said_to_start_again_as_on_the_dashboard(hive: MockHive, page: Page) -> None:
    hive.agents["tom"] = agent_view("tom", state="crashed", note="exited with 137; starts again in 4 s")
    page.goto("/agents/tom/")
    asleep = page.locator("#asleep")
    expect(asleep).to_contain_text("tom has crashed: exited with 137; starts again in 4 s")
    expect(asleep).to_contain_text("It is started again by itself. Press ▶ ST4RT above to try at once.")
    page.goto("/")
    expect(page.locator('[data-key="tom"] .advice')).to_contain_text("It is started again by itself.")


def test_an_empty_tail_of_an_agent_at_its_limit_says_so(hive: MockHive, page: Page) -> None:
    hive.do(lambda: hive.harnesses["hm1nd"].set_state(badge="rate_limited"))
    page.goto("/agents/hm1nd/")
    expect(page.locator("#empty")).to_contain_text("its model's limit is reached. It tries again by itself")


def test_no_key_opens_the_search_where_keys_are_off(page: Page) -> None:
    page.add_init_script("localStorage.setItem('hive.keys', 'off')")
    page.goto("/agents/hm1nd/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    page.locator("#terminal").focus()
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_hidden()
    page.locator("#find-open").click()
    expect(page.locator("#find")).to_be_visible()


def test_an_unknown_agent_leads_back_to_the_dashboard(page: Page) -> None:
    page.goto("/agents/nobody/")
    expect(page.locator("#gone")).to_contain_text("There is no agent nobody")


def test_enter_sends_shift_enter_breaks_the_line_and_arrows_recall(hive: MockHive, page: Page) -> None:
    opened(page)
    field = page.get_by_label("Message or slash command")
    field.fill("first")
    field.press("Shift+Enter")
    field.press_sequentially("second")
    field.press("Enter")
    expect(field).to_have_value("")
    assert hive.posts == [("/agents/hm1nd/send", {"body": "first\nsecond"})]
    expect(page.locator(".row-local")).to_have_count(0)  # its turn will show it
    hive.do(lambda: hive.harnesses["hm1nd"].set_state(badge="thinking"))
    expect(page.locator("#badge")).to_contain_text("thinking")
    field.fill("another")
    field.press("Enter")
    expect(field).to_have_value("")
    expect(page.locator(".row-local")).to_contain_text("waits in the inbox: another")
    field.fill("unsent")
    field.press("ArrowUp")
    expect(field).to_have_value("another")
    field.press("ArrowUp")
    expect(field).to_have_value("first\nsecond")
    field.press("ArrowDown")
    field.press("ArrowDown")
    expect(field).to_have_value("unsent")


def test_a_refused_message_stays_in_the_prompt(hive: MockHive, page: Page) -> None:
    opened(page)
    hive.refusals["/agents/hm1nd/send"] = (413, {"code": "body_too_large", "message": "body is too large"})
    field = page.get_by_label("Message or slash command")
    field.fill("precious words")
    field.press("Enter")
    expect(page.locator(".row-fail")).to_contain_text("body is too large")
    expect(field).to_have_value("precious words")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()


def test_slash_commands(hive: MockHive, page: Page) -> None:
    stream(hive, say("old words"))
    opened(page)
    field = page.get_by_label("Message or slash command")

    def enter(text: str) -> None:
        field.fill(text)
        field.press("Enter")

    enter("/help")
    expect(page.locator(".row-local").last).to_contain_text("/new-session")
    for text in ("/cancel", "/compact", "/new-session", "/model opus"):
        enter(text)
        expect(field).to_have_value("")
    base = "/agents/hm1nd/api"
    assert hive.posts == [
        (f"{base}/cancel", {}),
        (f"{base}/compact", {}),
        (f"{base}/new-session", {}),
        (f"{base}/model", {"model": "opus"}),
    ]
    enter("/model")
    expect(page.locator(".row-local").last).to_contain_text("haiku, opus, sonnet")
    enter("/frobnicate now")
    expect(page.locator(".row-fail")).to_contain_text("unknown command /frobnicate")
    enter("/clear")
    expect(rows(page)).to_have_count(0)
    assert len(hive.posts) == 4
    enter("/etc/hosts is a path, not a command")
    expect(field).to_have_value("")
    assert hive.posts[-1][0] == "/agents/hm1nd/send"


def test_cleared_rows_stay_away_until_asked_for(hive: MockHive, page: Page) -> None:
    stream(hive, *(say(f"line {n}") for n in range(5)))
    opened(page)
    page.get_by_label("Message or slash command").fill("/clear")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(0)
    stream(hive, say("fresh"))
    # The page still says "live" while it has not noticed the cut: what comes after it shows the reconnect.
    hive.drop_streams()
    stream(hive, say("fresher"))
    expect(rows(page)).to_have_text(["fresh", "fresher"])
    page.get_by_role("button", name="↑ older").click()
    expect(rows(page)).to_have_count(7)


def test_tab_completes_commands_and_models_and_else_moves_on(page: Page) -> None:
    opened(page)
    field = page.get_by_label("Message or slash command")
    field.fill("/c")
    expect(page.locator("#suggestions")).to_have_text("/clear   /cancel   /compact")
    field.fill("/mo")
    field.press("Tab")
    expect(field).to_have_value("/model ")
    field.press_sequentially("so")
    field.press("Tab")
    expect(field).to_have_value("/model sonnet")
    field.fill("plain words")
    field.press("Tab")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_focused()


def test_logging_the_agent_in(hive: MockHive, page: Page) -> None:
    harness = hive.harnesses["hm1nd"]
    login = {"needed": True, "stage": "none", "url": None, "message": ""}
    harness.state |= {"badge": "needs_login", "login": login}
    opened(page)
    page.get_by_role("button", name="Start login").click()
    expect(page.get_by_role("button", name="Start login")).to_be_enabled()
    url = "https://claude.example/oauth?state=1"
    hive.do(lambda: harness.set_state(login=login | {"stage": "awaiting_code", "url": url}))
    link = page.get_by_role("link", name="open claude.example")
    expect(link).to_have_attribute("href", url)
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    page.get_by_label("code", exact=True).fill("abc#123")
    page.get_by_role("button", name="Send code").click()
    expect(page.get_by_label("code", exact=True)).to_have_value("")
    hive.do(lambda: harness.set_state(login=login | {"stage": "failed", "message": "the code was refused"}))
    expect(page.locator("#login-message")).to_have_text("the code was refused")
    hive.do(lambda: harness.set_state(badge="idle", login=login | {"needed": False, "stage": "done"}))
    expect(page.locator("#agent-login")).to_be_hidden()
    assert hive.posts == [
        ("/agents/hm1nd/login/start", {}),
        ("/agents/hm1nd/login/code", {"code": "abc#123"}),
    ]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://plain.example/", "https:javascript", " https://x.example"]
)
def test_a_login_link_that_is_not_https_stays_text(hive: MockHive, page: Page, url: str) -> None:
    login = {"needed": True, "stage": "awaiting_code", "url": url, "message": ""}
    hive.harnesses["hm1nd"].state |= {"badge": "needs_login", "login": login}
    opened(page)
    expect(page.locator("#login-url")).to_contain_text(url.strip())
    expect(page.locator("#login-url a")).to_have_count(0)
