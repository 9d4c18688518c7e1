"""Agents that die and agents that hang, with the real daemon: noticed, told, started again; work goes on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_shared import wire
from hive_shared.names import MANAGER
from hive_shared.wire import AgentStatus
from tests.integration.test_story import claude_environment, inbox_with
from tests.integration.test_story_configuration import last_tool
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RESTART, SEND = "mcp__hyperhive__restart", "mcp__hyperhive__send"
FOR_EVER = "600"


class Minds:
    """The manager restarts whom it is told of, once the test has looked; alice answers at the second try."""

    def __init__(self) -> None:
        self.may_restart = asyncio.Event()
        self.tries: dict[str, int] = {}
        self.told: list[str] = []

    async def play(self, request: Request) -> Reply:
        if last_tool(request) in (RESTART, SEND) or SEND not in request.tools:
            return Reply("Done.")
        if RESTART in request.tools:
            return await self._manager(request.prompt)
        work = next((word for word in ("stars", "sand") if word in request.prompt), "")
        self.tries[work] = self.tries.get(work, 0) + 1
        if self.tries[work] == 1:
            return Reply("I count.", delay_seconds=float(FOR_EVER))
        return Reply(ToolUse(SEND, {"to": "operator", "body": f"counted the {work}"}))

    async def _manager(self, prompt: str) -> Reply:
        event = next((name for name in ("container_crashed", "harness_silent") if name in prompt), None)
        if event is None or '"alice"' not in prompt:
            return Reply("Noted.")
        self.told.append(event)
        await self.may_restart.wait()
        return Reply(ToolUse(RESTART, {"name": "alice"}))


@pytest.fixture
async def minds() -> Minds:
    return Minds()


@pytest.fixture
async def claude_hive(tmp_path: Path, claude_cli: Path, minds: Minds) -> AsyncIterator[Hive]:
    """Core itself restarts nobody here in time."""
    async with (
        ScriptedApi(minds.play) as api,
        running_hive(
            tmp_path / "hive",
            HIVE_RESTART_BACKOFF_FIRST_SECONDS=FOR_EVER,
            HIVE_RESTART_BACKOFF_MAX_SECONDS=FOR_EVER,
            HIVE_STUCK_AFTER_SECONDS=FOR_EVER,
            HIVE_SILENT_AFTER_SECONDS="6",
            HIVE_STOP_GRACE_SECONDS="1",
            **claude_environment(api, claude_cli, tmp_path),
        ) as hive,
    ):
        await hive.spawn("alice")
        yield hive


async def in_status(hive: Hive, name: str, status: AgentStatus) -> wire.AgentView:
    async def found() -> wire.AgentView | None:
        view = await hive.agent(name)
        return view if view is not None and view.status is status else None

    view: wire.AgentView = await eventually(found, f"{name} is {status}")
    return view


async def told(operator: Operator, text: str) -> None:
    async def found() -> Any:
        return await inbox_with(operator, text)

    await eventually(found, f"the operator is told: {text}")


async def deeds(operator: Operator, action: str) -> list[str]:
    """Who did it."""
    entries = (await operator.get("/api/state"))["activity"]
    return [
        entry["principal"] for entry in entries if (entry["action"], entry["subject"]) == (action, "alice")
    ]


@pytest.mark.claude
async def test_the_manager_restarts_what_crashed_and_what_hangs_and_the_work_comes_back(
    claude_hive: Hive, minds: Minds
) -> None:
    hive, operator = claude_hive, await claude_hive.login()
    await hive.send("alice", "count the stars")
    await eventually(lambda: minds.tries.get("stars"), "alice counts")
    alice = await in_status(hive, "alice", AgentStatus.THINKING)
    os.kill(alice.pid or 0, signal.SIGKILL)
    crashed = await in_status(hive, "alice", AgentStatus.CRASHED)
    assert "SIGKILL" in crashed.status_note
    await eventually(lambda: minds.told, "the manager is told")
    minds.may_restart.set()
    await told(operator, "counted the stars")
    assert any(who.startswith(MANAGER) for who in await deeds(operator, "restart"))

    minds.may_restart.clear()
    await in_status(hive, "alice", AgentStatus.IDLE)
    await hive.send("alice", "count the sand")
    await eventually(lambda: minds.tries.get("sand"), "alice counts again")
    alice = await in_status(hive, "alice", AgentStatus.THINKING)
    os.kill(alice.pid or 0, signal.SIGSTOP)
    offline = await in_status(hive, "alice", AgentStatus.OFFLINE)
    assert (offline.state, offline.pid) == (wire.AgentState.RUNNING, alice.pid)
    assert offline.status_note == "its harness runs and does not answer"
    await eventually(lambda: "harness_silent" in minds.told, "the manager is told")
    minds.may_restart.set()
    await told(operator, "counted the sand")
    assert set(minds.told) == {"container_crashed", "harness_silent"}
    assert minds.tries.keys() == {"stars", "sand"}
    assert min(minds.tries.values()) >= 2  # on a machine that is busy enough, others may count as hanging
    assert len(await deeds(operator, "restart")) >= 2
    assert await deeds(operator, "silent")
    with pytest.raises(ProcessLookupError):
        os.kill(alice.pid or 0, 0)
    await operator.close()


async def test_core_itself_restarts_what_hangs_and_what_it_had_in_hand_comes_again(tmp_path: Path) -> None:
    async with running_hive(
        tmp_path / "hive",
        HIVE_SILENT_AFTER_SECONDS="3",
        HIVE_STUCK_AFTER_SECONDS="4",
        HIVE_STOP_GRACE_SECONDS="1",
        HIVE_RESTART_BACKOFF_FIRST_SECONDS="0.1",
    ) as hive:
        operator = await hive.login()
        manager = await in_status(hive, MANAGER, AgentStatus.IDLE)
        os.kill(manager.pid or 0, signal.SIGSTOP)
        await hive.send(MANAGER, "send operator still here")  # to a harness that waits, and is stopped
        await told(operator, "still here")
        again = await in_status(hive, MANAGER, AgentStatus.IDLE)
        assert again.pid != manager.pid
        assert again.restarts >= 1
        log = hive.log()
        assert "has not answered for" in log
        assert "s, and was ended; starts again in 0.1 s" in log
        await operator.close()
