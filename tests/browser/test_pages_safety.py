# ruff: noqa: E501 — scripts and events read best as they are sent
"""Everything an agent can write arrives as text: no script, no markup, no hidden or turned-round characters."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.demo_hive import result, say, think, tool
from tests.browser.mock_hive import MockHive, agent_view, approval, harness_state, message, question

pytestmark = pytest.mark.browser

MARKUP = """"'><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b>bold</b>"""
HIDDEN = "a\u202eb\x1b[31mc\x07d\u2066e\x9bf\u200fg\U000e0041h"


def assert_harmless(page: Page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, main b, main iframe").count() == 0


def hostile_hive(hive: MockHive) -> None:
    report = {"badge": "rate_limited", "note": MARKUP, "model": MARKUP, "backend": MARKUP}
    hive.agents["bob"] = agent_view("bob", report=report, note=MARKUP, container=MARKUP, host=MARKUP)
    hive.tombstones = [agent_view("tom", state="tombstone")]
    hive.questions = [question(1, MARKUP, MARKUP, [MARKUP, "no"])]
    hive.asks = [question(2, MARKUP, MARKUP, answerer=MARKUP, message_id=2)]
    hive.approvals = [
        approval(2, "bob", note=MARKUP, requested_by=MARKUP, commit=MARKUP),
        approval(1, "bob", "failed", note=MARKUP, resolved_by=MARKUP, step=MARKUP),
    ]
    hive.messages = [
        message(1, MARKUP, "operator", MARKUP),
        message(2, "alice", MARKUP, MARKUP * 30, in_reply_to=1, asks=2),
        message(3, "system", "hm1nd", '{"event":"' + MARKUP.replace('"', "'") + '","note":"<b>x</b>"}'),
    ]
    hive.logs["bob"] = [MARKUP, f"\x1b[31m{MARKUP}\x1b[0m"]


def test_markup_stays_text_on_the_dashboard(hive: MockHive, page: Page) -> None:
    hostile_hive(hive)
    page.goto("/")
    expect(page.locator("#flow-list li")).to_have_count(3)
    for summary in page.locator("main summary").all():
        if summary.is_visible():  # else there is nothing in it
            summary.click()
    page.get_by_role("button", name="Logs of bob").click()
    expect(page.locator("#panel-log")).to_contain_text(MARKUP)
    expect(page.locator('#inbox-list [data-key="1"] .body')).to_have_text(MARKUP)
    expect(page.locator("#question-list .question-text")).to_have_text(MARKUP)
    expect(page.locator("#ask-list p.words")).to_have_text(MARKUP)
    expect(page.locator("#flow-list .thread-go").first).to_contain_text(MARKUP[:40])
    expect(page.locator("#approval-list .reason")).to_have_text(MARKUP)
    assert_harmless(page)
    assert page.locator("#panel-log img").count() == 0


def test_markup_in_an_error_or_answer_stays_text(hive: MockHive, page: Page) -> None:
    hive.refusals["/request-spawn"] = (422, {"code": "bad", "message": MARKUP, "field": MARKUP})
    page.goto("/")
    page.get_by_label("new agent").fill("bob")
    page.get_by_role("button", name="Request spawn").click()
    expect(page.locator("#spawn .form-error")).to_have_text(MARKUP)
    assert_harmless(page)


def test_markup_stays_text_on_the_agent_page(hive: MockHive, page: Page) -> None:
    harness = hive.harnesses["hm1nd"]
    login = {"needed": True, "stage": MARKUP, "url": MARKUP, "message": MARKUP}
    harness.state = harness_state(
        "hm1nd", label=MARKUP, backend_label=MARKUP, model=MARKUP, note=MARKUP, login=login
    )
    fields = dict.fromkeys(
        ("command", "description", "file_path", "old_string", "new_string", "content", "pattern", "path", "glob",
         "to", "body", "question", "name", "note", "commit_ref", "agent", "wait_seconds", "after_seconds", "question_id",
         "ttl_seconds"), MARKUP
    )  # fmt: skip
    names = [
        "Bash", "Read", "Edit", "Write", "Glob", "Grep", "mcp__hyperhive__send", "mcp__hyperhive__recv",
        "mcp__hyperhive__ask_operator", "mcp__hyperhive__remind", "mcp__hyperhive__request_spawn",
        "mcp__hyperhive__request_apply_commit", "mcp__hyperhive__prepare_spawn", "mcp__hyperhive__cancel_question", MARKUP, "mcp__" + MARKUP + "__" + MARKUP,
    ]  # fmt: skip
    todos = [{"content": MARKUP, "status": MARKUP}]
    lines: list[dict[str, Any]] = [tool("1", name, **fields, options=[MARKUP]) for name in names]
    lines += [tool("1", "TodoWrite", todos=todos), result("1", MARKUP), result("1", MARKUP * 20)]
    lines += [say(MARKUP), think(MARKUP), {"type": MARKUP}]
    hive.live("hm1nd", "turn_start", {"from": MARKUP, "body": MARKUP, "unread": MARKUP})
    for line in lines:
        hive.live("hm1nd", "stream", line)
    hive.live("hm1nd", "note", {"text": MARKUP})
    hive.live(
        "hm1nd",
        "turn_end",
        {"ok": False, "note": MARKUP, "outcome": MARKUP, "stats": {"duration_ms": MARKUP}},
    )
    page.goto("/agents/hm1nd/")
    expect(page.locator(".turn-body")).to_have_text(MARKUP)
    for summary in page.locator("#rows summary").all():
        summary.click()
    expect(page.locator("#agent-name")).to_have_text(MARKUP)
    assert_harmless(page)
    assert page.locator("a[href*='pwned'], a[href^='javascript']").count() == 0


def test_hidden_and_turning_characters_become_visible_everywhere(hive: MockHive, page: Page) -> None:
    hive.messages = [message(1, "alice", "operator", HIDDEN)]
    hive.questions = [question(1, "hm1nd", HIDDEN, [HIDDEN])]
    page.goto("/")
    told = "a‹U+202E›b␛[31mc␇d‹U+2066›e‹U+009B›f‹U+200F›g‹U+E0041›h"
    expect(page.locator("#inbox-list .body")).to_have_text(told)
    expect(page.locator("#question-list .question-text")).to_have_text(told)
    expect(page.locator("#question-list .option .words")).to_have_text(told)


def test_terminal_output_is_coloured_by_class_and_loses_its_other_escapes(hive: MockHive, page: Page) -> None:
    wild = (
        "\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b[2J\x1b[38;5;196mx\x1b[0m ok\x1b[?25l 10%\r 50%\r100%\nend"
    )
    hive.live("hm1nd", "stream", result("1", wild))
    hive.live("hm1nd", "stream", result("1", "plain \u202eturned\x1b"))
    page.goto("/agents/hm1nd/")
    outputs = page.locator("#rows .output")
    expect(outputs.first).to_have_text("100%\nend")
    expect(outputs.last).to_have_text("plain ‹U+202E›turned␛")
    hive.live("hm1nd", "stream", result("1", "\x1b[1;31mred\x1b[0m and \x1b[32mgreen"))
    expect(page.locator(".ansi-red.ansi-bold")).to_have_text("red")
    expect(page.locator(".ansi-green")).to_have_text("green")


def test_modules_refuse_unsafe_targets_and_attributes(page: Page) -> None:
    page.goto("/login")
    refused = page.evaluate("""async () => {
      const { safeHref, h } = await import('/static/js/dom.js');
      const bad = ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'java\\nscript:alert(1)', ' javascript:x', 'data:text/html,x',
        'vbscript:x', '//evil.example', '/\\\\evil.example', '\\\\\\\\evil', 'http://plain.example', 'blob:x', ''];
      const thrown = [];
      for (const name of ['onclick', 'style', 'srcdoc', 'innerHTML', 'ONLOAD']) {
        try { h('p', { [name]: 'x' }); } catch { thrown.push(name); }
      }
      return { passed: bad.filter(each => safeHref(each) !== null), thrown,
        good: ['/agents/a/', '#x', 'https://a.example/?q=1', 'api/cancel'].filter(each => safeHref(each) === null),
        link: h('a', { href: 'javascript:alert(1)' }, 'x').outerHTML };
    }""")
    assert refused["passed"] == []
    assert refused["good"] == []
    assert refused["link"] == "<a>x</a>"
    assert refused["thrown"] == ["onclick", "style", "srcdoc", "innerHTML", "ONLOAD"]


RETURNS = {
    "/agents/bob/": "/agents/bob/",
    "/?x=1": "/?x=1",
    "//evil.example/": "/",
    "/\\evil.example": "/",
    "https://evil.example/": "/",
    "javascript:alert(1)": "/",
    "/login?return=/login": "/",
    "/\t/evil.example": "/",
    "": "/",
}


@pytest.mark.parametrize(("asked", "given"), RETURNS.items())
def test_login_returns_only_to_this_site(page: Page, asked: str, given: str) -> None:
    page.goto("/login")
    back = "async path => (await import('/static/js/api.js')).safeReturn(path)"
    assert page.evaluate(back, asked) == given


def test_the_key_goes_with_each_request_and_into_no_address(hive: MockHive, page: Page) -> None:
    asked = []
    page.on("request", lambda request: asked.append(request))
    page.goto("/agents/hm1nd/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    data = [each for each in asked if "/api/" in each.url or "/events/" in each.url]
    assert len(data) >= 4
    assert all(each.headers.get("x-hive-key") == "the-key" for each in data)
    assert not any("the-key" in each.url for each in asked)
