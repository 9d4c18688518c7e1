"""Permission to use tools, with the real Claude Code CLI and the real daemon.

A denied command changes course; "always" survives a rebuild; a request that waits survives `kill -9` of the
harness and of core; a cancelled turn takes its request back.
"""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.names import MANAGER
from tests.integration.test_story import claude_environment, inbox_with
from tests.integration.test_story_configuration import last_tool
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.proposing import commit, pack
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(300)]

SEND = "mcp__hyperhive__send"
POLICY = '{ ... }: { hyperhive.permissions = { deny = [ "Bash(rm *)" ]; allow = [ "Read" ]; }; }\n'
DEPLOY = {"command": "touch deployed && echo done", "description": "to deploy"}


def play(request: Request) -> Reply:
    """Tries what it is told to do, and tells what came of it."""
    if SEND not in request.tools or last_tool(request) == SEND:
        return Reply("Done.")
    if request.tool_results:
        return Reply(ToolUse(SEND, {"to": "operator", "body": f"it said: {request.tool_results[-1]}"}))
    if "remove it" in request.prompt:
        return Reply(ToolUse("Bash", {"command": "ls; rm -f deployed"}))
    if "please deploy" in request.prompt:
        return Reply("I deploy it.", ToolUse("Bash", DEPLOY))
    return Reply("Noted.")


@pytest.fixture
async def hive(tmp_path: Path, claude_cli: Path) -> AsyncIterator[Hive]:
    async with (
        ScriptedApi(play) as api,
        running_hive(tmp_path / "hive", **claude_environment(api, claude_cli, tmp_path)) as hive,
    ):
        await hive.spawn("alice")
        sha = commit(hive.paths, "alice", POLICY)
        asked = await call_once(
            hive.paths.socket(MANAGER),
            wire.RequestApplyCommit(agent="alice", commit=sha, pack=pack(hive.paths, "alice", sha)),
        )
        await hive.call(wire.Approve(approval_id=asked.approval.id, commit=sha))
        await eventually(lambda: hive.is_idle("alice"), "alice has her policy")
        yield hive


async def requested(operator: Operator) -> dict[str, Any]:
    """The one tool call that waits."""

    async def waiting() -> Any:
        return (await operator.get("/api/state"))["permissions"]

    return dict((await eventually(waiting, "a tool call waits"))[0])


async def told(operator: Operator, text: str, count: int = 1) -> str:
    async def found() -> Any:
        messages = await inbox_with(operator, text)
        return messages if len(messages) >= count else None

    return str((await eventually(found, f"alice tells: {text}"))[-1]["body"])


async def test_a_denied_command_changes_course_and_always_survives_a_rebuild(hive: Hive) -> None:
    operator = await hive.login()
    await hive.send("alice", "please deploy")
    request = await requested(operator)
    assert (request["agent"], request["tool"], request["cwd"], request["reason"]) == (
        "alice",
        "Bash",
        "/state",
        "to deploy",
    )
    assert request["rule"] == "Bash(touch deployed && echo done)"
    state = await operator.get("/api/state")
    (entry,) = [entry for entry in state["waiting"]["entries"] if entry["kind"] == "permission"]
    assert entry["summary"] == "alice asks to use Bash"
    assert entry["said"].startswith("touch deployed")
    alice = await hive.agent("alice")
    assert alice is not None
    assert alice.report.badge is wire.Badge.WAITING_FOR_YOU
    await operator.post(f"/answer-permission/{request['id']}", message="not on a Friday")
    assert "not on a Friday" in await told(operator, "it said: The operator denied this")
    assert not (hive.paths.state("alice") / "deployed").exists()

    await hive.send("alice", "please deploy")
    request = await requested(operator)
    await operator.post(f"/answer-permission/{request['id']}", scope="always")
    await told(operator, "it said: done")
    assert (hive.paths.state("alice") / "deployed").exists()

    await hive.call(wire.Rebuild(name="alice"))
    await eventually(lambda: hive.is_idle("alice"), "alice is back")
    await hive.send("alice", "please deploy")
    await told(operator, "it said: done", count=2)

    # Denied by the configuration, though the CLI itself would not have asked for `ls`.
    await hive.send("alice", "remove it")
    assert "the rule Bash(rm *) denies it" in await told(operator, "it said: This call of Bash")
    assert (hive.paths.state("alice") / "deployed").exists()
    listed = await hive.call(wire.Permissions())
    assert (listed.requests, [rule.rule for rule in listed.rules]) == ([], [request["rule"]])
    (configured,) = listed.configured
    assert [(rule.decision, rule.rule) for rule in configured.rules] == [
        ("deny", "Bash(rm *)"),
        ("allow", "Read"),
    ]
    assert (configured.agent, configured.default) == ("alice", "ask")


async def test_a_parked_request_survives_the_death_of_harness_and_core(hive: Hive) -> None:
    operator = await hive.login()
    await hive.send("alice", "please deploy")
    request = await requested(operator)
    alice = await hive.agent("alice")
    assert alice is not None
    assert alice.pid is not None

    os.kill(alice.pid, signal.SIGKILL)
    await eventually(lambda: _waits_again(hive, alice.pid), "the harness is back and waits again")
    await hive.kill()
    await hive.start()
    await eventually(lambda: _waits_again(hive, None), "core and the harness are back")

    operator = await hive.login()
    assert (await requested(operator))["id"] == request["id"]
    assert len((await hive.call(wire.Permissions())).requests) == 1
    await operator.post(f"/answer-permission/{request['id']}", scope="once")
    await told(operator, "it said: done")
    await eventually(lambda: hive.is_idle("alice"), "the turn has ended")
    await hive.send("alice", "please deploy")
    assert (await requested(operator))["id"] != request["id"], "once is once"
    await operator.post("/agents/alice/api/cancel")
    await eventually(lambda: _nothing_waits(hive), "the cancelled turn takes its request back")


async def _waits_again(hive: Hive, former: int | None) -> bool:
    alice = await hive.agent("alice")
    return alice is not None and alice.pid != former and alice.report.badge is wire.Badge.WAITING_FOR_YOU


async def _nothing_waits(hive: Hive) -> bool:
    return not (await hive.call(wire.Permissions())).requests
