"""A real daemon with a seeded day to photograph: rehearsed turns, and two days of others as reported."""

import time

from hive_shared import wire
from hive_shared.client import Client
from tests.support.hive import Hive, eventually

HOUR_MS = 3_600_000
AGENTS = ("alice", "bob", "reviewer")


async def seed(hive: Hive) -> None:
    """Three agents that talk, ask and propose; the manager's proposal waits for approval."""
    await hive.spawn(*AGENTS)
    for number, agent in enumerate(AGENTS):
        await _worked(hive, agent, number)
    for to, body in (
        ("hm1nd", "set variable REVIEW_DEPTH=2 for reviewer"),
        ("hm1nd", "ask the operator whether alice should merge the parser branch today"),
        (
            "alice",
            "send bob please answer: is the build green?; send operator the parser branch is ready",
        ),
        ("reviewer", "send operator two findings in the parser branch, details in /shared/review.md"),
    ):
        await hive.send(to, body)
        await eventually(lambda to=to: _quiet(hive, to), f"{to} has done it")
    await eventually(lambda: _waits(hive), "a proposal and a question wait")


async def _quiet(hive: Hive, name: str) -> bool:
    agent = await hive.agent(name)
    return agent is not None and agent.unread == 0 and agent.report.badge is wire.Badge.IDLE


async def _waits(hive: Hive) -> bool:
    asked = (await hive.call(wire.Questions())).questions
    return bool(asked and (await hive.call(wire.Pending())).approvals)


async def _worked(hive: Hive, agent: str, number: int) -> None:
    """What its harness would tell of two days' turns, over its own socket."""
    turns = [_turn(number, hours, nth) for hours in range(47) for nth in range((hours * 7 + number) % 4)]
    async with Client(hive.paths.socket(agent)) as client:
        for first in range(0, len(turns), wire.TURNS_PER_REPORT):
            await client.call(wire.ReportTurns(turns=turns[first : first + wire.TURNS_PER_REPORT]))


def _turn(number: int, hours: int, nth: int) -> wire.TurnUsage:
    key = 10_000 * (number + 1) + 100 * hours + nth
    return wire.TurnUsage(
        key=f"{key:016x}",
        ended_at_ms=int(time.time() * 1000) - hours * HOUR_MS - nth * 600_000,
        duration_ms=9_000 + key % 700 * 90,
        outcome=wire.TurnOutcome.FAILED if key % 11 == 0 else wire.TurnOutcome.OK,
        model="opus" if number == 0 else "sonnet",
        input_tokens=1_200 + key % 900,
        output_tokens=900 + key % 2_300,
        cache_read_tokens=90_000 + key % 70_000,
        cache_creation_tokens=4_000 + key % 5_000,
        cost_usd=round(0.04 + key % 37 / 150, 4),
        tools={"Bash": 2 + key % 4, "Read": 1 + key % 6, "Edit": 1 + key % 3, "mcp__hyperhive__send": 1},
    )
