"""A budget stop, with the real daemon and real harnesses: nothing lost, nothing done twice, in order."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hive_shared import wire
from tests.support.hive import Hive, Operator, eventually, running_hive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hive]:
    environment = {"HIVE_TIME_ZONE": "Europe/Berlin", "HIVE_NEXT_TURNS_IN_A_ROW": "2"}
    async with running_hive(tmp_path_factory.mktemp("budgets") / "hive", **environment) as hive:
        await hive.spawn("alice", "bob")
        yield hive


async def said(hive: Hive, name: str = "alice") -> list[str]:
    """What an agent told the operator, in order."""
    return [message.body for message in await hive.messages() if message.sender == name]


async def says(hive: Hive, *texts: str) -> None:
    async def all_of_them() -> bool:
        return len(await said(hive)) >= len(texts)

    await eventually(all_of_them, f"alice says {texts}")
    assert await said(hive) == list(texts)


async def waits(operator: Operator, kind: str) -> dict[str, Any]:
    async def there() -> Any:
        entries = (await operator.get("/api/state"))["waiting"]["entries"]
        return next((entry for entry in entries if entry["kind"] == kind), None)

    return dict(await eventually(there, f"a {kind} waits"))


async def test_a_budget_stops_an_agent_until_the_operator_gives_it_more(hive: Hive) -> None:
    await hive.call(wire.SetBudget(name="alice", turns=2))
    for number in range(4):
        await hive.send("alice", f"reply number {number}")
    operator = await hive.login()
    entry = await waits(operator, "budget")
    assert entry["summary"] == "alice has used up its budget of today: 2 of 2 turns (100 %)"
    assert "goes on at 00:00 Europe/Berlin" in entry["otherwise"]
    await says(hive, "number 0", "number 1")
    alice = await hive.agent("alice")
    assert alice is not None
    assert (alice.unread, alice.budget is not None and alice.budget.stopped) == (2, True)

    await hive.kill()
    await hive.start()
    operator = await hive.login()
    assert (await waits(operator, "budget"))["who"] == "alice"
    await eventually(lambda: parked(hive), "and its status says so")
    await says(hive, "number 0", "number 1")

    await operator.post("/answer-budget/alice", answer="one_turn")
    await says(hive, "number 0", "number 1", "number 2")
    await waits(operator, "budget")
    await operator.post("/set-budget/alice", turns="10")
    await says(hive, "number 0", "number 1", "number 2", "number 3")
    await eventually(lambda: is_done(hive), "nothing is left")
    listed = await hive.call(wire.Budgets())
    (budget,) = (each for each in listed.budgets if each.agent == "alice")
    assert (budget.turns.used, budget.turns.limit, budget.stopped) == (4, 10, False)


async def parked(hive: Hive) -> bool:
    alice = await hive.agent("alice")
    return alice is not None and alice.status is wire.AgentStatus.PARKED


async def is_done(hive: Hive) -> bool:
    alice = await hive.agent("alice")
    return alice is not None and alice.unread == 0 and await hive.is_idle("alice")


async def test_an_agent_goes_on_by_itself_until_the_operator_is_asked(hive: Hive) -> None:
    """The turn it asks for comes after what others wrote meanwhile, and after the death of core."""
    await hive.send("bob", "next turn: tell operator: two; tell operator: one; wait 2 seconds")
    await eventually(lambda: has_said(hive, 1), "the turn runs and has asked for another")
    await hive.send("bob", "reply between")
    await hive.kill()
    await hive.start()
    operator = await hive.login()
    # The turn was cut short or not: what it did before may be done once more, as messages are.
    await eventually(lambda: ends_with(hive, "two"), "bob goes on")
    told = await said(hive, "bob")
    assert told.count("between") == 1
    assert told.index("between") < told.index("two"), "whoever wrote comes first"

    for number in range(3, 6):  # each asks for the next; two in a row need no question
        note = f"next turn: tell operator: {number}"
        await hive.send("bob", f"{note}; tell operator: asked {number}")
        await eventually(lambda number=number: ends_with(hive, str(number)), f"bob says {number}")
    chain = "next turn: next turn: next turn: tell operator: the end"
    await hive.send("bob", chain)
    entry = await waits(operator, "stop")
    assert "2 turns in a row" in entry["said"]
    await operator.post(f"/answer-question/{entry['id']}", answer="let it go on")
    await eventually(lambda: ends_with(hive, "the end"), "bob goes on to the end")


async def has_said(hive: Hive, count: int) -> bool:
    return len(await said(hive, "bob")) >= count


async def ends_with(hive: Hive, text: str) -> bool:
    told = await said(hive, "bob")
    return bool(told) and told[-1] == text
