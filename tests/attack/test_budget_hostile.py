"""SECURITY 11: an agent gets no more turns than its budget, whatever it says, hides or does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hive_core.clock import time_ms
from tests.support.whole_hive import WholeHive, whole_hive

TURNS = 6


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeHive]:
    async with whole_hive(tmp_path_factory.mktemp("hive")) as hive:
        yield hive


@pytest.fixture
async def hive(running: WholeHive) -> WholeHive:
    """Alice has so many turns left, and more messages than that."""
    used = (await budget_of(running, "alice"))["turns"]["used"]
    await running.done("operator", "set_budget", name="alice", turns=used + TURNS, tokens=0, microdollars=0)
    for number in range(2 * TURNS):
        await running.done("operator", "send", to="alice", body=f"message {number}")
    return running


async def budget_of(hive: WholeHive, name: str) -> dict[str, Any]:
    listed = (await hive.done("operator", "budgets"))["budgets"]
    return next(each for each in listed if each["agent"] == name)


async def test_one_that_connects_anew_for_each_message_and_never_acks_or_reports(hive: WholeHive) -> None:
    """`say` is a connection of its own, so what it was handed comes again, and counts again."""
    handed = []
    while messages := (await hive.done("alice", "recv", max=1))["messages"]:
        handed += [message["id"] for message in messages]
    assert len(handed) == TURNS
    assert (await hive.done("alice", "recv", max=100))["messages"] == []
    assert (await budget_of(hive, "alice"))["stopped"]


async def test_one_that_asks_on_many_connections_at_once_for_as_much_as_there_is(hive: WholeHive) -> None:
    asked = [hive.done("alice", "recv", max=100, wait_seconds=1) for _ in range(4)]
    answers = await asyncio.gather(*asked)
    assert sum(len(answer["messages"]) for answer in answers) == TURNS


async def test_one_that_asks_itself_for_turns_and_writes_to_itself(hive: WholeHive) -> None:
    handed = 0
    for number in range(5 * TURNS):
        await hive.done("alice", "request_next_turn", note="and on")
        await hive.done("alice", "send", to="alice", body="and on")
        await hive.done("alice", "remind", body="and on", after_seconds=0)
        messages = (await hive.done("alice", "recv", max=1))["messages"]
        await hive.say("alice", "ack", ids=[message["id"] for message in messages])
        handed += len(messages)
        if number > TURNS:
            assert not messages
    assert handed == TURNS


@pytest.mark.parametrize(
    "lie",
    [
        {"output_tokens": -(10**9)},
        {"input_tokens": -1},
        {"cost_usd": -5.0},
        {"cost_usd": float("nan")},
        {"output_tokens": 2**70},
    ],
    ids=str,
)
async def test_figures_below_nothing_or_beyond_everything_are_refused(
    hive: WholeHive, lie: dict[str, Any]
) -> None:
    before = await budget_of(hive, "alice")
    turn = {"key": "a" * 16, "ended_at_ms": time_ms(), "outcome": "ok", **lie}
    reply = await hive.say("alice", "report_turns", turns=[turn])
    assert not reply["ok"]
    assert await budget_of(hive, "alice") == before


async def test_huge_figures_stop_whoever_tells_them_and_nobody_else(hive: WholeHive) -> None:
    for name in ("alice", "bob"):
        await hive.done("operator", "set_budget", name=name, turns=0, tokens=1000, microdollars=1000)
    turns = [
        {
            "key": f"{n:016x}",
            "ended_at_ms": 0,
            "outcome": "ok",
            "output_tokens": 10**10,
            "cost_usd": 100_000.0,
        }
        for n in range(50)
    ]
    await hive.done("alice", "report_turns", turns=turns)
    assert (await hive.done("alice", "recv"))["messages"] == []
    await hive.done("operator", "send", to="bob", body="go on")
    assert len((await hive.done("bob", "recv"))["messages"]) == 1
    waiting = (await hive.done("operator", "waiting"))["entries"]
    assert [entry["who"] for entry in waiting if entry["kind"] == "budget"] == ["alice"]


@pytest.mark.parametrize("op", ["set_budget", "answer_budget", "budgets"])
async def test_no_agent_raises_its_own_budget(hive: WholeHive, op: str) -> None:
    before = await budget_of(hive, "alice")
    for who in ("alice", "hm1nd"):
        reply = await hive.say(who, op, name="alice", turns=10**6, answer="again")
        assert (reply["ok"], reply["error"]["code"]) == (False, "forbidden")
    assert await budget_of(hive, "alice") == before
