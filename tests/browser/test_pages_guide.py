"""What guides the operator: the tour, search, who did what, a followed log, and what to do in trouble."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import logged_in
from tests.browser.demo_hive import SHA
from tests.browser.mock_hive import MockHive, agent_view, approval, file_diff, message, question

OURS = "operator (session 0a1b2c3d)"
OTHER = "operator (session feedbeef)"


def opened(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#connection")).to_have_text("live")


def test_the_tour_opens_in_an_empty_hive_ticks_itself_off_and_is_remembered(
    hive: MockHive, page: Page
) -> None:
    opened(page)
    tour = page.locator("#tour")
    expect(tour.locator("li")).to_have_count(5)
    expect(tour.locator("[aria-current=step]")).to_contain_text("Say what you want")
    tour.get_by_role("button", name="Say what you want: write").click()
    expect(page.get_by_label("message", exact=True)).to_be_focused()
    hive.say(1, "operator", "hm1nd", "hello")
    expect(tour.locator("[aria-current=step]")).to_contain_text("Ask for a first agent")
    tour.get_by_role("button", name="Ask for a first agent: name it").click()
    expect(page.get_by_label("new agent")).to_be_focused()
    hive.change(approval(1, "alice"))
    expect(tour.locator("[aria-current=step]")).to_contain_text("Say yes")
    page.reload()
    expect(tour.locator("[aria-current=step]")).to_contain_text("Say yes")
    hive.agents["alice"] = agent_view("alice")
    hive.publish("agent", hive.agents["alice"])
    expect(tour.locator("[aria-current=step]")).to_contain_text("Look over its shoulder")
    page.locator("#container-list").get_by_role("link", name="alice", exact=True).click()
    page.wait_for_url(re.compile("/agents/alice/"))
    opened(page)
    expect(page.locator("#tour-count")).to_have_text("that is all")
    page.get_by_role("button", name="Put away the tour").click()
    expect(tour).to_be_hidden()
    page.reload()
    expect(page.locator("#container-list")).to_contain_text("alice")
    expect(tour).to_be_hidden()
    page.locator("#tour-again").click()
    expect(tour).to_be_visible()


def test_no_tour_where_people_live_already(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = agent_view("alice")
    opened(page)
    expect(page.locator("#container-list")).to_contain_text("alice")
    expect(page.locator("#tour")).to_be_hidden()


def test_everything_that_was_said_is_searched_piece_by_piece(hive: MockHive, page: Page) -> None:
    hive.search_piece = 300
    hive.messages = [
        message(n, "alice", "bob", "the <b>Needle</b> is here" if n in (5, 700, 990) else f"hay {n}")
        for n in range(1, 1001)
    ]
    opened(page)
    page.get_by_role("searchbox", name="words to look for").fill("needle here")
    rows = page.locator("#flow-list > li")
    expect(rows).to_have_count(3)
    expect(page.locator("#flow-count")).to_have_text("3 found")
    expect(rows.last.locator("mark")).to_have_text(["Needle", "here"])
    assert page.locator("#flow-list b").count() == 0
    assert sum("/api/messages/search" in each for each in hive.gets) == 4
    hive.say(1001, "bob", "alice", "here is another needle")
    expect(rows).to_have_count(4)
    hive.say(1002, "bob", "alice", "nothing of the sort")
    page.get_by_role("searchbox", name="words to look for").fill("zebra")
    expect(page.locator("#no-flow")).to_have_text("No message with “zebra”, back to the first one.")
    page.get_by_role("button", name="show all again").click()
    expect(rows.first).to_contain_text("nothing of the sort")
    expect(page.get_by_role("searchbox", name="words to look for")).to_be_focused()


def test_a_long_message_is_folded_behind_the_place_of_the_hit(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "alice", "bob", "x\n" * 500 + "and then the needle\n" + "y\n" * 500)]
    opened(page)
    page.get_by_role("searchbox", name="words to look for").fill("needle")
    fold = page.locator("#flow-list details")
    expect(fold.locator("summary")).to_contain_text("and then the needle")
    fold.locator("summary").click()
    expect(fold.locator("p mark")).to_have_text("needle")


def test_a_search_that_fails_says_so_and_goes_on(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "alice", "bob", "needle")]
    opened(page)
    said = {"code": "unavailable", "message": "the database is busy"}
    hive.refusals["/api/messages/search"] = (503, said)
    page.get_by_role("searchbox", name="words to look for").fill("absent")
    expect(page.locator("#no-flow")).to_contain_text("the database is busy")
    del hive.refusals["/api/messages/search"]
    page.get_by_role("button", name="load older").click()
    expect(page.locator("#no-flow")).to_contain_text("back to the first one")


def test_who_did_what_is_told_live_in_the_list_and_in_the_row(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    hive.approvals = [approval(7, "eve", "deployed")]
    opened(page)
    hive.do_act(OURS, "restart", "bob")
    rows = page.locator("#activity-list > li")
    expect(rows.first).to_contain_text("you")
    expect(rows.first).to_contain_text("restarted bob")
    row = page.locator('#container-list [data-key="bob"]')
    expect(row.locator(".deed-line")).to_contain_text("you restarted bob · ")
    expect(page.locator("#toasts")).not_to_contain_text("restarted")
    hive.do_act(OTHER, "kill", "bob")
    expect(row.locator(".deed-line")).to_contain_text("operator · session feedbeef stopped bob · ")
    expect(page.locator("#toasts")).to_contain_text("Operator · session feedbeef stopped bob.")
    hive.do_act("operator (host socket)", "approve", "approval 7")
    expect(rows.first).to_contain_text("operator · command line")
    expect(rows.first).to_contain_text("approved #7 (eve)")
    hive.do_act("hm1nd (socket)", "start", "bob")
    expect(row.locator(".deed-line")).to_contain_text("hm1nd started bob")
    hive.do_act(OTHER, "destroy", "bob", outcome="refused: conflict", detail="bob <i>is</i> busy")
    expect(rows.first).to_contain_text("was refused: destroyed bob")
    expect(rows.first).to_contain_text("bob <i>is</i> busy")
    assert page.locator("#activity-list i").count() == 0
    for n in range(12):
        hive.do_act("system (watch)", "crash", f"a{n}", outcome="crashed")
    expect(rows).to_have_count(8)
    page.get_by_role("button", name="show all 17").click()
    expect(rows).to_have_count(17)
    page.get_by_role("button", name="load older").click()
    expect(page.locator("#activity-more")).to_be_hidden()


def test_a_log_is_followed_in_the_one_stream_and_narrowed(hive: MockHive, page: Page) -> None:
    hive.logs["hm1nd"] = [
        "--- hm1nd starts, bubblewrap",
        "INFO uvicorn.error: up",
        "INFO hive_agent.link: on",
    ]
    opened(page)
    streams: list[str] = []
    page.on(
        "request",
        lambda sent: streams.append(sent.url) if "/stream" in sent.url or "/logs" in sent.url else None,
    )
    page.get_by_role("button", name="Logs of hm1nd").click()
    lines = page.locator("#panel-log > div")
    expect(lines).to_have_count(3)
    expect(page.locator("#panel-status")).to_have_text("3 lines · live")
    hive.log_line("hm1nd", "INFO hive_agent.turn: \x1b[32mturn 1\x1b[0m", "  goes on")
    expect(lines).to_have_count(5)
    expect(lines.nth(3).locator(".ansi-green")).to_have_text("turn 1")
    page.get_by_label("unit", exact=True).select_option("hive_agent")
    expect(lines).to_have_count(3)
    expect(page.locator("#panel-status")).to_have_text("3 lines of 5 · live")
    page.get_by_label("show lines that hold this text").fill("TURN")
    expect(lines).to_have_count(1)
    hive.log_line("hm1nd", "INFO uvicorn.error: turn", "INFO hive_agent.turn: turn 2 <b>x</b>")
    expect(lines).to_have_text(["INFO hive_agent.turn: turn 1", "INFO hive_agent.turn: turn 2 <b>x</b>"])
    page.get_by_role("button", name="Close the panel").click()
    hive.say(1, "hm1nd", "operator", "still live")
    expect(page.locator("#inbox-list")).to_contain_text("still live")
    # One stream at a time, the same one with the log and without, and nothing that asks again and again.
    assert [url.rsplit("/", 1)[1] for url in streams] == ["stream?log=hm1nd", "stream"]
    assert hive.snapshots == 1


def test_a_log_scrolled_up_stays_and_says_what_is_new(hive: MockHive, page: Page) -> None:
    hive.logs["hm1nd"] = [f"line {n}" for n in range(300)]
    opened(page)
    page.get_by_role("button", name="Logs of hm1nd").click()
    log = page.locator("#panel-log")
    expect(log.locator("> div")).to_have_count(300)
    log.evaluate("log => { log.scrollTop = 100; }")
    page.wait_for_function("() => document.querySelector('#panel-log').scrollTop === 100")
    hive.log_line("hm1nd", "one", "two")
    expect(page.get_by_role("button", name="2 new")).to_be_visible()
    assert log.evaluate("log => log.scrollTop") == 100
    page.get_by_role("button", name="2 new").click()
    expect(page.get_by_role("button", name="2 new")).to_be_hidden()
    hive.log_line("hm1nd", "three")
    expect(log.locator("> div").last).to_be_in_viewport()


def test_the_diff_of_what_was_decided_is_there_to_read(hive: MockHive, page: Page) -> None:
    bases = {"running": SHA[3], "approved": SHA[3], "proposed": None}
    hive.approvals = [approval(4, "bob", "denied", kind="apply_commit", commit=SHA[5], bases=bases)]
    hive.diffs[4, "running"] = [file_diff("agent.nix", "@@ -1 +1 @@\n-old <i>way</i>\n+new way")]
    hive.diffs[4, "approved"] = [file_diff("other.nix", "@@ -0,0 +1 @@\n+x", "added")]
    opened(page)
    page.get_by_text("recently decided").click()
    page.get_by_role("button", name="Diff of approval 4").click()
    panel = page.get_by_role("complementary", name="Diff of #4")
    expect(panel).to_contain_text("old <i>way</i>")
    expect(panel).to_contain_text(f"what ran then · {SHA[3][:12]}")
    panel.get_by_label(re.compile("last approved then")).check()
    expect(panel).to_contain_text("other.nix")
    expect(panel.get_by_label("no earlier proposal")).to_be_disabled()
    assert panel.locator("i").count() == 0


def test_an_outage_says_what_to_do_and_goes_by_itself(hive: MockHive, page: Page) -> None:
    hive.questions = [question(1, "hm1nd", "Which?")]
    opened(page)
    page.get_by_label("your answer").fill("half an answer")
    expect(page.locator("#outage")).to_be_hidden()
    hive.refuse_streams = True
    hive.drop_streams()
    expect(page.locator("#outage")).to_contain_text("hive-c0re is starting or stopping.")
    expect(page.locator("#outage")).to_contain_text("What you see is from")
    page.route("**/messages/stream", lambda route: route.abort())
    page.get_by_role("button", name="try now").click()
    expect(page.locator("#outage")).to_contain_text("hive-c0re does not answer.")
    expect(page.get_by_label("your answer")).to_have_value("half an answer")
    page.unroute("**/messages/stream")
    hive.refuse_streams = False
    expect(page.locator("#outage")).to_be_hidden(timeout=30_000)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_label("your answer")).to_have_value("half an answer")


def test_an_agent_that_is_not_well_comes_with_advice(hive: MockHive, page: Page) -> None:
    report = {"since_ms": 1, "backend": "claude"}
    hive.agents["bob"] = agent_view("bob", report=report | {"badge": "needs_login"})
    hive.agents["carol"] = agent_view("carol", report=report | {"badge": "offline"})
    hive.agents["dave"] = agent_view("dave", report=report | {"badge": "rate_limited"})
    hive.agents["erin"] = agent_view("erin", state="crashed", note="exited with 137")
    hive.agents["frank"] = agent_view("frank", state="stopped", unread=2)
    opened(page)
    for name, words in {
        "bob": "until it is logged in",
        "carol": "its harness does not answer",
        "dave": "tries again by itself",
        "erin": "L0GS tells why",
        "frank": "▶ ST4RT lets it read",
    }.items():
        expect(page.locator(f'#container-list [data-key="{name}"] .advice')).to_contain_text(words)
    expect(page.locator('#container-list [data-key="hm1nd"] .advice')).to_have_count(0)


def test_a_session_that_ended_is_told_at_the_login(hive: MockHive, page: Page) -> None:
    opened(page)
    page.context.clear_cookies()
    page.get_by_role("button", name="Rebuild hm1nd").click()
    page.wait_for_url(re.compile("/login"))
    expect(page.locator("#progress")).to_contain_text("Your session has ended")


def test_a_form_whose_answer_never_comes_is_given_back_with_a_word_of_caution(
    hive: MockHive, browser: Browser
) -> None:
    context = logged_in(browser, hive)
    context.add_init_script(
        "const real = AbortSignal.timeout; AbortSignal.timeout = () => real.call(AbortSignal, 400);"
    )
    page = context.new_page()
    opened(page)
    hive.hold_posts()
    button = page.get_by_role("button", name="Rebuild hm1nd")
    button.click()
    error = page.locator('#container-list [data-key="hm1nd"] .form-error')
    expect(error).to_contain_text("did not answer in time")
    expect(error).to_contain_text("may have been done")
    expect(button).to_be_enabled()
    hive.release_posts()
    context.close()


def test_a_selection_survives_what_arrives(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "alice", "operator", "copy these words please")]
    opened(page)
    body = page.locator("#inbox-list .body")
    body.evaluate("body => getSelection().setBaseAndExtent(body.firstChild, 5, body.firstChild, 16)")
    for n in range(2, 6):
        hive.say(n, "alice", "operator", f"more {n}")
    hive.publish("agent", agent_view("hm1nd", unread=3))
    expect(page.locator("#inbox-list > li")).to_have_count(5)
    assert page.evaluate("getSelection().toString()") == "these words"
