"""The dashboard in a real browser: what it shows, and that nothing a person does to it gets lost."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive, agent_view, approval, hive_status, message, now_ms, question

pytestmark = pytest.mark.browser


def opened(page: Page) -> Page:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def test_every_section_has_a_plain_name_and_says_what_to_do_when_empty(page: Page) -> None:
    opened(page)
    for name in (
        "Containers",
        "Kept state",
        "Questions from agents",
        "Operator inbox",
        "Pending approvals",
        "Message flow",
    ):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("region", name=name, exact=True).locator(".empty:visible")).to_have_count(1)
    expect(page.locator("#only-manager")).to_contain_text("Ask for a first agent")


def test_a_container_row_tells_state_badges_and_place(hive: MockHive, page: Page) -> None:
    report = {"badge": "needs_login", "since_ms": now_ms(), "backend": "claude"}
    hive.agents["bob"] = agent_view("bob", report=report, needs_update=True, isolation="none", unread=2)
    opened(page)
    row = page.locator('#container-list [data-key="bob"]')
    for text in (
        "ag3nt",
        "needs login",
        "log it in",
        "needs update",
        "not isolated",
        "h-bob",
        ":8123",
        "2 unread",
    ):
        expect(row).to_contain_text(text)
    expect(row.get_by_role("link", name="bob", exact=True)).to_have_attribute("href", "/agents/bob/")
    expect(page.locator('#container-list [data-key="hm1nd"]')).not_to_contain_text("not isolated")
    expect(page.get_by_role("button", name="Update all")).to_be_visible()


def test_a_row_says_whom_the_agent_may_write_to_and_with_whom_it_is_paused(
    hive: MockHive, page: Page
) -> None:
    hive.agents |= {"bob": agent_view("bob", may_write_to=["hm1nd", "carol"]), "carol": agent_view("carol")}
    opened(page)
    row = page.locator('#container-list [data-key="bob"]')
    expect(row).to_contain_text("writes only to hm1nd, carol")
    expect(row).not_to_contain_text("paused with")

    hive.publish("agent", agent_view("bob", may_write_to=[], paused_with=["carol"]))

    expect(row).to_contain_text("paused with carol")
    expect(row).to_contain_text("writes only to you")
    expect(page.locator('#container-list [data-key="carol"]')).not_to_contain_text("writes only to")


def test_buttons_follow_the_state_and_give_way_to_a_pill_in_flight(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    opened(page)
    row = page.locator('#container-list [data-key="bob"]')
    names = lambda: [each.get_attribute("aria-label") for each in row.locator("button:visible").all()]  # noqa: E731
    reading = ["Logs of bob", "Notes of bob", "Permission rules of bob", "History of bob"]
    assert names() == ["Restart bob", "Stop bob", "Rebuild bob", *reading, "Destroy bob", "Purge bob"]
    for state in ("starting", "stopping", "rebuilding", "creating", "destroying"):
        hive.publish("agent", agent_view("bob", state=state))
        expect(row).to_contain_text(f"{state} ·")
        assert names() == reading
    hive.publish("agent", agent_view("bob", state="stopped"))
    expect(row.get_by_role("button", name="Start bob")).to_be_visible()
    manager = page.locator('#container-list [data-key="hm1nd"]')
    expect(manager.get_by_role("button", name="Destroy hm1nd")).to_have_count(0)


def test_warnings_name_rehearsal_and_missing_isolation(hive: MockHive, page: Page) -> None:
    opened(page)
    expect(page.locator("#rehearsal-warning")).to_be_hidden()
    hive.publish("hive", hive_status(backend="rehearsal", isolation="none"))
    expect(page.locator("#rehearsal-warning")).to_contain_text("rehearsal: not a model")
    expect(page.locator("#isolation-warning")).to_contain_text("not isolated")


def test_a_button_posts_its_form_after_a_yes_and_not_after_a_no(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    opened(page)
    page.get_by_role("button", name="Stop bob").click()
    page.get_by_role("button", name="Keep as is").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert hive.posts == []
    page.get_by_role("button", name="Stop bob").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("bob is stopped.")
    assert hive.posts == [("/kill/bob", {})]


def test_purge_needs_the_name_typed_out(hive: MockHive, page: Page) -> None:
    hive.agents["bob"] = agent_view("bob")
    opened(page)
    page.get_by_role("button", name="Purge bob").click()
    accept = page.get_by_role("button", name="Delete everything")
    expect(accept).to_be_disabled()
    page.keyboard.type("bo")
    page.keyboard.press("Enter")
    expect(accept).to_be_disabled()
    page.keyboard.type("b")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("bob is purged.")
    assert hive.posts == [("/purge/bob", {"confirm": "bob"})]


def test_a_form_comes_back_after_success_refusal_and_silence(hive: MockHive, page: Page) -> None:
    opened(page)
    button = page.get_by_role("button", name="Rebuild hm1nd")
    hive.hold_posts()
    button.click()
    expect(button).to_be_disabled()
    expect(button).to_have_attribute("aria-busy", "true")
    hive.publish("agent", agent_view("hm1nd", unread=7))  # an update while it is busy
    hive.release_posts()
    expect(button).to_be_enabled()
    expect(page.locator('#container-list [data-key="hm1nd"]')).to_contain_text("7 unread")

    hive.refusals["/rebuild/hm1nd"] = (409, {"code": "conflict", "message": "hm1nd is being rebuilt already"})
    button.click()
    expect(page.locator('#container-list [data-key="hm1nd"] .form-error')).to_have_text(
        "hm1nd is being rebuilt already"
    )
    expect(button).to_be_enabled()

    del hive.refusals["/rebuild/hm1nd"]
    page.route("**/rebuild/hm1nd", lambda route: route.abort())
    button.click()
    expect(page.locator('#container-list [data-key="hm1nd"] .form-error')).to_contain_text(
        "cannot be reached"
    )
    expect(button).to_be_enabled()
    page.unroute("**/rebuild/hm1nd")
    button.click()
    expect(page.locator('#container-list [data-key="hm1nd"] .form-error')).to_be_hidden()


def test_a_bad_field_is_named_marked_and_focused(hive: MockHive, page: Page) -> None:
    opened(page)
    said = {
        "code": "invalid_name",
        "message": "agent name 'all': is reserved; choose another",
        "field": "name",
    }
    hive.refusals["/request-spawn"] = (422, said)
    page.get_by_label("new agent").fill("all")
    page.get_by_role("button", name="Request spawn").click()
    expect(page.locator("#spawn .form-error")).to_contain_text("is reserved")
    expect(page.get_by_label("new agent")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("new agent")).to_be_focused()
    expect(page.get_by_label("new agent")).to_have_value("all")


def test_spawn_is_requested_approved_and_followed_to_its_end(hive: MockHive, page: Page) -> None:
    opened(page)
    page.get_by_label("new agent").fill("alice")
    page.get_by_label("what for").fill("writes notes")
    page.get_by_role("button", name="Request spawn").click()
    expect(page.get_by_label("new agent")).to_have_value("")
    assert hive.posts.pop() == ("/request-spawn", {"name": "alice", "note": "writes notes"})
    hive.publish("approval", approval(1, "alice"))
    page.get_by_role("button", name="Approve 1: alice").click()
    expect(page.locator("#toasts")).to_contain_text("Approved #1")
    assert hive.posts.pop() == ("/approve/1", {"note": ""})
    hive.publish("approval", approval(1, "alice", "building", step="creating the container"))
    expect(page.locator("#approval-list")).to_contain_text("creating the container")
    hive.publish("approval", approval(1, "alice", "deployed", resolved_by="operator"))
    expect(page.locator("#approval-list li")).to_have_count(0)
    page.get_by_text("recently decided").click()
    expect(page.locator("#resolved-list")).to_contain_text("deployed")


def test_denying_sends_the_note(hive: MockHive, page: Page) -> None:
    hive.approvals = [approval(4, "eve")]
    opened(page)
    page.get_by_placeholder("note with your decision").fill("one is enough")
    page.get_by_role("button", name="Deny 4: eve").click()
    expect(page.locator("#toasts")).to_contain_text("Denied #4")
    assert hive.posts == [("/deny/4", {"note": "one is enough"})]


@pytest.mark.parametrize("multi", [False, True])
def test_answers_join_choices_and_free_text(hive: MockHive, page: Page, multi: bool) -> None:
    hive.questions = [question(3, "hm1nd", "Which?", ["red", "green", "blue"], multi=multi)]
    opened(page)
    button = page.get_by_role("button", name="Answer question 3")
    button.click()
    expect(page.locator("#question-list .form-error")).to_contain_text("Choose an option or write")
    for colour in ("red", "blue"):
        page.get_by_label(colour).check()
    page.get_by_label("or in your own words").fill("but dark")
    button.click()
    expect(page.locator("#toasts")).to_contain_text("Answered")
    assert hive.posts == [
        ("/answer-question/3", {"answer": "red, blue, but dark" if multi else "blue, but dark"})
    ]
    hive.publish("question", question(3, "hm1nd", "Which?", answer="blue"))
    expect(page.locator("#question-list li")).to_have_count(0)


def test_a_question_that_expires_counts_down_and_vanishes_live(hive: MockHive, page: Page) -> None:
    hive.questions = [
        question(3, "hm1nd", "Soon?", expires_at_ms=now_ms() + 3_600_000),
        question(4, "bob", "Sooner?", expires_at_ms=now_ms() + 40_000),
        question(5, "bob", "Whenever?"),
    ]
    opened(page)
    cards = page.locator("#question-list > li")
    expect(cards.nth(0)).to_contain_text(re.compile(r"closes in (1h 0m|59m \d+s)"))
    expect(cards.nth(1)).to_contain_text(re.compile(r"closes in [1-4]?\ds"))
    before = cards.nth(1).locator("time[data-until]").inner_text()
    expect(cards.nth(1).locator("time[data-until]")).not_to_have_text(before)
    expect(cards.nth(2)).not_to_contain_text("closes")
    hive.publish("question", question(4, "bob", "Sooner?", closed="expired"))
    expect(cards).to_have_count(2)
    expect(page.locator("#toasts")).to_contain_text("Question 4 of bob has expired.")
    hive.publish("question", question(5, "bob", "Whenever?", closed="cancelled"))
    expect(cards).to_have_count(1)
    expect(page.locator("#toasts")).to_contain_text("Question 5 of bob was taken back.")
    expect(page).to_have_title("(1) hyperhive")


def test_a_question_is_closed_without_an_answer(hive: MockHive, page: Page) -> None:
    hive.questions = [question(3, "hm1nd", "Which?", ["red"])]
    opened(page)
    page.get_by_role("button", name="Cancel question 3").click()
    expect(page.get_by_role("dialog")).to_contain_text("hm1nd is told that it was cancelled")
    page.get_by_role("button", name="Close it").click()
    expect(page.locator("#toasts")).to_contain_text("Question 3 is closed.")
    assert hive.posts == [("/cancel-question/3", {})]


def test_an_answer_that_comes_too_late_is_refused_and_the_card_goes(hive: MockHive, page: Page) -> None:
    hive.questions = [question(3, "hm1nd", "Which?", ["red"])]
    opened(page)
    said = "question 3 has expired"
    hive.refusals["/answer-question/3"] = (409, {"code": "conflict", "message": said})
    hive.do(lambda: hive.questions.clear())
    page.get_by_label("red").check()
    page.get_by_role("button", name="Answer question 3").click()
    expect(page.locator("#question-list > li")).to_have_count(0)
    expect(page.locator("#toasts")).to_contain_text(said)


def test_inbox_counts_what_is_new_since_the_last_look_and_answers_in_place(
    hive: MockHive, page: Page
) -> None:
    hive.messages = [message(n, "alice", "operator", f"letter {n}") for n in range(1, 13)]
    hive.agents |= {name: agent_view(name) for name in ("alice", "bob", "carol", "dave", "erin", "frank")}
    opened(page)
    expect(page.locator("#nav-inbox")).to_have_text("12 new in inbox")
    expect(page.locator("#inbox-list li")).to_have_count(8)
    page.get_by_role("button", name="show all 12").click()
    expect(page.locator("#inbox-list li")).to_have_count(12)
    page.locator("#inbox-list").scroll_into_view_if_needed()
    expect(page.locator("#nav-inbox")).to_have_text("0 new in inbox")
    page.reload()
    expect(page.locator("#nav-inbox")).to_have_text("0 new in inbox")

    row = page.locator('#inbox-list [data-key="12"]')
    row.get_by_text("R3PLY").click()
    row.get_by_role("textbox").fill("thank you\nvery much")
    row.get_by_role("textbox").press("Control+Enter")
    expect(page.locator("#toasts")).to_contain_text("Sent to alice.")
    assert hive.posts == [("/send", {"to": "alice", "in_reply_to": "12", "body": "thank you\nvery much"})]
    expect(row.get_by_role("textbox")).to_be_hidden()


def test_writing_to_an_agent_survives_a_refusal_and_a_reload(hive: MockHive, page: Page) -> None:
    opened(page)
    hive.refusals["/send"] = (429, {"code": "rate_limited", "message": "too many messages; wait 3 s"})
    page.get_by_label("to", exact=True).select_option("hm1nd")
    page.get_by_label("message", exact=True).fill("hello there")
    page.get_by_role("button", name="Send message").click()
    expect(page.locator("#compose .form-error")).to_contain_text("wait 3 s")
    expect(page.get_by_label("message", exact=True)).to_have_value("hello there")
    page.reload()
    expect(page.get_by_label("message", exact=True)).to_have_value("hello there")


def test_the_flow_is_live_filtered_and_goes_back(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = agent_view("alice")
    hive.messages = [message(n, "alice", "hm1nd", f"line {n}") for n in range(11, 261)]
    opened(page)
    expect(page.locator("#flow-list li")).to_have_count(200)
    page.get_by_role("button", name="load older").click()
    expect(page.locator("#flow-list li")).to_have_count(250)
    hive.say(261, "hm1nd", "operator", "the newest")
    expect(page.locator("#flow-list li").first).to_contain_text("the newest")
    page.get_by_label("only").select_option("operator")
    expect(page.locator("#flow-list li")).to_have_count(1)
    page.get_by_label("only").select_option("")
    page.get_by_role("button", name="load older").click()
    expect(page.locator("#toasts")).to_contain_text("first message")
    expect(page.get_by_role("button", name="load older")).to_be_hidden()


def test_live_updates_keep_typing_focus_choice_and_open_details(hive: MockHive, page: Page) -> None:
    hive.questions = [question(1, "hm1nd", "Which?", ["red", "green"])]
    hive.messages = [message(1, "alice", "operator", "one\n" * 20)]
    hive.approvals = [approval(1, "eve")]
    opened(page)
    page.locator('#inbox-list [data-key="1"] details.fold > summary').click()
    page.get_by_label("green").check()
    page.get_by_placeholder("note with your decision").fill("half a no")
    field = page.get_by_label("or in your own words")
    field.fill("typed before")
    field.evaluate("field => field.setSelectionRange(2, 5)")
    for n in range(2, 8):
        hive.say(n, "alice", "operator", f"more {n}")
    hive.publish("question", question(1, "hm1nd", "Which colour?", ["red", "green", "blue"]))
    hive.publish("question", question(2, "hm1nd", "Another?"))
    hive.publish("approval", approval(1, "eve", note="changed meanwhile"))
    expect(page.locator("#question-list")).to_contain_text("Which colour?")
    expect(page.locator("#approval-list")).to_contain_text("changed meanwhile")
    expect(field.first).to_be_focused()
    expect(field.first).to_have_value("typed before")
    assert field.first.evaluate("field => [field.selectionStart, field.selectionEnd]") == [2, 5]
    expect(page.get_by_label("green").first).to_be_checked()
    expect(page.get_by_placeholder("note with your decision")).to_have_value("half a no")
    expect(page.locator('#inbox-list [data-key="1"] details.fold')).to_have_attribute("open", "")


def test_new_rows_above_do_not_move_what_is_being_read(hive: MockHive, page: Page) -> None:
    hive.messages = [message(n, "alice", "hm1nd", f"line {n}") for n in range(1, 120)]
    opened(page)
    row = page.locator('#flow-list [data-key="40"]')
    row.scroll_into_view_if_needed()
    before = row.bounding_box()
    for n in range(200, 210):
        hive.say(n, "alice", "hm1nd", f"news {n}")
    expect(page.locator('#flow-list [data-key="209"]')).to_be_attached()
    after = row.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) < 2


def test_the_log_panel_shows_colours_closes_with_escape_and_gives_the_focus_back(
    hive: MockHive, page: Page
) -> None:
    hive.logs["hm1nd"] = ["\x1b[31mred words\x1b[0m plain", "\x1b]0;title\x07second"]
    opened(page)
    button = page.get_by_role("button", name="Logs of hm1nd")
    button.click()
    log = page.get_by_role("log", name="Log of hm1nd")
    expect(log.locator("> div")).to_have_text(["red words plain", "second"])
    expect(log.locator(".ansi-red")).to_have_text("red words")
    page.keyboard.press("Escape")
    expect(log).to_be_hidden()
    expect(button).to_be_focused()


def test_tombstones_revive_and_purge(hive: MockHive, page: Page) -> None:
    hive.tombstones = [agent_view("tom", state="tombstone", state_bytes=2048, has_credentials=True)]
    opened(page)
    row = page.locator('#tombstone-list [data-key="tom"]')
    expect(row).to_contain_text("2.0 KiB")
    expect(row).to_contain_text("credentials kept")
    page.get_by_role("button", name="Revive tom").click()
    expect(page.locator("#toasts")).to_contain_text("Revival of tom waits")
    assert hive.posts.pop() == (
        "/request-spawn",
        {"name": "tom", "note": "revive tom with its kept state"},
    )
    hive.publish("approval", approval(9, "tom", revives=True))
    expect(row).to_contain_text("waits for your approval")
    page.get_by_role("button", name="Purge tom").click()
    page.keyboard.type("tom")
    page.get_by_role("button", name="Delete everything").click()
    expect(page.locator("#toasts")).to_contain_text("tom is purged")
    assert hive.posts.pop()[0] == "/purge-tombstone/tom"
    hive.publish("tombstones", {"agents": []})
    expect(row).to_have_count(0)


def test_what_waits_is_in_the_title_and_said_aloud(hive: MockHive, page: Page) -> None:
    opened(page)
    expect(page).to_have_title("hyperhive")
    hive.publish("question", question(1, "hm1nd", "Shall I?"))
    expect(page).to_have_title("(1) hyperhive")
    expect(page.locator("#announcer")).to_have_text("hm1nd asks: Shall I?")
    hive.publish("agent_gone", {"name": "hm1nd"})
    expect(page.locator("#no-containers")).to_be_visible()


def test_logging_out_forgets_the_key(hive: MockHive, page: Page) -> None:
    opened(page)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(re.compile(r"/login(\?|$)"))
    assert hive.posts == [("/logout", {})]
    assert page.evaluate("localStorage.getItem('hive.key')") is None
