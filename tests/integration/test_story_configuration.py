"""The story of a change, with real git and the real Claude Code CLI, against a scripted Messages API.

The manager edits alice's configuration, commits and asks; the operator says no and why; the manager asks
again with another commit, which is approved and runs; a third one cannot be built, and alice goes on with
the second; then the operator goes back to what alice began with.
"""

import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_shared import wire
from tests.integration.test_story import claude_environment, grow, inbox_with
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(300)]

SEND = "mcp__hyperhive__send"
APPLY = "mcp__hyperhive__request_apply_commit"
CONFIG = "/agents/alice/config"


def change(value: str) -> ToolUse:
    """Write the configuration, look at it as a careful engineer would, and commit it. `value` is Nix."""
    module = shlex.quote(f"{{ ... }}: {{ environment.variables.GREETING = {value}; }}\n")
    subject = shlex.quote(f"Greeting: {value.strip(chr(34))}")
    return ToolUse(
        "Bash",
        {
            "command": f"cd {CONFIG} && printf %s {module} > agent.nix && git diff --stat"
            f" && git commit --quiet --all --message {subject} && git log --oneline -1"
        },
    )


def last_tool(request: Request) -> str:
    """The tool whose result this request brings back."""
    for message in reversed(request.messages):
        if message["role"] == "assistant":
            uses = [b["name"] for b in message["content"] if isinstance(b, dict) and b["type"] == "tool_use"]
            return uses[-1] if uses else ""
    return ""


def play(request: Request) -> Reply:
    """Both agents' part. What they do follows from what wakes them."""
    if SEND not in request.tools:
        return Reply("Done.")
    return _manager(request) if "**hm1nd**" in request.system else _alice(request)


def _manager(request: Request) -> Reply:
    if request.tool_results:
        if last_tool(request) == "Bash" and "rror" not in request.tool_results[-1]:
            return Reply(ToolUse(APPLY, {"agent": "alice", "commit_ref": "HEAD", "note": "as you wished"}))
        return Reply("Done.")
    if wanted := re.search(r"greet with ([a-z]+)", request.prompt):
        return Reply("I change it.", change(json.dumps(wanted[1])))
    if "break it" in request.prompt:
        return Reply("I break it.", change('"no end'))
    return Reply("Noted.")


def _alice(request: Request) -> Reply:
    if not request.tool_results:
        return Reply(ToolUse("Bash", {"command": 'echo "my greeting is <$GREETING>"'}))
    if last_tool(request) == "Bash":
        return Reply(ToolUse(SEND, {"to": "operator", "body": request.tool_results[-1]}))
    return Reply("Done.")


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi(play) as api:
        yield api


@pytest.fixture
async def hive(tmp_path: Path, claude_cli: Path, api: ScriptedApi) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive", **claude_environment(api, claude_cli, tmp_path)) as hive:
        yield hive


async def proposed(operator: Operator) -> dict[str, Any]:
    """The one approval of a commit that waits."""

    async def waiting() -> list[dict[str, Any]]:
        listed = (await operator.get("/api/state"))["approvals"]
        return [a for a in listed if a["kind"] == "apply_commit" and a["status"] == "pending"]

    return (await eventually(waiting, "a commit waits for the operator"))[0]


async def resolved(operator: Operator, number: int) -> dict[str, Any]:
    async def ended() -> dict[str, Any] | None:
        listed = (await operator.get("/api/state"))["approvals"]
        return next((a for a in listed if a["id"] == number and a["status"] in ("deployed", "failed")), None)

    return await eventually(ended, f"approval {number} is resolved")


async def greeting(hive: Hive, operator: Operator, expected: str) -> None:
    await eventually(lambda: hive.is_idle("alice"), "alice is idle")
    before = len(await inbox_with(operator, "my greeting is"))
    await operator.post("/agents/alice/send", body="what is your greeting?")
    told = await eventually(lambda: _later(operator, before), "alice tells her greeting")
    assert told["body"] == f"my greeting is <{expected}>"


async def _later(operator: Operator, before: int) -> dict[str, Any] | None:
    told = await inbox_with(operator, "my greeting is")
    return told[-1] if len(told) > before else None


async def test_a_change_is_denied_approved_broken_and_taken_back(hive: Hive, api: ScriptedApi) -> None:
    operator = await hive.login()
    await grow(hive, operator, "alice")
    await greeting(hive, operator, "")

    await operator.post("/agents/hm1nd/send", body="alice should greet with hello")
    first = await proposed(operator)
    assert (first["requested_by"], first["message"], first["note"]) == (
        "hm1nd",
        "Greeting: hello",
        "as you wished",
    )
    await operator.post(f"/deny/{first['id']}", note="please greet with moin", commit=first["commit"])

    second = await proposed(operator)
    assert any("please greet with moin" in request.prompt for request in api.requests)
    diff = await operator.get(f"/api/approvals/{second['id']}/diff?base=running")
    assert '+{ ... }: { environment.variables.GREETING = "moin"; }' in diff["files"][0]["text"]
    against_denied = await operator.get(f"/api/approvals/{second['id']}/diff?base=proposed")
    assert '-{ ... }: { environment.variables.GREETING = "hello"; }' in against_denied["files"][0]["text"]
    await operator.post(f"/approve/{second['id']}", commit=second["commit"])
    assert (await resolved(operator, second["id"]))["status"] == "deployed"
    await greeting(hive, operator, "moin")

    ran = (await hive.agent("alice")).pid  # type: ignore[union-attr]
    await operator.post("/agents/hm1nd/send", body="now break it")
    third = await proposed(operator)
    await operator.post(f"/approve/{third['id']}", commit=third["commit"])
    failed = await resolved(operator, third["id"])
    assert failed["status"] == "failed"
    assert "agent.nix:1" in failed["outcome"]
    alice = await hive.agent("alice")
    assert alice is not None
    assert (alice.pid, alice.commit) == (ran, second["commit"]), "what runs was not touched"
    await greeting(hive, operator, "moin")
    await eventually(
        lambda: any('"status":"failed"' in request.prompt for request in api.requests),
        "the manager is told of the failure",
    )

    deployments = (await hive.call(wire.History(name="alice"))).deployments
    assert deployments[0].commit == second["commit"]
    back = (await hive.call(wire.Rollback(name="alice", approval_id=deployments[-1].approval_id))).approval
    assert (await resolved(operator, back.id))["status"] == "deployed"
    await greeting(hive, operator, "")
    await operator.close()
