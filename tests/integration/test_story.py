"""The story of the whole hive, once with the real Claude Code CLI and once with the rehearsal backend.

The operator logs in, asks for an agent, approves it, writes to it; the agent writes to another agent and to
the operator; the answer shows in the inbox, in the message flow and on the live pages.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.scripted_api import ScriptedApi, story

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def rehearsal_hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as hive:
        yield hive


@pytest.fixture
async def claude_hive(tmp_path: Path, claude_cli: Path) -> AsyncIterator[Hive]:
    async with (
        ScriptedApi(story) as api,
        running_hive(tmp_path / "hive", **claude_environment(api, claude_cli, tmp_path)) as hive,
    ):
        yield hive


def claude_environment(api: ScriptedApi, cli: Path, directory: Path) -> dict[str, str]:
    key_file = directory / "api-key"
    key_file.write_text("sk-ant-api03-scripted-and-never-valid")
    key_file.chmod(0o600)
    return {
        "HIVE_BACKEND": "claude",
        "HIVE_CLAUDE_PATH": str(cli),
        "HIVE_API_KEY_FILE": str(key_file),
        "HIVE_AGENT_ENVIRONMENT": json.dumps({"ANTHROPIC_BASE_URL": api.url}),
    }


async def grow(hive: Hive, operator: Operator, name: str) -> None:
    """Ask for an agent on the dashboard, approve what then waits there, wait until it is up."""
    await operator.post("/request-spawn", name=name)
    state = await operator.get("/api/state")
    (approval,) = [entry for entry in state["approvals"] if entry["status"] == "pending"]
    assert (approval["agent"], approval["kind"]) == (name, "spawn")
    await operator.post(f"/approve/{approval['id']}")
    await eventually(lambda: hive.is_idle(name), f"{name} is up and idle")


async def inbox_with(operator: Operator, text: str) -> list[dict[str, Any]]:
    inbox = (await operator.get("/api/state"))["inbox"]
    return [message for message in inbox if text in message["body"]]


async def tool_calls(operator: Operator, name: str) -> list[tuple[str, str]]:
    """(tool, recipient) of every call that shows on an agent's live page."""
    history = await operator.get(f"/agents/{name}/events/history")
    calls = []
    for event in history["events"]:
        content = event["data"].get("message", {}).get("content", [])
        calls += [
            (block["name"], block["input"].get("to", ""))
            for block in content
            if isinstance(block, dict) and block.get("type") == "tool_use"
        ]
    return calls


async def flow(operator: Operator) -> list[tuple[str, str]]:
    return [(entry["sender"], entry["to"]) for entry in (await operator.get("/api/state"))["messages"]]


async def test_the_story_with_the_real_claude_code_cli(claude_hive: Hive) -> None:
    operator = await claude_hive.login()
    for name in ("alice", "bob"):
        await grow(claude_hive, operator, name)
    await operator.post("/agents/alice/send", body="Please ask bob how much is 6 times 7")

    answer = await eventually(
        lambda: inbox_with(operator, "bob answered: 42"), "the answer reaches the operator"
    )
    assert answer[0]["sender"] == "alice"
    assert await inbox_with(operator, "I have asked bob")
    assert [pair for pair in await flow(operator) if pair in (("alice", "bob"), ("bob", "alice"))] == [
        ("alice", "bob"),
        ("bob", "alice"),
    ]
    sends = await tool_calls(operator, "alice")
    assert ("mcp__hyperhive__send", "bob") in sends
    assert ("mcp__hyperhive__send", "operator") in sends
    assert await tool_calls(operator, "bob") == [("mcp__hyperhive__send", "alice")]
    page = await operator.get("/agents/alice/api/state")
    assert (page["backend"], page["is_model"], page["warm"]) == ("claude", True, True)
    await operator.close()


async def test_the_story_in_rehearsal_without_any_network(rehearsal_hive: Hive) -> None:
    operator = await rehearsal_hive.login()
    for name in ("alice", "bob"):
        await grow(rehearsal_hive, operator, name)
    await operator.post(
        "/agents/alice/send", body="send bob please answer: how are you?; send operator I wrote to bob"
    )

    await eventually(lambda: inbox_with(operator, "I wrote to bob"), "alice tells the operator")

    async def answered() -> bool:
        return ("bob", "alice") in await flow(operator)

    await eventually(answered, "bob answers alice")
    assert ("mcp__hyperhive__send", "bob") in await tool_calls(operator, "alice")
    assert ("mcp__hyperhive__send", "alice") in await tool_calls(operator, "bob")
    page = await operator.get("/agents/alice/api/state")
    assert (page["backend"], page["is_model"]) == ("rehearsal", False)
    assert "not a model" in page["backend_label"]
    await operator.close()


async def test_the_live_stream_tells_each_message_once_and_resumes_where_it_broke_off(
    rehearsal_hive: Hive,
) -> None:
    operator = await rehearsal_hive.login()
    await rehearsal_hive.spawn("alice")
    position = (await operator.get("/api/state"))["position"]
    seen: list[int] = []
    wanted = [await rehearsal_hive.send("alice", f"remember {number}") for number in range(30)]
    while seen[-1:] != wanted[-1:]:  # take a few events, drop the stream, come back where it ended
        taken = 0
        async for event_id, kind, data in operator.events("/messages/stream", position):
            assert kind != "reset"
            position = event_id or position
            taken += 1
            if kind == "message" and data["id"] in wanted:
                seen.append(data["id"])
            if taken == 7 or seen[-1:] == wanted[-1:]:
                break
    assert seen == wanted
    await operator.close()


async def test_an_agent_without_credentials_needs_login_and_says_so(tmp_path: Path, claude_cli: Path) -> None:
    environment = {"HIVE_BACKEND": "claude", "HIVE_CLAUDE_PATH": str(claude_cli)}
    async with running_hive(tmp_path / "hive", **environment) as hive:

        async def needs_login() -> bool:
            manager = await hive.agent("hm1nd")
            return manager is not None and manager.report.badge == "needs_login"

        await eventually(needs_login, "the manager says that it needs login")
        message = await hive.send("hm1nd", "are you there?")
        operator = await hive.login()
        page = await operator.get("/agents/hm1nd/api/state")
        assert page["login"]["needed"] is True
        assert message
        await operator.close()
