"""Extra MCP servers and narrowed tools, with the real Claude Code CLI (SPEC sections 8 and 10)."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hive_agent.harness import Harness
from hive_shared.agent_options import ExtraMcpServer
from tests.support.claude import STDIO_MCP
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, harness_config, running
from tests.support.scripted_api import Answer, Reply, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow]

PATIENCE_SECONDS = 60.0

Parts = tuple[FakeCore, Harness, ScriptedApi]


@asynccontextmanager
async def claude_agent(root: Path, cli: Path, script: list[Answer], **changes: Any) -> AsyncIterator[Parts]:
    async with ScriptedApi(script) as api, FakeCore(container_paths(root).socket) as core:
        config = harness_config(
            root, backend="claude", claude=cli, environment=dict(api.environment), **changes
        )
        async with running(config) as harness:
            yield core, harness, api


def post(root: Path) -> dict[str, ExtraMcpServer]:
    """A server of tools called `post`; what it is asked is in `calls.jsonl`, what it was given in `stamp`."""
    server = (sys.executable, "-I", "-S", str(STDIO_MCP), str(root / "calls.jsonl"))
    script = 'echo "$POST_STAMP" > "$0"; exec "$@"'
    args = ("-c", script, str(root / "stamp"), *server)
    return {"post": ExtraMcpServer(command="/bin/sh", args=args, env={"POST_STAMP": "penny"})}


async def test_the_tools_of_an_extra_server_are_offered_and_can_be_used(
    tmp_path: Path, claude_cli: Path
) -> None:
    letter = {"to": "bob", "body": "hello"}
    script: list[Answer] = [Reply(ToolUse("mcp__post__send", letter)), Reply("Done.")]
    async with claude_agent(tmp_path, claude_cli, script, extra_mcp=post(tmp_path)) as (core, _, api):
        await core.put("post a letter")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        assert {"mcp__post__send", "mcp__hyperhive__send"} <= set(api.requests[0].tools)
        assert "sent" in api.requests[1].tool_results[0]
        calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
        assert [call["arguments"] for call in calls] == [letter]
        assert (tmp_path / "stamp").read_text() == "penny\n"
        assert core.sent == []


async def test_only_the_named_tools_of_a_server_may_be_used(tmp_path: Path, claude_cli: Path) -> None:
    script: list[Answer] = [Reply(ToolUse("mcp__post__send", {"to": "bob", "body": "x"})), Reply("Done.")]
    narrowed = {"extra_mcp": post(tmp_path), "allowed_tools": ("Read", "mcp__post__sleep")}
    async with claude_agent(tmp_path, claude_cli, script, **narrowed) as (core, _, api):
        await core.put("post a letter")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        assert not (tmp_path / "calls.jsonl").exists()
        assert "sent" not in api.requests[1].tool_results[0].split()


async def test_allowed_tools_replace_what_is_offered(tmp_path: Path, claude_cli: Path) -> None:
    script: list[Answer] = [Reply("Done.")]
    async with claude_agent(
        tmp_path, claude_cli, script, allowed_tools=("Read", "WebFetch(domain:example.com)")
    ) as (core, _, api):
        await core.put("what can you do?")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        own = {tool for tool in api.requests[0].tools if not tool.startswith("mcp__")}
        assert own == {"Read", "WebFetch"}
        assert "mcp__hyperhive__send" in api.requests[0].tools


async def test_no_tool_at_all_leaves_those_of_the_hive(tmp_path: Path, claude_cli: Path) -> None:
    async with claude_agent(tmp_path, claude_cli, [Reply("Done.")], allowed_tools=()) as (core, _, api):
        await core.put("what can you do?")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        assert {tool for tool in api.requests[0].tools if not tool.startswith("mcp__")} == set()
        assert "mcp__hyperhive__send" in api.requests[0].tools


async def test_bash_runs_the_commands_of_its_patterns_and_no_others(tmp_path: Path, claude_cli: Path) -> None:
    script: list[Answer] = [
        Reply(ToolUse("Bash", {"command": "touch allowed", "description": "allowed"})),
        Reply(ToolUse("Bash", {"command": "mkdir refused", "description": "refused"})),
        Reply("Done."),
    ]
    async with claude_agent(tmp_path, claude_cli, script, bash_allow=("touch *",)) as (core, harness, api):
        await core.put("try both")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        assert "Bash" in api.requests[0].tools
        state = harness.config.paths.state
        assert (state / "allowed").exists()
        assert not (state / "refused").exists()
