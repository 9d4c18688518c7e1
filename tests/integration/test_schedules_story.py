"""Reminders and schedules with the real Claude Code CLI and the real daemon, killed in between."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.clock import time_ms
from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import Forbidden
from tests.integration.test_story import claude_environment, inbox_with
from tests.integration.test_story_configuration import last_tool
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(300)]

SEND, REMIND = "mcp__hyperhive__send", "mcp__hyperhive__remind"
YEAR_MS = 366 * 86_400_000


def play(request: Request) -> Reply:
    """Sets a reminder when it is told to, and tells the operator of what comes at its time."""
    if SEND not in request.tools or last_tool(request) == SEND:
        return Reply("Done.")
    if last_tool(request) == REMIND and request.tool_results:
        return Reply("I shall look again.")
    if "[reminder] " in request.prompt:
        return Reply(ToolUse(SEND, {"to": "operator", "body": "I was reminded"}))
    if "[schedule " in request.prompt:
        missed = "3 runs were missed" in request.prompt
        return Reply(ToolUse(SEND, {"to": "operator", "body": f"the summary; missed some: {missed}"}))
    if "look again tomorrow" in request.prompt:
        return Reply(ToolUse(REMIND, {"body": "look", "at": "2099-11-23T09:00:00+01:00"}))
    return Reply("Noted.")


@pytest.fixture
async def hive(tmp_path: Path, claude_cli: Path) -> AsyncIterator[Hive]:
    async with (
        ScriptedApi(play) as api,
        running_hive(tmp_path / "hive", **claude_environment(api, claude_cli, tmp_path)) as hive,
    ):
        await hive.spawn("alice")
        yield hive


async def told(hive: Hive, text: str) -> list[dict[str, Any]]:
    operator: Operator = await hive.login()
    with contextlib.suppress(AssertionError):
        await eventually(lambda: inbox_with(operator, text), f"the operator is told: {text}")
    found = await inbox_with(operator, text)
    await operator.close()
    return found


async def test_what_was_due_while_core_was_killed_comes_once_with_the_real_claude_code_cli(
    hive: Hive,
) -> None:
    await hive.send("alice", "look again tomorrow")

    async def pending() -> list[wire.ReminderView]:
        return (await hive.call(wire.Reminders(name="alice"))).reminders

    (reminder,) = await eventually(pending, "alice has set a reminder")
    assert (reminder.body, reminder.due_at_ms) == ("look", 4_099_104_000_000)
    added = wire.AddSchedule(name="alice", cron="0 9 1 1 *", timezone="Europe/Berlin", body="a summary")
    made = await hive.call(added)
    with pytest.raises(Forbidden):
        await call_once(hive.paths.socket("alice"), wire.RemoveSchedule(schedule_id=made.id))
    await eventually(lambda: hive.is_idle("alice"), "alice's turn is over")

    await hive.kill()
    with contextlib.closing(sqlite3.connect(hive.paths.database)) as database, database:
        database.execute("update reminder set due_at_ms = ?", (time_ms() - 1000,))
        database.execute("update schedule set next_at_ms = ?", (time_ms() - 3 * YEAR_MS,))
    await hive.start()

    assert len(await told(hive, "I was reminded")) == 1
    assert [each["body"] for each in await told(hive, "the summary")] == ["the summary; missed some: True"]
    (schedule,) = (await hive.call(wire.Schedules())).schedules
    assert (schedule.last_outcome, schedule.next_runs_ms[0] > time_ms()) == ("sent", True)
    await eventually(lambda: hive.is_idle("alice"), "alice has dealt with both")
    everything = (await hive.call(wire.Messages())).messages
    bodies = [message.body for message in everything if message.to == "alice"]
    assert sorted(body.partition("]")[0].partition(",")[0] for body in bodies[1:]) == [
        "[reminder",
        "[schedule 1",
    ]
