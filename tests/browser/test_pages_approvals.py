# ruff: noqa: E501 — scripts and invented sentences read best on one line
"""Approval cards in a real browser: what is approved is what was on the screen, whatever an agent wrote into it."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.demo_hive import AGENT_NIX, FLAGS, SHA
from tests.browser.mock_hive import ASSETS, MockHive, agent_view, approval, file_diff, now_ms
from tests.browser.test_pages_safety import HIDDEN, MARKUP, assert_harmless

pytestmark = pytest.mark.browser

BASES = {"running": SHA[1], "approved": SHA[2], "proposed": SHA[3]}


def change(id: int = 7, agent: str = "alice", status: str = "pending", **more: Any) -> dict[str, Any]:
    """An approval of a commit, and nothing out of the ordinary about it."""
    fields = {"kind": "apply_commit", "commit": SHA[9], "message": "agent: ripgrep", "bases": BASES}
    return approval(id, agent, status, **(fields | more))


def opened(page: Page) -> Page:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def card(page: Page, id: int = 7) -> Locator:
    return page.locator(f'#approval-list [data-key="{id}"]')


def approve(page: Page, id: int = 7) -> Locator:
    return page.get_by_role("button", name=re.compile(f"^Approve {id}: "))


def test_a_card_tells_all_that_is_known_of_a_change(hive: MockHive, page: Page) -> None:
    written = {"author": "hm1nd <m@hive.invalid>", "authored_at_ms": now_ms() - 7_200_000}
    hive.approvals = [
        change(
            message="agent: ripgrep\n\nfor searching",
            note="she asked for it",
            commit_ref="main",
            flags=FLAGS,
            **written,
        )
    ]
    hive.diffs[7, "running"] = [
        file_diff("agent.nix", AGENT_NIX),
        file_diff("old.sh", "@@ -1 +0,0 @@\n-x", "deleted"),
    ]
    opened(page)
    for text in (
        "#7",
        "change the system of",
        "alice",
        SHA[9][:12],
        "asked by hm1nd",
        "as main",
        "she asked for it",
        "agent: ripgrep\n\nfor searching",
        "written by hm1nd <m@hive.invalid> · 2h ago",
    ):
        expect(card(page)).to_contain_text(text, use_inner_text=True)
    flags = card(page).locator(".flags")
    expect(flags).to_contain_text("3 things to look at first")
    expect(flags.locator("li").nth(1)).to_contain_text("agent.nix:36 Binds /srv/releases of the host")
    expect(card(page).locator(".review-status")).to_have_text(
        f"2 files · +9 −3 · against what runs now, {SHA[1][:12]}"
    )
    files = card(page).locator(".file")
    expect(files.nth(0).locator("summary")).to_have_text("±modifiedagent.nix+9−2")
    expect(files.nth(1).locator("summary")).to_have_text("−deletedold.sh+0−1")
    expect(files.nth(0).locator(".plus .code").first).to_have_text(
        "  environment.systemPackages = [ pkgs.git pkgs.jq pkgs.ripgrep ];"
    )
    numbers = files.nth(0).locator(".unified > div .num").all_text_contents()
    assert numbers == [
        "",
        "1",
        "2",
        "",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "",
        "11",
        "12",
        "",
        "35",
        "36",
        "37",
        "",
    ]


def test_the_whole_id_is_shown_and_copied(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    opened(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chip = card(page).get_by_role("button", name=f"{SHA[9][:12]}: copy the whole commit id")
    expect(chip).to_have_attribute("title", re.compile(SHA[9]))
    chip.click()
    expect(page.locator("#toasts")).to_contain_text(SHA[9])
    assert page.evaluate("navigator.clipboard.readText()") == SHA[9]


def test_nothing_is_approved_before_its_diff_is_on_the_screen(hive: MockHive, page: Page) -> None:
    hive.approvals = [change(), approval(8, "bob")]
    hive.diffs[7, "running"] = [file_diff("agent.nix", AGENT_NIX)]
    hive.hold_gets()
    opened(page)
    expect(card(page)).to_contain_text("Loading the diff…")
    expect(card(page)).to_contain_text("comes with the diff")
    expect(page.get_by_role("button", name="Deny 7: alice")).to_be_visible()
    expect(approve(page)).to_have_count(0)
    expect(approve(page, 8)).to_be_visible()  # an agent with the configuration that every agent begins with
    hive.release_gets()
    approve(page).click()
    expect(page.locator("#toasts")).to_contain_text("Approved #7")
    assert hive.posts == [("/approve/7", {"commit": SHA[9], "note": ""})]


def without(page: Page, module: str, guard: str, instead: str) -> None:
    """The page's own module with a rule taken out."""
    text = (ASSETS / "js" / module).read_text()
    assert guard in text
    headers = {"content-type": "text/javascript"}
    page.route(
        f"**/{module}", lambda route: route.fulfill(body=text.replace(guard, instead), headers=headers)
    )


@pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
def test_a_diff_that_never_comes_cannot_be_waved_through(hive: MockHive, page: Page, in_force: bool) -> None:
    """SECURITY 7: a manager that keeps the diff from being read must not get a yes for it."""
    if not in_force:
        without(page, "review.js", 'return review?.state === "shown" &&', "return true ||")
    hive.approvals = [change()]
    hive.refusals["/api/approvals/7/diff"] = (500, {"code": "failed", "message": "the diff took too long"})
    opened(page)
    expect(card(page)).to_contain_text("took too long")
    expect(approve(page)).to_have_count(0 if in_force else 1)


@pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
def test_an_invisible_name_is_not_hidden_in_a_diff(hive: MockHive, page: Page, in_force: bool) -> None:
    """SECURITY 4: `inputs` and `inputs` with a joiner in it look the same, and are two names."""
    if not in_force:
        without(page, "text.js", ".replace(HIDDEN_IN_CODE, placeholder)", "")
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [file_diff("agent.nix", "@@ -1 +1 @@\n-inputs.good\n+inp\u200duts.good")]
    opened(page)
    told = "inp‹U+200D›uts.good" if in_force else "inp\u200duts.good"
    expect(card(page).locator(".plus .code")).to_have_text(told)


def test_a_spawn_with_a_configuration_needs_its_diff_too(hive: MockHive, page: Page) -> None:
    hive.approvals = [approval(7, "zoe", commit=SHA[9], message="zoe begins")]
    hive.diffs[7, "running"] = [file_diff("agent.nix", "@@ -0,0 +1 @@\n+{ }", "added")]
    hive.hold_gets()
    opened(page)
    expect(card(page)).to_contain_text("Loading the diff…")
    expect(approve(page)).to_have_count(0)
    hive.release_gets()
    expect(approve(page)).to_be_visible()
    expect(card(page).locator(".review-status")).to_contain_text("all of it is new")
    assert [each.is_disabled() for each in card(page).get_by_role("radio").all()] == [False, True, True]
    expect(card(page).locator(".bases")).to_contain_text("nothing runs yet")
    expect(card(page).locator(".bases")).to_contain_text("none approved yet")


def test_a_diff_that_cannot_be_loaded_can_be_asked_for_again(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    hive.refusals["/api/approvals/7/diff"] = (503, {"code": "unavailable", "message": "git is busy"})
    opened(page)
    expect(card(page).get_by_role("alert").first).to_contain_text("git is busy")
    expect(approve(page)).to_have_count(0)
    hive.refusals.clear()
    page.get_by_role("button", name="try again").click()
    expect(card(page)).to_contain_text("Nothing changes against what runs now")
    expect(approve(page)).to_be_visible()


def test_three_bases_by_keyboard(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    for base in BASES:
        hive.diffs[7, base] = [file_diff(f"against-{base}.nix", "@@ -1 +1 @@\n-a\n+b")]
    opened(page)
    expect(card(page)).to_contain_text("against-running.nix")
    running = card(page).get_by_role("radio", name="what runs now")
    expect(running).to_be_checked()
    running.focus()
    page.keyboard.press("ArrowRight")
    expect(card(page)).to_contain_text("against-approved.nix")
    expect(card(page).get_by_role("radio", name="last approved")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(card(page).locator(".review-status")).to_contain_text(f"against previous proposal, {SHA[3][:12]}")
    expect(card(page).locator(".file")).to_have_count(1)
    expect(approve(page)).to_be_visible()
    assert [each.rpartition("=")[2] for each in hive.gets] == ["running", "approved", "proposed"]


def test_the_answer_for_a_base_that_was_left_is_not_shown(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    for base in BASES:
        hive.diffs[7, base] = [file_diff(f"against-{base}.nix")]
    opened(page)
    expect(card(page)).to_contain_text("against-running.nix")
    hive.hold_gets()
    card(page).get_by_text("last approved").click()
    expect(approve(page)).to_have_count(0)
    expect(card(page)).to_contain_text("Loading the diff…")
    card(page).get_by_text("previous proposal").click()
    hive.release_gets()
    expect(card(page)).to_contain_text("against-proposed.nix")
    expect(card(page)).not_to_contain_text("against-approved.nix")


def test_what_was_not_read_is_asked_about_before_the_yes(hive: MockHive, page: Page) -> None:
    big = "@@ -0,0 +1,200 @@\n" + "\n".join(f"+line {n}" for n in range(1, 201))
    long = "@@ -0,0 +1 @@\n+" + "x" * 5000 + "hidden"
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [
        file_diff("small.nix", AGENT_NIX),
        file_diff("big.nix", big, "added"),
        file_diff("cut.nix", big, truncated=True),
        file_diff("long.nix", long),
    ]
    opened(page)
    files = card(page).locator(".file")
    assert [each.get_attribute("open") for each in files.all()] == ["", None, None, ""]
    expect(files.nth(2).locator("summary")).to_contain_text("cut off")
    expect(files.nth(3)).to_contain_text("… 1006 more characters of this line are not shown")
    approve(page).click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "2 of 4 files were not opened, and 2 files are cut off"
    )
    page.get_by_role("button", name="Keep as is").click()
    assert hive.posts == []
    for at in (1, 2):
        files.nth(at).locator("summary").click()
    expect(files.nth(1)).to_contain_text("line 200")
    expect(files.nth(2)).to_contain_text("Cut off here")
    approve(page).click()
    expect(page.get_by_role("dialog")).to_contain_text(re.compile("^2 files are cut off"))
    page.get_by_role("button", name="◆ Approve", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("Approved #7")


def test_a_very_long_file_is_drawn_in_parts(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [
        file_diff(
            "big.nix", "@@ -0,0 +1,4000 @@\n" + "\n".join(f"+line {n}" for n in range(1, 4001)), "added"
        )
    ]
    opened(page)
    card(page).locator(".file summary").click()
    expect(card(page).locator(".unified .plus")).to_have_count(1499)
    more = page.get_by_role("button", name=re.compile("show the next of"))
    more.click()
    more.click()
    expect(card(page).locator(".unified .plus")).to_have_count(4000)
    expect(more).to_be_hidden()


def test_both_answers_carry_the_commit_on_the_screen(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    opened(page)
    expect(approve(page)).to_be_visible()
    page.get_by_placeholder("note with your decision").fill("too much at once")
    # Enter in the note is neither the yes that stands first in the form, nor a no.
    page.keyboard.press("Enter")
    expect(card(page).locator(".form-error")).to_contain_text("press the one that you mean")
    assert hive.posts == []
    page.get_by_role("button", name="Deny 7: alice").click()
    expect(page.locator("#toasts")).to_contain_text("Denied #7")
    assert hive.posts == [("/deny/7", {"commit": SHA[9], "note": "too much at once"})]


def test_a_yes_takes_the_note_with_it_which_is_shown_from_then_on(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    opened(page)
    page.get_by_placeholder("note with your decision").fill("until friday")
    approve(page).click()
    expect(page.locator("#toasts")).to_contain_text("Approved #7")
    assert hive.posts == [("/approve/7", {"commit": SHA[9], "note": "until friday"})]
    hive.publish("approval", change(status="building", step="build", operator_note="until friday"))
    expect(card(page)).to_contain_text("said with the yes until friday")
    hive.publish("approval", change(status="deployed", operator_note="until friday", outcome="it runs"))
    page.get_by_text("recently decided").click()
    expect(page.locator("#resolved-list")).to_contain_text("said with the yes until friday")


@pytest.mark.parametrize("gone", [False, True], ids=["another-commit", "resolved"])
def test_a_refusal_is_shown_and_the_card_refreshed(hive: MockHive, page: Page, gone: bool) -> None:
    hive.approvals = [change()]
    opened(page)
    expect(approve(page)).to_be_visible()
    said = f"approval 7 is for commit {SHA[5]}, not for the one that was on screen"
    hive.refusals["/approve/7"] = (409, {"code": "conflict", "message": said})
    # It changed, and this page has not been told.
    now = (
        change(status="denied", outcome="by another session")
        if gone
        else change(commit=SHA[5], message="another")
    )
    hive.do(lambda: setattr(hive, "approvals", [now]))
    approve(page).click()
    if gone:
        expect(card(page)).to_have_count(0)
        expect(page.locator("#toasts")).to_contain_text(said)
    else:
        expect(card(page).locator(".form-error").last).to_have_text(said)
        expect(card(page)).to_contain_text(SHA[5][:12])
        expect(card(page).locator("input[name=commit]")).to_have_value(SHA[5])
        expect(approve(page)).to_be_visible()


def test_a_diff_for_another_commit_than_the_card_says_is_not_approved(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    hive.hold_gets()
    opened(page)
    expect(card(page)).to_contain_text("Loading")
    # The daemon knows of another commit by now; the card still shows the first.
    hive.do(lambda: setattr(hive, "approvals", [change(commit=SHA[5])]))
    hive.release_gets()
    expect(card(page)).to_contain_text("for another commit by now")
    expect(approve(page)).to_have_count(0)


def test_a_diff_is_loaded_anew_when_its_agent_runs_something_else(hive: MockHive, page: Page) -> None:
    hive.agents["alice"] = agent_view("alice", commit=SHA[1])
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [file_diff("before.nix")]
    opened(page)
    expect(card(page)).to_contain_text("before.nix")
    hive.do(lambda: hive.diffs.update({(7, "running"): [file_diff("after.nix")]}))
    hive.publish("agent", agent_view("alice", commit=SHA[4]))
    expect(card(page)).to_contain_text("after.nix")
    hive.publish("agent", agent_view("alice", commit=SHA[4], unread=3))
    hive.change(change(note="a word more"))
    expect(card(page)).to_contain_text("a word more")
    assert len(hive.gets) == 2  # nothing that matters to the diff happened


def test_news_leaves_alone_what_is_being_read_and_written(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [file_diff("agent.nix", AGENT_NIX)]
    opened(page)
    note = page.get_by_placeholder("note with your decision")
    note.fill("half a sen")
    card(page).locator(".file summary").click()
    expect(card(page).locator(".file")).not_to_have_attribute("open", "")
    hive.change(change(note="more words"))
    hive.change(change(8, "bob"))
    expect(card(page)).to_contain_text("more words")
    expect(card(page, 8)).to_be_visible()
    expect(note.first).to_have_value("half a sen")
    expect(card(page).locator(".file")).not_to_have_attribute("open", "")


def test_states_never_turn_back(hive: MockHive, page: Page) -> None:
    hive.approvals = [change(status="approved")]
    opened(page)
    expect(card(page)).to_contain_text("approved")
    hive.publish("approval", change(status="building", step="switch"))
    hive.publish("approval", change(status="approved"))
    hive.publish("approval", change(status="pending"))
    expect(card(page)).to_contain_text("switch")
    hive.publish("approval", change(status="deployed", resolved_at_ms=now_ms()))
    hive.publish("approval", change(status="building", step="build"))
    hive.publish("hive", hive.hive)
    expect(page.locator("#toasts")).to_contain_text("alice runs")
    expect(card(page)).to_have_count(0)


def test_decided_ones_tell_their_outcome_beside_the_requesters_words(hive: MockHive, page: Page) -> None:
    hive.approvals = [
        change(
            3, status="failed", outcome="the build failed: agent.nix:3", note="please", resolved_by="operator"
        ),
        approval(2, "eve", "denied", note="one more reviewer", outcome="one is enough"),
        change(1, status="deployed", rollback=True, message="first"),
    ]
    hive.build_logs[3] = ["one", "\x1b[31mtwo\x1b[0m"]
    opened(page)
    page.get_by_text("recently decided").click()
    rows = page.locator("#resolved-list > li")
    for at, texts in enumerate(
        (
            ("failed", "please", "the build failed: agent.nix:3"),
            ("denied", "one more reviewer", "one is enough"),
            ("deployed", "roll back"),
        )
    ):
        for text in texts:
            expect(rows.nth(at)).to_contain_text(text)
    expect(rows.nth(1).get_by_role("button", name="Build log")).to_have_count(0)
    button = page.get_by_role("button", name="Build log of approval 3")
    button.click()
    log = page.get_by_role("log", name="Build log of approval 3")
    expect(log).to_have_text("one\ntwo", use_inner_text=True)
    expect(log.locator(".ansi-red")).to_have_text("two")
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


NASTY = f"{MARKUP}{HIDDEN}\u200d\u3164\u00a0"


def test_hostile_commits_stay_text_and_hide_nothing(hive: MockHive, page: Page) -> None:
    flag = {"path": NASTY, "line": 3, "rule": MARKUP, "text": NASTY}
    words = {
        "message": NASTY,
        "author": NASTY,
        "commit_ref": NASTY,
        "note": NASTY,
        "operator_note": NASTY,
        "requested_by": MARKUP,
        "flags": [flag],
    }
    text = f"@@ -1,2 +1,3 @@ {NASTY}\n+{NASTY}\n-{NASTY}\n+x{' ' * 400}evil = true;\n \u2028\r\n*neither"
    hive.approvals = [change(**words), change(6, status="failed", outcome=NASTY, **words)]
    hive.diffs[7, "running"] = [file_diff(NASTY, text, mode=MARKUP), file_diff("../../" + MARKUP)]
    hive.build_logs[6] = [NASTY]
    opened(page)
    expect(card(page).locator(".file")).to_have_count(2)
    code = card(page).locator(".unified .plus .code")
    told = MARKUP + "a‹U+202E›b␛[31mc␇d‹U+2066›e‹U+009B›f‹U+200F›g‹U+E0041›h‹U+200D›‹U+3164›‹U+00A0›"
    expect(code.first).to_have_text(told)
    expect(card(page).locator(".file .path").first).to_have_text(told)
    expect(card(page).locator(".flags code")).to_have_text(told + ":3")
    expect(card(page).locator(".unified .same .code")).to_have_text("‹U+2028›␍")
    # Blanks do not push what follows them out of sight.
    ends = code.nth(1).evaluate(
        "e => { const r = document.createRange(); r.setStart(e.firstChild, e.firstChild.length - 1); r.setEnd(e.firstChild, e.firstChild.length); const end = r.getBoundingClientRect(); const box = e.closest('.unified').getBoundingClientRect(); return end.right <= box.right && end.left >= box.left; }"
    )
    assert ends
    page.get_by_text("recently decided").click()
    page.get_by_role("button", name="Build log of approval 6").click()
    expect(page.locator("#panel-body")).to_contain_text("<b>bold</b>")
    assert_harmless(page)
    assert page.locator("#panel img, #panel b, #panel script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


HOSTILE_DIFFS: list[Any] = [
    {
        "path": "x",
        "change": "constructor",
        "added": -1,
        "deleted": 1e308,
        "text": "@@ -1 +99999999999999999999 @@\n+a",
        "truncated": False,
        "mode": "",
    },
    {"path": "", "change": "", "added": 0, "deleted": 0, "text": "\n\n\n", "truncated": True, "mode": ""},
    {
        "path": "__proto__",
        "change": "__proto__",
        "added": 0,
        "deleted": 0,
        "text": "@@@@\n@@ nonsense\n--- a\n+++ b\n",
        "truncated": False,
        "mode": "",
    },
]


def test_no_diff_breaks_the_page(hive: MockHive, page: Page) -> None:
    hive.approvals = [change(), change(8, "bob")]
    hive.do(lambda: hive.diffs.update({(7, "running"): []}))
    page.route("**/api/approvals/8/diff*", lambda route: route.fulfill(json={"summary": None, "files": "x"}))
    opened(page)
    expect(card(page, 8)).to_contain_text("could not be loaded")
    expect(approve(page, 8)).to_have_count(0)
    page.unroute("**/api/approvals/8/diff*")
    summary = {
        "approval": change(8, "bob"),
        "base": "running",
        "base_commit": None,
        "files": 3,
        "added": 1,
        "deleted": 1,
    }
    page.route(
        "**/api/approvals/8/diff*",
        lambda route: route.fulfill(json={"summary": summary, "files": HOSTILE_DIFFS}),
    )
    page.get_by_role("button", name="try again").click()
    expect(card(page, 8).locator(".file")).to_have_count(3)
    expect(approve(page, 8)).to_be_visible()


def test_a_whole_decision_by_keyboard(hive: MockHive, page: Page) -> None:
    hive.approvals = [change()]
    hive.diffs[7, "running"] = [file_diff("agent.nix", AGENT_NIX)]
    opened(page)
    expect(approve(page)).to_be_visible()
    page.locator("#spawn-name").focus()
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.value || document.activeElement.textContent"
            )
        )
        if str(seen[-1]).startswith("Approve 7"):
            break
    assert [each for each in seen if each == "running" or "agent.nix" in str(each)], seen
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Approved #7")
    assert hive.posts == [("/approve/7", {"commit": SHA[9], "note": ""})]
