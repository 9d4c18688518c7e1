"""With the real Claude Code CLI: a turn of its own, what it is told of its budget, a stop for its tokens."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from tests.integration.test_story import claude_environment
from tests.support.hive import Hive, eventually, running_hive
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(300)]

NEXT = "mcp__hyperhive__request_next_turn"


def play(request: Request) -> Reply:
    """Asks for another turn in its first one."""
    if NEXT in request.tools and "begin" in request.prompt and not request.tool_results:
        return Reply(ToolUse(NEXT, {"note": "the second half"}))
    return Reply("Done.")


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi(play) as api:
        yield api


async def test_an_agent_goes_on_by_itself_nears_its_limit_and_is_stopped(
    tmp_path: Path, claude_cli: Path, api: ScriptedApi
) -> None:
    environment = claude_environment(api, claude_cli, tmp_path)
    async with running_hive(tmp_path / "hive", **environment, HIVE_BUDGET_TURNS="100") as hive:
        await hive.spawn("alice")
        await hive.call(wire.SetBudget(name="alice", turns=2))
        await hive.send("alice", "begin")
        await eventually(lambda: told(api, "[next turn] the second half"), "its note comes back")
        await eventually(lambda: told(api, "[hyperhive] Today you have used 2 of 2 turns"), "it is told once")
        alice = await eventually(lambda: used(hive), "its tokens are told")
        assert (alice.turns.used, alice.stopped) == (2, True)
        assert alice.microdollars.used > 0

        await hive.call(wire.SetBudget(name="alice", turns=100, tokens=alice.tokens.used))
        await hive.send("alice", "one more")
        waiting = await hive.call(wire.Waiting())
        (entry,) = (entry for entry in waiting.entries if entry.kind is wire.WaitingKind.BUDGET)
        percent = re.search(r"tokens \((\d+) %\)", entry.summary)  # more, if its last turn was told since
        assert percent is not None
        assert int(percent[1]) >= 100
        assert not told(api, "one more")
        await hive.call(wire.AnswerBudget(name="alice", answer=wire.BudgetAnswer.AGAIN))
        await eventually(lambda: told(api, "one more"), "as much again lets it go on")


def told(api: ScriptedApi, text: str) -> bool:
    """Whether the model was shown it."""
    return any(text in request.prompt for request in api.requests)


async def used(hive: Hive) -> wire.BudgetView | None:
    """Alice's budget, once both turns are in it."""
    listed = await hive.call(wire.Budgets())
    stats = await hive.call(wire.Stats(agent="alice"))
    (alice,) = (each for each in listed.budgets if each.agent == "alice")
    return alice if stats.totals.turns == 2 and alice.tokens.used > 0 else None
