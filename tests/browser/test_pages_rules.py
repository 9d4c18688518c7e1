"""The rules for an agent in the side panel: shown as text, added, removed, and current without a reload."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.mock_hive import MockHive, agent_view, configured_rules, rule
from tests.browser.test_pages_approvals import change

pytestmark = pytest.mark.browser

EVIL = 'Bash(echo "<img src=x onerror=alert(1)>")'


def opened(page: Page, hive: MockHive, link: str = "/") -> Locator:
    hive.agents["alice"] = agent_view("alice")
    page.goto(link)
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    if link == "/":
        page.get_by_role("button", name="Logs of alice").press("p")
    return page.get_by_role("complementary", name="Rules for alice")


def test_rules_are_listed_as_text_and_removed(hive: MockHive, page: Page) -> None:
    hive.rules["alice"] = [rule(3, EVIL), rule(4, "Bash(rm *)", "deny"), rule(5, "Edit", session=True)]
    panel = opened(page, hive)
    expect(panel.locator("#panel-status")).to_have_text("3 rules")
    expect(panel.locator('[data-key="3"]')).to_contain_text(EVIL)
    expect(panel.locator('[data-key="3"]')).to_contain_text("by operator · command line")
    expect(panel.locator("img")).to_have_count(0)
    expect(panel.locator('[data-key="5"]')).to_contain_text("until its conversation ends")
    panel.get_by_role("button", name="Remove rule 5: allow Edit").click()
    expect(page.locator("#toasts")).to_contain_text("Rule 5 is gone")
    # What is no longer denied is asked about first.
    panel.get_by_role("button", name="Remove rule 4: deny Bash(rm *)").click()
    expect(page.get_by_role("dialog")).to_contain_text("not denied to alice any more: Bash(rm *)")
    assert hive.posts == [("/remove-permission-rule/5", {})]
    page.get_by_role("button", name="Remove the rule").click()
    expect(page.locator("#toasts")).to_contain_text("Rule 4 is gone")
    assert hive.posts[1:] == [("/remove-permission-rule/4", {})]


def test_what_its_agent_nix_says_is_shown_and_cannot_be_removed(hive: MockHive, page: Page) -> None:
    allow, deny = "hyperhive.permissions.allow", "hyperhive.permissions.deny"
    hive.rules["alice"] = [rule(3, "Read")]
    hive.configured["alice"] = configured_rules(
        "alice", ("deny", "Bash(rm *)", deny), ("allow", EVIL, allow), is_policy=True, default="ask",
        ask_timeout_seconds=600,
    )  # fmt: skip
    panel = opened(page, hive)
    expect(panel.locator("#panel-status")).to_have_text("1 of yours, 2 of agent.nix")
    card = panel.get_by_role("listitem", name="Rules of its agent.nix")
    expect(card.locator(".line")).to_have_text([f"denyBash(rm *){deny}", f"allow{EVIL}{allow}"])
    expect(card).to_contain_text("as you approved it; a new commit changes it.")
    expect(card).to_contain_text(
        "You are asked about every other call; without an answer in 10 min 0 s it is denied."
    )
    expect(card.get_by_role("button")).to_have_count(0)
    expect(panel.locator("img")).to_have_count(0)
    expect(panel).to_contain_text("denied beats allowed, and allowed beats asked, whoever made the rule")
    # Another configuration runs: the open panel tells.
    hive.do(lambda: hive.configured.update(alice=configured_rules("alice")))
    hive.publish("approval", change(9, "alice", "deployed"))
    expect(card).to_contain_text("It names no tools: those that are usual are allowed.")
    expect(card).to_contain_text("and you are not asked: it has no policy")
    hive.do(lambda: hive.configured.update(alice=configured_rules("alice", problem="no regular file")))
    hive.publish("approval", change(10, "alice", "deployed"))
    expect(card).to_have_text("agent.nix could not be read: no regular file")


def test_a_rule_is_added_and_a_refusal_is_said_at_its_field(hive: MockHive, page: Page) -> None:
    panel = opened(page, hive)
    expect(panel).to_contain_text("You have made no rules for alice.")
    field = panel.get_by_label("tool or tool(pattern)")
    told = {"code": "bad_request", "message": "rule 'Bash(': such as Read, Bash(git *)", "field": "rule"}
    hive.refusals["/add-permission-rule/alice"] = (422, told)
    field.fill("Bash(")
    panel.get_by_role("button", name="Add the rule").click()
    expect(panel.get_by_role("alert")).to_have_text(told["message"])
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_value("Bash(")
    hive.refusals.clear()
    field.fill("Bash(rm *)")
    panel.get_by_label("from now on").select_option("deny")
    hive.rules["alice"] = [rule(7, "Bash(rm *)", "deny")]
    field.press("Enter")
    expect(panel.locator('[data-key="7"]')).to_contain_text("Bash(rm *)")
    expect(field).to_have_value("")
    expect(panel.get_by_role("alert")).to_have_count(0)
    assert hive.posts == [("/add-permission-rule/alice", {"decision": "deny", "rule": "Bash(rm *)"})]


def test_to_allow_everything_is_asked_twice(hive: MockHive, page: Page) -> None:
    panel = opened(page, hive)
    button = panel.get_by_role("button", name="Let alice use every tool without asking")
    button.click()
    expect(page.get_by_role("dialog")).to_contain_text("without asking")
    assert hive.posts == []
    hive.rules["alice"] = [rule(8, "*")]
    page.get_by_role("button", name="Allow everything").click()
    expect(panel.locator('[data-key="8"]')).to_contain_text("everything: bypass")
    expect(button).to_have_count(0)
    assert [path for path, _ in hive.posts] == ["/bypass-permissions/alice"]


def test_what_others_do_to_the_rules_is_shown_at_once(hive: MockHive, page: Page) -> None:
    panel = opened(page, hive, "/#rules-alice")
    field = panel.get_by_label("tool or tool(pattern)")
    field.fill("Bash(half")
    hive.do(lambda: hive.rules.update(alice=[rule(9, "Read")]))
    hive.do_act("operator (host socket)", "add_permission_rule", "alice", detail="allow Read")
    expect(panel.locator('[data-key="9"]')).to_be_visible()
    expect(field).to_have_value("Bash(half")
    expect(field).to_be_focused()
    deed = page.locator("#activity-list")
    expect(deed).to_contain_text(re.compile("command line.*made a rule for alice: allow Read"))
    hive.do(lambda: hive.rules.update(alice=[]))
    hive.do_act("operator (host socket)", "remove_permission_rule", "bob", detail="allow Read")
    expect(deed).to_contain_text("took back a rule for bob")
    expect(panel.locator('[data-key="9"]')).to_be_visible()  # another's
    hive.do_act("operator (host socket)", "remove_permission_rule", "alice", detail="allow Read")
    expect(panel.locator('[data-key="9"]')).to_have_count(0)
