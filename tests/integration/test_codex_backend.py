"""The `codex` backend with the real Codex CLI, against a scripted Responses API on loopback."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends.base import Outcome
from hive_agent.backends.codex import CodexBackend
from tests.support.chat_api import Called, Refused, Said
from tests.support.claude import AgentFiles, play, running
from tests.support.responses_api import Answer, ResponsesStandIn

pytestmark = pytest.mark.slow

KEY = "a-key-that-nobody-may-see-1234"
SEND = Called("mcp__hyperhive__send", {"to": "bob", "body": "hello"})


class Agent:
    """One backend, its API and its files."""

    def __init__(self, api: ResponsesStandIn, files: AgentFiles, cli: Path, **changes: Any) -> None:
        path = f"{cli.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"OPENAI_BASE_URL": api.url, "PATH": path, **changes.pop("environment", {})}
        self.api, self.files = api, files
        fields = {"model": "small-model", **changes}
        self.make = lambda: CodexBackend(files.config(None, environment, **fields))
        self.backend = self.make()

    async def turn(self, prompt: str = "go on") -> tuple[Any, list[dict[str, Any]]]:
        return await play(self.backend.run_turn(prompt))


@pytest.fixture
async def agent(tmp_path: Path, codex_cli: Path) -> AsyncIterator[Any]:
    """Makes an agent: `await agent(script, **changes of BackendConfig)`."""
    async with AsyncExitStack() as stack:

        async def make_agent(script: list[Answer], **changes: Any) -> Agent:
            api = await stack.enter_async_context(ResponsesStandIn(script))
            files = AgentFiles(tmp_path)
            files.write()
            made = Agent(api, files, codex_cli, **changes)
            stack.push_async_callback(made.backend.close)
            return made

        yield make_agent


def blocks(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    contents = [line["message"]["content"] for line in lines if "message" in line]
    return [block for content in contents for block in content if block["type"] == kind]


async def test_a_turn_uses_the_hives_tools_and_the_shell_and_counts_what_it_took(agent: Any) -> None:
    shell = Called("Bash", {"command": "echo one; exit 3"})
    alice = await agent([Said("I write.", [SEND]), Said(calls=[shell]), Said("Done.")])
    (alice.files.paths.claude / "api-key").write_text(KEY)
    result, lines = await alice.turn("write to bob")
    assert result.outcome is Outcome.OK, result.note
    assert [call["arguments"] for call in alice.files.calls()] == [{"to": "bob", "body": "hello"}]
    used = [(block["name"], block["input"].get("to")) for block in blocks(lines, "tool_use")]
    assert used == [("mcp__hyperhive__send", "bob"), ("Bash", None)]
    sent, ran = blocks(lines, "tool_result")
    assert (sent["content"], sent["is_error"]) == ("sent", False)
    assert (ran["content"], ran["is_error"]) == ("one\n\nExit code 3", True)
    assert lines[-1]["result"] == "Done."
    stats = result.stats
    assert stats.tools == {"mcp__hyperhive__send": 1, "Bash": 1}
    assert (stats.input_tokens, stats.cache_read_tokens, stats.output_tokens) == (120, 180, 21)
    assert set(alice.api.keys) == {f"Bearer {KEY}"}
    said = json.dumps(alice.api.requests[0]["input"])
    assert "You are alice, an agent of a hive." in said
    assert "write to bob" in said


async def test_the_thread_goes_on_after_a_restart_its_usage_too_and_can_be_forgotten(agent: Any) -> None:
    alice = await agent([Said("marmalade"), Said("second"), Said("third")])
    await alice.turn("one")
    alice.backend = alice.make()
    result, _ = await alice.turn("two")
    assert result.stats.output_tokens == 7, "of this turn, not of the thread"
    said = json.dumps(alice.api.requests[-1]["input"])
    assert [word in said for word in ("one", "marmalade", "two")] == [True] * 3
    await alice.backend.new_session()
    alice.backend = alice.make()
    await alice.turn("three")
    assert "marmalade" not in json.dumps(alice.api.requests[-1]["input"])


async def test_an_interrupt_kills_the_command_and_the_thread_goes_on(agent: Any) -> None:
    command = "echo $$ > pid; sleep 300"
    alice = await agent([Said(calls=[Called("Bash", {"command": command})]), Said("Here again.")])
    turn = asyncio.create_task(alice.turn("wait"))
    pid_file = alice.files.paths.state / "pid"
    async with asyncio.timeout(60):
        while not (pid_file.exists() and pid_file.read_text().strip()):
            await asyncio.sleep(0.02)
    assert await alice.backend.interrupt()
    result, _ = await turn
    assert result.outcome is Outcome.CANCELLED
    assert not running(int(pid_file.read_text()))
    assert not await alice.backend.interrupt()
    again, _ = await alice.turn("and now?")
    assert again.outcome is Outcome.OK
    assert "wait" in json.dumps(alice.api.requests[-1]["input"])


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Refused(401, {"error": {"message": "bad key"}}), Outcome.AUTH),
        (Refused(429, {"error": {"message": "slow down"}}), Outcome.RATE_LIMITED),
        (Refused(400, {"error": {"message": "bad"}}), Outcome.FAILED),
    ],
)
async def test_what_the_cli_says_of_a_refusal_is_understood(
    agent: Any, answer: Answer, outcome: Outcome
) -> None:
    alice = await agent([answer])
    result, lines = await alice.turn()
    assert result.outcome is outcome, result.note
    assert lines[-1]["is_error"] is True


async def test_the_tools_are_those_that_are_allowed(agent: Any) -> None:
    alice = await agent([Said("Fine.")], builtin_tools=["Read"], mcp_tools=["send"])
    await alice.turn()
    offered = {tool.get("name"): tool for tool in alice.api.requests[0]["tools"]}
    assert not {"exec_command", "shell", "web_search", "spawn_agent"} & set(offered)
    assert [tool["name"] for tool in offered["mcp__hyperhive"]["tools"]] == ["send"]


async def test_rules_that_it_cannot_keep_give_no_turn(agent: Any) -> None:
    alice = await agent([Said("Never.")], builtin_tools=["Read", "Bash(git *)"])
    result, _ = await alice.turn()
    assert (result.outcome, alice.api.requests) == (Outcome.FAILED, [])
    assert "Bash(git *)" in result.note


async def test_a_server_of_the_agents_own_gets_its_environment(agent: Any) -> None:
    alice = await agent([Said("I ask.", [Called("mcp__forge__send", {"to": "bob"})]), Said("Fine.")],
                        extra_mcp_tools=["mcp__forge"])  # fmt: skip
    config = alice.files.paths.mcp_config
    servers = json.loads(config.read_text())["mcpServers"]
    start = f'printf %s "$TOKEN" > {alice.files.root}/token; exec "$0" "$@"'
    own = servers["hyperhive"]
    servers["forge"] = {"command": "sh", "args": ["-c", start, own["command"], *own["args"]],
                        "env": {"TOKEN": "of-the-forge"}}  # fmt: skip
    config.write_text(json.dumps({"mcpServers": servers}))
    result, _ = await alice.turn()
    assert result.outcome is Outcome.OK, result.note
    assert [call["name"] for call in alice.files.calls()] == ["send"]
    assert (alice.files.root / "token").read_text() == "of-the-forge"
