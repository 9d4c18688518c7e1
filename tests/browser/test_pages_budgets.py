"""What agents may use in a day: the chip of a row, and the answers to one that has used it up."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from hive_shared.wire import BudgetAmount, BudgetView, WaitingEntry, WaitingKind
from tests.browser.mock_hive import MockHive, agent_view, now_ms

pytestmark = pytest.mark.browser


def budget(turns: int, **more: Any) -> dict[str, Any]:
    view = BudgetView(
        agent="alice",
        turns=BudgetAmount(used=turns, limit=200, own=True),
        tokens=BudgetAmount(used=1_200_000, limit=5_000_000),
        day_ends_at_ms=now_ms() + 3_600_000,
        day_ends="00:00 Europe/Berlin",
        **more,
    )
    return view.model_dump(mode="json")


def used_up() -> dict[str, Any]:
    entry = WaitingEntry(
        kind=WaitingKind.BUDGET,
        id="alice",
        who="alice",
        summary="alice has used up its budget of today: 200 of 200 turns (100 %)",
        since_ms=now_ms(),
        blocked=["alice"],
        otherwise="goes on at 00:00 Europe/Berlin; until then its messages are kept",
        link="#budget-alice",
    )
    return entry.model_dump(mode="json")


def test_the_limit_that_is_nearest_stands_in_the_row(hive: MockHive, page: Page) -> None:
    hive.agents = {"alice": agent_view("alice", budget=budget(20))}
    page.goto("/")
    chip = page.locator("#budget-chip-alice")
    expect(chip).to_have_text("1.2M / 5M tokens")
    expect(chip).to_have_attribute(
        "title", "Today 20 / 200 turns, 1.2M / 5M tokens; the day ends at 00:00 Europe/Berlin"
    )
    hive.publish("agent", agent_view("alice", budget=budget(200, stopped=True, reached=["turns"])))
    expect(chip).to_have_text("budget used up: 200 / 200 turns")


@pytest.mark.parametrize(
    ("words", "answer"),
    [("As much again today", "again"), ("One more turn", "one_turn"), ("Let it wait", "wait")],
)
def test_one_that_waits_is_answered_in_its_row(hive: MockHive, page: Page, words: str, answer: str) -> None:
    hive.waiting = [used_up()]
    page.goto("/#budget-alice")
    row = page.locator('#waiting-list > [data-key="budget:alice"]')
    expect(row).to_be_focused()
    row.get_by_role("button", name=f"{words}: alice").click()
    page.wait_for_function("() => document.querySelector('#waiting-list form:not([data-busy])')")
    assert hive.posts == [("/answer-budget/alice", {"answer": answer})]
